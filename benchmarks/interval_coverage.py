"""Do the stated intervals hold measured times? Writes results/interval_coverage.md.

GPU: fused-MoE times of vLLM and SGLang on their own Triton kernels, from PyPI ``aiconfigurator-core`` (install it
with ``pip install --no-deps aiconfigurator-core``). They ran another kernel with their own tiles, so the estimate
of our kernel's best tile is compared with the time of a good kernel for the same work.
TPU: one grouped matmul at a time, measured by ``tokamax`` with its own kernel and known tile; give its table of
timings with ``--ragged FILE.csv.gz``.
"""

import argparse
import csv
import gzip
import importlib.util
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from moe_codesign.chips import Chip, load_chip
from moe_codesign.compiler import compile_all, requests_for
from moe_codesign.cost import gpu, tpu
from moe_codesign.cost.estimate import NoTileError, estimate_gemm, estimate_layer
from moe_codesign.cost.problem import GroupedGemm
from moe_codesign.cost.table import Tables, kernel_for
from moe_codesign.errors import UserError
from moe_codesign.routing import Routing
from moe_codesign.shape import MoEShape
from moe_codesign.workload import Workload, rank_work
from moe_kernels.tile import PallasTile

GPU_SETS = (
    ("h100_sxm", "h100_sxm", "vllm/0.24.0"),
    ("h100_sxm", "h100_sxm", "sglang/0.5.14"),
    ("h200_sxm", "h200_sxm", "vllm/0.24.0"),
    ("a100_sxm", "a100_sxm", "sglang/0.5.10"),
    ("l40s", "l40s", "sglang/0.5.14"),
    ("b200", "b200_sxm", "sglang/0.5.14"),
)
DEVICES = {"tpu_v5_lite": "tpu_v5e", "tpu_v5": "tpu_v5p", "tpu_v6_lite": "tpu_v6e", "tpu7x": "tpu7x"}
Ratios = dict[str, list[tuple[float, bool, float]]]


def gpu_ratios(tables: Tables, per_set: int) -> Ratios:
    """(measured / estimate, inside the interval, tokens) of a seeded sample of each set."""
    import pyarrow.parquet as parquet

    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install aiconfigurator-core first: pip install --no-deps aiconfigurator-core")
    root = Path(spec.submodule_search_locations[0]) / "systems" / "data"
    found: Ratios = defaultdict(list)
    for chip_name, folder, version in GPU_SETS:
        path = root / folder / "moe" / version / "moe_perf.parquet"
        if not path.exists():
            print(f"no {path.relative_to(root)}; left out")
            continue
        rows = parquet.read_table(path).to_pylist()
        rows = [
            r
            for r in rows
            if "triton" in r["kernel_source"] and r["moe_dtype"] in ("bfloat16", "float16") and r["moe_ep_size"] == 1
        ]
        chip = load_chip(chip_name)
        order = np.random.default_rng(0).permutation(len(rows))
        for position in order[: 4 * per_set]:
            row = rows[int(position)]
            if len(found[f"{chip_name} {version}"]) >= per_set:
                break
            shape = MoEShape(
                hidden_size=row["hidden_size"],
                moe_intermediate_size=row["inter_size"],
                num_experts=row["num_experts"],
                num_experts_per_tok=row["topk"],
                gated=row["inter_size"] * row["hidden_size"] != 2688 * 1856,
            )
            routing = Routing.parse(row["distribution"].replace("power_law_", "power_law:"))
            try:
                workload = Workload(
                    name="row", num_tokens=row["num_tokens"], routing=routing, tp=row["moe_tp_size"], seed=0
                )
                timing = estimate_layer(tables, chip, rank_work(shape, workload)).timing
            except (UserError, NoTileError):
                continue
            measured = row["latency"] * 1e3
            if measured < timing.bound_us:  # beats physics: dirt, known to be in these data
                continue
            inside = timing.low_us <= measured <= timing.high_us
            found[f"{chip_name} {version}"].append((measured / timing.latency_us, inside, row["num_tokens"]))
    return found


