"""What a serving stack does beside and between operations, fitted to measured runs of whole models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StackRules:
    """A stack's habits as numbers, the same for every model and chip.

    Args:
        step_us: of a pass: the scheduler, sampling, what the host does between two passes.
        layer_us: of a layer: norms, rotary embedding, writing the cache, gaps between kernels.
        bytes: time of activations that are moved between operations, over that at full bandwidth.
        shared_hidden: share of the shared experts' time that lies behind that of the routed ones, on a stream of their
            own.
        attention, experts, communication: time of these in serving over what they take when they are timed alone.
        prefill: time of a prompt's passes that others wait for, over that of the operations.
        ttft_ms: fixed time to the first token: the request's way in, tokenising, the queue.
        ttft_prefill: time of a request's own prompt, and of those before it, over that of its operations.
        ttft_steps: decode passes that a new request waits for.
        error: half width of the logarithm of a token's time that nine in ten measured runs do not exceed.
        ttft_error: the same of the time to the first token.
    """

    step_us: float = 500.0
    layer_us: float = 10.0
    bytes: float = 1.5
    shared_hidden: float = 0.0
    attention: float = 1.0
    experts: float = 1.0
    communication: float = 1.0
    prefill: float = 1.0
    ttft_ms: float = 20.0
    ttft_prefill: float = 1.5
    ttft_steps: float = 0.5
    error: float = 0.3
    ttft_error: float = 0.7


ALONE = StackRules(step_us=0.0, layer_us=0.0, bytes=0.0, ttft_ms=0.0, ttft_steps=0.0)
"""Rules under which a pass is its operations and nothing else. Prompts' passes are timed by them: they share the
scheduler with the decode pass that they ride on, and ``prefill`` has the rest. The rules are fitted so."""

FACTOR_OF = {
    "attention": "attention",
    "experts": "experts",
    "all-reduce": "communication",
    "dispatch": "communication",
    "combine": "communication",
}
"""The factor of a part of a pass, by the part; others run as they were timed."""
