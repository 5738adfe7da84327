"""What proposes the next candidate: Optuna's sampler, and how shapes and tiles become its parameters."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.study.sizes import Choice, Span
from moe_codesign.study.space import SHAPE_FIELDS, Space
from moe_kernels.kernel import Kernel
from moe_kernels.tile import TileConfig, Value

_STARTUP_TRIALS = 12
"""Random trials before TPE models them: two per shape field that a space usually varies."""


def sampler_for(space: Space, chip: str, mode: str, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that proposes one trial, seeded by the trial's number.

    A search that was interrupted thus proposes what an uninterrupted one would have.
    """
    text = f"{space.seed}/{chip}/{mode}/{number}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP_TRIALS)


def suggest_shape(trial: optuna.Trial, space: Space, reference: MoEShape) -> MoEShape | Failure:
    """The proposed shape, or why the proposed sizes make no shape. Fields left out of the space are the reference's."""
    values: dict[str, Any] = {}
    for field in SHAPE_FIELDS:
        choice = space.shape.get(field)
        values[field] = getattr(reference, field) if choice is None else _suggest(trial, field, choice)
    if values["num_experts_per_tok"] > values["num_experts"]:
        return Failure(
            FailureKind.SHAPE,
            f"num_experts_per_tok {values['num_experts_per_tok']} exceeds {values['num_experts']} experts",
        )
    return reference.replaced(**values)


def suggest_tiles(
    trial: optuna.Trial, kernel: Kernel, space: Mapping[str, tuple[Value, ...]], workloads: Iterable[str]
) -> dict[str, TilePair]:
    """The proposed tiles of each workload. ``space`` replaces fields of the kernel's own tile spaces."""
    return {
        name: TilePair(
            _suggest_tile(trial, kernel, space, f"{name}.up"), _suggest_tile(trial, kernel, space, f"{name}.down")
        )
        for name in workloads
    }


def _suggest_tile(
    trial: optuna.Trial, kernel: Kernel, space: Mapping[str, tuple[Value, ...]], prefix: str
) -> TileConfig:
    ways = kernel.tile_spaces
    way = next(iter(ways)) if len(ways) == 1 else str(trial.suggest_categorical(f"{prefix}.way", sorted(ways)))
    # The same field may have other values in another way, which Optuna takes for another parameter.
    name = prefix if len(ways) == 1 else f"{prefix}.{way}"
    fields = {**ways[way], **space}
    return kernel.tile_type.from_dict({f: _choose(trial, f"{name}.{f}", values) for f, values in fields.items()})


def _choose(trial: optuna.Trial, name: str, values: tuple[Value, ...]) -> Value:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, sorted(values))


def _suggest(trial: optuna.Trial, name: str, choice: Choice) -> int:
    if isinstance(choice, Span):
        high = choice.values()[-1]
        return trial.suggest_int(name, choice.low, high, step=choice.step)
    if isinstance(choice, int):
        return choice
    if len(choice) == 1:
        return choice[0]
    return int(trial.suggest_categorical(name, sorted(choice)))
