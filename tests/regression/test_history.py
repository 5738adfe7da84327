"""Lines of stored runs."""

from moe_codesign.regression.history import lines
from moe_codesign.storage.database import Database
from moe_codesign.storage.regressions import FactRow, RegressionRun, Regressions


def run(facts: dict[tuple[str, str, str], dict[str, float]]) -> RegressionRun:
    every: dict[tuple[str, str, str], FactRow] = {place: {"status": "ok", **row} for place, row in facts.items()}
    return RegressionRun(
        suite="s", created="2026-01-01", revision="abc", versions={"triton": "triton 1"}, regressions=0, facts=every
    )


def test_steps_are_multiplied_up_while_tiles_come_and_go() -> None:
    a, b = ("k", "c", "a"), ("k", "c", "b")
    runs = [
        run({a: {"latency_us at P": 10.0, "cycles": 1}}),
        run({a: {"latency_us at P": 20.0}, b: {"latency_us at P": 5.0}}),
        run({("other", "c", ""): {"cycles": 3}}),
        run({b: {"latency_us at P": 2.5}}),
    ]
    found = {line.kernel: line for line in lines(runs)}
    assert found["k"].metric == "latency_us"
    assert found["k"].ratios == (1.0, 2.0, None, 1.0)
    assert found["other"].ratios == (None, None, 1.0, None)
    assert found["k"].sparkline()[2] == "·"
    assert len(found["k"].sparkline()) == 4


def test_runs_are_kept(tmp_path: object) -> None:
    first = run({("k", "c", "t"): {"cycles": 3.0, "bundles": 4}})
    with Database(f"sqlite:///{tmp_path}/runs.db") as database:
        store = Regressions(database)
        store.put(first)
        store.put(run({("k", "c", "t"): {"cycles": 4.0}}))
        kept = store.of("s")
        assert store.of("another") == []
    assert kept[0] == first
    assert len(kept) == 2
