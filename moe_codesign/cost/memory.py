"""Whether the weights of a model's MoE layers have room on the chips that share them."""

from moe_codesign.chips import Chip
from moe_codesign.domain.rank import weight_bytes_per_chip
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload


def over_memory(chip: Chip, shape: MoEShape, workload: Workload) -> tuple[str, ...]:
    """One line where the weights of all the shape's layers are more than one chip's memory; else none.

    The host is left out: it holds one layer, not the model.
    """
    used, there = weight_bytes_per_chip(shape, workload), chip.memory.hbm_bytes
    if chip.is_host or used <= there:
        return ()
    layers = f"the {shape.num_layers} MoE layers have" if shape.num_layers > 1 else "the layer has"
    fewest = chip.chips_that_hold(shape.weight_bytes(workload.dtype))
    return (
        f"does not fit: {layers} {used / 1e9:.0f} GB of weights on each {chip.name}, which holds {there / 1e9:.3g} GB; "
        f"raise tp or ep: they take {fewest} of them or more",
    )
