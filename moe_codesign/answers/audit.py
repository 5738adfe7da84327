"""Where a published shape loses time on a chip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate, NoTileError, failure_of
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import DEFAULT_ROUTING, Routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, up_op

LOSSES = ("padding", "waves", "memory", "pipeline", "launch", "permute")
"""Order of the columns. ``memory``: re-reads and bandwidth not reached, where the bound is memory;
``pipeline``: matrix units not fed, where it is compute; ``permute``: rows put in expert order and back."""


@dataclass(frozen=True)
class AuditRow:
    """One (chip, tokens): the estimate with its losses, or the error: why it could not be made."""

    chip: str
    num_tokens: int
    dtype: str
    routing: str
    estimate: Estimate | None
    error: Failure | None = None


def audit_shape(
    shape: MoEShape,
    chips: Sequence[Chip],
    tokens: Sequence[int],
    tables: Tables,
    *,
    dtype: str = "bfloat16",
    routing: Routing = DEFAULT_ROUTING,
    tp: int = 1,
    ep: int = 1,
) -> list[AuditRow]:
    """Estimate one layer per chip and token count with its best tiles, and split what it loses."""
    ops: tuple[Op, ...] = (up_op(gated=shape.gated), "down")
    tables.prepare(((chip, None, ops, dtype) for chip in chips if chip.has(dtype)), lenient=True)
    rows = []
    for chip in chips:
        for num_tokens in tokens:
            workload = Workload(name="audit", num_tokens=num_tokens, dtype=dtype, routing=routing, tp=tp, ep=ep)
            try:
                estimate = estimate_layer(tables, chip, rank_work(shape, workload), with_losses=True)
                estimate = replace(estimate, notes=(*over_memory(chip, shape, workload), *estimate.notes))
                rows.append(AuditRow(chip.name, num_tokens, dtype, str(routing), estimate))
            except (UserError, NoTileError) as error:
                rows.append(AuditRow(chip.name, num_tokens, dtype, str(routing), None, failure_of(error)))
    return rows
