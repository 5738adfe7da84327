"""Which shapes of a space may be timed on a chip: quality, parameters, split and memory, all without a time."""

import functools
from collections.abc import Sequence

from moe_codesign.chips import Chip
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.rank import memory_use
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.quality import Ablations, Equal, Judge, Qualities, law_named
from moe_codesign.study.ablation_rows import AblationRow
from moe_codesign.study.constraints import Bounds
from moe_codesign.study.space import OWN_LAW, Space


def judge_of(space: Space, reference: MoEShape) -> Judge:
    """What quality is judged by in a space.

    Raises:
        UserError: its law has no say on the reference, or its ablations make no law.
    """
    rows = None if space.ablations is None else tuple(space.ablations)
    return _judge(space.law, rows, reference, space.training_tokens, space.equal)


@functools.lru_cache(maxsize=16)
def _judge(
    law: str, rows: tuple[AblationRow, ...] | None, reference: MoEShape, training_tokens: float, equal: Equal
) -> Judge:
    """One judge for all chips of a space and for its reports: a fit to a table of runs takes seconds."""
    published = law_named(law) if law != OWN_LAW else None
    if rows is None:
        assert published is not None, "the space asks for ablations with that law"
        return Judge(published, reference, training_tokens, equal)
    runs = [row.ablation(reference, training_tokens) for row in rows]
    return Judge(Ablations(runs, corrects=published), reference, training_tokens, equal)


class Screen:
    """The constraints of a space on one chip.

    Args:
        space: whose constraints.
        chip: whose memory.
        workloads: the space's on that chip.
        judge: of quality; see :func:`judge_of`.
    """

    def __init__(self, space: Space, chip: Chip, workloads: Sequence[Workload], judge: Judge) -> None:
        self.judge = judge
        self._limits, self._chip, self._workloads = space.constraints, chip, workloads

    def failures(self, shapes: Sequence[MoEShape], qualities: Qualities) -> list[Failure | None]:
        """The first constraint that each shape breaks; None for those that may be timed."""
        return [self._failure(shape, qualities, index) for index, shape in enumerate(shapes)]

    def _failure(self, shape: MoEShape, qualities: Qualities, index: int) -> Failure | None:
        return self._too_bad(shape, qualities, index) or self._wrong_size(shape) or self._does_not_fit(shape)

    def _too_bad(self, shape: MoEShape, qualities: Qualities, index: int) -> Failure | None:
        least, ratio = self._limits.min_quality_ratio, float(qualities.ratio[index])
        if least is None:
            return None
        if not qualities.usable[index]:
            return Failure(FailureKind.QUALITY, f"unknown: {self.judge.why_unusable(shape)}")
        if ratio < least:
            return Failure(FailureKind.QUALITY, f"{ratio:.3f} of the reference, below {least:g}", least - ratio)
        return None

    def _wrong_size(self, shape: MoEShape) -> Failure | None:
        limits, reference = self._limits, self.judge.reference
        total, active = shape.total_params, shape.active_params
        checks: tuple[tuple[str, Bounds | None, float], ...] = (
            ("total_params", limits.total_params, total),
            ("active_params", limits.active_params, active),
            ("total_params_ratio", limits.total_params_ratio, total / reference.total_params),
            ("active_params_ratio", limits.active_params_ratio, active / reference.active_params),
        )
        for name, bounds, value in checks:
            if bounds is not None and (broken := bounds.broken_by(value)):
                return Failure(FailureKind.PARAMETERS, f"{name} {value:.4g} is {broken}", bounds.distance(value))
        return None

    def _does_not_fit(self, shape: MoEShape) -> Failure | None:
        for workload in self._workloads:
            if reason := workload.misfit(shape):
                return Failure(FailureKind.SPLIT, reason)
            used, there = memory_use(shape, workload), self._chip.memory.hbm_bytes
            allowed = self._limits.memory_fraction * there
            if used.total > allowed and not self._chip.is_host:  # the host holds one layer, not the model
                text = (
                    f"{workload.name} ({workload.num_tokens} tokens, tp {workload.tp}, ep {workload.ep}) takes {used}"
                    f" a chip, above {allowed / 1e9:.3g} GB ({self._limits.memory_fraction:g} of {there / 1e9:.3g})"
                )
                return Failure(FailureKind.MEMORY, text, used.total / allowed - 1.0)
        return None
