"""pytest plugin: facts of compiled kernels in a user's own tests.

``@pytest.mark.kernel_facts(function="kernels.py:matmul", chips=["h100_sxm"], signature=..., tiles=[...])`` takes the
fields of a suite's ``[[kernels]]`` table; the test runs once for each chip and tile, and its fixture ``kernel_facts``
holds the compiled kernel's facts. They are written beside pytest-benchmark's results in its JSON, or to
``--kernel-facts-json FILE``.
"""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moe_codesign.regression.readings import Observation
    from moe_codesign.regression.suite import Suite

_MARK = "kernel_facts"
_FOUND = pytest.StashKey[list["KernelFacts"]]()
_FROM_WORKERS = pytest.StashKey[list[dict[str, Any]]]()


@dataclass(frozen=True, repr=False)
class KernelFacts(Mapping[str, "float | str"]):
    """Facts of one compiled kernel by name: ``kernel_facts["spill_bytes"]``.

    ``reason``: why there are none, where ``kernel_facts["status"]`` is not ``ok``.
    """

    kernel: str
    chip: str
    tile: str
    facts: Mapping[str, "float | str"]
    reason: str
    suite: "Suite"

    def __getitem__(self, fact: str) -> "float | str":
        if fact not in self.facts:
            why = f"; {self.facts['status']}: {self.reason}" if self.facts["status"] != "ok" else ""
            raise KeyError(f"no fact {fact!r} among {', '.join(self.facts)}{why}")
        return self.facts[fact]

    def __repr__(self) -> str:
        return f"KernelFacts({self.kernel} | {self.chip} | {self.tile}: {dict(self.facts)})"

    def __iter__(self) -> Any:
        return iter(self.facts)

    def __len__(self) -> int:
        return len(self.facts)

    def regressions(self, baseline: str | Path) -> list[str]:
        """Lines of what is worse than in the facts of a baseline (``NAME.facts.json``), by the mark's rules.

        Its path is relative to the test's folder.

        Raises:
            UserError: there is no such baseline.
        """
        from moe_codesign.regression.baseline import Baseline, compare_all, read_baseline
        from moe_codesign.regression.rules import place_text

        old = read_baseline(self.suite.path.parent / baseline)
        place = (self.kernel, self.chip, self.tile)
        if place not in old.facts:
            return [f"{place_text(place)}: not in {baseline}; its suite needs this chip and tile"]
        new = Baseline({}, {place: self.facts})
        return [one.line() for one in compare_all(self.suite, old, new).regressions]


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option: where the facts go where pytest-benchmark writes nothing."""
    parser.addoption("--kernel-facts-json", metavar="FILE", help="Write the facts of every kernel_facts test as JSON.")


def pytest_configure(config: pytest.Config) -> None:
    """The mark."""
    config.addinivalue_line("markers", f"{_MARK}(**table): compile a kernel for chips and tiles; see moe-codesign")
    config.stash[_FOUND], config.stash[_FROM_WORKERS] = [], []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each chip and tile of the mark."""
    marker = metafunc.definition.get_closest_marker(_MARK)
    if marker is None or _MARK not in metafunc.fixturenames:
        return
    suite = _suite(str(metafunc.definition.path), json.dumps(marker.kwargs, sort_keys=True))
    from moe_codesign.regression.facts import places

    cases = places(suite)
    metafunc.parametrize(_MARK, [(suite, place) for place in cases], indirect=True, ids=["-".join(p) for p in cases])


@pytest.fixture
def kernel_facts(request: pytest.FixtureRequest) -> KernelFacts:
    """Facts of the test's kernel, chip and tile."""
    if not hasattr(request, "param"):
        pytest.fail("kernel_facts needs @pytest.mark.kernel_facts(function=.., chips=[..], ..) on the test")
    suite, place = request.param
    one = _observations(suite)[place]
    kernel, chip, tile = place
    found = KernelFacts(kernel, chip, tile, one.facts, one.reason, suite)
    request.config.stash[_FOUND].append(found)
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Facts beside the times."""
    output_json[_MARK] = _plain(config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Facts of one of pytest-xdist's workers."""
    node.config.stash[_FROM_WORKERS].extend(getattr(node, "workeroutput", {}).get(_MARK, []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Facts by themselves."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_MARK] = _plain(session.config)
        return
    if path := session.config.getoption("--kernel-facts-json"):
        Path(path).write_text(json.dumps(_plain(session.config), indent=1) + "\n")


def _plain(config: pytest.Config) -> list[dict[str, Any]]:
    return config.stash[_FROM_WORKERS] + [
        {"kernel": one.kernel, "chip": one.chip, "tile": one.tile, "facts": dict(one.facts)}
        for one in config.stash[_FOUND]
    ]


@functools.cache
def _suite(path: str, kwargs: str) -> "Suite":
    """A suite of the one table, whose files are relative to the test's folder."""
    from moe_codesign.regression.suite import parse_suite

    return parse_suite({"kernels": [json.loads(kwargs)]}, Path(path))


@functools.cache
def _compiled(path: Path, table: str) -> dict[Any, "Observation"]:
    """All chips and tiles of a mark at once: they share the compiler processes."""
    from moe_codesign.regression.facts import observe

    found = observe(_suite(str(path), table), jobs=os.cpu_count() or 1)
    return {one.place: one for one in found}


def _observations(suite: "Suite") -> dict[Any, "Observation"]:
    table = suite.kernels[0].model_dump_json(exclude_unset=True)
    return _compiled(suite.path, table)
