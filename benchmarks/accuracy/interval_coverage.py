"""Do the stated intervals hold measured times? Writes results/interval_coverage.md.

GPU: fused-MoE times of vLLM and SGLang on their own Triton kernels, from PyPI ``aiconfigurator-core`` (install it
with ``pip install --no-deps aiconfigurator-core``). They ran another kernel with their own tiles, so the estimate
of our kernel's best tile is compared with the time of a good kernel for the same work.
TPUs: see benchmarks/tpu/validation.py.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from moe_codesign.calibrations.catalogue import UNKNOWN_INTERVAL
from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import NoTileError
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.rank import rank_work
from moe_codesign.errors import UserError
from moe_codesign.formats.aiconfigurator import aiconfigurator_folder, renamed
from moe_codesign.formats.problem_rows import measured_layer

GPU_SETS = (
    ("h200_sxm", "h200_sxm", "vllm/0.24.0"),
    ("a100_sxm", "a100_sxm", "sglang/0.5.10"),
    ("l40s", "l40s", "sglang/0.5.14"),
    ("b200", "b200_sxm", "sglang/0.5.14"),
)
Ratios = dict[str, list[tuple[float, bool, float]]]


def gpu_ratios(tables: Tables, per_set: int) -> Ratios:
    """(measured / estimate, inside the interval, tokens) of a seeded sample of each set."""
    import pyarrow.parquet as parquet

    root = aiconfigurator_folder() / "data"
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
            try:
                timing = estimate_layer(tables, chip, rank_work(*measured_layer(renamed(row), "bfloat16"))).timing
            except (UserError, NoTileError):
                continue
            measured = row["latency"] * 1e3
            if measured < timing.bound_us:  # beats physics: dirt, known to be in these data
                continue
            low, high = UNKNOWN_INTERVAL
            inside = max(timing.bound_us, low * timing.latency_us) <= measured <= high * timing.latency_us
            found[f"{chip_name} {version}"].append((measured / timing.latency_us, inside, row["num_tokens"]))
    return found


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
    parser.add_argument("--out", type=Path, default=Path("results/interval_coverage.md"))
    options = parser.parse_args()
    tables = Tables(jobs=2)
    lines = [
        "# Do the intervals hold?",
        "",
        "Made by `python benchmarks/accuracy/interval_coverage.py`. The coefficients of all chips are those of the one",
        "whose tiles were raced (results/accuracy/ours.md); the interval is that of chips that were not. Rows that",
        "beat the physical bound are left out. TPUs are checked by `benchmarks/tpu/validation.py`.",
        "",
        f"## modelled (GPU), interval {' to '.join(f'{end:g}' for end in UNKNOWN_INTERVAL)} times the estimate",
        "",
        "Measured: whole fused-MoE operations of vLLM and SGLang, bf16 and fp16, EP 1, their kernels and tiles",
        "(aiconfigurator-core 0.12.0).",
        "",
        *table(gpu_ratios(tables, options.rows)),
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
