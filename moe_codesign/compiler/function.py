"""Compile any JAX function for a TPU and read the kernels in it: a kernel engineer's own, or another library's."""

import multiprocessing
import re
import shutil
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from pebble import ProcessExpired, ProcessPool

from moe_codesign.compiler.artifact import ProgramFacts
from moe_codesign.compiler.build import TIME_LIMIT_S
from moe_codesign.compiler.worker import silence
from moe_codesign.errors import UserError

_ARGUMENT = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<shape>[\d,\s]*)\]")
_SHORT = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "s8": "int8", "s32": "int32"}


@dataclass(frozen=True)
class KernelProgram:
    """One kernel (or fusion) of a compiled function; ``cycles`` are static, None where the compiler did not count."""

    name: str
    cycles: int | None
    program: ProgramFacts


@dataclass(frozen=True)
class CompiledFunction:
    """Its kernels, longest first; none, and ``refused``, where the compiler said no."""

    kernels: tuple[KernelProgram, ...]
    refused: str | None = None
    note: str | None = None


def parse_arguments(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """``bfloat16[512,2048] int32[8]`` to types and shapes.

    Raises:
        UserError: something else stands there.
    """
    found = [
        (_SHORT.get(m["dtype"], m["dtype"]), tuple(int(n) for n in m["shape"].replace(",", " ").split()))
        for m in _ARGUMENT.finditer(text)
    ]
    if not found or _ARGUMENT.sub("", text).strip(" ,;"):
        raise UserError("arguments", value=text, mend="write types and shapes, as in 'bfloat16[512,2048] int32[8]'")
    return found


def compile_function(path: str, arguments: str, target: str, *, time_limit_s: float = TIME_LIMIT_S) -> CompiledFunction:
    """Compile ``module:callable`` of those arguments, in a process of its own.

    Raises:
        UserError: the path or the arguments cannot be read.
    """
    if ":" not in path:
        raise UserError("function", value=path, mend="write module:callable, as in my_kernels:matmul")
    shapes = parse_arguments(arguments)
    found = _in_process(path, shapes, target, True, time_limit_s)
    if isinstance(found, CompiledFunction):
        return found
    # libtpu aborts while it counts cycles of some programs (a grid whose size is not known): the program is still told.
    again = _in_process(path, shapes, target, False, time_limit_s)
    if isinstance(again, CompiledFunction):
        return CompiledFunction(again.kernels, again.refused, f"no static cycles: {found}")
    return CompiledFunction((), again)


def _in_process(
    path: str, shapes: list[tuple[str, tuple[int, ...]]], target: str, profile: bool, time_limit_s: float
) -> CompiledFunction | str:
    """The result, or what became of the process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=1, context=context, initializer=silence) as pool:
        future = pool.schedule(_compile, args=[path, shapes, target, profile], timeout=time_limit_s)
        try:
            result: CompiledFunction = future.result()
        except FutureTimeout:
            return f"no result within {time_limit_s:g} s"
        except ProcessExpired as error:
            return f"the compiler took its process down (exit code {error.exitcode})"
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(f"function {path}: {type(error).__name__}: {error}") from None
    return result


def _compile(path: str, shapes: list[tuple[str, tuple[int, ...]]], target: str, profile: bool) -> CompiledFunction:
    import importlib
    import sys

    from moe_codesign.compiler.tpu import compile_for, prepare_process

    folder = prepare_process(profile=profile)
    try:
        import jax
        import jax.numpy as jnp

        from moe_codesign.compiler.llo import read_programs, refusal

        sys.path.insert(0, "")
        module, name = path.split(":", 1)
        function = getattr(importlib.import_module(module), name)
        arguments = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for dtype, shape in shapes]
        try:
            compile_for(target, function, arguments)
        except (ImportError, AttributeError, TypeError):
            raise
        except Exception as error:  # whatever a compiler raises is a result
            text = (str(error).strip() or repr(error)).splitlines()[0][:300]
            return CompiledFunction((), refusal(str(error)) or f"{type(error).__name__}: {text}")
        programs = [KernelProgram(name, *facts) for name, facts in read_programs(folder, target).items()]
        return CompiledFunction(tuple(sorted(programs, key=lambda k: (-(k.cycles or 0), -k.program.bundles))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
