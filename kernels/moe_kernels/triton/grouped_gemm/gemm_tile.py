"""One tile of the grouped GEMM's result: loads, the loop over K, scales and bias, and where the results go.

Every switch is a compile-time constant (:func:`moe_kernels.triton.grouped_gemm.kernel.grouped_gemm_kernel` describes
them), so each compiled form holds one path alone.
"""

import triton
import triton.language as tl

from moe_kernels.triton.grouped_gemm.epilogue import halves, write
from moe_kernels.triton.unpack import unpack


@triton.jit
def _band(tile, num_row_tiles, num_col_tiles, group_m):
    # Neighbouring programs share a column of weights for group_m row tiles, so the weight tile is
    # read from L2 and not from HBM when an expert owns several row tiles.
    in_band = group_m * num_col_tiles
    first = (tile // in_band) * group_m
    height = min(num_row_tiles - first, group_m)
    return first + (tile % in_band) % height, (tile % in_band) // height


@triton.jit
def _multiply(a, w, acc, TRANSPOSED: tl.constexpr, SWAP_AB: tl.constexpr):
    # a [BLOCK_M, BLOCK_K]; w [W_ROWS, BLOCK_K], or [BLOCK_K, W_ROWS] if transposed.
    if TRANSPOSED:
        acc = tl.dot(a, w, acc, input_precision="ieee", out_dtype=acc.dtype)
    elif SWAP_AB:
        acc = tl.dot(w, tl.trans(a), acc, input_precision="ieee", out_dtype=acc.dtype)
    else:
        acc = tl.dot(a, tl.trans(w), acc, input_precision="ieee", out_dtype=acc.dtype)
    return acc


@triton.jit
def _zeros(ROWS: tl.constexpr, COLS: tl.constexpr, SWAP_AB: tl.constexpr, dtype: tl.constexpr):
    if SWAP_AB:
        acc = tl.zeros((COLS, ROWS), dtype=dtype)
    else:
        acc = tl.zeros((ROWS, COLS), dtype=dtype)
    return acc


@triton.jit
def _scaled(product, row_scale, col_scale, SWAP_AB: tl.constexpr):
    if SWAP_AB:
        scaled = product * col_scale[:, None] * row_scale[None, :]
    else:
        scaled = product * row_scale[:, None] * col_scale[None, :]
    return scaled


@triton.jit
def gemm_tile(
    tile,
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
    num_row_tiles,
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
):
    """Compute and store tile number ``tile``; arguments as :func:`grouped_gemm_kernel` has them."""
    row_tile, col_tile = _band(tile, num_row_tiles, tl.cdiv(N, BLOCK_N), group_m)
    expert = tl.load(tile_expert_ptr + row_tile)
    row = tl.load(tile_row_ptr + row_tile)
    rows = row + tl.arange(0, BLOCK_M)
    row_ok = rows < tl.load(tile_end_ptr + row_tile)

    W_ROWS: tl.constexpr = MATRICES * BLOCK_N
    # The same as Format.packed, which compiled code cannot read: it has the format's name alone.
    PACKED: tl.constexpr = 2 if FORMAT == "int4" or FORMAT == "mxfp4" else 1
    # A descriptor fetches BLOCK_M rows whether an expert has them or not: not for few rows, which swapping is for.
    A_TMA: tl.constexpr = TMA and not GATHER and not SWAP_AB
    GROUPS: tl.constexpr = max(BLOCK_K // W_GROUP, 1)  # scales of a row in one step of K
    j = tl.arange(0, W_ROWS)
    matrix = j % MATRICES
    col = col_tile * BLOCK_N + j // MATRICES
    w_ok = col < N
    ks = tl.arange(0, BLOCK_K)
    packed_ks = tl.arange(0, BLOCK_K // PACKED)
    # 64-bit where an index spans experts or tokens: 256 experts of 7168 x 4096 exceed 2**31 elements.
    if GATHER:
        source = tl.load(row_token_ptr + rows, mask=row_ok, other=0.0).to(tl.int64)
    else:
        source = rows.to(tl.int64)
    if not A_TMA:
        a_ptrs = a + source[:, None] * K + ks[None, :]
    if not TMA:
        w_row = matrix * w_stride_matrix + col * w_stride_row
        w_base = w + expert.to(tl.int64) * w_stride_expert
        if TRANSPOSED:
            w_ptrs = w_base + (matrix * w_stride_matrix + col)[None, :] + ks[:, None] * w_stride_row
        else:
            w_ptrs = w_base + w_row[:, None] + packed_ks[None, :]
    if FORMAT == "fp8_block":
        k_blocks = tl.cdiv(K, 128)
        a_scale_ptrs = a_scale_ptr + source * k_blocks
        n_blocks = tl.cdiv(N, 128)
        w_scale_ptrs = w_scale_ptr + ((expert * MATRICES + matrix) * n_blocks + col // 128).to(tl.int64) * k_blocks
    elif PACKED == 2:
        w_scale_ptrs = w_scale_ptr + ((expert * MATRICES + matrix).to(tl.int64) * N + col) * (K // W_GROUP)

    num_k = tl.cdiv(K, BLOCK_K)
    per_split = tl.cdiv(num_k, tl.num_programs(1))
    first_k = tl.program_id(1) * per_split
    if FORMAT == "int8":
        acc = _zeros(BLOCK_M, W_ROWS, SWAP_AB, tl.int32)
    elif FORMAT == "float64":
        acc = _zeros(BLOCK_M, W_ROWS, SWAP_AB, tl.float64)
    else:
        acc = _zeros(BLOCK_M, W_ROWS, SWAP_AB, tl.float32)
    for kb in range(first_k, min(first_k + per_split, num_k)):
        k0 = kb * BLOCK_K
        if A_TMA:
            a_tile = a.load([row, k0])
        elif EVEN_K:
            a_tile = tl.load(a_ptrs + k0, mask=row_ok[:, None], other=0.0)
        else:
            a_tile = tl.load(a_ptrs + k0, mask=row_ok[:, None] & (ks < K - k0)[None, :], other=0.0)
        if TMA:
            w_tile = tl.reshape(
                w.load([expert, col_tile * BLOCK_N, 0, kb * (BLOCK_K // PACKED)]), (W_ROWS, BLOCK_K // PACKED)
            )
        elif TRANSPOSED:
            w_tile = tl.load(w_ptrs + k0 * w_stride_row, mask=w_ok[None, :] & (ks < K - k0)[:, None], other=0.0)
        elif EVEN_K:
            w_tile = tl.load(w_ptrs + kb * (BLOCK_K // PACKED), mask=w_ok[:, None], other=0.0)
        else:
            w_k_ok = packed_ks < (K - k0) // PACKED
            w_tile = tl.load(w_ptrs + kb * (BLOCK_K // PACKED), mask=w_ok[:, None] & w_k_ok[None, :], other=0.0)
        if FORMAT == "fp8_block":
            kq = k0 // 128
            row_scale = tl.load(a_scale_ptrs + kq, mask=row_ok, other=0.0)
            col_scale = tl.load(w_scale_ptrs + kq, mask=w_ok, other=0.0)
            product = _multiply(a_tile, w_tile, _zeros(BLOCK_M, W_ROWS, SWAP_AB, tl.float32), TRANSPOSED, SWAP_AB)
            acc += _scaled(product, row_scale, col_scale, SWAP_AB)
        elif FORMAT == "fp8":
            # Hopper sums e4m3 products with about 14 bits: each step's sum goes to a float32 accumulator, as
            # DeepSeek-V3 does (arXiv 2412.19437, 3.3.2).
            acc += _multiply(a_tile, w_tile, _zeros(BLOCK_M, W_ROWS, SWAP_AB, tl.float32), TRANSPOSED, SWAP_AB)
        elif PACKED == 2:
            group = k0 // W_GROUP + tl.arange(0, GROUPS)
            scale = tl.load(
                w_scale_ptrs[:, None] + group[None, :],
                mask=w_ok[:, None] & (group < K // W_GROUP)[None, :],
                other=0.0,
            )
            w_tile = unpack(w_tile, scale, FORMAT, a_tile.dtype, W_ROWS, BLOCK_K, GROUPS)
            acc = _multiply(a_tile, w_tile, acc, TRANSPOSED, SWAP_AB)
        else:
            acc = _multiply(a_tile, w_tile, acc, TRANSPOSED, SWAP_AB)

    if SWAP_AB:
        acc = tl.trans(acc)
    if FORMAT == "fp8":
        w_scale = tl.load(w_scale_ptr + expert * MATRICES + matrix)
        acc = acc * (tl.load(a_scale_ptr) * w_scale)[None, :]
    elif FORMAT == "int8":
        row_scale = tl.load(a_scale_ptr + source, mask=row_ok, other=0.0)
        col_scale = tl.load(w_scale_ptr + (expert * MATRICES + matrix).to(tl.int64) * N + col, mask=w_ok, other=0.0)
        acc = acc.to(tl.float32) * row_scale[:, None] * col_scale[None, :]
    if bias_ptr is not None:  # noqa: SIM102 (decided at compile time; the next is not)
        if tl.program_id(1) == 0:
            bias = tl.load(bias_ptr + (expert * MATRICES + matrix).to(tl.int64) * N + col, mask=w_ok, other=0.0)
            acc += bias.to(acc.dtype)[None, :]

    weight = None
    if EPILOGUE == "hidden":
        place = rows.to(tl.int64) * N
    elif EPILOGUE == "partial":
        place = (tl.program_id(1) * num_rows + rows).to(tl.int64) * (MATRICES * N)
    else:
        slot = tl.load(row_slot_ptr + rows, mask=row_ok, other=0.0)
        if row_weight_ptr is not None:
            weight = tl.load(row_weight_ptr + slot, mask=row_ok, other=0.0)
        if EPILOGUE == "rows":
            place = (tl.program_id(1) * num_rows + slot).to(tl.int64) * N
        else:
            tl.static_assert(EPILOGUE == "add", "unknown epilogue")
            place = tl.load(row_token_ptr + rows, mask=row_ok, other=0.0).to(tl.int64) * N
    first = col_tile * BLOCK_N
    # A large tile goes by quarters of its columns: their addresses, masks and converted values then need few registers
    # beside the accumulator (sm_90, 128 x 256, 8 warps: 157 registers, stored at once 195). Smaller ones have registers
    # to spare, and one of mxfp4 on sm_89 (32 x 2 128) spilled by it.
    if BLOCK_N >= 64 and BLOCK_M * W_ROWS >= 16384:
        Q: tl.constexpr = BLOCK_N // 4
        left, right = halves(acc, BLOCK_M, W_ROWS)
        part, part1 = halves(left, BLOCK_M, W_ROWS // 2)
        part2, part3 = halves(right, BLOCK_M, W_ROWS // 2)
        write(part, out_ptr, place, row_ok, first, N, weight, alpha, limit, BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION)
        write(
            part1, out_ptr, place, row_ok, first + Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
        write(
            part2, out_ptr, place, row_ok, first + 2 * Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
        write(
            part3, out_ptr, place, row_ok, first + 3 * Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
    else:
        write(
            acc,
            out_ptr,
            place,
            row_ok,
            first,
            N,
            weight,
            alpha,
            limit,
            BLOCK_M,
            BLOCK_N,
            MATRICES,
            EPILOGUE,
            ACTIVATION,
        )
