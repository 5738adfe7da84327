"""What each inefficiency costs in times of our own kernels."""

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.cost.ours.times import OurTimes


def losses_of(times: OurTimes) -> list[dict[str, float]]:
    """What each inefficiency costs each problem: the time with it less the time without it, one after the other.

    What remains over the roofline is the memory system's where the bound is memory, else the pipeline's.
    """
    losses: dict[str, F64] = {name: times.parts_us[name] for name in ("launch", "permute") if name in times.parts_us}
    left = times.latency_us - sum(losses.values(), np.zeros(1))
    tiles = [(one.prices.one_each(one.rows), one.gemms) for one in times.chosen]
    ideal: frozenset[str] = frozenset()
    for name in ("padding", "waves"):
        ideal |= {name}
        without = np.zeros(len(left))
        for prices, gemms in tiles:
            priced = prices.times(gemms, ideal)
            without += (priced.total_us - priced.parts_us["launch"])[:, 0]
        losses[name] = np.maximum(left - without, 0.0)
        left = np.minimum(left, without)
    rest = np.maximum(left - times.bounds.stated_us, 0.0).tolist()
    columns = {name: us.tolist() for name, us in losses.items()}
    return [
        {
            **{name: us[place] for name, us in columns.items()},
            "memory" if times.bounds.of(place).kind == "memory" else "pipeline": rest[place],
        }
        for place in range(len(left))
    ]
