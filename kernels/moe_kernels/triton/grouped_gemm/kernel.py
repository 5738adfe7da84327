"""The grouped GEMM's entry point, in the two ways of running: one tile per program, or programs that walk the tiles."""

import triton
import triton.language as tl

from moe_kernels.triton.grouped_gemm.gemm_tile import gemm_tile


# The values of these arguments are not worth a binary of their own: a tile has one binary, which is the one that is
# compiled ahead of time.
@triton.jit(
    do_not_specialize=("num_rows", "group_m"),
    do_not_specialize_on_alignment=("tile_expert_ptr", "tile_row_ptr", "tile_end_ptr", "num_row_tiles_ptr"),
)
def grouped_gemm_kernel(
    a,
    w,
    out_ptr,
    a_scale_ptr,
    w_scale_ptr,
    bias_ptr,
    row_token_ptr,
    row_slot_ptr,
    row_weight_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    tile_end_ptr,
    num_row_tiles_ptr,
    num_rows,
    group_m,
    K,
    N,
    w_stride_expert,
    w_stride_matrix,
    w_stride_row,
    alpha,
    limit,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    MATRICES: tl.constexpr,
    GATHER: tl.constexpr,
    EPILOGUE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    EVEN_K: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    TMA: tl.constexpr,
    SWAP_AB: tl.constexpr,
    W_GROUP: tl.constexpr,
    PERSISTENT: tl.constexpr,
):
    """Multiply the rows of each expert by its weights, tile by tile.

    The grid is (tiles, splits), or (programs, splits) if PERSISTENT.

    Args:
        a: [rows, K]; token rows if GATHER, else rows in expert order. A descriptor if TMA and neither GATHER nor
            SWAP_AB.
        w: [experts, MATRICES, N, K], by its strides; if TRANSPOSED [experts, K, N]. Two 4-bit values are one byte, so K
            is halved. A descriptor [experts, N, MATRICES, K] if TMA.
        out_ptr: the result, in the shape of EPILOGUE.
        a_scale_ptr, w_scale_ptr: scales of quantised rows and weights, as :mod:`moe_kernels.triton.quantize` lays them
            out.
        bias_ptr: [experts, MATRICES, N], or None.
        row_token_ptr: the token of each row.
        row_slot_ptr: the place of each row in the routing, before sorting.
        row_weight_ptr: the router's weight of each slot, or None.
        tile_expert_ptr, tile_row_ptr, tile_end_ptr: expert, first row, and end of the expert's rows, per row tile.
        num_row_tiles_ptr: how many row tiles there are.
        num_rows: rows (and slots) of one split's results.
        group_m: row tiles that share a column of weights.
        w_stride_expert, w_stride_matrix, w_stride_row: strides of w, in stored elements.
        alpha, limit: parameters of ``swiglu_oai``.
        BLOCK_M, BLOCK_N, BLOCK_K, TMA, SWAP_AB, PERSISTENT: the fields of :class:`moe_kernels.tile.TritonTile`.
        FORMAT: a name of :mod:`moe_kernels.triton.formats`.
        MATRICES: 2 for gate and up, else 1.
        GATHER: rows are found by their token.
        EPILOGUE: what is stored: ``hidden`` [rows, N], after the activation; ``partial`` [splits, rows, MATRICES N],
            before it; ``rows`` [splits, slots, N], by slot and weighted; ``add`` [tokens, N], summed by token.
        ACTIVATION: a name of :mod:`moe_kernels.triton.activation`.
        EVEN_K: K is a multiple of BLOCK_K.
        TRANSPOSED: weights are read along N.
        W_GROUP: 4-bit weights along K that share a scale.
    """
    num_row_tiles = tl.load(num_row_tiles_ptr)
    total = num_row_tiles * tl.cdiv(N, BLOCK_N)
    if PERSISTENT:
        for tile in range(tl.program_id(0), total, tl.num_programs(0)):
            gemm_tile(
                tile, a, w, out_ptr, a_scale_ptr, w_scale_ptr, bias_ptr, row_token_ptr, row_slot_ptr, row_weight_ptr,
                tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_row_tiles, num_rows, group_m, K, N, w_stride_expert,
                w_stride_matrix, w_stride_row, alpha, limit, BLOCK_M, BLOCK_N, BLOCK_K, FORMAT, MATRICES,
                GATHER, EPILOGUE, ACTIVATION, EVEN_K, TRANSPOSED, TMA, SWAP_AB, W_GROUP,
            )  # fmt: skip
    else:
        # The grid is a static bound: how many row tiles there are is known on the device alone.
        if tl.program_id(0) < total:
            gemm_tile(
                tl.program_id(0), a, w, out_ptr, a_scale_ptr, w_scale_ptr, bias_ptr, row_token_ptr, row_slot_ptr,
                row_weight_ptr, tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_row_tiles, num_rows, group_m, K, N,
                w_stride_expert, w_stride_matrix, w_stride_row, alpha, limit, BLOCK_M, BLOCK_N, BLOCK_K,
                FORMAT, MATRICES, GATHER, EPILOGUE, ACTIVATION, EVEN_K, TRANSPOSED, TMA, SWAP_AB, W_GROUP,
            )  # fmt: skip
