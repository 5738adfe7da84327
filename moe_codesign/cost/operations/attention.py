"""Attention with keys and values for heads of their own (multi-head, grouped-query), in decode and in prefill."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes, joined, missed, waves
from moe_codesign.cost.operations.precision import BYTES, flops_per_us

_VARIANTS = ("bfloat16/bfloat16", "bfloat16/fp8", "fp8/fp8")
"""Data type of the products, then of the keys and values that are kept."""
_SPLITS = (1, 2, 4, 8, 16, 32, 64, 128)


def _shape_key(sizes: Sizes) -> list[str]:
    return [
        f"{int(heads)}-{int(kv)}-{int(width)}"
        for heads, kv, width in zip(sizes["num_heads"], sizes["num_kv_heads"], sizes["head_dim"], strict=True)
    ]


def _types(variant: str) -> tuple[str, float]:
    product, kept = variant.split("/")
    return product, BYTES[kept]


@dataclass(frozen=True)
class DecodeCoefficients(Coefficients):
    """What is fitted of attention in decode.

    Args:
        matrix: time of products over that at peak, where query heads fill a tile of 16 rows.
        step_us: of 64 tokens of a program that is no product.
        program_us: start and end of a program.
        memory: time of reading keys and values over that at full bandwidth.
        share: share of the cores whose programs are enough to fill the memory's bandwidth.
        launch_us: fixed time. sequence_ns: what each sequence adds to it, such as its page table.
        overlap: exponent by which the sides join, over 2.
        split_us: fixed time of adding the parts of a split. reduce: time of adding over that of their bytes at the
            L2's bandwidth.
        kept: share of the L2 that still holds keys and values from the run before. held: least share that is fetched.
    """

    matrix: float = 1.5
    step_us: float = 0.1
    program_us: float = 1.0
    memory: float = 1.2
    share: float = 0.5
    launch_us: float = 5.0
    sequence_ns: float = 5.0
    overlap: float = 1.0
    split_us: float = 2.0
    reduce: float = 1.0
    kept: float = 0.5
    held: float = 0.5

    least: ClassVar[dict[str, float]] = {"matrix": 1.0, "memory": 1.0}


class DecodeAttention:
    """One new token of each sequence against the ``context`` tokens before it, or the last ``window`` of them (0: all).

    Keys and values may be split among programs, whose parts are then added.
    """

    name = "decode_attention"
    columns = ("batch", "context", "num_heads", "num_kv_heads", "head_dim", "window")
    variants = _VARIANTS
    coefficients = DecodeCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return _shape_key(sizes)

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        product, item = _types(variant)
        seen = _seen(sizes)
        flops = 4 * sizes["batch"] * sizes["num_heads"] * sizes["head_dim"] * seen
        moved = _kv_bytes(sizes, seen, item) + 4 * sizes["batch"] * sizes["num_heads"] * sizes["head_dim"]
        return Bounds(flops / flops_per_us(rates.flops, product, rates.chip), moved / rates.bytes)

    def physics_us(self, rates: Rates, variant: str, x: DecodeCoefficients, sizes: Sizes) -> F64:
        product, item = _types(variant)
        seen = _seen(sizes)
        read = _kv_bytes(sizes, seen, item)
        fetched = read * np.maximum(missed(rates, x.kept, read), min(x.held, 1.0)) / rates.bytes
        group = np.ceil(sizes["num_heads"] / sizes["num_kv_heads"] / 16) * 16
        programs = sizes["batch"] * sizes["num_kv_heads"]
        per_core = flops_per_us(rates.flops, product, rates.chip) / rates.cores
        token = x.matrix * 4 * group * sizes["head_dim"] / per_core + x.step_us / 64
        written = 4.0 * sizes["batch"] * sizes["num_heads"] * sizes["head_dim"]
        best = np.full(len(seen), np.inf)
        for split in _SPLITS:
            fill = programs * split / rates.cores
            core = waves(fill) * (np.ceil(seen / split / 64) * 64 * token + x.program_us)
            memory = x.memory * fetched / np.clip(fill / x.share, 1e-3, 1.0)
            time = joined(2 + x.overlap, core, memory)
            if split > 1:
                time = time + x.split_us + x.reduce * split * written / rates.cache_bytes_per_us
            best = np.minimum(best, time)
        return best + x.launch_us + 1e-3 * x.sequence_ns * sizes["batch"]

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        seen = _seen(sizes)
        _, item = _types(variant)
        return [
            np.log(sizes["batch"]), np.log(seen), np.log(sizes["num_heads"]), np.log(sizes["num_kv_heads"]),
            np.log(sizes["num_heads"] / sizes["num_kv_heads"]), sizes["head_dim"], np.log(sizes["context"] + 1),
            sizes["window"], np.log(sizes["batch"] * sizes["num_kv_heads"] / rates.cores),
            np.log(sizes["batch"] * sizes["num_heads"] / rates.cores),
            np.log(_kv_bytes(sizes, seen, item) / rates.cache_bytes),
        ]  # fmt: skip


def _seen(sizes: Sizes) -> F64:
    tokens = sizes["context"] + 1
    return np.where(sizes["window"] > 0, np.minimum(tokens, sizes["window"]), tokens)


def _kv_bytes(sizes: Sizes, tokens: F64, item: float) -> F64:
    return 2 * item * sizes["batch"] * sizes["num_kv_heads"] * sizes["head_dim"] * tokens


@dataclass(frozen=True)
class PrefillCoefficients(Coefficients):
    """What is fitted of attention in prefill.

    Args:
        matrix: time of products over that at peak. softmax_us: of 128 queries against 128 tokens that is no product.
        program_us: start and end of a program.
        memory: time of reads and writes over that at full bandwidth.
        launch_us: fixed time. sequence_us: what each sequence adds.
        overlap: exponent by which the sides join, over 2.
    """

    matrix: float = 1.5
    softmax_us: float = 0.3
    program_us: float = 1.0
    memory: float = 1.2
    launch_us: float = 8.0
    sequence_us: float = 0.05
    overlap: float = 1.0

    least: ClassVar[dict[str, float]] = {"matrix": 1.0, "memory": 1.0}


class PrefillAttention:
    """``tokens`` new tokens of each of ``batch`` sequences after ``past`` others, causally, each token against those
    before it or the last ``window`` of them (0: all)."""

    name = "prefill_attention"
    columns = ("batch", "tokens", "past", "num_heads", "num_kv_heads", "head_dim", "window")
    variants = _VARIANTS
    coefficients = PrefillCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return _shape_key(sizes)

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        product, _ = _types(variant)
        flops = 4 * sizes["batch"] * sizes["num_heads"] * sizes["head_dim"] * _pairs(sizes)
        return Bounds(flops / flops_per_us(rates.flops, product, rates.chip), _moved(variant, sizes) / rates.bytes)

    def physics_us(self, rates: Rates, variant: str, x: PrefillCoefficients, sizes: Sizes) -> F64:
        product, _ = _types(variant)
        programs = sizes["batch"] * sizes["num_heads"] * np.ceil(sizes["tokens"] / 128)
        blocks = sizes["batch"] * sizes["num_heads"] * _blocks(sizes)
        per_core = flops_per_us(rates.flops, product, rates.chip) / rates.cores
        block = x.matrix * 4 * 128 * 128 * sizes["head_dim"] / per_core + x.softmax_us
        # Programs are of unequal length under a causal mask and are spread over the cores longest first.
        longest = np.ceil(_longest(sizes) / 128)
        fill = programs / rates.cores
        core = np.maximum(longest, blocks / rates.cores) * block + np.ceil(fill) * x.program_us
        memory = x.memory * _moved(variant, sizes) / rates.bytes
        return joined(2 + x.overlap, core, memory) + x.launch_us + x.sequence_us * sizes["batch"]

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        programs = sizes["batch"] * sizes["num_heads"] * np.ceil(sizes["tokens"] / 128) / rates.cores
        return [
            np.log(sizes["batch"]), np.log(sizes["tokens"]), np.log1p(sizes["past"]), np.log(sizes["num_heads"]),
            np.log(sizes["num_heads"] / sizes["num_kv_heads"]), sizes["head_dim"], sizes["window"],
            np.log(_pairs(sizes) / sizes["tokens"]), np.log(programs), programs / np.ceil(programs),
            np.log(sizes["batch"] * sizes["tokens"]),
        ]  # fmt: skip


def _longest(sizes: Sizes) -> F64:
    """Tokens that the last query sees, with the part of its tile that a window cuts off."""
    all_of_them = sizes["past"] + sizes["tokens"]
    return np.where(sizes["window"] > 0, np.minimum(all_of_them, sizes["window"] + 128), all_of_them)


def _pairs(sizes: Sizes) -> F64:
    """Pairs of a query and a token that it sees, of one sequence and head."""
    new, past = sizes["tokens"], sizes["past"]
    full = new * past + new * (new + 1) / 2
    window = np.where(sizes["window"] > 0, sizes["window"], np.inf)
    # The first queries see fewer than a window: query i sees min(past + i, window).
    fewer = np.clip(np.minimum(window, past + new) - past, 0, new)
    ramp = fewer * past + fewer * (fewer + 1) / 2
    rest = new - fewer
    return np.where(np.isinf(window), full, ramp + np.where(rest > 0, rest, 0) * np.where(rest > 0, window, 0.0))


def _blocks(sizes: Sizes) -> F64:
    """Tiles of 128 queries by 128 tokens that one sequence and head runs, those on the mask's edge whole."""
    queries = np.ceil(sizes["tokens"] / 128)
    return _pairs(sizes) / 128**2 + 0.5 * queries * np.where(sizes["window"] > 0, 2, 1)


def _moved(variant: str, sizes: Sizes) -> F64:
    """Bytes of queries, keys, values and results, each moved once."""
    _, item = _types(variant)
    tokens = sizes["past"] + sizes["tokens"]
    seen = np.where(sizes["window"] > 0, np.minimum(tokens, sizes["window"] + sizes["tokens"]), tokens)
    kept = 2 * item * sizes["num_kv_heads"] * seen
    return sizes["batch"] * sizes["head_dim"] * (kept + 4.0 * sizes["num_heads"] * sizes["tokens"])
