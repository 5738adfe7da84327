"""How right the calibrated cost model is about measured fused MoE times: writes results/accuracy/.

Everything is rebuilt from the installed aiconfigurator-core 0.12.0. Splits are by shape (hidden, inter, experts,
top-k): those whose hash falls in one class of five are in no fit. benchmarks/shipped/stacks.py writes the calibrations
that the project ships.

    make accuracy     about 20 minutes on two cores
"""

import argparse
import os
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from interval_chance import by_chance
from plot import plot
from sets import Set, every_set
from tables import (
    ablation,
    accuracy_table,
    conventions_table,
    left_out,
    new_chip_table,
    ordering,
    peers_table,
)

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import Columns
from moe_codesign.fitting.measured import from_aiconfigurator
from moe_codesign.stacks.tiles import BLOCK_M

SPEED_ROWS = 2**18
OUT = Path(__file__).parents[2] / "results" / "accuracy"


def random_columns(count: int, rng: np.random.Generator) -> Columns:
    """Problems of any size, loads between one expert that gets all and all that get the same."""

    def log_uniform(low: float, high: float) -> np.ndarray:
        return np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1), count)))

    tokens, local = log_uniform(1, 65536), log_uniform(1, 512)
    top_k = np.minimum(log_uniform(1, 22), local)
    rows = np.maximum(np.floor(tokens * top_k * rng.uniform(0, 1, count)), 1)
    active = np.ceil(np.minimum(local, rows) * rng.uniform(0, 1, count))
    largest = np.minimum(np.ceil(rows / active * rng.uniform(1, 4, count)), rows)
    return Columns(
        num_tokens=tokens, hidden=8 * log_uniform(16, 2048), width=log_uniform(8, 32768),
        experts=local * 2.0 ** rng.integers(0, 6, count), local_experts=local, top_k=top_k,
        gated=rng.integers(0, 2, count).astype(float), rows=rows, active=active, largest=largest,
        entering=np.maximum(largest, np.minimum(tokens, rows) * rng.uniform(1 / top_k, 1)),
        row_tiles=tuple(np.maximum(active, np.ceil(rows / height)) for height in BLOCK_M),
    )  # fmt: skip


def sweep(sets: Sequence[Set], count: int = 1_000_000) -> str:
    """How many of a million random problems come out below the physical bound, or as no number."""
    rng = np.random.default_rng(0)
    wrong = held = 0
    for one in sets:
        columns = random_columns(count // len(sets) + 1, rng)
        said = one.calibration.predict(one.test.chip, columns)
        good = np.isfinite(said.high_us) & (said.bound_us <= said.low_us) & (said.low_us <= said.latency_us)
        wrong += int((~good).sum())
        raw, work, t = one.calibration.physics_us(one.test.chip, columns)
        held += int((raw * np.exp(one.calibration.correction(work, t, raw)) < said.bound_us).sum())
    return (
        f"Of {count:,} random problems over all sets {wrong} answers lie below the physical bound or are no number; "
        f"{held:,} would, were they not held to it."
    )


def speed() -> str:
    """Problems per second with the routing's loads known: for a set whose tiles are known, and for one in which
    many shapes ran tuned tiles, each the fastest of twelve by the model."""
    found = []
    for dtype in ("fp8_block", "bfloat16"):
        one = from_aiconfigurator(GpuChip.of(load_chip("h100_sxm")), "sglang", dtype)
        columns = one.columns.take(np.arange(SPEED_ROWS) % len(one))
        model = shipped.find(one.chip, one.stack, one.dtype).value
        for answer in (model.physics_us, model.predict):
            times = []
            for _ in range(3):
                begin = time.perf_counter()
                answer(one.chip, columns)
                times.append(time.perf_counter() - begin)
            found.append(f"{SPEED_ROWS / np.median(times):,.0f}")
    return (
        f"{found[0]} problems per second by physics on one thread, {found[1]} with correction and interval on "
        f"{os.cpu_count()} (h100_sxm sglang fp8_block); {found[2]} and {found[3]} where tuned tiles are guessed "
        "(bfloat16)."
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sets = every_set()
    for one in sets:
        print(one.name, [round(value, 1) for value in one.test_errors], flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    plot(sets, OUT / "accuracy.png")
    lines = [
        "# How right the calibrated cost model is",
        "",
        "Made by `make accuracy` from aiconfigurator-core 0.12.0 (vLLM 0.24.0; SGLang 0.5.14, on the A100 0.5.10):",
        "whole fused MoE operations on Triton kernels, timed by NVIDIA. Each set is fitted on its own rows; shapes of",
        "the test split (one in five by hash) are in no fit. Rows faster than the physical bound are left out. Errors",
        "are absolute, relative to the measured time, in percent: mean, or mean / median.",
        "",
        "![Predicted and measured times of the test split](accuracy.png)",
        "",
        "## Test split",
        "",
        *accuracy_table(sets),
        "",
        *textwrap.wrap(by_chance(sets), 120),
        "",
        "Rows left out, all of them faster than the physical bound (max of FLOPs over peak and active weights, tokens",
        "in and out over bandwidth): " + ", ".join(left_out(one) for one in sets) + ". On the L40S most of these have",
        "weights that fit into its L2, which is not flushed between runs: a bound in HBM bytes does not hold for them,",
        "and neither does the model, which is held to it.",
        "",
        "## How the rows were timed",
        "",
        "Loads are drawn as aiconfigurator's collector draws them: its power law deals what rounding leaves to the",
        "least or fullest expert of each rank in turn; DeepSeek-V3's choices are limited to 4 of 8 groups, where its",
        "balanced logits send all tokens to experts 0 to 3; SGLang 0.5.10 was timed with a gate whatever the model.",
        "",
        "Two things that the tables do not tell are found in the times of the fitted shapes. With experts on several",
        "ranks, some shapes were timed with only those tokens that have an expert on the rank, all of whose choices",
        "then ran there, other ranks' on its first expert. (Others let all tokens in and write zeros for the choices",
        "of other ranks.) A shape that is not known is taken so if all are that share its experts and top-k, or, where",
        "none does, if most are. And for some (experts, width) a tuned file was used, whatever the hidden size: these",
        "run at the fastest of twelve usual tiles.",
        "",
        *conventions_table(sets),
        "",
        "## Beside aiconfigurator's own estimates",
        "",
        "The same rows of the test split (400 of each set at random), the split's shapes taken out of its tables.",
        "",
        *peers_table(sets),
        "",
        "## A new chip",
        "",
        "The calibration of the most similar chip that has one, with none of this chip's rows; then with 20 rows (mean",
        "of five draws). Judged on the test split.",
        "",
        *new_chip_table(),
        "",
        "## Choosing shapes",
        "",
        "Two different shapes within 20 % of equal active FLOPs, same tokens and kind of routing, all sets; each",
        "corrected by trees that have not seen it (ten folds; the test split also by coefficients that have not).",
        "",
        *ordering(sets),
        "",
        "## What each part is worth",
        "",
        "Physics fitted again without a term, begun at the defaults and at the whole model's optimum; test split, mean",
        "of the sets.",
        "",
        *ablation(sets),
        "",
        sweep(sets),
        "",
        f"Speed on this host: {speed()}",
        "",
    ]
    (OUT / "README.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
