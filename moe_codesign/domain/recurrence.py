"""Layers that stand in attention's place and keep a state of fixed size: linear attention and state-space models.

They have the faces that :mod:`moe_codesign.domain.attention` describes. Their time and memory do not grow with the
context.
"""

from dataclasses import dataclass
from typing import ClassVar

from moe_codesign.domain.attention import Projection
from moe_codesign.domain.sizes import check_flags, check_sizes
from moe_codesign.errors import UserError


class _Recurrent:
    """What layers with a state of fixed size have in common: no cache that grows."""

    cached_values_per_token: ClassVar[float] = 0.0
    index_values_per_token: ClassVar[float] = 0.0

    def attended_tokens(self, context: int) -> int:
        """0: a token meets the state alone."""
        return 0

    def cached_values(self, context: int) -> int:
        """0: nothing grows with the context."""
        return 0

    def index_values(self, context: int) -> int:
        """0: there is no index."""
        return 0


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNet(_Recurrent):
    """Linear attention by the gated delta rule (Qwen3-Next, Qwen3.5): a matrix of state per value head.

    Args:
        num_k_heads: heads of queries and of keys; they divide the value heads.
        num_v_heads: heads of values.
        k_head_dim: width of a query's and a key's head.
        v_head_dim: width of a value's head.
        conv_kernel: tokens that the causal convolution over queries, keys and values spans.

    Raises:
        UserError: a size is no positive whole number, or heads do not divide.
    """

    kind: ClassVar[str] = "gated delta net"
    num_k_heads: int
    num_v_heads: int
    k_head_dim: int
    v_head_dim: int
    conv_kernel: int

    def __post_init__(self) -> None:
        check_sizes(self, "num_k_heads", "num_v_heads", "k_head_dim", "v_head_dim", "conv_kernel")
        if self.num_v_heads % self.num_k_heads:
            raise UserError(
                "num_k_heads of GatedDeltaNet",
                value=self.num_k_heads,
                fix=f"give a divisor of the {self.num_v_heads} value heads",
            )

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.num_k_heads * self.k_head_dim + self.num_v_heads * self.v_head_dim

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Queries, keys and values in one; the output's gate z; the two gates of each value head; the output."""
        values = self.num_v_heads * self.v_head_dim
        return (
            Projection("in_proj_qkv", hidden_size, self.channels),
            Projection("in_proj_z", hidden_size, values),
            Projection("in_proj_ba", hidden_size, 2 * self.num_v_heads),
            Projection("out_proj", values, hidden_size),
        )

    @property
    def small_parameters(self) -> int:
        """Weights of the convolution: channels x conv_kernel."""
        return self.channels * self.conv_kernel

    @property
    def state_values(self) -> int:
        """num_v_heads x k_head_dim x v_head_dim."""
        return self.num_v_heads * self.k_head_dim * self.v_head_dim

    @property
    def convolution_values(self) -> int:
        """channels x (conv_kernel - 1): the earlier tokens that the convolution still needs."""
        return self.channels * (self.conv_kernel - 1)

    @property
    def label(self) -> str:
        """``16 key heads of 128, 64 value heads of 128, convolution of 4``."""
        return (
            f"{self.num_k_heads} key heads of {self.k_head_dim}, {self.num_v_heads} value heads of {self.v_head_dim}, "
            f"convolution of {self.conv_kernel}"
        )


