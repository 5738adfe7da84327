"""The tables of results/accuracy/README.md."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ablations import TERMS, coefficients_without
from peers import estimates, shape_keys
from sets import Set, Triple, each

from moe_codesign.calibrations.stacks import StackCoefficients
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.stacks import physics as fused_moe
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.columns import columns_of
from moe_codesign.cost.stacks.conventions import Conventions, timed_terms
from moe_codesign.cost.stacks.model import TOKEN_BUCKETS, Prediction
from moe_codesign.cost.stacks.physics import Terms, bound_us
from moe_codesign.errors import UserError
from moe_codesign.fitting.intervals import errors
from moe_codesign.fitting.measured import Measured
from moe_codesign.fitting.splits import in_test_split
from moe_codesign.fitting.stack_conventions import even_sample, fit_to_terms
from moe_codesign.fitting.stack_sets import Which, load_split
from moe_codesign.fitting.stacks import calibrate
from moe_codesign.formats.aiconfigurator import SETS, aiconfigurator_rows, renamed
from moe_codesign.formats.problem_rows import measured_layer

FEW = 20
PEER_ROWS = 400
Pair = tuple[np.ndarray, np.ndarray]


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
        ours = one.test_errors
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
    for one, (rows, lost, numbers) in zip(sets, each(_beside_peers, zip(SETS, sets, strict=True)), strict=True):
        every.append([value for triple in numbers for value in triple[:2]])
        cells = " | ".join(f"{mean:.1f} / {median:.1f}" for mean, median, _ in numbers)
        lines.append(f"| {one.name} | {rows} | {cells} | {lost} |")
    mean = np.mean(every, axis=0)
    cells = " | ".join(f"{mean[i]:.1f} / {mean[i + 1]:.1f}" for i in (0, 2, 4))
    return [*lines, f"| **mean of {len(sets)}** | | {cells} | |"]


def _beside_peers(pair: tuple[Which, Set]) -> tuple[int, int, list[Triple]]:
    """Rows judged, rows without an answer, errors of ours and of each mode."""
    (name, stack, dtype), one = pair
    rows, version = aiconfigurator_rows(GpuChip.of(load_chip(name)), stack, dtype)
    rows = [row for row, held in zip(rows, in_test_split(shape_keys(rows)), strict=True) if held]
    chosen = np.random.default_rng(0).permutation(len(rows))[:PEER_ROWS]
    rows = [rows[i] for i in chosen]
    columns = columns_of([measured_layer(renamed(row), dtype) for row in rows])
    measured = np.array([1e3 * row["latency"] for row in rows])
    said = one.calibration.predict(one.test.chip, columns)
    theirs = estimates(one.test.chip, stack, version, dtype, rows)
    good = (measured >= said.bound_us) & np.all([np.isfinite(times) for times in theirs.values()], axis=0)
    lost = int(sum(~np.isfinite(times) for times in theirs.values()).astype(bool).sum())
    return int(good.sum()), lost, [errors(times[good], measured[good]) for times in (said.latency_us, *theirs.values())]


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
    found = [one for one in each(_as_new, SETS) if one is not None]
    lines += [f"| {name} | {_new_cells(numbers)} |" for name, numbers in found]
    mean = np.mean([numbers for _, numbers in found], axis=0)
    return [*lines, f"| **mean of {len(found)}** | | | {_new_cells(mean.tolist())} |"]


def _new_cells(a: Sequence[float]) -> str:
    return f"{a[0]:.1f} / {a[1]:.1f} | {a[2]:.0f} % | {a[3]:.1f} / {a[4]:.1f} | {a[5]:.0f} %"


def _as_new(which: Which) -> tuple[str, list[float]] | None:
    """Mean and median error and share in the interval, with none of the chip's rows and with few."""
    chip, stack, dtype = which
    fitted, test = load_split(which)
    try:
        found = shipped.find(test.chip, stack, dtype, without=chip, shipped_only=True)
    except UserError:
        return None  # the only chip with that type
    donor = found.value
    said = donor.predict(test.chip, test.columns)
    few, held = [], []
    for seed in range(5):
        chosen = np.random.default_rng(seed).choice(len(fitted), FEW, replace=False)
        after = calibrate(fitted.take(chosen), donor).predict(test.chip, test.columns)
        few.append(errors(after.latency_us, test.latency_us))
        held.append(inside(after, test))
    none, mean = errors(said.latency_us, test.latency_us), np.mean(few, axis=0).tolist()
    numbers = [*none[:2], inside(said, test), *mean[:2], float(np.mean(held))]
    return f"{chip} {stack} | {found.chip} | {dtype}", numbers


@dataclasses.dataclass
class _Order:
    """Pairs of times: whether they come out in the right order, how far they are apart, what the choice costs."""

    right: list[np.ndarray] = dataclasses.field(default_factory=list)
    apart: list[np.ndarray] = dataclasses.field(default_factory=list)
    regret: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, guess: np.ndarray, measured: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        first = guess[a] < guess[b]
        self.right.append(first == (measured[a] < measured[b]))
        self.apart.append(np.abs(np.log(measured[a] / measured[b])))
        self.regret.append(np.where(first, measured[a], measured[b]) / np.minimum(measured[a], measured[b]) - 1)

    def cells(self) -> str:
        right, apart, regret = (np.concatenate(parts) for parts in (self.right, self.apart, self.regret))
        return (
            f"{len(right)} | {100 * right.mean():.1f} % | {100 * right[apart > np.log(1.05)].mean():.1f} % "
            f"| {100 * regret.mean():.1f} %"
        )


