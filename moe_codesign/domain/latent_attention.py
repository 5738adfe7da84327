"""Attention whose cache is one compressed vector a token, or fewer: MLA, and the compressed forms of DeepSeek-V4."""

from dataclasses import dataclass
from typing import ClassVar

from moe_codesign.domain.attention import Caching, Projection, SparseIndex
from moe_codesign.domain.sizes import check_sizes
from moe_codesign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Caching):
    """Multi-head latent attention (MLA, DeepSeek-V2 and later): one compressed vector a token is cached for all heads.

    Args:
        num_heads: query heads; each has keys and values of its own, made of the token's compressed vector.
        q_lora_rank: width to which queries are compressed; None where they are projected at once.
        kv_lora_rank: width of the compressed vector that is cached.
        qk_nope_head_dim: width of a head's part without positions.
        qk_rope_head_dim: width of the part with positions, cached once for all heads; 0 without one.
        v_head_dim: width of a value's head.
        gate_width: outputs of the projection whose sigmoid multiplies what attention gives; 0 without one.
        index: the sparse index over the cache (DeepSeek Sparse Attention), where there is one.

    Raises:
        UserError: a size is no positive whole number, or an index of its own has no compressed queries to work on.
    """

    kind: ClassVar[str] = "MLA"
    num_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    gate_width: int = 0
    index: SparseIndex | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim")
        check_sizes(self, "qk_rope_head_dim", "gate_width", least=0)
        if self.q_lora_rank is not None:
            check_sizes(self, "q_lora_rank")
        if self.gate_width not in (0, self.num_heads, self.num_heads * self.v_head_dim):
            raise UserError(
                "gate_width of LatentAttention",
                value=self.gate_width,
                fix=f"give 0, {self.num_heads} or {self.num_heads * self.v_head_dim}",
            )
        if self.index is not None and not self.index.shared and self.q_lora_rank is None:
            raise UserError("q_lora_rank of LatentAttention", value=None, fix="an index works on compressed queries")

    @property
    def qk_head_dim(self) -> int:
        """Width of a query's and a key's head: both parts."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Down and up for queries, down and up for keys with values, the output, and the index's where it has its own.

        In decode the up-projection of keys and values is absorbed into queries and outputs; its weights are the same.
        """
        heads, index = self.num_heads, self.index
        if self.q_lora_rank is None:
            found = [Projection("q_proj", hidden_size, heads * self.qk_head_dim)]
        else:
            found = [
                Projection("q_a_proj", hidden_size, self.q_lora_rank),
                Projection("q_b_proj", self.q_lora_rank, heads * self.qk_head_dim),
            ]
        found += [
            Projection("kv_a_proj", hidden_size, self.kv_lora_rank + self.qk_rope_head_dim),
            Projection("kv_b_proj", self.kv_lora_rank, heads * (self.qk_nope_head_dim + self.v_head_dim)),
        ]
        if self.gate_width:
            found.append(Projection("gate_proj", hidden_size, self.gate_width))
        found.append(Projection("o_proj", heads * self.v_head_dim, hidden_size))
        if index is not None and not index.shared:
            assert self.q_lora_rank is not None  # as __post_init__ has checked
            found += [
                Projection("index_q_proj", self.q_lora_rank, index.num_heads * index.head_dim),
                *index.key_projections(hidden_size),
                Projection("index_weights_proj", hidden_size, index.num_heads),
            ]
        return tuple(found)

    def attended_tokens(self, context: int) -> int:
        """Tokens that the last of ``context`` tokens attends to: min(context, topk of the index)."""
        return context if self.index is None else min(context, self.index.topk)

    def cached_values(self, context: int) -> int:
        """(kv_lora_rank + qk_rope_head_dim) x context."""
        return context * (self.kv_lora_rank + self.qk_rope_head_dim)

    def index_values(self, context: int) -> int:
        """head_dim of the index x context, where the layer has an index of its own."""
        return 0 if self.index is None else self.index.cached_values(context)

    @property
    def cached_values_per_token(self) -> float:
        """kv_lora_rank + qk_rope_head_dim."""
        return float(self.cached_values(1))

    @property
    def index_values_per_token(self) -> float:
        """As :meth:`index_values` of a token."""
        return 0.0 if self.index is None else self.index.cached_values_per_entry

    @property
    def label(self) -> str:
        """``128 heads of 128+64 and 128, ranks 1536 and 512``."""
        ranks = f"rank {self.kv_lora_rank}" if self.q_lora_rank is None else (
            f"ranks {self.q_lora_rank} and {self.kv_lora_rank}"
        )  # fmt: skip
        return ", ".join(
            (
                f"{self.num_heads} heads of {self.qk_nope_head_dim}+{self.qk_rope_head_dim} and {self.v_head_dim}",
                ranks,
                *(["output gate"] if self.gate_width else []),
                *([self.index.label] if self.index else []),
            )
        )


