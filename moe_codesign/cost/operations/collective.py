"""Collectives inside of a scale-up domain: NCCL's, and the all-reduce that serving stacks bring for small messages."""

from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.bound import Bounds
from moe_codesign.cost.operations.operation import Coefficients, Rates, Sizes


@dataclass(frozen=True)
class CollectiveCoefficients(Coefficients):
    """What is fitted of a collective.

    Args:
        launch_us: fixed time. rank_us: what each further rank adds to it.
        link: time of the bytes that a rank sends over that at the link's bandwidth.
        half_bytes: size of a message whose bytes take twice as long as at full bandwidth.
        small: time of a small message's bytes, each read from every other rank, over that at the link's bandwidth.
    """

    launch_us: float = 6.0
    rank_us: float = 0.5
    link: float = 1.3
    half_bytes: float = 3e5
    small: float = 1.0


_SENT = {"all_reduce": 2.0, "custom_all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
"""Times that each of n ranks sends the (n - 1) / n of a message's bytes which are not its own."""


def _sent(variant: str, sizes: Sizes) -> F64:
    return _SENT[variant] * (sizes["ranks"] - 1) / sizes["ranks"] * sizes["bytes"]


class Collective:
    """A message of ``bytes`` among ``ranks``.

    It is the whole that each rank ends with (all-reduce, all-gather) or begins with (reduce-scatter, all-to-all).
    """

    name = "collective"
    columns = ("ranks", "bytes")
    variants = tuple(_SENT)
    coefficients = CollectiveCoefficients

    def shape_key(self, sizes: Sizes) -> list[str]:
        return [f"{int(ranks)}-{int(size)}" for ranks, size in zip(sizes["ranks"], sizes["bytes"], strict=True)]

    def bounds(self, rates: Rates, variant: str, sizes: Sizes) -> Bounds:
        # A switch that adds in the network (NVLink SHARP) needs half of an all-reduce's bytes.
        least = 0.5 if variant.endswith("all_reduce") else 1.0
        sent = least * _sent(variant, sizes)
        return Bounds(np.zeros(len(sent)), rates.sent_us(sent, sizes["ranks"]))

    def physics_us(self, rates: Rates, variant: str, x: CollectiveCoefficients, sizes: Sizes) -> F64:
        ranks, size = sizes["ranks"], sizes["bytes"]
        large = x.link * rates.sent_us(_sent(variant, sizes), ranks) * (1 + np.sqrt(x.half_bytes / size))
        # All ranks' messages read at once: one step, but every byte of every rank.
        one_step = x.small * rates.sent_us((ranks - 1) * size, ranks)
        return np.asarray(x.launch_us + x.rank_us * ranks + np.minimum(large, one_step))

    def features(self, rates: Rates, variant: str, sizes: Sizes) -> list[F64]:
        return [np.log(sizes["bytes"]), sizes["ranks"], np.log(sizes["bytes"] / sizes["ranks"])]