def ordering(sets: Sequence[Set]) -> list[str]:
    """Order of two shapes at equal active FLOPs, and the cost of choosing by it; no shape's own rows in its fit."""
    found: dict[tuple[str, str], _Order] = defaultdict(_Order)
    for one in sets:
        parts = ((one.fitted, one.fitted_us), (one.test, one.test_us))
        measured = np.concatenate([data.latency_us for data, _ in parts])
        keys = np.concatenate([data.shape_key for data, _ in parts])
        guesses = {
            "ours": np.concatenate([us for _, us in parts]),
            "roofline": np.concatenate([bound_us(data.columns, data.chip, data.dtype) for data, _ in parts]),
        }
        names = ("num_tokens", "top_k", "hidden", "width", "gated", "experts", "local_experts")
        c = {name: np.concatenate([getattr(data.columns, name) for data, _ in parts]) for name in names}
        # Limited choices stand beside others of their kind, as in the tables that they are from.
        kinds = [re.sub(r"/\d+/\d+$", "", str(kind)) for data, _ in parts for kind in data.routing]
        _, routing = np.unique(kinds, return_inverse=True)
        ep = c["experts"] / c["local_experts"]
        tp = np.array([int(key.split("-")[1]) for key in keys]) // c["width"]
        # A rank's share of the width: among rows of one split that orders as the whole layer's.
        flops = c["top_k"] * c["hidden"] * c["width"] * (2 + c["gated"])
        together = {
            "one split": (np.stack([c["num_tokens"], routing, ep, tp]), flops, np.ones(len(ep), dtype=bool)),
            "one split, all experts on a rank": (np.stack([c["num_tokens"], routing, tp]), flops, ep == 1),
            "any splits": (np.stack([c["num_tokens"], routing]), flops * tp, np.ones(len(ep), dtype=bool)),
        }
        for label, (cell, work, among) in together.items():
            for a, b in _pairs(cell, work, keys, np.flatnonzero(among)):
                for name, guess in guesses.items():
                    found[label, name].add(guess, measured, a, b)
    return [
        "| pairs of | by | pairs | right | of those over 5 % apart | mean regret of the one chosen |",
        "|---|---|---|---|---|---|",
        *(f"| {label} | {name} | {order.cells()} |" for (label, name), order in found.items()),
    ]


def _pairs(cell: np.ndarray, flops: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> Iterator[Pair]:
    """Rows of one cell whose shapes differ and whose FLOPs are within 20 %; of at most 60 rows of a cell at random."""
    _, place = np.unique(cell[:, rows], axis=1, return_inverse=True)
    rng = np.random.default_rng(0)
    order = np.argsort(place.ravel(), kind="stable")
    for here in np.split(rows[order], np.flatnonzero(np.diff(place.ravel()[order])) + 1):
        some = rng.choice(here, 60, replace=False) if len(here) > 60 else here
        a, b = (some[index] for index in np.triu_indices(len(some), 1))
        alike = (keys[a] != keys[b]) & (np.abs(np.log(flops[a] / flops[b])) < np.log(1.2))
        yield a[alike], b[alike]


def ablation(sets: Sequence[Set]) -> list[str]:
    """Physics fitted again without each of its terms, mean over the sets; and with the learned part."""
    found = each(_without_each, sets)
    lines = ["| model | mean | median | p90 |", "|---|---|---|---|"]
    for label in found[0]:
        mean = np.mean([one[label] for one in found], axis=0)
        lines.append(f"| {label} | " + " | ".join(f"{value:.1f}" for value in mean) + " |")
    return lines


def _without_each(one: Set) -> dict[str, Triple]:
    known, x = one.calibration.conventions_on(one.test.chip), one.calibration.coefficients

    def alone(conventions: Conventions, without: str = "") -> Triple:
        def terms_of(data: Measured) -> Terms:
            work, t = timed_terms(x, conventions, data.columns, data.chip, data.stack, data.dtype)
            return TERMS[without](t, work, data.chip, data.dtype) if without else t

        sample = even_sample(one.fitted)
        chooser, start = (coefficients_without(without, of) for of in (x, StackCoefficients()))
        found = fit_to_terms(terms_of(sample), sample.latency_us, chooser, start, tries=0)
        return errors(np.maximum(fused_moe.total_us(found, terms_of(one.test)), one.bound_us), one.test.latency_us)

    return {
        "with the learned part": one.test_errors,
        "physics alone": alone(known),
        **{f"without {term}": alone(known, term) for term in TERMS},
        "without tuned files": alone(dataclasses.replace(known, tuned=frozenset())),
        "without ranks that run all choices": alone(dataclasses.replace(known, all_choices_here={})),
    }


def conventions_table(sets: Sequence[Set]) -> list[str]:
    """What was found in the times of each set that has any."""
    lines = [
        "| chip, stack, type | hidden-experts-topk of which ranks ran all choices | experts-width with a tuned file |",
        "|---|---|---|",
    ]
    for file in (one.calibration.file for one in sets):
        shapes = [name for name, holds in file.all_choices_here.items() if holds]
        if shapes or file.tuned:
            cells = " | ".join(", ".join(names) or "none" for names in (shapes, file.tuned))
            lines.append(f"| {file.chip} {file.stack} {file.dtype} | {cells} |")
    return lines
