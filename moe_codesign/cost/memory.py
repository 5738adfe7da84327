"""Whether a model's MoE layers have room on the chips that share them."""

from moe_codesign.chips import Chip
from moe_codesign.domain.rank import activation_bytes_per_chip, memory_use, weight_bytes_per_chip
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.workload import Workload


def over_memory(chip: Chip, shape: MoEShape, workload: Workload) -> tuple[str, ...]:
    """One line where the weights of all the shape's layers, and one layer's activations, are more than one chip's
    memory; else none. It names the workload and the sum.

    The host is left out: it holds one layer, not the model.
    """
    there = chip.memory.hbm_bytes
    if weight_bytes_per_chip(shape, workload) + activation_bytes_per_chip(shape, workload) <= there or chip.is_host:
        return ()
    used = memory_use(shape, workload)
    layers = f"the {shape.num_layers} MoE layers have" if shape.num_layers > 1 else "the layer has"
    fewest = chip.chips_that_hold(shape.weight_bytes(workload.dtype) + used.activations * workload.chips)
    return (
        f"does not fit: {layers} {used} on each {chip.name} at {workload.num_tokens} tokens, tp {workload.tp} and ep "
        f"{workload.ep}, and it holds {there / 1e9:.3g} GB; raise tp or ep: they take {fewest} of them or more",
    )
