"""Few cases that hold every pair of values of several parameters, where their product would hold too many.

Parameters that act in different places of a kernel (how weights are unpacked, what is applied to the result, how tiles
are walked) go wrong by themselves or two together. A list that holds every pair of values finds such a fault in a
fraction of the product's time.
"""

import itertools
from collections.abc import Sequence
from typing import Any


def covering(*parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Cases (one value of each parameter) that together hold every pair of values of any two parameters.

    Greedy and the same at every call: each case takes the first pair that is still missing, then, parameter by
    parameter, the value that completes most missing pairs; of equals the one that was used least.
    """
    places = range(len(parameters))
    missing = {
        (i, a, j, b)
        for i, j in itertools.combinations(places, 2)
        for a in range(len(parameters[i]))
        for b in range(len(parameters[j]))
    }
    used = {(i, a): 0 for i in places for a in range(len(parameters[i]))}
    cases: list[tuple[Any, ...]] = []
    while missing:
        i, a, j, b = min(missing)
        chosen = {i: a, j: b}
        for place in places:
            if place not in chosen:
                chosen[place] = min(
                    range(len(parameters[place])),
                    key=lambda value, place=place: (  # type: ignore[misc]
                        -sum(_pair(place, value, other, held) in missing for other, held in chosen.items()),
                        used[place, value],
                        value,
                    ),
                )
        for one, other in itertools.combinations(places, 2):
            missing.discard((one, chosen[one], other, chosen[other]))
        for place in places:
            used[place, chosen[place]] += 1
        cases.append(tuple(parameters[place][chosen[place]] for place in places))
    return cases


def _pair(i: int, a: int, j: int, b: int) -> tuple[int, int, int, int]:
    return (i, a, j, b) if i < j else (j, b, i, a)
