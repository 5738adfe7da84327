"""Facts of Triton and JAX functions that are not this project's own."""

import json
from collections.abc import Iterator

from moe_codesign.chips import Chip, CompiledChip, GpuChip, load_chip
from moe_codesign.compiler.build import launch_limit
from moe_codesign.compiler.function import CompiledFunction, FunctionRequest, function_request
from moe_codesign.errors import UserError
from moe_codesign.regression.readings import Observation, Place, gpu_facts, program_facts, without
from moe_codesign.regression.suite import KernelTable, Suite


def observe_functions(suite: Suite, table: KernelTable) -> Iterator[tuple[Place, Chip, FunctionRequest]]:
    """The compile behind each function of a table, on each of its chips."""
    for name in table.chips:
        chip = load_chip(name)
        if not isinstance(chip, CompiledChip):
            raise UserError(f"chip {chip.name} has no compiler here", fix="leave it out")
        on_gpu = isinstance(chip, GpuChip)
        if on_gpu != bool(table.signature):
            kind = "a Triton kernel" if table.signature else "a JAX function"
            raise UserError(f"{table.label} is {kind}, which {chip.name} does not run", fix="leave the chip out")
        for tile in table.tiles or [{}]:
            if on_gpu:
                # What is in capitals is a constant, what is not an option of the compiler, as in every Triton kernel.
                options = {key: value for key, value in tile.items() if key in _TRITON_OPTIONS}
                constants = {**table.constants, **{key: value for key, value in tile.items() if key not in options}}
            else:
                options, constants = {}, {**table.constants, **tile}
            request = function_request(
                str(table.function),
                chip.target,
                arguments=table.arguments,
                signature={key: text for key, text in table.signature.items() if key not in constants},
                constants=constants,
                options=options,
                folder=suite.path.parent,
            )
            label = " ".join(f"{key}={value}" for key, value in sorted(tile.items()))
            yield (table.label, chip.name, label), chip, request


_TRITON_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "matrix_instr_nonkdim", "kpack")


def function_facts(place: Place, chip: Chip, request: FunctionRequest, result: CompiledFunction) -> Observation:
    """The facts of a function's compile, or why there are no facts."""
    if result.status != "ok":
        return without(place, result.status, result.reason)
    facts: dict[str, float | str] = {"status": "ok"}
    if result.gpu is not None:
        of_gpu = GpuChip.of(chip)
        num_warps = json.loads(request.options).get("num_warps", 4)
        if limit := launch_limit(result.gpu, num_warps, of_gpu):
            return Observation(place, {"status": "unlaunchable", **gpu_facts(result.gpu, of_gpu, num_warps)}, limit)
        facts |= gpu_facts(result.gpu, of_gpu, num_warps)
    else:
        if all(kernel.cycles is not None for kernel in result.kernels):
            facts["cycles"] = sum(kernel.cycles or 0 for kernel in result.kernels)
        facts |= program_facts([kernel.program for kernel in result.kernels])
    return Observation(place, facts, result.note)
