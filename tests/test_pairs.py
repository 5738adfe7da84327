import itertools
import math

import pytest

from tests.pairs import covering

PARAMETERS = {
    "types, activations and paths": (range(7), range(7), range(6)),
    "switches": (range(2),) * 4,
    "one wide": (range(3), range(11), range(2), range(4)),
    "two": (range(4), range(5)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_pair_of_values_occurs(name: str) -> None:
    parameters = PARAMETERS[name]
    cases = covering(*parameters)
    for i, j in itertools.combinations(range(len(parameters)), 2):
        assert {(case[i], case[j]) for case in cases} == set(itertools.product(parameters[i], parameters[j]))
    # No fewer are possible than the two widest have pairs; a greedy cover stays near that.
    least = math.prod(sorted(map(len, parameters))[-2:])
    assert len(cases) <= 1.5 * least
    assert cases == covering(*parameters)
