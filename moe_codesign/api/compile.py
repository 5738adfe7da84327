"""What a compiler makes of a kernel or function."""

from moe_codesign.answers.compiled import CompiledFunction, CompiledKernel
from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    CompileResult,
    Unanswered,
    compile_all,
    compile_functions,
    requests_for,
    unlaunchable,
)
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.function import function_request
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import compiler_note
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TileConfig, Value


def compile_kernel(
    kernel: str,
    chip: str,
    *,
    tile: dict[str, Value] | None = None,
    dtype: str = DEFAULT_DTYPE,
    jobs: int = 1,
    compiling: Progress | None = None,
    recompile: bool = False,
) -> list[CompiledKernel]:
    """What the chip's compiler makes of a kernel's ops with one tile (default: the kernel's own).

    ``recompile`` compiles here what the facts that come with the package would answer.

    Raises:
        UserError: unknown kernel or chip, a kernel for another backend, a tile field unknown or missing, or no
            compiler here for a tile that the package has no facts of.
    """
    found = load_chip(chip)
    dtype = parse_dtype(dtype)
    one = kernel_for(found, kernel)
    configs: dict[Op, TileConfig] = {}
    ops: tuple[Op, ...] = ("gate_up", "down")
    for op in ops:
        default = one.default_tile(Problem(op=op, dtype=dtype), 128.0, found.target)
        try:
            configs[op] = one.tile_type.from_dict({**default.as_dict(), **(tile or {})})
        except ValueError as error:
            raise UserError(f"tile: {error}") from None
    if one.build is None:
        raise UserError(f"kernel {kernel} runs on the host alone", fix="there is nothing to compile ahead of time")
    requests = {
        op: request
        for op, config in configs.items()
        for request in requests_for(one, found, (op,), dtype, (config,)).values()
    }
    outcomes = compile_all(requests.values(), ArtifactCache(), jobs=jobs, progress=compiling, recompile=recompile)
    return [
        CompiledKernel(
            request,
            outcomes[request],
            unlaunchable(outcomes[request], configs[op], found),
            _note(one.backend, outcomes[request]),
        )
        for op, request in requests.items()
    ]


def _note(backend: str, outcome: CompileResult) -> str:
    return compiler_note(backend, [outcome.compiler]) if isinstance(outcome, Compiled) else ""


def compile_function(function: str, arguments: str, chip: str) -> CompiledFunction:
    """What a TPU's compiler makes of any JAX function.

    Args:
        function: ``module:callable``.
        arguments: types and shapes, as in ``bfloat16[512,2048] int32[8]``.
        chip: a TPU.

    Raises:
        UserError: unknown chip, one that is no TPU, a function or arguments that cannot be read, or no compiler here.
    """
    found = TpuChip.of(load_chip(chip))
    request = function_request(function, found.target, arguments=arguments)
    result = compile_functions([request], ArtifactCache())[request]
    if isinstance(result, Unanswered) and result.kind == "missing":
        raise UserError(f"function {function}: {result.reason}")
    return CompiledFunction(request, result)