@dataclass(frozen=True, kw_only=True)
class KimiDeltaAttention(_Recurrent):
    """Kimi's delta attention (KDA, Kimi-Linear): the gated delta rule with a gate for each channel of a key.

    Args:
        num_heads: heads of queries, keys and values.
        head_dim: width of a head.
        conv_kernel: tokens that the causal convolution spans.
        full_rank_gate: whether the output's gate is one full projection, instead of two of rank ``head_dim``.

    Raises:
        UserError: a size is no positive whole number.
    """

    kind: ClassVar[str] = "KDA"
    num_heads: int
    head_dim: int
    conv_kernel: int
    full_rank_gate: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "head_dim", "conv_kernel")
        check_flags(self, "full_rank_gate")

    @property
    def width(self) -> int:
        """Of all heads together."""
        return self.num_heads * self.head_dim

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Queries, keys, values; the decay's gate by way of ``head_dim``; beta; the output's gate; the output."""
        down = Projection("f_a_proj", hidden_size, self.head_dim), Projection("f_b_proj", self.head_dim, self.width)
        gate = (
            (Projection("g_proj", hidden_size, self.width),)
            if self.full_rank_gate
            else (Projection("g_a_proj", hidden_size, self.head_dim), Projection("g_b_proj", self.head_dim, self.width))
        )
        return (
            Projection("qkv_proj", hidden_size, 3 * self.width),
            *down,
            Projection("b_proj", hidden_size, self.num_heads),
            *gate,
            Projection("o_proj", self.width, hidden_size),
        )

    @property
    def small_parameters(self) -> int:
        """Weights of the convolution: 3 x num_heads x head_dim x conv_kernel."""
        return 3 * self.width * self.conv_kernel

    @property
    def state_values(self) -> int:
        """num_heads x head_dim x head_dim."""
        return self.num_heads * self.head_dim**2

    @property
    def convolution_values(self) -> int:
        """3 x num_heads x head_dim x (conv_kernel - 1)."""
        return 3 * self.width * (self.conv_kernel - 1)

    @property
    def label(self) -> str:
        """``32 heads of 128, convolution of 4``."""
        return f"{self.num_heads} heads of {self.head_dim}, convolution of {self.conv_kernel}"


@dataclass(frozen=True, kw_only=True)
class ShortConvolution(_Recurrent):
    """A gated convolution over few tokens (LFM2): three projections of a token, of which one is convolved.

    Args:
        channels: of the convolution; the width of a token.
        kernel: tokens that the causal convolution spans.

    Raises:
        UserError: a size is no positive whole number.
    """

    kind: ClassVar[str] = "convolution"
    state_values: ClassVar[int] = 0
    channels: int
    kernel: int

    def __post_init__(self) -> None:
        check_sizes(self, "channels", "kernel")

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """The gates and what is convolved in one; the output."""
        return (
            Projection("in_proj", hidden_size, 3 * self.channels),
            Projection("out_proj", self.channels, hidden_size),
        )

    @property
    def small_parameters(self) -> int:
        """Weights of the convolution: channels x kernel."""
        return self.channels * self.kernel

    @property
    def convolution_values(self) -> int:
        """channels x (kernel - 1)."""
        return self.channels * (self.kernel - 1)

    @property
    def label(self) -> str:
        """``2048 channels, kernel of 3``."""
        return f"{self.channels} channels, kernel of {self.kernel}"


@dataclass(frozen=True, kw_only=True)
class LightningAttention(_Recurrent):
    """Linear attention with a fixed decay for each head (MiniMax-Text-01 and M1).

    Args:
        num_heads: heads of queries, keys and values.
        head_dim: width of a head.

    Raises:
        UserError: a size is no positive whole number.
    """

    kind: ClassVar[str] = "lightning"
    small_parameters: ClassVar[int] = 0
    convolution_values: ClassVar[int] = 0
    num_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "head_dim")

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Queries, keys and values in one; the output's gate; the output."""
        width = self.num_heads * self.head_dim
        return (
            Projection("qkv_proj", hidden_size, 3 * width),
            Projection("output_gate", hidden_size, width),
            Projection("out_proj", width, hidden_size),
        )

    @property
    def state_values(self) -> int:
        """num_heads x head_dim x head_dim."""
        return self.num_heads * self.head_dim**2

    @property
    def label(self) -> str:
        """``64 heads of 128``."""
        return f"{self.num_heads} heads of {self.head_dim}"


