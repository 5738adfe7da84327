"""pytest plugin: facts of compiled kernels in a user's own tests.

``@pytest.mark.kernel_facts(function="kernels.py:matmul", chips=["h100_sxm"], signature=..., tiles=[...])`` takes the
fields of a suite's ``[[kernels]]`` table; the test runs once for each chip and tile, and its fixture ``kernel_facts``
holds the compiled kernel's facts. They are written beside pytest-benchmark's results in its JSON, or to
``--kernel-facts-json FILE``.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moe_codesign.regression.facts import Place
    from moe_codesign.regression.readings import Observation
    from moe_codesign.regression.suite import Suite

_MARK = "kernel_facts"


@dataclass(frozen=True, repr=False)
class KernelFacts(Mapping[str, "float | str"]):
    """The facts of one compiled kernel by name, as a baseline writes them: ``kernel_facts["spill_bytes"]``."""

    place: "Place"
    suite: "Suite"
    _seen: "Observation"

    @property
    def reason(self) -> str:
        """What the compiler said where ``kernel_facts["status"]`` is not ``ok``."""
        return self._seen.reason

    def __getitem__(self, fact: str) -> "float | str":
        facts = self._seen.facts.to_json()
        if fact not in facts:
            why = "" if self._seen.facts.ok else f"; {self._seen.facts.status}: {self.reason}"
            raise KeyError(f"no fact {fact!r} among {', '.join(facts)}{why}")
        return facts[fact]

    def __repr__(self) -> str:
        return f"KernelFacts({self.place}: {dict(self)})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen.facts.to_json())

    def __len__(self) -> int:
        return len(self._seen.facts.to_json())

    def regressions(self, baseline: str | Path) -> list[str]:
        """Compare with the facts of a baseline (``NAME.facts.json``) by the mark's rules: a line for what is worse.

        Its path is relative to the test's folder.

        Raises:
            UserError: there is no such baseline, or its times are of another routing.
        """
        from moe_codesign.regression.baseline import Baseline, check_routings, compare_all, read_baseline

        old = read_baseline(self.suite.path.parent / baseline)
        if self.place not in old.facts:
            return [f"{self.place}: not in {baseline}; its suite needs this chip and tile"]
        check_routings(self.suite, Baseline({}, {self.place: old.facts[self.place]}), Path(baseline))
        new = Baseline({}, {self.place: self._seen.facts})
        return [one.line() for one in compare_all(self.suite, old, new).regressions]


@dataclass
class _Session:
    """What one pytest process has compiled, and the facts that its tests were given.

    Args:
        compiled: each mark as a suite of one table, with its observations; equal marks are compiled once.
        given: the facts of every test that ran here. from_workers: the same from pytest-xdist's workers, as JSON.
    """

    compiled: "list[tuple[Suite, dict[Place, Observation]]]" = field(default_factory=list)
    given: list[KernelFacts] = field(default_factory=list)
    from_workers: list[dict[str, Any]] = field(default_factory=list)

    def observations(self, suite: "Suite") -> "dict[Place, Observation]":
        """Compile all chips and tiles of a mark at once, so that they share the compiler processes."""
        from moe_codesign.regression.observe import observe

        for known, found in self.compiled:
            if known == suite:
                return found
        # The workers of pytest-xdist share the cores.
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
        found = {one.place: one for one in observe(suite, jobs=max(1, (os.cpu_count() or 1) // workers))}
        self.compiled.append((suite, found))
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """An object for each test: kernel, chip, tile and facts."""
        return self.from_workers + [{**one.place._asdict(), "facts": dict(one)} for one in self.given]


_SESSION = pytest.StashKey[_Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the facts to a file of their own."""
    parser.addoption("--kernel-facts-json", metavar="FILE", help="Write the facts of every kernel_facts test as JSON.")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, so that ``--strict-markers`` accepts it."""
    config.addinivalue_line("markers", f"{_MARK}(**table): compile a kernel for chips and tiles; see moe-codesign")
    config.stash[_SESSION] = _Session()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test once for each chip and tile of its mark."""
    marker = metafunc.definition.get_closest_marker(_MARK)
    if marker is None or _MARK not in metafunc.fixturenames:
        return
    from moe_codesign.regression.observe import places
    from moe_codesign.regression.suite import parse_suite

    # The files that a mark names are relative to the test's folder.
    suite = parse_suite({"kernels": [marker.kwargs]}, metafunc.definition.path)
    cases = places(suite)
    metafunc.parametrize(_MARK, [(suite, place) for place in cases], indirect=True, ids=["-".join(p) for p in cases])


@pytest.fixture
def kernel_facts(request: pytest.FixtureRequest) -> KernelFacts:
    """Give a marked test the facts of its kernel, chip and tile."""
    if not hasattr(request, "param"):
        pytest.fail("kernel_facts needs @pytest.mark.kernel_facts(function=.., chips=[..], ..) on the test")
    suite, place = request.param
    session = request.config.stash[_SESSION]
    found = KernelFacts(place, suite, session.observations(suite)[place])
    session.given.append(found)
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Write the facts into pytest-benchmark's JSON, beside the times."""
    output_json[_MARK] = config.stash[_SESSION].to_json()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Take over the facts that one of pytest-xdist's workers has sent."""
    node.config.stash[_SESSION].from_workers.extend(getattr(node, "workeroutput", {}).get(_MARK, []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the facts to the file that was asked for; a worker of pytest-xdist sends them to the main process."""
    found = session.config.stash[_SESSION].to_json()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_MARK] = found
    elif path := session.config.getoption("--kernel-facts-json"):
        from moe_codesign.files import replace_file

        replace_file(Path(path), json.dumps(found, indent=1).encode() + b"\n")
