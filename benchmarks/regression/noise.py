"""How often a regression test is wrong: writes results/regression/noise.md.

- **compiled**: a suite, 20 times from an empty cache, each time with another hash seed, time zone, number of
  processes and folder. Every run's facts must be the same to the byte.
- **timed, nothing changed**: host.toml's case against itself, 40 times: a verdict other than same or unclear is a false
  alarm.
- **timed, 10 % slower**: the same, where the candidate's kernel does a tenth more work.

    python benchmarks/regression/noise.py [--compiled 20] [--timed 40]    an hour on two cores, nothing beside it
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from moe_codesign.chips import load_chip
from moe_codesign.regression.baseline import compilers
from moe_codesign.regression.suite import TimedTable
from moe_codesign.regression.timed import TimedResult, time_case

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "regression" / "noise.md"
CASE = """
import numpy as np

from busy import REPEATS

def case():
    a = np.random.default_rng(0).random(4000)
    def run():
        for _ in range(REPEATS):
            b = np.sort(a)
        return b
    return run, np.sort(a), 1e-6
"""


def compiled(suite: Path, times: int) -> tuple[int, int]:
    """Runs that gave the most frequent facts, and kernels in them."""
    digests: Counter[str] = Counter()
    kernels = 0
    for number in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "facts.json"
            environment = {
                **os.environ,
                "PYTHONHASHSEED": str(number),
                "TZ": ("UTC", "Asia/Tokyo")[number % 2],
                "HOME": scratch,
                "MOE_CODESIGN_CACHE": scratch,
            }
            command = [
                sys.executable,
                "-m",
                "moe_codesign.regression.child",
                str(suite.resolve()),
                str(out),
                str(1 + number % 2),
            ]
            subprocess.run(command, check=True, env=environment, cwd=scratch)
            digests[hashlib.sha256(out.read_bytes()).hexdigest()] += 1
            kernels = out.read_text(encoding="utf-8").count('"status"')
        print(f"compiled {number + 1} of {times}: {len(digests)} different", flush=True)
    return digests.most_common(1)[0][1], kernels


def timed(times: int, repeats: int, other: int) -> list[TimedResult]:
    """A case of ``repeats`` products against one of ``other``, on this host."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "case.py").write_text(CASE, encoding="utf-8")
        for name, count in (("new", repeats), ("old", other)):
            (folder / name).mkdir()
            (folder / name / "busy.py").write_text(f"REPEATS = {count}\n", encoding="utf-8")
        table = TimedTable(name="products", function="case.py:case", import_from=["new"])
        for number in range(times):
            sides = [folder / "new"], [folder / "old"]
            found.append(time_case(table, f"{folder / 'case.py'}:case", *sides, seconds=0.3))
            print(f"{repeats} against {other}, {number + 1} of {times}: {found[-1].line('itself')}", flush=True)
    return found


def row(name: str, found: list[TimedResult]) -> str:
    words = Counter(one.verdict.word if one.verdict else "failed" for one in found)
    ratios = sorted(one.verdict.ratio for one in found if one.verdict)
    pairs = sorted(one.verdict.pairs for one in found if one.verdict)
    counts = ", ".join(f"{count} {word}" for word, count in words.most_common())
    return f"| {name} | {len(found)} | {counts} | {ratios[0]:.3f} .. {ratios[-1]:.3f} | {pairs[len(pairs) // 2]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiled", type=int, default=20)
    parser.add_argument("--timed", type=int, default=40)
    parser.add_argument("--suite", type=Path, default=ROOT / "benchmarks" / "baselines" / "default.toml")
    options = parser.parse_args()
    rows = [
        row("nothing changed", timed(options.timed, 200, 200)),
        row("10 % more work", timed(options.timed // 2, 220, 200)),
    ]
    same, kernels = compiled(options.suite, options.compiled)
    host = load_chip("cpu")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        "# How often a regression test is wrong\n\n"
        "Made by `python benchmarks/regression/noise.py`. Under simulated noise (common drift, outliers, what a "
        "process brings with it) the verdicts are held by tests: tests/regression/test_verdict.py, 400 runs a level of "
        "noise.\n\n"
        "## Compiled\n\n"
        f"{same} of {options.compiled} runs of {options.suite.name} from an empty cache gave the same facts to the "
        f"byte ({kernels} kernels; {'; '.join(compilers().values())}), each with another hash seed, time zone, home "
        "and working folder, and "
        "with one or two compiler processes.\n\n"
        f"## Timed, on {host.product}\n\n"
        "| candidate | runs | verdicts | ratios | pairs of samples (median) |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
