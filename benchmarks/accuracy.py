"""How right the calibrated cost model is about measured fused MoE times: writes results/accuracy/.

Everything is rebuilt from the installed aiconfigurator-core 0.12.0. Splits are by shape (hidden, inter, experts,
top-k): those whose hash falls in one class of five are in no fit. ``--write`` also writes the calibrations that the
project ships.

    pip install aiconfigurator-core==0.12.0; python benchmarks/accuracy.py     about 20 minutes on two cores
"""

import argparse
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiconfigurator_modes import estimates, shape_keys

from moe_codesign.calibrating.conventions import fit_coefficients, fit_physics
from moe_codesign.calibrating.fit import calibrate, errors, in_test_split, out_of_fold_us
from moe_codesign.calibrating.measured import (
    SETS,
    Measured,
    aiconfigurator_rows,
    from_aiconfigurator,
    renamed,
)
from moe_codesign.chips import load_chip
from moe_codesign.cost import calibration, fused_moe
from moe_codesign.cost.calibration import TOKEN_BUCKETS, Calibration, Prediction
from moe_codesign.cost.conventions import Conventions, timed_terms
from moe_codesign.cost.fused_moe import TERMS, Coefficients, bound_us
from moe_codesign.cost.loads import Columns, columns_of
from moe_codesign.cost.stacks import BLOCK_M
from moe_codesign.errors import UserError
from moe_codesign.rows import layer_of

OUT = Path(__file__).parents[1] / "results" / "accuracy"
FEW = 20
PEER_ROWS = 400
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Set:
    """One (chip, stack, dtype): its rows by split, its calibration and what it says of rows it has not seen."""

    name: str
    fitted: Measured
    test: Measured
    calibration: Calibration
    fitted_us: np.ndarray
    test_us: np.ndarray
    low_us: np.ndarray
    high_us: np.ndarray
    bound_us: np.ndarray


def load(chip: str, stack: str, dtype: str) -> tuple[Measured, Measured]:
    """Rows outside and inside of the test split."""
    data = from_aiconfigurator(load_chip(chip), stack, dtype)
    held = in_test_split(data.shape_key)
    return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))


def known_shapes() -> dict[tuple[str, str], dict[str, bool]]:
    """By stack and version, shapes outside of the test split and whether all sets agree that ranks ran all choices."""
    said: dict[tuple[str, str], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for chip, stack, dtype in SETS:
        fitted, _ = load(chip, stack, dtype)
        for name, holds in fit_physics(fitted)[1].all_choices_here.items():
            said[stack, fitted.version][name].append(holds)
    return {which: {name: all(holds) for name, holds in names.items()} for which, names in said.items()}


def make(chip: str, stack: str, dtype: str, known: Mapping[tuple[str, str], Mapping[str, bool]]) -> Set:
    """Fit a set on its own rows alone."""
    fitted, test = load(chip, stack, dtype)
    found = calibrate(fitted, test=test, known=known.get((stack, fitted.version), {}))
    said = found.predict(test.chip, test.columns)
    return Set(
        f"{chip} {stack} {dtype}", fitted, test, found, out_of_fold_us(found, fitted), said.latency_us, said.low_us,
        said.high_us, said.bound_us,
    )  # fmt: skip


def left_out(one: Set) -> str:
    """Share of a set's rows that are not judged."""
    lost = sum(one.fitted.left_out.values())
    return f"{one.name} {100 * lost / (lost + len(one.fitted) + len(one.test)):.1f} %"


def roofline_over_constant(one: Set) -> Triple:
    """max(FLOPs / peak, bytes / bandwidth) over one efficiency, plus a floor: two numbers fitted by least squares."""
    bound = bound_us(one.fitted.columns, one.fitted.chip, one.fitted.dtype)
    design = np.stack([bound, np.ones(len(bound))], axis=1) / one.fitted.latency_us[:, None]
    slope, floor = np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0]
    return errors(np.maximum(slope * one.bound_us + floor, one.bound_us), one.test.latency_us)


def by_tokens(one: Set) -> list[float]:
    """Mean error of decode, middle, prefill."""
    bucket = np.searchsorted(TOKEN_BUCKETS, one.test.columns.num_tokens)
    return [errors(one.test_us[bucket == b], one.test.latency_us[bucket == b])[0] for b in range(3)]


