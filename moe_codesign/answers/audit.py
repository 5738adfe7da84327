"""Where a published shape loses time on a chip."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from moe_codesign.chips import Chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Answer, Estimate, failure_of, slowest
from moe_codesign.cost.ours.model import OurKernels
from moe_codesign.domain.failure import Failure
from moe_codesign.domain.question import OurLayer
from moe_codesign.domain.routing import DEFAULT_ROUTING, RecordedLayers, Routing, by_layer
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.quality import Beside
from moe_kernels.kernel import Op, up_op

LOSSES = ("padding", "waves", "memory", "pipeline", "launch", "permute")
"""Order of the columns. ``memory``: re-reads and bandwidth not reached, where the bound is memory;
``pipeline``: matrix units not fed, where it is compute; ``permute``: rows put in expert order and back."""


@dataclass(frozen=True)
class AuditRow:
    """One (chip, tokens): the estimate with its losses, or the error: why it could not be made.

    ``quality`` is the model's, the same in every row; None where it was not asked for.
    """

    chip: str
    num_tokens: int
    dtype: str
    routing: str
    estimate: Estimate | None
    error: Failure | None = None
    quality: Beside | None = None


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
    quality: Beside | None = None,
) -> list[AuditRow]:
    """Estimate one layer per chip and token count with its best tiles, and split what it loses.

    Where the loads of several layers were recorded, a row is of the layer that takes longest, and says so.
    """
    ops: tuple[Op, ...] = (up_op(gated=shape.gated), "down")
    tables.prepare(((chip, None, ops, dtype) for chip in chips if chip.has(dtype)), lenient=True)

    layers = by_layer(routing)
    rows = []
    for chip in chips:
        found: dict[int, dict[int | None, Answer]] = {num_tokens: {} for num_tokens in tokens}
        asked: dict[tuple[int, int | None], OurLayer] = {}
        for num_tokens, (layer, one) in itertools.product(tokens, layers.items()):
            try:
                workload = Workload(name="audit", num_tokens=num_tokens, dtype=dtype, routing=one, tp=tp, ep=ep)
                asked[num_tokens, layer] = OurLayer(shape=shape, workload=workload)
            except UserError as error:
                found[num_tokens][layer] = failure_of(error)
        answers = OurKernels(chip, tables, with_losses=True).answer(list(asked.values()))
        for (num_tokens, layer), answer in zip(asked, answers, strict=True):
            found[num_tokens][layer] = answer
        for num_tokens in tokens:
            layer, taken = slowest(found[num_tokens])
            estimate, failure = (None, taken) if isinstance(taken, Failure) else (taken, None)
            rows.append(AuditRow(chip.name, num_tokens, dtype, str(layers[layer]), estimate, failure, quality))
    return rows
