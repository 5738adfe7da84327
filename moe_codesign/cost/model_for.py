"""Which cost model answers a question: the only place that knows."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from moe_codesign.chips import Chip, GpuChip, TpuChip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import CostModel
from moe_codesign.cost.ours.model import OurKernels
from moe_codesign.cost.ragged_dot.model import RaggedDotKernels
from moe_codesign.cost.stacks import shipped
from moe_codesign.cost.stacks.layers import StackLayers
from moe_codesign.domain.question import OurGemm, OurLayer, Question, RaggedDot, StackLayer
from moe_codesign.errors import UserError
from moe_codesign.formats.tuned_files import tuned_tiles


def model_for(question: Question, chip: Chip, tables: Tables, *, tuned: Path | None = None) -> CostModel[Any]:
    """The model that answers this question, and every other one about the chip with the same :func:`kind_of`.

    Args:
        question: what is asked.
        chip: where it runs.
        tables: compiled tiles.
        tuned: folder of a stack's tuned files, which come before its default rule.

    Raises:
        UserError: the software does not run on such a chip, nothing was fitted for its data type, or a fitted or tuned
            file cannot be read.
    """
    match question:
        case OurLayer() | OurGemm():
            return OurKernels(chip, tables)
        case RaggedDot():
            if not isinstance(chip, GpuChip | TpuChip):
                raise UserError(
                    f"stack ragged_dot runs on GPUs and TPUs, {chip.name} is a {chip.kind}", fix="leave the stack out"
                )
            return RaggedDotKernels(chip, tables)
        case StackLayer(stack=stack, workload=workload):
            if not isinstance(chip, GpuChip):
                raise UserError(f"stack {stack} runs Triton kernels", fix=f"leave the stack out for {chip.name}")
            found = shipped.find(chip, stack, workload.dtype)
            files = tuned_tiles(tuned, chip.device_names, workload.dtype) if tuned is not None else None
            return StackLayers(chip, found.value, files)


def kind_of(question: Question) -> Hashable:
    """Questions of one kind, about one chip, are answered by one model together."""
    match question:
        case OurLayer() | OurGemm():
            return "ours"
        case RaggedDot():
            return "ragged_dot"
        case StackLayer():
            return question.stack, question.workload.dtype
