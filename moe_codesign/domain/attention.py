"""Attention of one layer that keeps keys and values of earlier tokens: what it multiplies and what it caches.

Every kind of attention, here, in :mod:`moe_codesign.domain.latent_attention` and in
:mod:`moe_codesign.domain.recurrence`, is a frozen dataclass with the same faces:

- ``projections(hidden_size)``: its matrices, from which its parameters and its dense GEMMs follow;
- ``small_parameters``: weights of convolutions and the like, which are no GEMM;
- ``cached_values(context)`` and ``index_values(context)``: numbers that one sequence of ``context`` tokens keeps, keys
  and values and the keys of an index over them; ``cached_values_per_token`` and ``index_values_per_token``: what each
  further token of a long sequence adds to them;
- ``state_values`` and ``convolution_values``: numbers that one sequence keeps whatever its length.

Biases and norms are left out: they are far below a thousandth of a model's parameters.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from moe_codesign.domain.sizes import check_flags, check_sizes
from moe_codesign.errors import UserError


class Projection(NamedTuple):
    """Matrices that tokens are multiplied with, all of one size.

    Args:
        name: of the matrix, as modelling code calls it.
        inputs: width K of what goes in.
        outputs: width N of what comes out.
        copies: matrices of this size, each with tokens' inputs of its own (a block-diagonal matrix has several).
    """

    name: str
    inputs: int
    outputs: int
    copies: int = 1

    @property
    def parameters(self) -> int:
        """Weights of all copies."""
        return self.inputs * self.outputs * self.copies


@dataclass(frozen=True, kw_only=True)
class SparseIndex:
    """A light index that chooses which cached tokens a query attends to (the lightning indexer of DeepSeek-V3.2).

    Each query scores every cached key of the index, ``num_heads`` times, and attends to the ``topk`` best.

    Args:
        num_heads: heads of the index's queries; its keys have one head.
        head_dim: width of such a head.
        topk: cached entries that a query attends to.
        block_size: entries that are chosen together; 1 where they are chosen one by one.
        pooled: whether the keys of a block are pooled into one, by weights of a projection of its own (GLM-5.3-Flash).
        shared: whether the layer uses the choice of an earlier layer: it then has neither matrices nor keys of its own.

    Raises:
        UserError: a size is no positive whole number, or ``topk`` is no whole number of blocks.
    """

    num_heads: int
    head_dim: int
    topk: int
    block_size: int = 1
    pooled: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "head_dim", "topk", "block_size")
        check_flags(self, "pooled", "shared")
        if self.topk % self.block_size:
            raise UserError("topk of SparseIndex", value=self.topk, fix=f"give a multiple of block {self.block_size}")

    def cached_values(self, entries: int) -> int:
        """Numbers that it keeps of cached tokens or entries: head_dim for each, or for each block of pooled ones.

        0 where the choice is another layer's.
        """
        keys = -(-entries // self.block_size) if self.pooled else entries
        return 0 if self.shared else keys * self.head_dim

    @property
    def cached_values_per_entry(self) -> float:
        """Numbers that each further token or entry adds: head_dim, or its share of a block where they are pooled."""
        return 0.0 if self.shared else self.head_dim / (self.block_size if self.pooled else 1)

    def key_projections(self, hidden_size: int) -> list[Projection]:
        """Of the keys, and of the weights by which they are pooled; none where the choice is another layer's."""
        if self.shared:
            return []
        gate = [Projection("index_gate_proj", hidden_size, self.head_dim)] if self.pooled else []
        return [Projection("index_k_proj", hidden_size, self.head_dim), *gate]

    @property
    def label(self) -> str:
        """``index of 64 heads of 128, best 2048``, and whether the choice is another layer's."""
        own = "choice of an earlier layer" if self.shared else f"index of {self.num_heads} heads of {self.head_dim}"
        return f"{own}, best {self.topk}"