def accuracy_table(sets: Sequence[Set]) -> list[str]:
    lines = [
        "| chip, stack, type | rows | shapes | **mean** | **median** | **p90** | physics alone | roofline / constant + "
        "floor | roofline | <= 128 tokens | to 1024 | over | in 90 % interval | median width |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for one in sets:
        ours = errors(one.test_us, one.test.latency_us)
        judged = one.calibration.file.held_out
        assert judged is not None
        constant, plain = roofline_over_constant(one), errors(one.bound_us, one.test.latency_us)
        width = 100 * float(np.median((one.high_us - one.low_us) / one.test_us))
        numbers = [
            *ours, judged.physics_mape, judged.physics_median, *constant[:2], *plain[:2], *by_tokens(one),
            judged.interval_coverage, width,
        ]  # fmt: skip
        rows.append(numbers)
        lines.append(_line(f"{one.name} | {len(one.test)} | {one.test.shapes}", numbers))
    lines.append(_line(f"**mean of {len(sets)}** | | ", list(np.mean(rows, axis=0))))
    return lines


def _line(head: str, numbers: Sequence[float]) -> str:
    a = [f"{value:.1f}" for value in numbers]
    pairs = [*a[:3], f"{a[3]} / {a[4]}", f"{a[5]} / {a[6]}", f"{a[7]} / {a[8]}", *a[9:12], f"{a[12]} %", f"{a[13]} %"]
    return f"| {head} | " + " | ".join(pairs) + " |"


def peers_table(sets: Sequence[Set]) -> list[str]:
    """The same rows of each test split by aiconfigurator's two modes, and by ours."""
    lines = [
        "| chip, stack, type | rows | ours | its roofline | its empirical rule | rows it has no answer for |",
        "|---|---|---|---|---|---|",
    ]
    every = []
    for (name, stack, dtype), one in zip(SETS, sets, strict=True):
        rows, version = aiconfigurator_rows(load_chip(name), stack, dtype)
        rows = [row for row, held in zip(rows, in_test_split(shape_keys(rows)), strict=True) if held]
        chosen = np.random.default_rng(0).permutation(len(rows))[:PEER_ROWS]
        rows = [rows[i] for i in chosen]
        ours = one.calibration
        columns = columns_of([layer_of(renamed(row), dtype) for row in rows])
        measured = np.array([1e3 * row["latency"] for row in rows])
        said = ours.predict(one.test.chip, columns)
        theirs = estimates(one.test.chip, stack, version, dtype, rows)
        good = (measured >= said.bound_us) & np.all([np.isfinite(times) for times in theirs.values()], axis=0)
        numbers = [errors(times[good], measured[good]) for times in (said.latency_us, *theirs.values())]
        every.append([value for triple in numbers for value in triple[:2]])
        cells = " | ".join(f"{mean:.1f} / {median:.1f}" for mean, median, _ in numbers)
        lost = int(sum(~np.isfinite(times) for times in theirs.values()).astype(bool).sum())
        lines.append(f"| {one.name} | {int(good.sum())} | {cells} | {lost} |")
    mean = np.mean(every, axis=0)
    cells = " | ".join(f"{mean[i]:.1f} / {mean[i + 1]:.1f}" for i in (0, 2, 4))
    return [*lines, f"| **mean of {len(sets)}** | | {cells} | |"]


def inside(said: Prediction, data: Measured) -> float:
    """Percent of the measured times that the intervals hold."""
    return 100 * float(np.mean((said.low_us <= data.latency_us) & (data.latency_us <= said.high_us)))


def new_chip_table() -> list[str]:
    """A chip's test split by the calibration of the most similar other chip, and after 20 of its own rows."""
    lines = [
        f"| chip | from | type | none of its rows: mean / median | in 90 % interval | {FEW} rows: mean / median "
        "| in 90 % interval |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = []
    for chip, stack, dtype in SETS:
        fitted, test = load(chip, stack, dtype)
        try:
            donor = calibration.find(test.chip, stack, dtype, without=chip, shipped_only=True)
        except UserError:
            continue  # the only chip with that type
        said = donor.predict(test.chip, test.columns)
        none, few, held = errors(said.latency_us, test.latency_us), [], []
        for seed in range(5):
            chosen = np.random.default_rng(seed).choice(len(fitted), FEW, replace=False)
            found = calibrate(fitted.take(chosen), donor)
            after = found.predict(test.chip, test.columns)
            few.append(errors(after.latency_us, test.latency_us))
            held.append(inside(after, test))
        mean = np.mean(few, axis=0)
        lines.append(
            f"| {chip} {stack} | {donor.transferred_from} | {dtype} | {none[0]:.1f} / {none[1]:.1f} "
            f"| {inside(said, test):.0f} % | {mean[0]:.1f} / {mean[1]:.1f} | {np.mean(held):.0f} % |"
        )
        rows.append((*none[:2], inside(said, test), *mean[:2], float(np.mean(held))))
    a = np.mean(rows, axis=0)
    cells = f"{a[0]:.1f} / {a[1]:.1f} | {a[2]:.0f} % | {a[3]:.1f} / {a[4]:.1f} | {a[5]:.0f} %"
    return [*lines, f"| **mean of {len(rows)}** | | | {cells} |"]


def ordering(sets: Sequence[Set]) -> list[str]:
    """Order of two shapes at equal active FLOPs, and the cost of choosing by it; no shape's own rows in its fit."""
    right: dict[str, list[bool]] = defaultdict(list)
    apart: dict[str, list[bool]] = defaultdict(list)
    regret: dict[str, list[float]] = defaultdict(list)
    for one in sets:
        measured = np.concatenate([one.fitted.latency_us, one.test.latency_us])
        keys = np.concatenate([one.fitted.shape_key, one.test.shape_key])
        columns = [(one.fitted.columns, one.fitted_us), (one.test.columns, one.test_us)]
        bounds = [bound_us(c, one.test.chip, one.test.dtype) for c, _ in columns]
        guesses = {"ours": np.concatenate([us for _, us in columns]), "roofline": np.concatenate(bounds)}
        # Of a rank, by its share of the experts' width: only rows of one split stand side by side.
        names = ("num_tokens", "top_k", "hidden", "width", "gated", "experts", "local_experts")
        c = {name: np.concatenate([getattr(part, name) for part, _ in columns]) for name in names}
        flops = c["top_k"] * c["hidden"] * c["width"] * (2 + c["gated"])
        _, routing = np.unique(np.concatenate([one.fitted.routing, one.test.routing]), return_inverse=True)
        tp = np.array([int(key.split("-")[1]) for key in keys]) // c["width"]
        cell = np.stack([c["num_tokens"], c["experts"] / c["local_experts"], tp, routing])
        _, place = np.unique(cell, axis=1, return_inverse=True)
        rng = np.random.default_rng(0)
        for number in range(place.max() + 1):
            inside = np.flatnonzero(place.ravel() == number)
            if len(inside) > 60:
                inside = rng.choice(inside, 60, replace=False)
            a, b = np.triu_indices(len(inside), 1)
            a, b = inside[a], inside[b]
            alike = (keys[a] != keys[b]) & (np.abs(np.log(flops[a] / flops[b])) < np.log(1.2))
            a, b = a[alike], b[alike]
            ratio = measured[a] / measured[b]
            for name, guess in guesses.items():
                good = (guess[a] < guess[b]) == (ratio < 1)
                right[name] += good.tolist()
                apart[name] += good[np.abs(np.log(ratio)) > np.log(1.05)].tolist()
                chosen = np.where(guess[a] < guess[b], measured[a], measured[b])
                regret[name] += (chosen / np.minimum(measured[a], measured[b]) - 1).tolist()
    return [
        "| by | pairs | right | of those over 5 % apart | mean regret of the one chosen |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {len(right[name])} | {100 * np.mean(right[name]):.1f} % | {100 * np.mean(apart[name]):.1f} % "
            f"| {100 * np.mean(regret[name]):.1f} % |"
            for name in ("ours", "roofline")
        ),
    ]


def ablation(sets: Sequence[Set]) -> list[str]:
    """Physics fitted again without each of its terms, mean over the sets; and with the learned part."""
    rows: dict[str, list[Triple]] = defaultdict(list)
    for one in sets:
        rows["with the learned part"].append(errors(one.test_us, one.test.latency_us))
        known, x = one.calibration.conventions, one.calibration.coefficients

        def add(label: str, conventions: Conventions, off: frozenset[str], one: Set = one, x: Coefficients = x) -> None:
            found = fit_coefficients(one.fitted, conventions, x, off=off)
            chip, stack, dtype = one.test.chip, one.test.stack, one.test.dtype
            _, t = timed_terms(x, conventions, one.test.columns, chip, stack, dtype, off=off)
            times = np.maximum(fused_moe.total_us(found, t), one.bound_us)
            rows[label].append(errors(times, one.test.latency_us))

        add("physics alone", known, frozenset())
        for off in TERMS:
            add(f"without {off}", known, frozenset({off}))
        add("without tuned files", dataclasses.replace(known, tuned=frozenset()), frozenset())
        add("without ranks that run all choices", dataclasses.replace(known, all_choices_here={}), frozenset())
    lines = ["| model | mean | median | p90 |", "|---|---|---|---|"]
    return lines + [
        f"| {name} | " + " | ".join(f"{v:.1f}" for v in np.mean(r, axis=0)) + " |" for name, r in rows.items()
    ]


def conventions_table(calibrations: Sequence[Calibration]) -> list[str]:
    """What was found in the times of each set that has any."""
    lines = [
        "| chip, stack, type | hidden-experts-topk of which ranks ran all choices | experts-width with a tuned file |",
        "|---|---|---|",
    ]
    for file in (one.file for one in calibrations):
        shapes = [name for name, holds in file.all_choices_here.items() if holds]
        if shapes or file.tuned:
            cells = " | ".join(", ".join(names) or "none" for names in (shapes, file.tuned))
            lines.append(f"| {file.chip} {file.stack} {file.dtype} | {cells} |")
    return lines


def plot(sets: Sequence[Set], path: Path) -> None:
    """Predicted against measured, and error by tokens and by shape, of the test split."""
    import plotly.graph_objects as go
    from playwright.sync_api import sync_playwright
    from plotly.subplots import make_subplots

    measured = np.concatenate([one.test.latency_us for one in sets])
    predicted = np.concatenate([one.test_us for one in sets])
    tokens = np.concatenate([one.test.columns.num_tokens for one in sets]).astype(int)
    shapes = np.concatenate([one.test.shape_key for one in sets])
    error = 100 * (predicted / measured - 1)
    figure = make_subplots(
        1, 3, subplot_titles=("us: predicted over measured", "error % by tokens", "error % by shape")
    )
    some = np.random.default_rng(0).choice(len(measured), min(4000, len(measured)), replace=False)
    dots: dict[str, Any] = {"mode": "markers", "marker": {"size": 3, "opacity": 0.4}}
    figure.add_trace(go.Scatter(x=measured[some], y=predicted[some], **dots), 1, 1)
    ends = [float(measured.min()), float(measured.max())]
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line={"color": "black", "width": 1}), 1, 1)
    for t in np.unique(tokens):
        figure.add_trace(go.Box(y=error[tokens == t], name=str(t), boxpoints=False, marker_color="#3366aa"), 1, 2)
    for key in np.unique(shapes):
        figure.add_trace(go.Box(y=error[shapes == key], name=str(key), boxpoints=False, marker_color="#aa6633"), 1, 3)
    figure.update_xaxes(type="log", row=1, col=1)
    figure.update_yaxes(type="log", row=1, col=1)
    figure.update_yaxes(range=[-40, 40], col=2)
    figure.update_yaxes(range=[-40, 40], col=3)
    figure.update_layout(showlegend=False, template="plotly_white", width=1400, height=440, margin={"t": 40})
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = Path(folder) / "plot.html"
        figure.write_html(page_file)
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1420, "height": 460})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".main-svg")
        page.screenshot(path=path)
        browser.close()


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
    """Problems a second, loads of the routing known."""
    one = from_aiconfigurator(load_chip("h100_sxm"), "sglang", "bfloat16")
    found = calibration.find(one.chip, one.stack, one.dtype)
    begin = time.perf_counter()
    found.physics_us(one.chip, one.columns)
    physics = time.perf_counter() - begin
    begin = time.perf_counter()
    found.predict(one.chip, one.columns)
    whole = time.perf_counter() - begin
    return (
        f"{len(one) / physics:,.0f} problems a second by physics, {len(one) / whole:,.0f} with correction and interval."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the shipped calibrations too")
    options = parser.parse_args()
    sets, known = [], known_shapes()
    for chip, stack, dtype in SETS:
        sets.append(make(chip, stack, dtype, known))
        if options.write:
            calibration.save(sets[-1].calibration, calibration.SHIPPED)
        print(sets[-1].name, [round(v, 1) for v in errors(sets[-1].test_us, sets[-1].test.latency_us)], flush=True)
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
        "Rows left out, all of them faster than the physical bound (max of FLOPs over peak and active weights, tokens",
        "in and out over bandwidth): " + ", ".join(left_out(one) for one in sets) + ". On the L40S most of these have",
        "weights that fit into its L2, which is not flushed between runs: a bound in HBM bytes does not hold for them,",
        "and neither does the model, which is held to it.",
        "",
        "## How the rows were timed",
        "",
        "Two things that the tables do not tell are found in the times of the fitted shapes. With experts on several",
        "ranks, some shapes were timed with only those tokens that have an expert on the rank, all of whose choices",
        "then ran there: their time is the same for 1 rank to top-k ranks and falls with the ranks beyond. (Others let",
        "all tokens in and write zeros for the choices of other ranks.) A shape that is not known is taken as those of",
        "its experts and top-k if they agree, else as most are. And for some (experts, width) a tuned file was used,",
        "whatever the hidden size: these run at the fastest of twelve usual tiles.",
        "",
        *conventions_table([one.calibration for one in sets]),
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
        "Two different shapes within 20 % of equal active FLOPs, same tokens, split and kind of routing, all sets;",
        "each corrected by trees that have not seen it (ten folds; the test split also by coefficients that have not).",
        "",
        *ordering(sets),
        "",
        "## What each part is worth",
        "",
        "Physics fitted again without a term, test split, mean of the sets.",
        "",
        *ablation(sets),
        "",
        sweep(sets),
        "",
        f"Speed on this host: {speed()}",
        "",
    ]
    (OUT / "README.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
