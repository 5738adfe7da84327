"""A whole model served on chips: what a user sees against what a chip gives."""

import dataclasses
from collections.abc import Sequence

from moe_codesign.answers.serving_frontier import ServingFrontier, serving_frontier
from moe_codesign.calibrations.serving import rules_of
from moe_codesign.chips import Chip, GpuChip, load_chips
from moe_codesign.cost.operations.answer import OperationTimes
from moe_codesign.cost.operations.fitted import find_operations
from moe_codesign.cost.operations.roofline import roofline_operations
from moe_codesign.cost.step.rules import StackRules
from moe_codesign.domain.model_shape import ModelShape
from moe_codesign.errors import UserError
from moe_codesign.models.whole_catalogue import model_shape

SERVING_STACKS = ("trtllm", "sglang", "vllm")
DEFAULT_SERVING_STACK = "sglang"
_FORMS = ("bfloat16", "fp8", "fp8_block", "nvfp4")


def frontier(
    model: str | ModelShape,
    chips: Sequence[str],
    *,
    isl: int = 1024,
    osl: int = 1024,
    stack: str = DEFAULT_SERVING_STACK,
    dtype: str | None = None,
    most_chips: int = 8,
) -> list[ServingFrontier]:
    """Every deployment of a model that fits on up to ``most_chips`` chips, and those that no other one beats.

    Args:
        model: a catalogue name, a config.json, or a whole model's shape.
        chips: names or files of chips. NVIDIA's GPUs are answered by what was measured under the stack, on them or on
            the most similar one; others by their data sheets.
        isl, osl: tokens of a prompt and of an answer.
        stack: ``trtllm``, ``sglang`` or ``vllm``.
        dtype: type of experts and dense parts, and of attention's projections but for nvfp4; default the model's own.
        most_chips: of one copy of the model, within one scale-up domain.

    Returns:
        One for each chip. A chip on which the model does not fit, or which has no units for its type, has no points and
        a reason, as long as another one answers.

    Raises:
        UserError: no such model, chip, stack or type; a length below 1; or no chip answers, with the first's reason.
    """
    if stack not in SERVING_STACKS:
        raise UserError("stack", value=stack, fix="use one of " + ", ".join(SERVING_STACKS))
    for name, value in (("isl", isl), ("osl", osl), ("chips of one copy", most_chips)):
        if value < 1:
            raise UserError(name, value=value, fix="give a whole number of at least 1")
    whole = model_shape(model) if isinstance(model, str) else model
    if dtype is not None:
        whole = _in_type(whole, dtype)
    rules = StackRules(**rules_of(stack).rules)
    found, refused = [], []
    for chip in load_chips(chips):
        try:
            operations = _operations(chip, stack)
            found.append(
                serving_frontier(whole, chip, operations, rules, stack=stack, isl=isl, osl=osl, most_chips=most_chips)
            )
        except UserError as error:
            refused.append(error)
            found.append(_without_points(whole, chip, stack, isl, osl, str(error)))
    if len(refused) == len(found):
        raise refused[0]
    return found


def _without_points(model: ModelShape, chip: Chip, stack: str, isl: int, osl: int, reason: str) -> ServingFrontier:
    return ServingFrontier(
        model=model.name,
        chip=chip.name,
        stack=stack,
        isl=isl,
        osl=osl,
        tried=0,
        refused=0,
        points=(),
        price=chip.price,
        grade=chip.grade,
        reason=reason,
    )


def _operations(chip: Chip, stack: str) -> OperationTimes:
    """NVIDIA's GPUs by what was measured on them or on the most similar one; any other chip by its data sheet."""
    if isinstance(chip, GpuChip) and chip.vendor == "nvidia":
        return find_operations(chip, stack)
    return roofline_operations(chip)


def _in_type(model: ModelShape, dtype: str) -> ModelShape:
    if dtype not in _FORMS:
        raise UserError("dtype", value=dtype, fix="use one of " + ", ".join(_FORMS))
    attention = "bfloat16" if dtype == "nvfp4" else dtype
    types = dataclasses.replace(model.types, experts=dtype, shared=dtype, dense=dtype, attention=attention)
    return dataclasses.replace(model, types=types)
