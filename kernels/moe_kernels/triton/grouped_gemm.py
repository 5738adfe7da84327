"""The grouped GEMM over expert-sorted rows: both halves of a mixture-of-experts layer, forward and data gradient.

One kernel, whose compile-time switches choose what it is:

- **GEMM 1** gathers token rows, multiplies them by their expert's gate and up matrices and applies the activation
  before anything is written. **GEMM 2** reads hidden rows in expert order, multiplies by the down matrix and weights
  each row by the router.
- **Paths**: one tile per program, or persistent programs that walk the tiles; split along K (the second grid axis);
  weights (and hidden rows) through tensor descriptors, that is by TMA; operands swapped, so that weight rows are the
  wide side of the matrix instruction when an expert has few token rows.
- **Data types**: see :mod:`moe_kernels.triton.formats`. Accumulation is float32 (int32 for int8).

Gate and up rows alternate inside a tile: column 2 j of the product is gate j and column 2 j + 1 is up j. Both
then lie in one thread's registers, one matrix instruction covers both, and a 4-dimensional descriptor fetches them
together whichever way the checkpoint stores them.
"""

from pathlib import Path

import triton
import triton.language as tl

from moe_kernels.kernel import Kernel
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.activation import activate
from moe_kernels.triton.formats import SERVED
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import default_tile
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
def _halves(values, ROWS: tl.constexpr, COLS: tl.constexpr):
    return tl.split(tl.permute(tl.reshape(values, (ROWS, 2, COLS // 2)), (0, 2, 1)))


@triton.jit
def _write(
    values,
    out_ptr,
    place,
    row_ok,
    first_col,
    N,
    weight,
    alpha,
    limit,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MATRICES: tl.constexpr,
    EPILOGUE: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    # values [ROWS, MATRICES COLS]; place [ROWS], where each row of the result begins.
    cols = first_col + tl.arange(0, COLS)
    ok = row_ok[:, None] & (cols < N)[None, :]
    to = out_ptr + place[:, None] + cols[None, :]
    if MATRICES == 2:
        gate, up = tl.split(tl.reshape(values, (ROWS, COLS, 2)))
    else:
        gate = values
        up = values
    if EPILOGUE == "partial":
        tl.store(to, gate.to(out_ptr.dtype.element_ty), mask=ok)
        if MATRICES == 2:
            tl.store(to + N, up.to(out_ptr.dtype.element_ty), mask=ok)
    elif EPILOGUE == "hidden":
        tl.store(to, activate(gate, up, alpha, limit, ACTIVATION).to(out_ptr.dtype.element_ty), mask=ok)
    else:
        if weight is not None:
            gate *= weight[:, None]
        if EPILOGUE == "rows":
            tl.store(to, gate.to(out_ptr.dtype.element_ty), mask=ok)
        else:
            # Each of a token's k experts adds to the same row; relaxed order is enough for a sum.
            tl.atomic_add(to, gate, mask=ok, sem="relaxed")


@triton.jit
def _gemm_tile(
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
    row_tile, col_tile = _band(tile, num_row_tiles, tl.cdiv(N, BLOCK_N), group_m)
    expert = tl.load(tile_expert_ptr + row_tile)
    row = tl.load(tile_row_ptr + row_tile)
    rows = row + tl.arange(0, BLOCK_M)
    row_ok = rows < tl.load(tile_end_ptr + row_tile)

    W_ROWS: tl.constexpr = MATRICES * BLOCK_N
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
        left, right = _halves(acc, BLOCK_M, W_ROWS)
        part, part1 = _halves(left, BLOCK_M, W_ROWS // 2)
        part2, part3 = _halves(right, BLOCK_M, W_ROWS // 2)
        _write(part, out_ptr, place, row_ok, first, N, weight, alpha, limit, BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION)
        _write(
            part1, out_ptr, place, row_ok, first + Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
        _write(
            part2, out_ptr, place, row_ok, first + 2 * Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
        _write(
            part3, out_ptr, place, row_ok, first + 3 * Q, N, weight, alpha, limit,
            BLOCK_M, Q, MATRICES, EPILOGUE, ACTIVATION,
        )  # fmt: skip
    else:
        _write(
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
            _gemm_tile(
                tile, a, w, out_ptr, a_scale_ptr, w_scale_ptr, bias_ptr, row_token_ptr, row_slot_ptr, row_weight_ptr,
                tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_row_tiles, num_rows, group_m, K, N, w_stride_expert,
                w_stride_matrix, w_stride_row, alpha, limit, BLOCK_M, BLOCK_N, BLOCK_K, FORMAT, MATRICES,
                GATHER, EPILOGUE, ACTIVATION, EVEN_K, TRANSPOSED, TMA, SWAP_AB, W_GROUP,
            )  # fmt: skip
    else:
        # The grid is a static bound: how many row tiles there are is known on the device alone.
        if tl.program_id(0) < total:
            _gemm_tile(
                tl.program_id(0), a, w, out_ptr, a_scale_ptr, w_scale_ptr, bias_ptr, row_token_ptr, row_slot_ptr,
                row_weight_ptr, tile_expert_ptr, tile_row_ptr, tile_end_ptr, num_row_tiles, num_rows, group_m, K, N,
                w_stride_expert, w_stride_matrix, w_stride_row, alpha, limit, BLOCK_M, BLOCK_N, BLOCK_K,
                FORMAT, MATRICES, GATHER, EPILOGUE, ACTIVATION, EVEN_K, TRANSPOSED, TMA, SWAP_AB, W_GROUP,
            )  # fmt: skip


def _build(op, tile, dtype="bfloat16", target="cuda:90", **variant):
    return ahead_of_time.source(grouped_gemm_kernel, op, tile, dtype, target, **variant)


_FOLDER = Path(__file__).parent

KERNEL = Kernel(
    name="triton.grouped_gemm",
    tile_type=TritonTile,
    tile_spaces={
        "pointers": {
            "block_m": (16, 32, 64, 128),
            "block_n": (64, 128, 256),
            "block_k": (64, 128),
            "num_warps": (4, 8),
            "num_stages": (3, 4),
            "group_m": (1, 8),
        },
        # Few rows per expert: the weights on the wide side, K split where there are too few programs.
        "few rows": {
            "block_m": (8, 16, 32),
            "block_n": (64, 128),
            "block_k": (64, 128),
            "num_warps": (4,),
            "num_stages": (3, 4),
            "group_m": (1,),
            "split_k": (1, 2, 4, 8),
            "tma": (False, True),
            "swap_ab": (True,),
        },
        "descriptors": {
            "block_m": (64, 128),
            "block_n": (64, 128, 256),
            "block_k": (64,),
            "num_warps": (4, 8),
            "num_stages": (3, 4),
            "group_m": (1, 8),
            "persistent": (False, True),
            "tma": (True,),
        },
    },
    # Under split_k GEMM 1 stores parts where else it applies the activation: the same loop, which is what is read.
    launch_fields=frozenset({"group_m", "split_k"}),
    dtypes=SERVED,
    refuses=refusal,
    default_tile=default_tile,
    sources=tuple(
        _FOLDER / f"{name}.py" for name in ("grouped_gemm", "activation", "unpack", "formats", "ahead_of_time")
    ),
    build=_build,
)
