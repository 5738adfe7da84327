"""Make the compiled facts that ship with the package (``make facts``), or check a sample (``make facts-check``).

Making all of them takes many hours: a file is written as soon as it is whole, and the command goes on where it stopped.
"""

import argparse
import datetime
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from moe_codesign.compiler import ArtifactCache
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.build_facts import Work, build, plan
from moe_codesign.compiler.check_facts import check, lacking, other_compilers, sample, stale_files
from moe_codesign.compiler.facts_file import FactsFile, every_file


def make(files: list[FactsFile], jobs: int, *, recompile: bool) -> int:
    cache = ArtifactCache()
    works = []
    for place, work in enumerate(plan(files, cache, jobs=jobs, recompile=recompile), 1):
        if not work.written:
            works.append(work)
            print(f"{place} of {len(files)}, {work.file.label()}: {len(work.missing)} tiles to compile", flush=True)
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
    if missing := lacking(files):
        tiles = sum(count for _, count in missing)
        print(f"{len(missing)} of {len(files)} files are not whole: {tiles} tiles are still to compile")
    drawn = sample(files, share, seed)
    counts: Counter[str] = Counter()
    for file, keys in drawn:
        counts[file.target] += len(keys)
    print(f"seed {seed}: {share:.0%} of each target's tiles, drawn by chance", flush=True)
    for target, count in counts.items():
        print(f"  {target}: {count} tiles", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        differences = check(drawn, ArtifactCache(Path(folder)), jobs=jobs)
    for one in differences:
        print(f"{one.what}:\n  shipped {one.shipped}\n  here    {one.here}", file=sys.stderr)
    print(f"{counts.total()} tiles compiled again, {len(differences)} differ")
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=float, metavar="SHARE", help="compile this share of each target's tiles again")
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
