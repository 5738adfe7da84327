"""Shows that the tests of the kernels catch faults: plants one at a time in a copy of the kernels and runs tests there.

    python -m tests.planted [--only TEXT ...] [--jobs N] [--limit SECONDS]

reads ``tests/planted_faults.toml``, prints a line for each fault (caught, survived or broken) and exits with 1 unless
all are caught. A fault is one piece of text that stands once in a folder of ``kernels/moe_kernels``, what to write in
its place, and the tests that should fail then. Which file holds the text does not matter, so that files may move.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pebble

ROOT = Path(__file__).parents[1]
KERNELS = Path("kernels") / "moe_kernels"
LIST = Path(__file__).with_name("planted_faults.toml")
_FAILED = 1
"""pytest's exit code where tests ran and one failed; a fault that merely stops the collection proves nothing."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: what is wrong then.
        folder: under ``kernels/moe_kernels``, where ``old`` stands exactly once.
        old, new: the text that is replaced, and by what.
        tests: a test file.
        select: pytest's ``-k`` expression.
    """

    name: str
    folder: str
    old: str
    new: str
    tests: str
    select: str

    def place(self, root: Path) -> Path:
        """The file that holds the text.

        Raises:
            ValueError: none does, or it stands there more than once.
        """
        counts = {
            path: path.read_text().count(self.old) for path in sorted((root / KERNELS / self.folder).rglob("*.py"))
        }
        found = [path for path, count in counts.items() if count]
        if sum(counts.values()) != 1:
            raise ValueError(
                f"{self.name}: {self.old!r} stands {sum(counts.values())} times under {KERNELS / self.folder}; "
                "give text that stands there once"
            )
        return found[0]


def faults() -> list[Fault]:
    """All of the list, checked: known keys, different names."""
    listed = [Fault(**one) for one in tomllib.loads(LIST.read_text())["fault"]]
    names = [fault.name for fault in listed]
    if len(set(names)) < len(names):
        raise ValueError(f"{LIST.name}: two faults of one name")
    return listed


def _run_tests(root: str, fault: Fault) -> tuple[int, str]:
    """In a process of its own: pytest's exit code and the first failure's line, with the kernels under ``root``."""
    sys.path[:0] = [str(ROOT), str(Path(root) / "kernels")]
    os.chdir(ROOT)
    import pytest
    from hypothesis import Phase, settings

    # Whether a property fails is asked, not for which smallest example.
    settings.register_profile("planted", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("planted")
    text = io.StringIO()
    # The kernels' tests need neither the tool nor what tests/conftest.py prepares for it: half of the time saved.
    arguments = [fault.tests, "-x", "-q", "-k", fault.select, "--confcutdir", str(Path(fault.tests).parent)]
    arguments += ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler", "-p", "no:moe-codesign"]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported already
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = int(pytest.main(arguments))
        import moe_kernels

    assert moe_kernels.__file__ is not None
    if not moe_kernels.__file__.startswith(root):
        return -1, f"tested {moe_kernels.__file__}, not the copy"
    lines = [line for line in text.getvalue().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return code, lines[0] if lines else text.getvalue().strip().rpartition("\n")[2]


def verdict(fault: Fault, limit: float) -> tuple[str, str]:
    """``caught``, ``survived`` or ``broken``, and by which test or why.

    A fault may leave a kernel waiting for a copy that was never started. Tests that do not end within ``limit`` seconds
    catch it too: a run of the tests has its limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        shutil.copytree(ROOT / KERNELS, root / KERNELS, ignore=shutil.ignore_patterns("__pycache__"))
        place = fault.place(root)
        place.write_text(place.read_text().replace(fault.old, fault.new))
        # Processes are forked from one that has the heavy imports behind it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "triton", "jax"])
        try:
            with pebble.ProcessPool(1, context=context) as pool:
                code, line = pool.schedule(_run_tests, args=(str(root), fault), timeout=limit).result()
        except pebble.ProcessExpired:
            return "caught", "the tests' process crashed"
        except TimeoutError:
            return "caught", f"the tests did not end in {limit:g} s"
    return {_FAILED: "caught", 0: "survived"}.get(code, "broken"), line


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant faults in a copy of the kernels and run the tests there.")
    parser.add_argument("--only", nargs="+", default=[""], help="only faults whose name holds one of these texts")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (default 2)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a fault's tests (default 300)")
    options = parser.parse_args()
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    os.environ["JAX_PLATFORMS"] = "cpu"
    chosen = [fault for fault in faults() if any(text in fault.name for text in options.only)]
    found: dict[str, int] = {}
    run = functools.partial(verdict, limit=options.limit)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for fault, (word, line) in zip(chosen, pool.map(run, chosen), strict=True):
            found[word] = found.get(word, 0) + 1
            print(f"{word:8} {fault.name}: {line}", flush=True)
    print(", ".join(f"{count} {word}" for word, count in sorted(found.items())) or "no fault has that name")
    return 0 if set(found) == {"caught"} else 1


if __name__ == "__main__":
    sys.exit(main())