def tpu_ratios(tables: Tables, path: Path, tiles_per_chip: int) -> Ratios:
    """The same for each grouped matmul whose tile is known."""
    found: Ratios = defaultdict(list)
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if _known(row)]
    tiles = {position: _tile(row) for position, row in enumerate(rows)}
    wanted: dict[str, list[PallasTile]] = defaultdict(list)
    # Small tiles first: the largest take the compiler many minutes.
    for position in sorted(tiles, key=lambda p: tiles[p].tile_m * tiles[p].tile_k * tiles[p].tile_n):
        chosen = wanted[DEVICES[rows[position]["device"]]]
        if tiles[position] not in chosen and len(chosen) < tiles_per_chip:
            chosen.append(tiles[position])
    requests = []
    for name, chosen in wanted.items():
        chip = load_chip(name)
        requests += requests_for(kernel_for(chip), chip, ["down"], "bfloat16", chosen).values()
    compile_all(requests, tables.cache, jobs=2)
    for position, row in enumerate(rows):
        chip = _one_core(load_chip(DEVICES[row["device"]]))
        if tiles[position] not in wanted[chip.name]:
            continue
        m, k, n, groups = (int(row[name]) for name in "MKNG")
        sizes = np.bincount(np.random.default_rng(0).choice(groups, (m,)), minlength=groups)
        gemm = GroupedGemm("down", sizes.astype(np.int64), k, n, m, "bfloat16", accumulates=False)
        try:
            timing = estimate_gemm(tables, chip, gemm, tile=tiles[position]).timing
        except NoTileError as error:
            print(error)
            continue
        measured = float(row["median_ms"]) * 1e3
        found[chip.name].append((measured / timing.latency_us, timing.low_us <= measured <= timing.high_us, m))
    return found


def _one_core(chip: Chip) -> Chip:
    """A chip of one of its cores, with that core's share of everything: the data's kernel ran on one."""
    cores = chip.core.count
    memory = chip.memory.model_copy(update={"hbm_bytes_per_s": chip.memory.hbm_bytes_per_s / cores})
    return chip.model_copy(
        update={
            "core": chip.core.model_copy(update={"count": 1}),
            "memory": memory,
            "peak_flops_per_s": {dtype: peak / cores for dtype, peak in chip.peak_flops_per_s.items()},
        }
    )


def _known(row: dict[str, str]) -> bool:
    """A bf16 forward grouped matmul of tokamax's first Pallas kernel, with its tile."""
    kernel = row["kind"] == "fwd" and row["op"] == "pallas_mosaic_tpu_ragged_dot"
    types = row["lhs"].startswith("bf") and row["rhs"].startswith("bf")
    return row["device"] in DEVICES and kernel and types and bool(row["config"])


def _tile(row: dict[str, str]) -> PallasTile:
    config = json.loads(row["config"])
    return PallasTile(**{name: config[name] for name in ("tile_m", "tile_k", "tile_n")})


def table(ratios: Ratios) -> list[str]:
    lines = [
        "| set | rows | inside | median error | measured / estimate: 5 % | median | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in ratios.items():
        ratio = np.array([r for r, _, _ in found])
        inside = np.mean([i for _, i, _ in found])
        low, mid, high = np.percentile(ratio, [5, 50, 95])
        error = np.median(np.abs(1 / ratio - 1))
        lines.append(f"| {name} | {len(found)} | {inside:.0%} | {error:.0%} | {low:.2f} | {mid:.2f} | {high:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400, help="rows per GPU set")
    parser.add_argument("--ragged", type=Path, help="tokamax timings, for the TPU part")
    parser.add_argument("--tiles", type=int, default=8, help="distinct TPU tiles per chip to compile")
    parser.add_argument("--out", type=Path, default=Path("results/interval_coverage.md"))
    options = parser.parse_args()
    tables = Tables(jobs=2)
    lines = [
        "# Do the intervals hold?",
        "",
        "Made by `python benchmarks/interval_coverage.py`. No coefficient was fitted per chip; the intervals are the",
        "same for every chip of a grade. Rows that beat the physical bound are left out.",
        "",
        f"## modelled (GPU), interval {gpu.INTERVAL[0]:g} to {gpu.INTERVAL[1]:g} times the estimate",
        "",
        "Measured: whole fused-MoE operations of vLLM and SGLang, bf16 and fp16, EP 1, their kernels and tiles",
        "(aiconfigurator-core 0.12.0).",
        "",
        *table(gpu_ratios(tables, options.rows)),
    ]
    if options.ragged:
        lines += [
            "",
            f"## simulated (TPU), interval {tpu.INTERVAL[0]:g} to {tpu.INTERVAL[1]:g} times the estimate",
            "",
            "Measured: tokamax's v1 ragged_dot, bf16 forward, one core, same tile sizes, another kernel.",
            "",
            *table(tpu_ratios(tables, options.ragged, options.tiles)),
            "",
            "Left out: tiles that this kernel's compile refuses (VMEM) or that take the compiler over three minutes.",
            "So the TPU sets are small. The four v6e rows have tiles of 7,168 columns or 2,048 deep.",
        ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    print(options.out.read_text())


if __name__ == "__main__":
    main()
