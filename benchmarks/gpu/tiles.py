"""Race the tiles of our grouped GEMMs on the GPU that is here: what the cost model of our kernels is fitted to.

For every problem (a model's GEMM 1 or GEMM 2 at a number of tokens) every tile is launched, compared with float64 and
timed in rounds, with a cold L2; a tile that is over three times slower than the best is timed once. Then whole layers
are timed with the best pair and with the pair that an untuned call takes. Kernels are compiled beforehand, in parallel.
Writes results/gpu/DEVICE_tiles.csv.gz and DEVICE_tiles.json (what ran where).

    python benchmarks/gpu/tiles.py [--only MODEL,..] [--dtypes A,B] [--jobs N] [--limit-s S]
"""

import argparse
import csv
import dataclasses
import gzip
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from race import ROUNDS, Case, Gemm, floor_us, gemms_of, race, small

from moe_codesign.domain.failure import Failure
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import first_line
from moe_codesign.measure.cuda_device import CacheFlush, CudaDevice, conditions
from moe_codesign.measure.job import LayerJob
from moe_codesign.measure.protocol import measure_layer
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.device import target_of
from moe_kernels.triton.grouped_gemm.declaration import KERNEL
from moe_kernels.triton.tiles import default_tile

OUT = Path(__file__).parents[2] / "results" / "gpu"
Drawn = dict[str, tuple[int, dict[str, tuple[int, ...]]]]
DRAWN: Drawn = {
    # model: (ep, tokens by data type)
    "Qwen3-30B-A3B": (1, {"bfloat16": (1, 16, 64, 256, 1024, 4096), "fp8_block": (1, 64, 1024), "mxfp4": (16, 1024)}),
    "DeepSeek-V3": (8, {"bfloat16": (8, 128, 2048), "fp8_block": (8, 128, 2048)}),
    "gpt-oss-120b": (1, {"bfloat16": (1, 64, 1024), "mxfp4": (1, 64, 1024)}),
    "Mixtral-8x7B": (1, {"bfloat16": (1, 16, 256, 2048), "fp8": (16, 2048)}),
    "Qwen3-235B-A22B": (2, {"bfloat16": (4, 32, 512), "fp8_block": (32, 512)}),
    "DeepSeek-V2-Lite": (1, {"bfloat16": (2, 128, 2048), "int8": (128, 2048)}),
    "Qwen3-Next-80B-A3B": (4, {"bfloat16": (16, 256, 4096)}),
    "Phi-3.5-MoE": (2, {"bfloat16": (8, 64, 1024)}),
}
UNSEEN: Drawn = {
    "GLM-4.5-Air": (2, {"bfloat16": (4, 64, 1024)}),
    "Qwen3-Coder-480B": (8, {"bfloat16": (16, 256, 4096), "fp8_block": (16, 256, 4096)}),
    "Qwen3.5-122B": (4, {"bfloat16": (8, 128, 2048)}),
    "MiniMax-M2.5": (4, {"bfloat16": (32, 512), "fp8_block": (32, 512)}),
    "Llama-4-Scout": (1, {"bfloat16": (1, 32, 1024)}),
    "DBRX": (2, {"bfloat16": (16, 1024)}),
    "Ling-mini-2.0": (1, {"bfloat16": (2, 64, 1024)}),
    "Gemma-4-26B": (1, {"bfloat16": (16, 512)}),
}
SHARE = {"bfloat16": 1.0, "fp8_block": 0.6, "mxfp4": 0.35, "fp8": 0.35, "int8": 0.25}
"""Share of the binaries that is raced, by type: what they take to compile is most of a run."""
FIELDS = (
    "op", "chip", "dtype", "model", "hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok",
    "n_shared_experts", "ep", "num_tokens", "routing", "seed", "tile", "flush", "latency_us", "low_us", "high_us",
    "samples", "error", "registers", "spills", "shared_bytes", "reason",
)  # fmt: skip


