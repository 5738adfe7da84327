"""Time and cost of a layer as one of its sizes grows."""

from collections.abc import Sequence

from moe_codesign.answers.sweet_spots import SWEPT_FIELDS, SweetSpots, SweptField, sweet_spots_of, swept_values
from moe_codesign.chips import load_chips
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.models import ReadModel, read_model_named
from moe_codesign.models.default_dtype import default_dtype
from moe_kernels.kernel import Op, up_op


def sweet_spots(
    model: str | MoEShape | ReadModel,
    chips: Sequence[str],
    *,
    field: SweptField = "moe_intermediate_size",
    low: int,
    high: int,
    step: int = 64,
    tokens: int = 4096,
    dtype: str | None = None,
    routing: str = DEFAULT_ROUTING_TEXT,
    tp: int = 1,
    ep: int = 1,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
) -> list[SweetSpots]:
    """Time and dollars as one size grows and everything else stays a model's, with the edges named.

    Args:
        model: catalogue name, config.json, what :func:`moe_codesign.api.model.model` read, or a shape.
        chips: names or files of chips.
        field: what grows: moe_intermediate_size, num_experts, num_experts_per_tok or num_tokens.
        low, high, step: its values.
        tokens: of the batch, over all ranks; where num_tokens grows it is not read.
        dtype: type of weights and activations; default the model's own where every chip has it, else bfloat16.
        routing, tp, ep: as in a workload.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling: progress callback.

    Returns:
        One for each chip.

    Raises:
        UserError: no such model, chip, type, routing or field, or no values.
    """
    if field not in SWEPT_FIELDS:
        raise UserError("field", value=field, fix="use " + ", ".join(SWEPT_FIELDS))
    read = ReadModel(model, DEFAULT_DTYPE) if isinstance(model, MoEShape) else model
    read = read_model_named(read) if isinstance(read, str) else read
    found = load_chips(chips)
    dtype = default_dtype(read, found).name if dtype is None else parse_dtype(dtype)
    values = swept_values(low, high, step)
    workload = Workload(name="sweep", num_tokens=tokens, dtype=dtype, routing=parse_routing(routing), tp=tp, ep=ep)
    tables = Tables(jobs=jobs, progress=compiling, recompile=recompile)
    ops: tuple[Op, ...] = (up_op(gated=read.shape.gated), "down")
    tables.prepare(((chip, None, ops, dtype) for chip in found if chip.has(dtype)), lenient=True)
    return [sweet_spots_of(read.shape, chip, workload, field, values, tables) for chip in found]
