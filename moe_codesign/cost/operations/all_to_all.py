"""Dispatch and combine of expert parallelism: tokens to the ranks of their experts, and results back.

A token is sent once to each rank that holds one or more of its experts, however many those are.
"""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes


@dataclass(frozen=True)
class AllToAllCoefficients(Coefficients):
    """What is fitted of dispatch or combine.

    Args:
        launch_us: fixed time. rank_us: what each further rank adds, expert_ns each expert.
        token_ns: what each token adds, choice_ns each of its choices.
        link: time of the bytes that leave a rank over that at the link's bandwidth.
        memory: time of the bytes that are read and written over that at full bandwidth.
    """

    launch_us: float = 20.0
    rank_us: float = 0.5
    expert_ns: float = 10.0
    token_ns: float = 5.0
    choice_ns: float = 1.0
    link: float = 1.3
    memory: float = 1.0


def distinct_ranks(ranks: F64, top_k: F64, experts: F64) -> F64:
    """Ranks that a token's choices lie on, on average, where each set of experts is as likely as any other."""
    # A rank is missed where all choices fall on the other ranks' experts.
    own = experts / ranks
    missed = np.ones(len(ranks))
    for choice in range(int(np.max(top_k, initial=0))):
        left = np.maximum(experts - own - choice, 0) / np.maximum(experts - choice, 1)
        missed = np.where(choice < top_k, missed * left, missed)
    return ranks * (1 - missed)


class AllToAll:
    """``tokens`` of a rank, ``item_bytes`` for each of ``hidden`` numbers; variants name the phase and the mode."""

    name = "all_to_all"
    columns = ("ranks", "tokens", "hidden", "top_k", "experts", "item_bytes")
    variants = tuple(f"{phase}/{mode}" for phase in ("dispatch", "combine") for mode in ("normal", "low_latency"))
    coefficients = AllToAllCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return [
            f"{int(hidden)}-{int(chosen)}-{int(experts)}"
            for hidden, chosen, experts in zip(sizes["hidden"], sizes["top_k"], sizes["experts"], strict=True)
        ]

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        return Bounds(np.zeros(len(sizes["ranks"])), rates.sent_us(_sent(variant, sizes), sizes["ranks"]))

    def physics_us(self, rates: Rates, variant: str, x: AllToAllCoefficients, sizes: Sizes) -> F64:
        tokens = sizes["tokens"]
        fixed = x.launch_us + x.rank_us * sizes["ranks"] + 1e-3 * x.expert_ns * sizes["experts"]
        each = 1e-3 * tokens * (x.token_ns + x.choice_ns * sizes["top_k"])
        sent = _sent(variant, sizes)
        touched = sent + tokens * sizes["hidden"] * sizes["item_bytes"]
        return fixed + each + x.link * rates.sent_us(sent, sizes["ranks"]) + x.memory * touched / rates.bytes

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        return [
            np.log(sizes["tokens"]), sizes["ranks"], sizes["top_k"], sizes["experts"], np.log(sizes["hidden"]),
            sizes["item_bytes"], np.log(_sent(variant, sizes)),
            distinct_ranks(sizes["ranks"], sizes["top_k"], sizes["experts"]),
        ]  # fmt: skip


def _sent(variant: str, sizes: Sizes) -> F64:
    """Bytes that a rank sends to others: in the low-latency mode one copy a choice, else one a rank."""
    ranks = sizes["ranks"]
    copies = (
        sizes["top_k"] if variant.endswith("low_latency") else distinct_ranks(ranks, sizes["top_k"], sizes["experts"])
    )
    return sizes["tokens"] * copies * (ranks - 1) / ranks * sizes["hidden"] * sizes["item_bytes"]
