"""Kernels that are not ours under test, by the files that the docs show."""

from pathlib import Path

import pytest

from moe_codesign.compiler import ArtifactCache
from moe_codesign.regression.baseline import baseline_of, compare_all, read_baseline
from moe_codesign.regression.observe import observe
from moe_codesign.regression.suite import load_suite

FOLDER = Path(__file__).parents[2] / "benchmarks" / "baselines"


pytestmark = pytest.mark.compile


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moe_ops", "megablox"])
def test_they_are_as_they_were(name: str) -> None:
    suite = load_suite(FOLDER / f"{name}.toml")
    assert len(suite.path.read_text().splitlines()) <= 25
    old, new = read_baseline(suite.baseline), baseline_of(observe(suite, cache=ArtifactCache(), jobs=2))
    assert all(facts.ok for facts in new.facts.values())
    found = compare_all(suite, old, new)
    assert (found.new, found.gone) == ([], [])
    if old.made_with == new.made_with:
        assert found.findings == [], "the same compilers make the same"


def test_a_cache_elsewhere_changes_nothing(tmp_path: Path) -> None:
    suite = load_suite(FOLDER / "moe_ops.toml")
    (table,) = suite.kernels
    small = table.model_copy(update={"chips": table.chips[:1], "tiles": table.tiles[:1]})
    suite = suite.model_copy(update={"kernels": [small]})
    kept = baseline_of(observe(suite))
    again = baseline_of(observe(suite, cache=ArtifactCache(tmp_path), jobs=2))
    assert again == kept
    assert not any(str(tmp_path) in str(facts) for facts in again.facts.values())
