"""Where a model loses time on chips."""

from collections.abc import Sequence

from moe_codesign.answers.audit import AuditRow, audit_shape
from moe_codesign.answers.quality_asked import quality_asked
from moe_codesign.chips import load_chips
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_layers
from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import ReadModel, read_model_named
from moe_codesign.models.default_dtype import default_dtype
from moe_codesign.quality import beside


def audit(
    model: str | MoEShape | ReadModel,
    chips: Sequence[str],
    *,
    tokens: Sequence[int] = (1, 64, 4096),
    dtype: str | None = None,
    routing: str = DEFAULT_ROUTING_TEXT,
    tp: int = 1,
    ep: int = 1,
    reference: str | None = None,
    training_tokens: float | None = None,
    law: str | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
) -> list[AuditRow]:
    """Where a model (catalogue name, config.json or shape) loses time on each chip.

    Args:
        model: catalogue name, config.json, what :func:`moe_codesign.api.model.model` read, or a shape.
        chips: names or files of chips.
        tokens: batch sizes, over all ranks together.
        dtype: type of weights and activations; default the model's own where every chip has it, else bfloat16.
        routing, tp, ep: as in a workload. Of loads that were recorded in several layers, the layer that takes longest
            is shown; ``#N`` behind the file takes layer N.
        reference: say the model's quality too, beside this one (catalogue name or config.json).
        training_tokens: with it: what both are trained on.
        law: with it: the scaling law to go by; default efficiency_leverage.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling: progress callback.

    Raises:
        UserError: no such model, chip, type, routing or law, or quality is asked for without its tokens.
    """
    read = ReadModel(model, DEFAULT_DTYPE) if isinstance(model, MoEShape) else model
    read = read_model_named(read) if isinstance(read, str) else read
    asked = quality_asked(reference, training_tokens, law)
    quality = beside(asked.judge(), [read.shape])[0] if asked is not None else None
    found = load_chips(chips)
    dtype = default_dtype(read, found).name if dtype is None else parse_dtype(dtype)
    return audit_shape(
        read.shape,
        found,
        tokens,
        Tables(jobs=jobs, progress=compiling, recompile=recompile),
        dtype=dtype,
        routing=parse_layers(routing),
        tp=tp,
        ep=ep,
        quality=quality,
    )
