"""The grouped GEMM's entry point, in the two ways of running: one tile per program, or programs that walk the tiles."""

import triton
import triton.language as tl

from moe_kernels.triton.grouped_gemm.gemm_tile import gemm_tile


# What a launch passes of these changes nothing worth compiling for: a tile has one binary, and it is the one that is
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
    """Rows of one expert by its weights, tile by tile.

    Args:
        a: [rows, K]; token rows if GATHER, else rows in expert order. A descriptor if TMA and
            neither GATHER nor SWAP_AB.
        w: [experts, MATRICES, N, K] by its strides (in bytes of two 4-bit values, K is halved); if TRANSPOSED
            [experts, K, N]. A descriptor [experts, N, MATRICES, K] if TMA.
        out_ptr: by EPILOGUE ``hidden`` [rows, N], ``partial`` [splits, rows, MATRICES N], ``rows``
            [splits, slots, N], ``add`` [tokens, N].
        row_token_ptr: token of each row. row_slot_ptr: place of each row before sorting (``rows``, ``add``).
        row_weight_ptr: weight by slot.
        tile_expert_ptr, tile_row_ptr, tile_end_ptr: expert, first row and end of its expert's rows, per row tile.
        num_rows: rows (and slots) of one split's results.
        W_GROUP: K elements that share a scale (4-bit weights).

    The grid is (tiles or programs, splits).
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