def cases(drawn: Drawn, only: set[str], dtypes: set[str]) -> Iterator[Case]:
    for model, (ep, by_dtype) in drawn.items():
        for dtype, tokens in by_dtype.items():
            for number, count in enumerate(tokens):
                # Every third is skewed, as real routers are.
                routing = "zipf:0.8" if number % 3 == 2 else "uniform"
                if (not only or model in only) and (not dtypes or dtype in dtypes):
                    yield Case(model, ep, count, dtype, routing)


def forms(dtype: str, op: Op, target: str | None) -> list[TritonTile]:
    """The part of the kernel's tiles that is raced in this type: the same for every problem, a random share of them.

    Each stands for all its values of ``group_m`` and ``split_k``, which are no part of a binary.
    """
    problem = Problem(op=op, dtype=dtype)
    good = [tile for tile in every_tile() if KERNEL.refuses(problem, tile, target) is None]
    every = list(dict.fromkeys(form_of(tile) for tile in good))
    picked = np.random.default_rng(0).permutation(len(every))[: round(SHARE[dtype] * len(every))]
    return [every[i] for i in sorted(picked)]


def every_tile() -> list[TritonTile]:
    return [tile for tile in KERNEL.tiles() if isinstance(tile, TritonTile)]


def form_of(tile: TritonTile) -> TritonTile:
    return dataclasses.replace(tile, group_m=1, split_k=1)


def tiles_of(gemm: Gemm, dtype: str, target: str | None) -> list[TritonTile]:
    """The default tile, and those of :func:`forms` that the problem takes.

    A block_k that does not divide K is another binary, and left out.
    """
    problem = Problem(op=gemm.op, dtype=dtype, k=gemm.k, n=gemm.n)
    sizes = torch.diff(gemm.rows[16].start)
    default = default_tile(problem, float(sizes.sum() / (sizes > 0).sum()), target)
    of_type = set(forms(dtype, gemm.op, target))
    tiles = (tile for tile in every_tile() if form_of(tile) in of_type and gemm.k % tile.block_k == 0)
    taken = (tile for tile in tiles if KERNEL.refuses(problem, tile, target) is None)
    return list(dict.fromkeys([default, *taken]))


def compile_some(wanted: list[tuple[str, Op, TritonTile]]) -> int:
    """Launch tiles on a small problem, so that their binaries lie in Triton's cache. Returns how many failed."""
    failed = 0
    for (dtype, op), group in itertools.groupby(wanted, key=lambda one: one[:2]):
        gemm = small(dtype, op)
        for _, _, tile in group:
            try:
                gemm.launcher(tile)()
                if op == "gate_up" and tile.swap_ab:  # split, it stores parts: another binary
                    gemm.launcher(dataclasses.replace(tile, split_k=2))()
            except Exception:
                failed += 1
    torch.cuda.synchronize()
    return failed


