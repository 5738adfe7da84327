"""From the experts that each token chose to rows in expert order, and to row tiles that belong to one expert each.

The host never asks the device how many rows an expert has, so the whole layer can be captured in a CUDA graph.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from moe_kernels.triton.device import launching_on

_PAIRS_AT_ONCE = 1024


@dataclass(frozen=True)
class RowTiles:
    """The row tiles of one block_m, as int32 tensors.

    Args:
        expert: [bound] the expert of each tile.
        row: [bound] the first row of each tile.
        end: [bound] the end of the rows of the tile's expert.
        count: [1] how many tiles there are, which the device alone knows.
    """

    expert: torch.Tensor
    row: torch.Tensor
    end: torch.Tensor
    count: torch.Tensor

    @property
    def bound(self) -> int:
        """Length of the lists: the most tiles that there can be, which the host knows."""
        return self.expert.numel()


@dataclass(frozen=True)
class Alignment:
    """Rows in expert order.

    Args:
        token: int32 [P] token of each row.
        slot: int32 [P] place of each row in the routing (token * top_k + choice).
        start: int32 [experts + 1] first row of each expert; the last entry is the number of rows.
        tiles: the row tiles of each block_m.
    """

    token: torch.Tensor
    slot: torch.Tensor
    start: torch.Tensor
    tiles: dict[int, RowTiles]


@triton.jit(do_not_specialize=("num_pairs", "first_expert"))
def count_kernel(ids_ptr, counts_ptr, num_pairs, first_expert, BLOCK: tl.constexpr):
    """How many pairs each expert has. There is one program per expert, so nothing has to be set to zero before."""
    expert = tl.program_id(0)
    count = tl.zeros((BLOCK,), dtype=tl.int32)
    for start in range(0, num_pairs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        count += tl.load(ids_ptr + at, mask=at < num_pairs, other=-1).to(tl.int32) - first_expert == expert
    tl.store(counts_ptr + expert, tl.sum(count, 0))


@triton.jit
def _list_tiles(counts, expert, first_row, expert_ptr, row_ptr, end_ptr, count_ptr, block_m, EXPERTS: tl.constexpr):
    each = tl.arange(0, EXPERTS)
    per_expert = (counts + block_m - 1) // block_m
    before = tl.sum(tl.where(each < expert, per_expert, 0), 0)
    rows = tl.sum(tl.where(each == expert, counts, 0), 0)
    mine = (rows + block_m - 1) // block_m
    for start in range(0, mine, 16):
        at = start + tl.arange(0, 16)
        tl.store(expert_ptr + before + at, expert, mask=at < mine)
        tl.store(row_ptr + before + at, first_row + at * block_m, mask=at < mine)
        tl.store(end_ptr + before + at, first_row + rows, mask=at < mine)
    if expert == 0:
        tl.store(count_ptr, tl.sum(per_expert, 0))


_LISTS = tuple(f"{name}_{i}_ptr" for name in ("expert", "row", "end", "count") for i in (1, 2))
"""Parts of one allocation. Where they begin depends on the number of tiles, which should not make another binary."""


@triton.jit(do_not_specialize=("num_pairs", "first_expert"), do_not_specialize_on_alignment=_LISTS)
def place_kernel(
    ids_ptr,
    counts_ptr,
    token_ptr,
    slot_ptr,
    start_ptr,
    expert_1_ptr,
    row_1_ptr,
    end_1_ptr,
    count_1_ptr,
    expert_2_ptr,
    row_2_ptr,
    end_2_ptr,
    count_2_ptr,
    num_pairs,
    num_experts,
    first_expert,
    top_k,
    block_m_1,
    block_m_2,
    BLOCK: tl.constexpr,
    EXPERTS: tl.constexpr,
    COUNT_HERE: tl.constexpr,
    TWO_LISTS: tl.constexpr,
):
    """Write an expert's first row, its row tiles, and its pairs in the order of tokens (a stable sort).

    There is one program per expert.
    """
    expert = tl.program_id(0)
    each = tl.arange(0, EXPERTS)
    if COUNT_HERE:
        # All pairs fit into one block, as in decoding: one launch less.
        at = tl.arange(0, BLOCK)
        ids = tl.load(ids_ptr + at, mask=at < num_pairs, other=-1).to(tl.int32) - first_expert
        counts = tl.histogram(tl.maximum(ids, 0), EXPERTS, mask=(ids >= 0) & (ids < num_experts))
    else:
        counts = tl.load(counts_ptr + each, mask=each < num_experts, other=0)
    first_row = tl.sum(tl.where(each < expert, counts, 0), 0)
    tl.store(start_ptr + expert, first_row)
    if expert == 0:
        tl.store(start_ptr + num_experts, tl.sum(counts, 0))
    _list_tiles(counts, expert, first_row, expert_1_ptr, row_1_ptr, end_1_ptr, count_1_ptr, block_m_1, EXPERTS)
    if TWO_LISTS:
        _list_tiles(counts, expert, first_row, expert_2_ptr, row_2_ptr, end_2_ptr, count_2_ptr, block_m_2, EXPERTS)
    for start in range(0, num_pairs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mine = tl.load(ids_ptr + at, mask=at < num_pairs, other=-1).to(tl.int32) - first_expert == expert
        to = first_row + tl.cumsum(mine.to(tl.int32), 0) - 1
        tl.store(slot_ptr + to, at, mask=mine)
        tl.store(token_ptr + to, at // top_k, mask=mine)
        first_row += tl.sum(mine.to(tl.int32), 0)


def tile_bound(num_pairs: int, num_experts: int, block_m: int) -> int:
    """The most row tiles that ``num_pairs`` rows of ``num_experts`` experts can make."""
    return max(1, min(num_pairs, num_pairs // block_m + min(num_experts, num_pairs)))


def align(topk_ids: torch.Tensor, num_experts: int, block_ms: tuple[int, int], *, first_expert: int = 0) -> Alignment:
    """Sort (token, expert) pairs by expert and list the row tiles of each GEMM.

    Args:
        topk_ids: int [T, top_k], the experts of each token. Those of other ranks are left out.
        num_experts: experts of this rank.
        block_ms: rows of a tile of GEMM 1 and of GEMM 2.
        first_expert: the first expert of this rank.

    Returns:
        T * top_k rows, of which the first ``start[-1]`` belong to this rank.
    """
    num_pairs, top_k, device = topk_ids.numel(), topk_ids.shape[1], topk_ids.device
    if num_pairs == 0:
        none = torch.zeros(1, dtype=torch.int32, device=device)
        empty = RowTiles(none, none, none, none)
        starts = torch.zeros(num_experts + 1, dtype=torch.int32, device=device)
        return Alignment(none[:0], none[:0], starts, dict.fromkeys(block_ms, empty))
    lists = {m: _empty_tiles(tile_bound(num_pairs, num_experts, m), device) for m in dict.fromkeys(block_ms)}
    one, two = lists[block_ms[0]], lists[block_ms[1]]
    token, slot = (torch.empty(num_pairs, dtype=torch.int32, device=device) for _ in range(2))
    start = torch.empty(num_experts + 1, dtype=torch.int32, device=device)
    here = num_pairs <= _PAIRS_AT_ONCE
    counts = start if here else torch.empty(num_experts, dtype=torch.int32, device=device)
    block = max(16, triton.next_power_of_2(num_pairs)) if here else _PAIRS_AT_ONCE
    ids = topk_ids.contiguous()
    if not here:
        with launching_on(device):
            count_kernel[(num_experts,)](ids, counts, num_pairs, first_expert, BLOCK=block)
    with launching_on(device):
        place_kernel[(num_experts,)](
            ids, counts, token, slot, start,
            one.expert, one.row, one.end, one.count, two.expert, two.row, two.end, two.count,
            num_pairs, num_experts, first_expert, top_k, block_ms[0], block_ms[1],
            BLOCK=block, EXPERTS=max(16, triton.next_power_of_2(num_experts)), COUNT_HERE=here,
            TWO_LISTS=block_ms[0] != block_ms[1],
        )  # fmt: skip
    return Alignment(token, slot, start, lists)


def align_groups(group_sizes: torch.Tensor, token: torch.Tensor, block_ms: tuple[int, int]) -> Alignment:
    """As :func:`align`, for rows that are in expert order already.

    Args:
        group_sizes: int [experts], rows of each. Where their sum exceeds the length of ``token``, the last groups are
            cut: rows that do not exist are neither read nor written. A negative size counts as zero.
        token: int32 [P] token of each row; a row's slot is its own place.
        block_ms: rows of a tile of GEMM 1 and of GEMM 2.
    """
    ends = torch.cumsum(group_sizes.to(torch.int64).clamp(min=0), 0).clamp(max=token.numel())
    start = torch.nn.functional.pad(ends, (1, 0))
    sizes = start.diff()
    tiles = {m: _group_tiles(sizes, start, token.numel(), m) for m in dict.fromkeys(block_ms)}
    slot = torch.arange(token.numel(), dtype=torch.int32, device=token.device)
    return Alignment(token, slot, start.to(torch.int32), tiles)


def _empty_tiles(bound: int, device: torch.device) -> RowTiles:
    memory = torch.empty(3 * bound + 1, dtype=torch.int32, device=device)
    expert, row, end = (memory[i * bound : (i + 1) * bound] for i in range(3))
    return RowTiles(expert, row, end, memory[3 * bound :])


def _group_tiles(sizes: torch.Tensor, start: torch.Tensor, num_rows: int, block_m: int) -> RowTiles:
    per_group = (sizes + block_m - 1) // block_m
    until = torch.cumsum(per_group, 0)
    index = torch.arange(tile_bound(num_rows, sizes.numel(), block_m), device=sizes.device)
    expert = torch.searchsorted(until, index, right=True).clamp(max=sizes.numel() - 1)
    row = start[expert] + (index - (until[expert] - per_group[expert])) * block_m
    return RowTiles(*(t.to(torch.int32) for t in (expert, row, start[expert + 1], until[-1:])))
