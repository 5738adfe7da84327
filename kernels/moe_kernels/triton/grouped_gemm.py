"""Grouped GEMM over expert-sorted rows: both halves of a mixture-of-experts layer, in Triton.

GEMM 1 (``gate_up``) gathers token rows, multiplies them by their expert's gate and up matrices and applies
SwiGLU before anything is written (``up``: one matrix and squared ReLU). GEMM 2 (``down``) multiplies by the
expert's down matrix, scales by the router weight and adds into the token's row. bfloat16 in, float32 accumulation.

Layouts (the ones vLLM and Hugging Face store, so no weight is transposed at load time):

=============  =======================  ==============================================
``x``          [num_tokens, H]          token rows
``w_gate_up``  [num_experts, 2 I, H]    gate rows first, then up rows; [.., I, H] not gated
``w_down``     [num_experts, H, I]
``hidden``     [num_tokens * k, I]      in expert order, between the two GEMMs
``out``        [num_tokens, H]          float32; summed with atomic adds over the k experts
=============  =======================  ==============================================
"""

from pathlib import Path
from typing import Any

import triton
import triton.language as tl

from moe_kernels.kernel import Kernel, Op
from moe_kernels.tile import TritonTile


@triton.jit
def _locate(
    tile_expert_ptr,
    tile_row_ptr,
    offsets_ptr,
    num_row_tiles,
    num_col_tiles,
    group_m,
    BLOCK_M: tl.constexpr,
):
    # Neighbouring programs share a column of weights for group_m row tiles, so the weight tile is
    # read from L2 and not from HBM when an expert owns several row tiles.
    pid = tl.program_id(0)
    in_band = group_m * num_col_tiles
    first = (pid // in_band) * group_m
    height = min(num_row_tiles - first, group_m)
    row_tile = first + (pid % in_band) % height
    col_tile = (pid % in_band) // height
    expert = tl.load(tile_expert_ptr + row_tile)
    row = tl.load(tile_row_ptr + row_tile)
    end = row
    if expert >= 0:
        end = tl.load(offsets_ptr + expert + 1)
    return expert, row + tl.arange(0, BLOCK_M), end, col_tile


@triton.jit
def gate_up_kernel(
    x_ptr,
    w_ptr,
    hidden_ptr,
    pair_token_ptr,
    offsets_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    num_row_tiles,
    group_m,
    H,
    I,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GATED: tl.constexpr,
):
    """GEMM 1: hidden rows of one [BLOCK_M, BLOCK_N] tile."""
    expert, rows, end, col_tile = _locate(
        tile_expert_ptr, tile_row_ptr, offsets_ptr, num_row_tiles, tl.cdiv(I, BLOCK_N), group_m, BLOCK_M
    )
    if expert < 0:  # the grid is a static bound; this row tile has no rows
        return
    row_ok = rows < end
    token = tl.load(pair_token_ptr + rows, mask=row_ok, other=0)
    cols = col_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    col_ok = cols < I
    ks = tl.arange(0, BLOCK_K)

    a_ptrs = x_ptr + token.to(tl.int64)[:, None] * H + ks[None, :]
    # 64-bit: 256 experts of 7168 x 4096 exceed 2**31 elements.
    matrix_rows = I.to(tl.int64) * (2 if GATED else 1)
    gate_ptrs = w_ptr + expert * matrix_rows * H + cols[None, :].to(tl.int64) * H + ks[:, None]
    up_ptrs = gate_ptrs + I.to(tl.int64) * H
    gate = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(tl.cdiv(H, BLOCK_K)):
        k_ok = ks < H - k * BLOCK_K
        a = tl.load(a_ptrs, mask=row_ok[:, None] & k_ok[None, :], other=0.0)
        b_ok = k_ok[:, None] & col_ok[None, :]
        gate = tl.dot(a, tl.load(gate_ptrs, mask=b_ok, other=0.0), gate)
        if GATED:
            up = tl.dot(a, tl.load(up_ptrs, mask=b_ok, other=0.0), up)
        a_ptrs += BLOCK_K
        gate_ptrs += BLOCK_K
        up_ptrs += BLOCK_K
    hidden = gate * tl.sigmoid(gate) * up if GATED else tl.maximum(gate, 0.0) * tl.maximum(gate, 0.0)
    out_ptrs = hidden_ptr + rows.to(tl.int64)[:, None] * I + cols[None, :]
    tl.store(out_ptrs, hidden.to(hidden_ptr.dtype.element_ty), mask=row_ok[:, None] & col_ok[None, :])


@triton.jit
def down_kernel(
    hidden_ptr,
    w_ptr,
    out_ptr,
    pair_token_ptr,
    pair_weight_ptr,
    offsets_ptr,
    tile_expert_ptr,
    tile_row_ptr,
    num_row_tiles,
    group_m,
    H,
    I,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """GEMM 2: adds one [BLOCK_M, BLOCK_N] tile into the token rows."""
    expert, rows, end, col_tile = _locate(
        tile_expert_ptr, tile_row_ptr, offsets_ptr, num_row_tiles, tl.cdiv(H, BLOCK_N), group_m, BLOCK_M
    )
    if expert < 0:
        return
    row_ok = rows < end
    cols = col_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    col_ok = cols < H
    ks = tl.arange(0, BLOCK_K)

    a_ptrs = hidden_ptr + rows.to(tl.int64)[:, None] * I + ks[None, :]
    b_ptrs = w_ptr + expert.to(tl.int64) * H * I + cols[None, :].to(tl.int64) * I + ks[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(tl.cdiv(I, BLOCK_K)):
        k_ok = ks < I - k * BLOCK_K
        a = tl.load(a_ptrs, mask=row_ok[:, None] & k_ok[None, :], other=0.0)
        b = tl.load(b_ptrs, mask=k_ok[:, None] & col_ok[None, :], other=0.0)
        acc = tl.dot(a, b, acc)
        a_ptrs += BLOCK_K
        b_ptrs += BLOCK_K
    token = tl.load(pair_token_ptr + rows, mask=row_ok, other=0)
    acc *= tl.load(pair_weight_ptr + rows, mask=row_ok, other=0.0)[:, None]
    out_ptrs = out_ptr + token.to(tl.int64)[:, None] * H + cols[None, :]
    # Each of a token's k experts adds to the same row; relaxed order is enough for a sum.
    tl.atomic_add(out_ptrs, acc, mask=row_ok[:, None] & col_ok[None, :], sem="relaxed")


_POINTERS = {
    "x_ptr": "*bf16",
    "w_ptr": "*bf16",
    "hidden_ptr": "*bf16",
    "out_ptr": "*fp32",
    "pair_token_ptr": "*i32",
    "pair_weight_ptr": "*fp32",
    "offsets_ptr": "*i32",
    "tile_expert_ptr": "*i32",
    "tile_row_ptr": "*i32",
}


def ahead_of_time(op: Op, tile: TritonTile) -> tuple[Any, dict[str, Any]]:
    """The source and options that ``triton.compile`` takes, with the alignment a launch would have.

    H and I are taken as multiples of 16 elements and pointers as 16-byte aligned: without these hints the
    compiler issues narrow loads and no asynchronous copies.
    """
    function = down_kernel if op == "down" else gate_up_kernel
    names = function.arg_names
    constants: dict[str, Any] = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    if op != "down":
        constants["GATED"] = op == "gate_up"
    signature = {n: "constexpr" if n in constants else _POINTERS.get(n, "i32") for n in names}
    aligned = [*_POINTERS, "H", "I"]
    source = triton.compiler.ASTSource(
        function,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in aligned},
    )
    return source, {"num_warps": tile.num_warps, "num_stages": tile.num_stages}


def _refuses(op: Op, tile: TritonTile, dtype: str) -> str | None:
    if dtype != "bfloat16":
        return f"dtype {dtype} is not supported by triton.grouped_gemm; use bfloat16"
    for field in ("block_m", "block_n", "block_k", "num_warps"):
        value = getattr(tile, field)
        if value & (value - 1):
            return f"{field} = {value} is no power of two"
    for field in ("block_m", "block_n", "block_k"):
        if getattr(tile, field) < 16:
            return f"{field} = {getattr(tile, field)} is below the 16 that matrix instructions need"
    if tile.num_warps > 16:
        return f"num_warps = {tile.num_warps} is over 16"
    accumulators = 2 if op == "gate_up" else 1
    per_thread = accumulators * tile.block_m * tile.block_n // (32 * tile.num_warps)
    if per_thread > 256:
        # The accumulator alone would need more registers than a thread can name (255); the compiler would
        # take a minute to spill it all.
        return f"{per_thread} accumulator values per thread exceed the 255 registers a thread has"
    return None


def _default_tile(op: Op, rows_per_group: float, k: int, n: int) -> TritonTile:
    """An untuned user's tile: rows to the next power of two in 16..128, as vLLM's and SGLang's rules do.

    ``gate_up`` holds two accumulators, so it takes half the columns: a wider tile spills on Ampere and Ada and
    exceeds the 64 KiB of shared memory of gfx942.
    """
    block_m = next((b for b in (16, 32, 64) if rows_per_group <= b), 128)
    small = block_m <= 32
    return TritonTile(
        block_m=block_m,
        block_n=64 if small or op == "gate_up" else 128,
        block_k=128 if small else 64,
        num_warps=4 if small else 8,
        num_stages=3,
        group_m=8,
    )


KERNEL = Kernel(
    name="triton.grouped_gemm",
    tile_type=TritonTile,
    tile_space={
        "block_m": (16, 32, 64, 128),
        "block_n": (64, 128, 256),
        "block_k": (64, 128),
        "num_warps": (4, 8),
        "num_stages": (3, 4),
        "group_m": (1, 8),
    },
    launch_fields=frozenset({"group_m"}),
    dtypes=("bfloat16",),
    refuses=_refuses,
    default_tile=_default_tile,
    sources=(Path(__file__),),
    build=ahead_of_time,
)
