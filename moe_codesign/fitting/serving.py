"""Fit a serving stack's rules to measured runs of whole models, and judge them on families that they have not seen."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64, Mask
from moe_codesign.calibrations.serving import FamilyErrors
from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.fitted import find_operations
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import ALONE, FACTOR_OF, StackRules
from moe_codesign.cost.step.serving import CHUNK_TOKENS, Load, serve
from moe_codesign.domain.model_shape import ModelShape, PartTypes
from moe_codesign.errors import UserError, first_line
from moe_codesign.formats.serving_runs import Run, family_of
from moe_codesign.models.whole_catalogue import model_shape

_START = {
    "step_us": 300.0, "layer_us": 5.0, "bytes": 1.5, "shared": 0.5, "attention": 1.0, "experts": 1.0,
    "communication": 1.0, "prefill": 1.2,
}  # fmt: skip
_TTFT_START = {"ttft_ms": 50.0, "ttft_steps": 2.0, "ttft_prefill": 1.5}
_PRIOR = 0.3
"""Pull of each rule's logarithm to its start, in units of the log error of 20 runs."""
_COVERAGE = 0.9


@dataclass(frozen=True, eq=False)
class TimedRuns:
    """Runs of one stack and what their operations take [runs].

    Args:
        runs: themselves. families: of their models [runs].
        parts_us: a decode pass by part, as :class:`moe_codesign.cost.step.timed.PassTimes`.
        layers: of the models. moved_us: activations between operations at full bandwidth.
        prefill_us: prefills that fall on a decode pass. first_us: a request's own prefill.
    """

    runs: tuple[Run, ...]
    families: np.ndarray
    parts_us: Mapping[str, F64]
    layers: F64
    moved_us: F64
    prefill_us: F64
    first_us: F64

    def take(self, rows: Mask) -> "TimedRuns":
        """Those runs."""
        chosen = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name not in ("runs", "parts_us")
        }
        return TimedRuns(
            runs=tuple(run for run, wanted in zip(self.runs, rows, strict=True) if wanted),
            parts_us={name: column[rows] for name, column in self.parts_us.items()},
            **chosen,
        )


def types_of_run(model: ModelShape, run: Run) -> PartTypes:
    """The data types that a run of that precision had.

    A checkpoint that is 4-bit itself (gpt-oss) is what it is, whatever the database calls it. An ``fp8`` run has the
    checkpoint's own form of it, in blocks where the model ships so, and an ``nvfp4`` run keeps attention in 16 bits, as
    NVIDIA's checkpoints do.
    """
    types = model.types
    kept = "fp8" if run.stack == "trtllm" and run.precision != "bfloat16" else "bfloat16"
    if types.experts == "mxfp4":
        return dataclasses.replace(types, kv_cache=kept)
    form = run.precision
    if form == "fp8" and types.experts in ("fp8_block", "bfloat16"):
        form = "fp8_block"
    attention = "bfloat16" if form == "nvfp4" else form
    return dataclasses.replace(
        types, experts=form, shared=form, dense=form, attention=attention, head="bfloat16", kv_cache=kept
    )


def time_runs(runs: Sequence[Run]) -> tuple[dict[str, TimedRuns], Counter[str]]:
    """Time the operations of every run, by stack; and how many could not be timed, by reason."""
    left_out: Counter[str] = Counter()
    groups: defaultdict[tuple[str, str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.stack, run.model, run.chip, run.precision].append(run)
    found: defaultdict[str, list[TimedRuns]] = defaultdict(list)
    for (stack, *_), mine in groups.items():
        try:
            timed = _timed(mine)
        except UserError as error:
            left_out[first_line(error)] += len(mine)
        else:
            found[stack].append(timed)
    return {stack: _joined(parts) for stack, parts in found.items()}, left_out


def _timed(runs: list[Run]) -> TimedRuns:
    first = runs[0]
    shape = model_shape(first.model)
    model = dataclasses.replace(shape, types=types_of_run(shape, first))
    chip = GpuChip.of(load_chip(first.chip))
    fitted = find_operations(chip, first.stack)

    def column(name: str) -> F64:
        return np.array([float(getattr(run.split, name)) for run in runs])

    dp = column("dp")
    load = Load(
        concurrency=np.array([float(run.requests) for run in runs]) / dp,
        isl=np.array([float(run.isl) for run in runs]),
        osl=np.array([float(run.osl) for run in runs]),
        tp=column("tp"),
        dp=dp,
        moe_tp=column("moe_tp"),
        ep=column("ep"),
    )
    served = serve(model, load, Modes.of(model.types, chip), fitted, ALONE)
    with_moves = serve(model, load, Modes.of(model.types, chip), fitted, dataclasses.replace(ALONE, bytes=1.0))
    return TimedRuns(
        runs=tuple(runs),
        families=np.array([family_of(run.model) for run in runs]),
        parts_us=served.decode.parts_us,
        layers=np.full(len(runs), float(model.num_layers)),
        moved_us=with_moves.decode.latency_us - served.decode.latency_us,
        prefill_us=served.prefill_us,
        first_us=np.ceil(load.isl / CHUNK_TOKENS) * served.prefill.latency_us,
    )


def _joined(parts: Sequence[TimedRuns]) -> TimedRuns:
    names = sorted({name for part in parts for name in part.parts_us})
    return TimedRuns(
        runs=tuple(run for part in parts for run in part.runs),
        parts_us={
            name: np.concatenate([part.parts_us.get(name, np.zeros(len(part.runs))) for part in parts])
            for name in names
        },
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(TimedRuns)
            if field.name not in ("runs", "parts_us")
        },
    )


