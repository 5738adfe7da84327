"""Facts of Triton and JAX functions that are not this project's own."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moe_codesign.chips import Chip, CompiledChip, GpuChip, load_chips
from moe_codesign.compiler import Compiled, CompileResult
from moe_codesign.compiler.artifact import GpuFacts, JaxFacts
from moe_codesign.compiler.build import launch_limit
from moe_codesign.compiler.function import FunctionRequest, function_request
from moe_codesign.errors import UserError
from moe_codesign.regression.facts import Fact, Facts, Place
from moe_codesign.regression.readings import Observation, gpu_facts, program_facts, without
from moe_codesign.regression.suite import JaxFunction, TritonFunction, Value


@dataclass(frozen=True)
class FunctionCompile:
    """The compile behind one function, chip and tile of a suite."""

    place: Place
    chip: Chip
    request: FunctionRequest

    def observe(self, result: CompileResult) -> Observation:
        """The facts of the compile, or why it has no facts."""
        if not isinstance(result, Compiled):
            return without(self.place, result.status, result.reason)
        if isinstance(result.facts, GpuFacts):
            gpu_chip = GpuChip.of(self.chip)
            num_warps = json.loads(self.request.options).get("num_warps", 4)
            numbers = gpu_facts(result.facts, gpu_chip, num_warps)
            if limit := launch_limit(result.facts, num_warps, gpu_chip):
                return Observation(self.place, Facts("unlaunchable", numbers), limit)
            return Observation(self.place, Facts("ok", numbers), result.note)
        assert isinstance(result.facts, JaxFacts)
        numbers = program_facts([kernel.program for kernel in result.facts.kernels])
        cycles = [kernel.cycles for kernel in result.facts.kernels]
        known = [count for count in cycles if count is not None]
        if len(known) == len(cycles):
            numbers = {Fact("cycles"): sum(known), **numbers}
        return Observation(self.place, Facts("ok", numbers), result.note)


def function_compiles(folder: Path, table: TritonFunction | JaxFunction) -> Iterator[FunctionCompile]:
    """The compiles of a table of functions: one for each chip and tile. Files are relative to ``folder``.

    Raises:
        UserError: a chip that does not exist, has no compiler, or does not run such functions.
    """
    for chip in load_chips(table.chips):
        if not isinstance(chip, CompiledChip):
            raise UserError(f"chip {chip.name} has no compiler here", fix="leave it out")
        if isinstance(chip, GpuChip) != isinstance(table, TritonFunction):
            kind = "a Triton kernel" if isinstance(table, TritonFunction) else "a JAX function"
            raise UserError(f"{table.label} is {kind}, which {chip.name} does not run", fix="leave the chip out")
        for tile in table.tiles or [{}]:
            label = " ".join(f"{key}={value}" for key, value in sorted(tile.items()))
            request = _request(folder, table, chip.target, tile)
            yield FunctionCompile(Place(table.label, chip.name, label), chip, request)


_TRITON_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "waves_per_eu", "matrix_instr_nonkdim", "kpack")


def _request(folder: Path, table: TritonFunction | JaxFunction, target: str, tile: dict[str, Value]) -> FunctionRequest:
    if isinstance(table, JaxFunction):
        constants = {**table.constants, **tile}
        return function_request(table.function, target, arguments=table.arguments, constants=constants, folder=folder)
    # A tile's fields are constants, except the options of the compiler.
    options = {key: value for key, value in tile.items() if key in _TRITON_OPTIONS}
    constants = {**table.constants, **{key: value for key, value in tile.items() if key not in options}}
    signature = {key: text for key, text in table.signature.items() if key not in constants}
    return function_request(
        table.function, target, signature=signature, constants=constants, options=options, folder=folder
    )
