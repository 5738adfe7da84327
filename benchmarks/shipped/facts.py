"""Make the compiled facts that ship with the package (``make facts``), or check a sample (``make facts-check``).

Making all of them takes many hours: a file is written as soon as it is whole, and the command goes on where it stopped.
"""

import argparse
import datetime
import os
import sys
import tempfile
import time
from pathlib import Path

from moe_codesign.compiler import ArtifactCache
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.build_facts import (
    FactsFile,
    Work,
    build,
    check,
    every_file,
    other_compilers,
    plan,
    sample,
    stale_files,
)


def make(files: list[FactsFile], jobs: int, *, recompile: bool) -> int:
    cache = ArtifactCache()
    works = [work for work in plan(files, cache, recompile=recompile) if work.missing or not work.written]
    total = sum(len(work.missing) for work in works)
    print(f"{len(files)} files, {len(works)} to write, {total} tiles to compile", flush=True)
    begun, before = time.monotonic(), 0

    def progress(work: Work) -> Progress:
        nonlocal before
        so_far, before = before, before + len(work.missing)
        said = time.monotonic()

        def update(done: int, of: int) -> None:
            nonlocal said
            now = time.monotonic()
            if done == of or now - said > 30:
                said = now
                left = datetime.timedelta(
                    seconds=round((now - begun) / max(so_far + done, 1) * (total - so_far - done))
                )
                print(f"{work.file.label()}: {done} of {of}; {so_far + done} of {total}, {left} left", flush=True)

        return update

    incomplete = build(works, cache, jobs=jobs, progress=progress)
    for line in incomplete:
        print(f"not compiled: {line}", file=sys.stderr)
    return 1 if incomplete else 0


def compare(files: list[FactsFile], share: float, seed: int, jobs: int) -> int:
    problems = [*stale_files(), *other_compilers(files)]
    for line in problems:
        print(line, file=sys.stderr)
    if problems:
        return 1
    drawn = sample(files, share, seed)
    print(f"seed {seed}: of each target one file drawn by chance, and {share:.0%} of its tiles", flush=True)
    for file, keys in drawn:
        print(f"  {file.label()}: {len(keys)} tiles", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        differences = check(drawn, ArtifactCache(Path(folder)), jobs=jobs)
    for one in differences:
        print(f"{one.what}:\n  shipped {one.shipped}\n  here    {one.here}", file=sys.stderr)
    print(f"{sum(len(keys) for _, keys in drawn)} tiles compiled again, {len(differences)} differ")
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", type=float, metavar="SHARE", help="compile this share of a file of each target again"
    )
    parser.add_argument("--seed", type=int, default=int(datetime.date.today().strftime("%Y%m%d")), help="of --check")
    parser.add_argument("--only", default="", help="files whose label holds this text, as 'grouped_gemm cuda:90'")
    parser.add_argument("--recompile", action="store_true", help="make files again that are there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    files = [file for file in every_file() if options.only in file.label()]
    if options.check is not None:
        return compare(files, options.check, options.seed, options.jobs)
    return make(files, options.jobs, recompile=options.recompile)


if __name__ == "__main__":
    sys.exit(main())
