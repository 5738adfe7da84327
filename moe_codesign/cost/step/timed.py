"""Times of forward passes: the sum of their operations, each by what is known of it, and what lies between them."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.operations.answer import OperationTimes
from moe_codesign.cost.operations.operation import Sizes
from moe_codesign.cost.step.forward import Call, Passes, calls, moved_bytes
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import FACTOR_OF, StackRules
from moe_codesign.domain.model_shape import ModelShape


@dataclass(frozen=True, eq=False)
class PassTimes:
    """Times of passes [passes] in microseconds, and where they go.

    Args:
        latency_us: of each pass.
        spread_us: half width of the 90 % interval that the operations' own intervals make together: errors of one
            operation are the same in all its layers, those of different operations are not.
        parts_us: time by part of the model; their sum is the pass.
        notes: why the times deserve less trust.
    """

    latency_us: F64
    spread_us: F64
    parts_us: dict[str, F64]
    notes: tuple[str, ...]


def time_passes(
    model: ModelShape, passes: Passes, modes: Modes, operations: OperationTimes, rules: StackRules
) -> PassTimes:
    """Time each pass of a model.

    Raises:
        UserError: a kind of attention or an operation of which nothing is known.
    """
    parts: dict[str, F64] = {}
    variance = np.zeros(len(passes))
    notes: dict[str, None] = {}
    for call in calls(model, passes, modes):
        time, spread, said = _time(call, operations, len(passes))
        factor = call.count * float(getattr(rules, FACTOR_OF[call.part])) if call.part in FACTOR_OF else call.count
        parts[call.part] = parts.get(call.part, np.zeros(len(passes))) + factor * time
        variance += (factor * spread) ** 2
        notes.update(dict.fromkeys(said))
    if "shared experts" in parts:
        parts["shared experts"] = parts["shared experts"] * (1 - rules.shared_hidden)
    moved = rules.bytes * moved_bytes(model, passes) / operations.rates.bytes
    parts["between"] = rules.layer_us * model.num_layers + moved
    parts["step"] = np.full(len(passes), rules.step_us)
    latency = sum(parts.values(), np.zeros(len(passes)))
    return PassTimes(latency, np.sqrt(variance), parts, tuple(notes))


def _time(call: Call, operations: OperationTimes, rows: int) -> tuple[F64, F64, tuple[str, ...]]:
    """Time and half width of one call [passes]: equal problems are answered once."""
    where = np.arange(rows) if call.where is None else np.flatnonzero(call.where)
    time, spread = np.zeros(rows), np.zeros(rows)
    if not len(where):
        return time, spread, ()
    names = list(call.sizes)
    problems = np.stack([np.asarray(call.sizes[name], dtype=float)[where] for name in names], axis=1)
    distinct, place = np.unique(problems, axis=0, return_inverse=True)
    sizes: Sizes = {name: distinct[:, number] for number, name in enumerate(names)}
    found = operations.times(call.operation, call.variant, sizes)
    place = place.reshape(-1)
    time[where] = found.latency_us[place]
    spread[where] = ((found.high_us - found.low_us) / 2)[place]
    return time, spread, found.notes