def compile_ahead(found: list[Case], jobs: int, target: str | None) -> str:
    """All binaries of the race, by so many processes."""
    ops: tuple[Op, ...] = ("gate_up", "down")
    types = dict.fromkeys(case.dtype for case in found)
    every = [(dtype, op, tile) for dtype in types for op in ops for tile in forms(dtype, op, target)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        failed = sum(pool.map(compile_some, [every[i::jobs] for i in range(jobs)], chunksize=1))
    return f"{len(every)} forms compiled in {time.perf_counter() - start:.0f} s by {jobs} processes, {failed} failed"


def layers(device: CudaDevice, case: Case, pairs: dict[str, TilePair]) -> Iterator[dict[str, Any]]:
    """The whole layer with each pair of tiles, as the tool measures it."""
    outcomes = measure_layer(LayerJob.of(case.work(), pairs.values(), budget_s=0.02), device)
    for (name, tiles), found in zip(pairs.items(), outcomes, strict=True):
        row: dict[str, Any] = {"op": f"layer, {name}", "tile": json.dumps([t.as_dict() for t in tiles]), "reason": ""}
        if isinstance(found, Failure):
            yield row | {"reason": found.text}
            continue
        low, median, high = np.percentile(found.samples_us, [5, 50, 95])
        count = len(found.samples_us)
        yield row | {"latency_us": median, "low_us": low, "high_us": high, "samples": count, "error": found.error}


def run(case: Case, device: CudaDevice, options: argparse.Namespace, flush: CacheFlush) -> list[dict[str, Any]]:
    target = target_of(torch.device("cuda"))
    found: list[dict[str, Any]] = []
    best: list[TritonTile] = []
    default: list[TritonTile] = []
    about = case.about() | {"chip": options.chip}
    for gemm in gemms_of(case, torch.device("cuda"), case.work()):
        tiles = tiles_of(gemm, case.dtype, target)
        rows = race(gemm, tiles, case.dtype, flush)
        found += [about | {"op": gemm.op} | row for row in rows]
        timed = [row for row in rows if "latency_us" in row]
        if not timed:
            print("   none of", len(rows), "tiles of", gemm.op, rows[0]["reason"], rows[0].get("error"), flush=True)
            return found
        best.append(TritonTile.from_dict(json.loads(min(timed, key=lambda row: row["latency_us"])["tile"])))
        default.append(tiles[0])
        del gemm
    pairs = {"best": TilePair(best[0], best[1]), "default": TilePair(default[0], default[1])}
    return found + [about | row for row in layers(device, case, pairs)]


def provenance(notes: dict[str, Any]) -> dict[str, Any]:
    """What the times depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return (
        conditions()
        | {
            "commit": os.environ.get("COMMIT") or commit,
            "protocol": f"L2 flushed by reading, {ROUNDS} rounds over all tiles, device events, checked in float64",
        }
        | notes
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models")
    parser.add_argument("--dtypes", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="start no further problem after this")
    parser.add_argument("--chip", default="h100_sxm", help="this device's name in `moe-codesign list chips`")
    parser.add_argument("--unseen", action="store_true", help="the models that no fit has seen; another file")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU here (torch.cuda.is_available() is False)")
        return
    start = time.perf_counter()
    words = [set(filter(None, text.split(","))) for text in (options.only, options.dtypes)]
    found = list(cases(UNSEEN if options.unseen else DRAWN, words[0], words[1]))
    notes: dict[str, Any] = {"compile": compile_ahead(found, options.jobs, target_of(torch.device("cuda")))}
    print(notes["compile"], flush=True)
    flush = CacheFlush(torch.device("cuda"))
    notes["launch_floor_us"] = float(np.median(floor_us(flush)))
    device = CudaDevice()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / (
        re.sub(r"[\s/]+", "_", torch.cuda.get_device_name()) + ("_tiles_unseen" if options.unseen else "_tiles")
    )
    rows: list[dict[str, Any]] = []
    # Small and large, all types first: a run that is cut short has some of each.
    for case in sorted(found, key=lambda case: (case.tokens > 512, case.dtype != "bfloat16", case.model)):
        if time.perf_counter() - start > options.limit_s:
            notes["cut short"] = f"after {options.limit_s:g} s"
            break
        try:
            more = run(case, device, options, flush)
        except torch.OutOfMemoryError as problem:
            print(case, first_line(problem), flush=True)
            continue
        rows += more
        timed = [r for r in more if r.get("latency_us")]
        wrong = [r for r in more if r["reason"]]
        print(f"{time.perf_counter() - start:.0f} s {case}: {len(timed)} timed, {len(wrong)} not", flush=True)
        for row in wrong[:3]:
            print("   ", row["op"], row["tile"], row["reason"], row.get("error"), flush=True)
        with gzip.open(stem.with_suffix(".csv.gz"), "wt", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows([{name: _short(row.get(name, "")) for name in FIELDS} for row in rows])
        stem.with_suffix(".json").write_text(json.dumps(provenance(notes), indent=1), encoding="utf-8")
    print(f"written to {stem}.csv.gz")


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
