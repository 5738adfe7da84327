"""Whether a space's tiles can be tiles of the kernel at all, asked before anything is compiled or stored."""

from collections.abc import Mapping, Sequence

from moe_codesign.chips import Chip, DatasheetChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.errors import UserError
from moe_codesign.study.space import Space
from moe_kernels.kernel import Kernel, Op, Problem
from moe_kernels.tile import Value


def check_tiles(space: Space, chip: Chip, ops: Sequence[Op]) -> None:
    """Refuse a tile field or value that no tile of the chip's kernel can have: its trials could only be refused.

    A value is judged with all other fields free, so that one which only some combinations allow stands. A value that
    other chips take may be listed for this one too, as long as the field has some value that the chip takes.

    Raises:
        UserError: names the field, the value and what the kernel takes.
    """
    wanted = space.tile_space(chip)
    if not wanted or isinstance(chip, DatasheetChip):
        return
    kernel = kernel_for(chip)
    fields = kernel.tile_type.fields()
    for field in wanted:
        if field not in fields:
            raise UserError(f"tiles for {chip.name} have field", value=field, fix="use " + ", ".join(fields))
    asked = [Problem(op=op, dtype=w.dtype) for w in space.workloads_on(chip) for op in ops if w.dtype in kernel.dtypes]
    # A data type that the chip lacks is refused with every tile; that is not the tiles' fault.
    problems = [problem for problem in asked if _refusal(kernel, [problem], chip.target, {}) is None]
    if not problems:
        return

    def refused(field: str, value: Value, target: str | None) -> str | None:
        # The other fields are the kernel's own, or else the space's.
        alone = {field: (value,)}
        first = _refusal(kernel, problems, target, alone)
        return first and _refusal(kernel, problems, target, {**wanted, **alone}) and first

    for field, values in wanted.items():
        here = [refused(field, value, chip.target) for value in values]
        nowhere = [(value, reason) for value in values if (reason := refused(field, value, None)) is not None]
        if nowhere or None not in here:
            value, reason = nowhere[0] if nowhere else (values[0], here[0])
            own = sorted({one for values_of in kernel.tile_spaces.values() for one in values_of.get(field, ())})
            taken = [str(one).lower() for one in own if refused(field, one, chip.target) is None]
            raise UserError(
                f"tiles for {chip.name} have {field}",
                value=value,
                fix=f"{kernel.name} refuses it ({reason})" + (f"; use {', '.join(taken)}" if taken else ""),
            )
    if reason := _refusal(kernel, problems, chip.target, wanted):
        raise UserError(
            f"{kernel.name} refuses every tile for {chip.name} ({reason})", fix="allow more values of its fields"
        )


def _refusal(
    kernel: Kernel, problems: Sequence[Problem], target: str | None, space: Mapping[str, tuple[Value, ...]]
) -> str | None:
    """Why no tile of the space can run any of the problems there, as the first tile says; None where one can."""
    first: str | None = None
    try:
        for tile in kernel.tiles(space):
            for problem in problems:
                reason = kernel.refuses(problem, tile, target)
                if reason is None:
                    return None
                first = first or reason
    except ValueError as error:  # no tile of this type can have such a value
        return str(error)
    return first