_MIXED = ("trtllm", "DeepSeek-R1")
"""Stack and model whose runs are partly with multi-token prediction, which no column tells. Those that are listed as
DeepSeek-V3 too are without it: at equal chips and requests they take 1.6 to 1.9 times as long a token."""


def usable_runs(runs: Sequence[Run]) -> tuple[list[Run], Counter[str]]:
    """Runs that a fit may see, and how many it may not, by reason."""
    left_out: Counter[str] = Counter()
    kept = []
    for run in runs:
        if run.is_held_out:
            left_out["of a family that is kept for acceptance"] += 1
        elif run.stack == _MIXED[0] and run.model.endswith(_MIXED[1]):
            left_out["perhaps with multi-token prediction"] += 1
        else:
            kept.append(run)
    return kept, left_out


def errors_by_family(timed: TimedRuns, rules: StackRules) -> dict[str, FamilyErrors]:
    """Errors on the runs of each family, by these rules and by rules that have not seen it."""
    token = np.log(tpot_ms(rules, timed) / _measured(timed, "tpot_ms"))
    first = np.log(ttft_ms(rules, timed) / _measured(timed, "ttft_ms"))
    elsewhere, first_elsewhere = _elsewhere(timed)
    found = {}
    for family in sorted(set(timed.families.tolist())):
        mine = timed.families == family
        own, own_first, other, other_first = (
            100 * np.abs(np.expm1(one[mine])) for one in (token, first, elsewhere, first_elsewhere)
        )
        numbers = {
            "mape": own.mean(),
            "median": np.median(own),
            "ttft_median": np.median(own_first),
            "elsewhere_mape": other.mean(),
            "elsewhere_median": np.median(other),
            "elsewhere_ttft_median": np.median(other_first),
        }
        rounded = {name: round(float(value), 2) for name, value in numbers.items()}
        found[family] = FamilyErrors(runs=int(mine.sum()), **rounded)
    return found


def fit_rules(timed: TimedRuns) -> StackRules:
    """The rules that bring the times of runs nearest to the measured ones, each family of models of like weight.

    The intervals are of families in none of the fits that they are judged by.
    """
    rules = _fit(timed)
    off, first_off = _elsewhere(timed)
    own = np.quantile(np.abs(off), _COVERAGE, method="higher")
    return dataclasses.replace(
        rules,
        error=float(f"{float(own):.3g}"),
        ttft_error=float(f"{float(np.quantile(np.abs(first_off), _COVERAGE, method='higher')):.3g}"),
    )


def tpot_ms(rules: StackRules, timed: TimedRuns) -> F64:
    """Time for a token of each run under those rules."""
    total = rules.step_us + rules.layer_us * timed.layers + rules.bytes * timed.moved_us
    for part, time in timed.parts_us.items():
        factor = getattr(rules, FACTOR_OF[part]) if part in FACTOR_OF else 1.0
        total = total + (1 - rules.shared_hidden if part == "shared experts" else factor) * time
    return np.asarray(1e-3 * (total + rules.prefill * timed.prefill_us))


def ttft_ms(rules: StackRules, timed: TimedRuns) -> F64:
    """Time to the first token of each run under those rules."""
    decode = tpot_ms(dataclasses.replace(rules, prefill=0.0), timed)
    return np.asarray(rules.ttft_ms + 1e-3 * rules.ttft_prefill * timed.first_us + rules.ttft_steps * decode)


def _elsewhere(timed: TimedRuns) -> tuple[F64, F64]:
    """Log errors of each run, of a token's time and of the first one's, by rules that have not seen its family."""
    off, first = np.zeros(len(timed.runs)), np.zeros(len(timed.runs))
    for family in np.unique(timed.families):
        held = timed.families == family
        rules = _fit(timed.take(~held)) if not held.all() else _fit(timed)
        mine = timed.take(held)
        off[held] = np.log(tpot_ms(rules, mine) / _measured(mine, "tpot_ms"))
        first[held] = np.log(ttft_ms(rules, mine) / _measured(mine, "ttft_ms"))
    return off, first


def _measured(timed: TimedRuns, name: str) -> F64:
    return np.array([float(getattr(run, name)) for run in timed.runs])


def _fit(timed: TimedRuns) -> StackRules:
    weight = 1 / np.sqrt(np.array([float((timed.families == family).sum()) for family in timed.families]))
    weight = weight / weight.mean()

    def with_rules(values: Mapping[str, float], rules: StackRules) -> StackRules:
        changed = dict(values)
        if "shared" in changed:
            changed["shared_hidden"] = 1 - min(changed.pop("shared"), 1.0)
        return dataclasses.replace(rules, **changed)

    rules = _least(
        _START,
        lambda values: weight * np.log(tpot_ms(with_rules(values, ALONE), timed) / _measured(timed, "tpot_ms")),
    )
    decoded = with_rules(rules, ALONE)
    first = _least(
        _TTFT_START,
        lambda values: weight * np.log(ttft_ms(with_rules(values, decoded), timed) / _measured(timed, "ttft_ms")),
    )
    return with_rules(first, decoded)


def _least(start: Mapping[str, float], errors: Callable[[Mapping[str, float]], F64]) -> dict[str, float]:
    """Positive values with the least soft-L1 error, near where they begin."""
    from scipy.optimize import least_squares

    begin = np.log(np.array(list(start.values())))

    def residuals(logs: F64) -> F64:
        off = errors(dict(zip(start, np.exp(logs).tolist(), strict=True)))
        return np.concatenate([off, _PRIOR * np.sqrt(len(off)) / 20 * (logs - begin)])

    found = least_squares(residuals, begin, bounds=(begin - 4, begin + 2), loss="soft_l1", f_scale=0.1)
    return {name: float(f"{value:.4g}") for name, value in zip(start, np.exp(found.x).tolist(), strict=True)}