class Caching:
    """What attention with a cache has in common: it keeps no state of fixed size."""

    state_values: ClassVar[int] = 0
    convolution_values: ClassVar[int] = 0
    small_parameters: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class GroupedQueryAttention(Caching):
    """Softmax attention whose query heads share key and value heads (multi-head and multi-query are its two ends).

    Args:
        num_heads: query heads.
        num_kv_heads: key heads, and value heads; they divide the query heads.
        head_dim: width of a query's and a key's head.
        v_head_dim: width of a value's head; None, the usual, where it is ``head_dim``.
        window: tokens, itself among them, that a token attends to; None where it attends to all before it.
        chunked: whether ``window`` is a chunk that attention does not cross, instead of a window that slides.
        gate_width: outputs of the projection whose sigmoid multiplies what attention gives: 0 without one,
            ``num_heads * v_head_dim`` (Qwen3-Next) or ``num_heads`` (Step-3.5).
        values_are_keys: whether values are made of the keys' projection, so that there is no projection of values.
        sinks: whether each head has a learned sink, a logit that takes weight from all tokens.
        index: the sparse index over the cache, where there is one.

    Raises:
        UserError: a size is no positive whole number, or heads do not divide.
    """

    kind: ClassVar[str] = "GQA"
    num_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    window: int | None = None
    chunked: bool = False
    gate_width: int = 0
    values_are_keys: bool = False
    sinks: bool = False
    index: SparseIndex | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "num_kv_heads", "head_dim")
        check_sizes(self, "gate_width", least=0)
        check_sizes(self, *(name for name in ("v_head_dim", "window") if getattr(self, name) is not None))
        check_flags(self, "chunked", "values_are_keys", "sinks")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                "num_kv_heads of GroupedQueryAttention",
                value=self.num_kv_heads,
                fix=f"give a divisor of the {self.num_heads} query heads",
            )
        if self.chunked and self.window is None:
            raise UserError("chunked of GroupedQueryAttention", value=True, fix="give the chunk's size as window")
        if self.gate_width not in (0, self.num_heads, self.num_heads * self.value_dim):
            raise UserError(
                "gate_width of GroupedQueryAttention",
                value=self.gate_width,
                fix=f"give 0, {self.num_heads} or {self.num_heads * self.value_dim}: a gate a head, or a gate a value",
            )
        if self.values_are_keys and self.value_dim != self.head_dim:
            raise UserError("v_head_dim of GroupedQueryAttention", value=self.v_head_dim, fix="its values are its keys")

    @property
    def value_dim(self) -> int:
        """Width of a value's head."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Queries, keys, values, the gate where there is one, the output, and the index's where it has its own."""
        heads = self.num_kv_heads
        found = [
            Projection("q_proj", hidden_size, self.num_heads * self.head_dim),
            Projection("k_proj", hidden_size, heads * self.head_dim),
        ]
        if not self.values_are_keys:
            found.append(Projection("v_proj", hidden_size, heads * self.value_dim))
        if self.gate_width:
            found.append(Projection("gate_proj", hidden_size, self.gate_width))
        found.append(Projection("o_proj", self.num_heads * self.value_dim, hidden_size))
        if self.index is not None and not self.index.shared:
            found += [
                Projection("index_q_proj", hidden_size, self.index.num_heads * self.index.head_dim),
                *self.index.key_projections(hidden_size),
            ]
        return tuple(found)

    def attended_tokens(self, context: int) -> int:
        """Tokens that the last of ``context`` tokens attends to: min(context, window, topk of the index).

        Under ``chunked`` it is the most that a token attends to: the last of its chunk.
        """
        most = [context, self.window, self.index.topk if self.index else None]
        return min(one for one in most if one is not None)

    def cached_values(self, context: int) -> int:
        """num_kv_heads x (head_dim + v_head_dim) x min(context, window)."""
        tokens = context if self.window is None else min(context, self.window)
        return tokens * self.num_kv_heads * (self.head_dim + self.value_dim)

    def index_values(self, context: int) -> int:
        """head_dim of the index x context, where the layer has an index of its own."""
        return 0 if self.index is None else self.index.cached_values(context)

    @property
    def cached_values_per_token(self) -> float:
        """As :meth:`cached_values` of a token: 0 of a window, which is full in a long sequence."""
        return 0.0 if self.window is not None else float(self.cached_values(1))

    @property
    def index_values_per_token(self) -> float:
        """As :meth:`index_values` of a token."""
        return 0.0 if self.index is None else self.index.cached_values_per_entry

    @property
    def label(self) -> str:
        """``64 heads, 8 KV heads of 128, window 128``."""
        widths = f"{self.head_dim}" if self.value_dim == self.head_dim else f"{self.head_dim} and {self.value_dim}"
        return ", ".join(
            (
                f"{self.num_heads} heads, {self.num_kv_heads} KV heads of {widths}",
                *([f"{'chunks of' if self.chunked else 'window'} {self.window}"] if self.window else []),
                *(["output gate"] if self.gate_width else []),
                *(["sinks"] if self.sinks else []),
                *([self.index.label] if self.index else []),
            )
        )
