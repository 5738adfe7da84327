"""What a compiler makes of a kernel or function."""

from dataclasses import dataclass

from moe_codesign.chips import TpuChip, load_chip
from moe_codesign.compiler import Artifact, ArtifactCache, compile_all, compile_functions, requests_for, unlaunchable
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.function import CompiledFunction, function_request
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.errors import UserError
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TileConfig, Value


@dataclass(frozen=True)
class Compiled:
    """One tile's artifact on a chip, and why the chip cannot run it if so."""

    artifact: Artifact
    refused: str | None


def compile_kernel(
    kernel: str,
    chip: str,
    *,
    tile: dict[str, Value] | None = None,
    dtype: str = "bfloat16",
    jobs: int = 1,
    compiling: Progress | None = None,
) -> list[Compiled]:
    """What the chip's compiler makes of a kernel's ops with one tile (default: the kernel's own).

    Raises:
        UserError: unknown kernel or chip, a kernel for another backend, a tile field unknown or missing.
    """
    found = load_chip(chip)
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
    artifacts = compile_all(requests.values(), ArtifactCache(), jobs=jobs, progress=compiling)
    return [
        Compiled(artifacts[request], unlaunchable(artifacts[request], configs[op], found))
        for op, request in requests.items()
    ]


def compile_function(function: str, arguments: str, chip: str) -> CompiledFunction:
    """What a TPU's compiler makes of any JAX function.

    Args:
        function: ``module:callable``.
        arguments: types and shapes, as in ``bfloat16[512,2048] int32[8]``.

    Raises:
        UserError: unknown chip, one that is no TPU, or a function or arguments that cannot be read.
    """
    found = TpuChip.of(load_chip(chip))
    request = function_request(function, found.target, arguments=arguments)
    result = compile_functions([request], ArtifactCache())[request]
    if result.status == "missing":
        raise UserError(f"function {function}: {result.reason}")
    return result
