"""Serving from forward passes: continuous batching of decode and prefill on the same chips."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.operations.answer import OperationTimes
from moe_codesign.cost.step.forward import Passes
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import ALONE, StackRules
from moe_codesign.cost.step.timed import PassTimes, time_passes
from moe_codesign.domain.model_shape import ModelShape

CHUNK_TOKENS = 8192.0
"""Tokens of prefill that a pass takes at most: the usual setting of the stacks on large GPUs."""


@dataclass(frozen=True, eq=False)
class Load:
    """What is served, as columns [deployments].

    Args:
        concurrency: requests of one copy of attention that are under way.
        isl: tokens of a prompt. osl: tokens of an answer.
        tp, dp, moe_tp, ep: see :class:`moe_codesign.domain.deployment.ModelSplit`.
    """

    concurrency: F64
    isl: F64
    osl: F64
    tp: F64
    dp: F64
    moe_tp: F64
    ep: F64

    def __len__(self) -> int:
        return len(self.concurrency)


@dataclass(frozen=True, eq=False)
class Served:
    """What comes of it, as columns [deployments].

    Args:
        tpot_ms: time for a token after the first. ttft_ms: time to the first.
        spread: half width of the logarithm of a token's time: of the operations' intervals and of the rules' error
            together.
        decode: a pass of decode. prefill: a pass of one prompt's chunk.
        prefill_us: time of prefills that falls on one pass of decode.
        notes: why the times deserve less trust.
    """

    tpot_ms: F64
    ttft_ms: F64
    spread: F64
    decode: PassTimes
    prefill: PassTimes
    prefill_us: F64
    notes: tuple[str, ...]


def serve(model: ModelShape, load: Load, modes: Modes, operations: OperationTimes, rules: StackRules) -> Served:
    """Time for a token and to the first one under continuous batching.

    In a steady state each request is decoded ``osl`` times and prefilled once, so that of each ``osl`` passes as many
    take a prefill as requests are under way: a token waits for its own decode pass and for its share of prefills. A
    new request waits for decode passes under way and for its own prefill.

    Raises:
        UserError: a kind of attention or an operation of which nothing is known.
    """
    split = {"tp": load.tp, "dp": load.dp, "moe_tp": load.moe_tp, "ep": load.ep}
    one = np.ones(len(load))
    decode = time_passes(
        model, Passes("decode", load.concurrency, one, load.isl + load.osl / 2, **split), modes, operations, rules
    )
    # A prompt longer than a chunk is taken in chunks, each after the others; of shorter ones a chunk takes several.
    chunks = np.ceil(load.isl / CHUNK_TOKENS)
    tokens = np.maximum(np.round(load.isl / chunks), 1.0)
    past = np.floor((load.isl - tokens) / 2)
    prefill = time_passes(model, Passes("prefill", one, tokens, past, **split), modes, operations, ALONE)
    together = np.clip(np.floor(CHUNK_TOKENS / load.isl), 1, np.maximum(load.concurrency, 1))
    several = time_passes(model, Passes("prefill", together, tokens, past, **split), modes, operations, ALONE)
    prefill_us = rules.prefill * chunks * several.latency_us / together * load.concurrency / load.osl
    tpot_us = decode.latency_us + prefill_us
    ttft_us = (
        1e3 * rules.ttft_ms + rules.ttft_prefill * chunks * prefill.latency_us + rules.ttft_steps * decode.latency_us
    )
    spread = np.hypot(decode.spread_us / decode.latency_us, rules.error)
    notes = tuple(dict.fromkeys((*decode.notes, *prefill.notes)))
    return Served(1e-3 * tpot_us, 1e-3 * ttft_us, spread, decode, prefill, prefill_us, notes)