@dataclass(frozen=True, kw_only=True)
class CompressedAttention(Caching):
    """Attention over a short window and over compressed entries of all earlier tokens (DeepSeek-V4).

    One vector of ``head_dim`` is key and value of a token, for all heads. The last ``window`` tokens are kept as they
    are; of every ``ratio`` tokens one more entry is kept, the weighted mean of their vectors. With an index a query
    attends to its ``topk`` best entries (compressed sparse attention, CSA; the entries and the index's keys are then
    made of two overlapping groups, so that their projections are twice as wide); without one to all of them (heavily
    compressed attention, HCA). ``ratio`` 0 is the window alone.

    Args:
        num_heads: query heads.
        head_dim: width of a head, and of the one vector that is cached for a token or an entry.
        q_lora_rank: width to which queries are compressed.
        o_groups: groups of heads, each of which has an output projection of its own.
        o_lora_rank: width that each group is projected to before the last projection.
        window: tokens that are kept as they are.
        ratio: tokens of a compressed entry; 0 without one.
        index: chooses among the entries; None where a query attends to all.

    Raises:
        UserError: a size is no positive whole number, the groups do not divide the heads, or there is an index over no
            entries.
    """

    kind: ClassVar[str] = "compressed"
    num_heads: int
    head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    window: int
    ratio: int = 0
    index: SparseIndex | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "head_dim", "q_lora_rank", "o_groups", "o_lora_rank", "window")
        check_sizes(self, "ratio", least=0)
        if self.num_heads % self.o_groups:
            raise UserError(
                "o_groups of CompressedAttention",
                value=self.o_groups,
                fix=f"give a divisor of the {self.num_heads} heads",
            )
        if self.index is not None and not self.ratio:
            raise UserError("ratio of CompressedAttention", value=0, fix="an index chooses among compressed entries")

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Queries down and up, the cached vector, the grouped output, the compressor's and the index's."""
        found = [
            Projection("q_a_proj", hidden_size, self.q_lora_rank),
            Projection("q_b_proj", self.q_lora_rank, self.num_heads * self.head_dim),
            Projection("kv_proj", hidden_size, self.head_dim),
            Projection("o_a_proj", self.num_heads // self.o_groups * self.head_dim, self.o_lora_rank, self.o_groups),
            Projection("o_b_proj", self.o_groups * self.o_lora_rank, hidden_size),
        ]
        groups = 1 if self.index is None else 2
        if self.ratio:
            found += [
                Projection("compressor_kv_proj", hidden_size, groups * self.head_dim),
                Projection("compressor_gate_proj", hidden_size, groups * self.head_dim),
            ]
        if (index := self.index) is not None and not index.shared:
            found += [
                Projection("index_q_proj", self.q_lora_rank, index.num_heads * index.head_dim),
                Projection("index_weights_proj", hidden_size, index.num_heads),
                Projection("index_kv_proj", hidden_size, groups * index.head_dim),
                Projection("index_gate_proj", hidden_size, groups * index.head_dim),
            ]
        return tuple(found)

    def entries(self, context: int) -> int:
        """Compressed entries of ``context`` tokens: context / ratio, rounded down."""
        return context // self.ratio if self.ratio else 0

    def attended_tokens(self, context: int) -> int:
        """Vectors that the last of ``context`` tokens attends to: of the window, and entries (at most ``topk``)."""
        entries = self.entries(context)
        return min(context, self.window) + (entries if self.index is None else min(entries, self.index.topk))

    def cached_values(self, context: int) -> int:
        """head_dim x (min(context, window) + context / ratio)."""
        return self.head_dim * (min(context, self.window) + self.entries(context))

    def index_values(self, context: int) -> int:
        """head_dim of the index x context / ratio, where the layer has an index of its own."""
        return 0 if self.index is None else self.index.cached_values(self.entries(context))

    @property
    def cached_values_per_token(self) -> float:
        """head_dim / ratio: the window is full in a long sequence."""
        return self.head_dim / self.ratio if self.ratio else 0.0

    @property
    def index_values_per_token(self) -> float:
        """head_dim of the index / ratio, where the layer has an index of its own."""
        return 0.0 if self.index is None else self.index.cached_values_per_entry / self.ratio

    @property
    def label(self) -> str:
        """``64 heads of 512, window 128, an entry per 4 tokens, index of 64 heads of 128, best 512``."""
        return ", ".join(
            (
                f"{self.num_heads} heads of {self.head_dim}",
                f"window {self.window}",
                *([f"an entry per {self.ratio} tokens"] if self.ratio else []),
                *([self.index.label] if self.index else []),
            )
        )
