"""Where a model loses time on chips."""

from collections.abc import Sequence

from moe_codesign.answers.audit import AuditRow, audit_shape
from moe_codesign.chips import load_chips
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import find_model


def audit(
    model: str | MoEShape,
    chips: Sequence[str],
    *,
    tokens: Sequence[int] = (1, 64, 4096),
    dtype: str = "bfloat16",
    routing: str = DEFAULT_ROUTING_TEXT,
    tp: int = 1,
    ep: int = 1,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
) -> list[AuditRow]:
    """Where a model (catalogue name, config.json or shape) loses time on each chip."""
    shape = model if isinstance(model, MoEShape) else find_model(model)
    return audit_shape(
        shape,
        load_chips(chips),
        tokens,
        Tables(jobs=jobs, progress=compiling, recompile=recompile),
        dtype=dtype,
        routing=parse_routing(routing),
        tp=tp,
        ep=ep,
    )