@dataclass(frozen=True, kw_only=True)
class Mamba2(_Recurrent):
    """A Mamba-2 layer (Nemotron-H, Granite-4): a scalar decay for each head.

    Args:
        num_heads: heads.
        head_dim: channels of a head.
        state_size: state of each channel.
        n_groups: groups of heads that share their input and output matrices B and C.
        conv_kernel: tokens that the causal convolution spans.

    Raises:
        UserError: a size is no positive whole number, or the groups do not divide the heads.
    """

    kind: ClassVar[str] = "Mamba-2"
    num_heads: int
    head_dim: int
    state_size: int
    n_groups: int
    conv_kernel: int

    def __post_init__(self) -> None:
        check_sizes(self, "num_heads", "head_dim", "state_size", "n_groups", "conv_kernel")
        if self.num_heads % self.n_groups:
            raise UserError(
                "n_groups of Mamba2", value=self.n_groups, fix=f"give a divisor of the {self.num_heads} heads"
            )

    @property
    def inner(self) -> int:
        """Channels: num_heads x head_dim."""
        return self.num_heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution: the inner ones, and B and C of each group."""
        return self.inner + 2 * self.n_groups * self.state_size

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Gate, channels of the convolution and steps in one; the output."""
        return (
            Projection("in_proj", hidden_size, self.inner + self.channels + self.num_heads),
            Projection("out_proj", self.inner, hidden_size),
        )

    @property
    def small_parameters(self) -> int:
        """Weights of the convolution: channels x conv_kernel."""
        return self.channels * self.conv_kernel

    @property
    def state_values(self) -> int:
        """num_heads x head_dim x state_size."""
        return self.inner * self.state_size

    @property
    def convolution_values(self) -> int:
        """channels x (conv_kernel - 1)."""
        return self.channels * (self.conv_kernel - 1)

    @property
    def label(self) -> str:
        """``64 heads of 64, state 128, 8 groups, convolution of 4``."""
        return (
            f"{self.num_heads} heads of {self.head_dim}, state {self.state_size}, {self.n_groups} groups, "
            f"convolution of {self.conv_kernel}"
        )


@dataclass(frozen=True, kw_only=True)
class Mamba1(_Recurrent):
    """A Mamba layer of the first kind (Jamba): a decay for each channel and state.

    Args:
        inner: channels.
        state_size: state of each channel.
        dt_rank: width by way of which the steps are projected.
        conv_kernel: tokens that the causal convolution spans.

    Raises:
        UserError: a size is no positive whole number.
    """

    kind: ClassVar[str] = "Mamba"
    inner: int
    state_size: int
    dt_rank: int
    conv_kernel: int

    def __post_init__(self) -> None:
        check_sizes(self, "inner", "state_size", "dt_rank", "conv_kernel")

    def projections(self, hidden_size: int) -> tuple[Projection, ...]:
        """Channels and their gate in one; steps with B and C; the steps' second; the output."""
        return (
            Projection("in_proj", hidden_size, 2 * self.inner),
            Projection("x_proj", self.inner, self.dt_rank + 2 * self.state_size),
            Projection("dt_proj", self.dt_rank, self.inner),
            Projection("out_proj", self.inner, hidden_size),
        )

    @property
    def small_parameters(self) -> int:
        """Weights of the convolution and the decays: inner x (conv_kernel + state_size)."""
        return self.inner * (self.conv_kernel + self.state_size)

    @property
    def state_values(self) -> int:
        """inner x state_size."""
        return self.inner * self.state_size

    @property
    def convolution_values(self) -> int:
        """inner x (conv_kernel - 1)."""
        return self.inner * (self.conv_kernel - 1)

    @property
    def label(self) -> str:
        """``8192 channels, state 16, convolution of 4``."""
        return f"{self.inner} channels, state {self.state_size}, convolution of {self.conv_kernel}"
