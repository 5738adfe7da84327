"""Where a published shape loses time on a chip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Answer, Estimate, NoTileError, failure_of, slowest
from moe_codesign.cost.memory import over_memory
from moe_codesign.cost.ours.model import estimate_layer
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import DEFAULT_ROUTING, RecordedLayers, Routing, by_layer
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
    routing: Routing | RecordedLayers = DEFAULT_ROUTING,
    tp: int = 1,
    ep: int = 1,
) -> list[AuditRow]:
    """Estimate one layer per chip and token count with its best tiles, and split what it loses.

    Where the loads of several layers were recorded, a row is of the layer that takes longest, and says so.
    """
    ops: tuple[Op, ...] = (up_op(gated=shape.gated), "down")
    tables.prepare(((chip, None, ops, dtype) for chip in chips if chip.has(dtype)), lenient=True)

    def answer(chip: Chip, num_tokens: int, of_layer: Routing) -> Answer:
        try:
            workload = Workload(name="audit", num_tokens=num_tokens, dtype=dtype, routing=of_layer, tp=tp, ep=ep)
            estimate = estimate_layer(tables, chip, rank_work(shape, workload), with_losses=True)
        except (UserError, NoTileError) as error:
            return failure_of(error)
        return replace(estimate, notes=(*over_memory(chip, shape, workload), *estimate.notes))

    rows = []
    for chip in chips:
        for num_tokens in tokens:
            layers = by_layer(routing)
            layer, found = slowest({layer: answer(chip, num_tokens, one) for layer, one in layers.items()})
            estimate, error = (None, found) if isinstance(found, Failure) else (found, None)
            rows.append(AuditRow(chip.name, num_tokens, dtype, str(layers[layer]), estimate, error))
    return rows
