"""A row of a problem table as a question to the cost model."""

from moe_codesign.chips import Chip
from moe_codesign.compiler.kernels import default_tiles, kernel_for
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.question import OurGemm, OurLayer, Question, RaggedDot, StackLayer
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.token_counts import busiest_counts
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import OPS, SOFTWARE
from moe_codesign.formats.problem_rows import Row, layer_of, missing, routing_of, seed_of, text, whole
from moe_codesign.formats.tile_columns import gemm_tile, is_default, tiles_of


def question_of(row: Row, chip: Chip) -> Question:
    """The question that a row asks about a chip. Whether the software runs there, ``model_for`` knows.

    Raises:
        UserError: a column is missing, means nothing, or is not for this op or stack.
    """
    op, stack = text(row, "op", "fused_moe"), text(row, "stack", "ours")
    if op not in OPS:
        raise UserError("op", value=op, fix="use " + " or ".join(OPS))
    if stack not in SOFTWARE:
        raise UserError("stack", value=stack, fix="use " + ", ".join(SOFTWARE))
    dtype = parse_dtype(text(row, "dtype", DEFAULT_DTYPE))
    kernel = text(row, "kernel", "") or None
    if stack == "ragged_dot":
        return _ragged_dot(row, chip, op, dtype)
    if stack != "ours":
        return _stack_layer(row, op, stack, dtype)
    if op == "grouped_gemm":
        gemm = _gemm(row, dtype)
        tile = gemm_tile(row, chip, kernel_for(chip, kernel), gemm) if chip.compiles else None
        return OurGemm(gemm=gemm, tile=tile, kernel=kernel)
    shape, workload = layer_of(row, dtype)
    tiles = None if is_default(row) else tiles_of(row, chip, kernel)
    if is_default(row) and chip.compiles:
        tiles = default_tiles(kernel_for(chip, kernel), rank_work(shape, workload), chip.target)
    return OurLayer(shape=shape, workload=workload, tiles=tiles, kernel=kernel)


def _stack_layer(row: Row, op: str, stack: str, dtype: str) -> StackLayer:
    if op != "fused_moe":
        raise UserError(f"stack {stack} is calibrated for op fused_moe alone", fix="leave the stack out (ours)")
    for name in ("kernel", "tile"):
        if not missing(row.get(name)) and not (name == "tile" and is_default(row)):
            raise UserError(f"stack {stack} chooses its own {name}", fix=f"leave out {name}, or the stack")
    shape, workload = layer_of(row, dtype)
    return StackLayer(stack=stack, shape=shape, workload=workload)


def _ragged_dot(row: Row, chip: Chip, op: str, dtype: str) -> RaggedDot:
    if op != "grouped_gemm":
        raise UserError("stack ragged_dot multiplies groups, it runs no layer", fix="give op = grouped_gemm")
    if not missing(row.get("kernel")):
        raise UserError("stack ragged_dot has kernels of its own", fix="leave out kernel, or the stack")
    gemm = _gemm(row, dtype)
    tile = gemm_tile(row, chip, kernel_for(chip), gemm)
    if tile is None or is_default(row):
        raise UserError("stack ragged_dot needs a tile", fix="give its tile, or leave the stack out for our best one")
    return RaggedDot(gemm=gemm, tile=tile)


def _gemm(row: Row, dtype: str) -> GroupedGemm:
    routing, seed = routing_of(row), seed_of(row)
    m, k, n, groups = (whole(row, name) for name in ("m", "k", "n", "groups"))
    if min(m, k, n, groups) < 1:
        raise UserError("m, k, n, groups", value=(m, k, n, groups), fix="give whole numbers of at least 1")
    rows = busiest_counts(routing, m, groups, 1, seed=seed)
    return GroupedGemm("down", rows, k, n, m, dtype, accumulates=False)
