"""Compile a user's function, Triton or JAX, as a request describes it. Runs in a child process."""

import functools
import json
import time
from pathlib import Path
from typing import Any

from moe_codesign.compiler.artifact import Compiled, CompileResult, JaxFacts, KernelProgram, Unanswered
from moe_codesign.compiler.exceptions import first_and_last_line, named_line, of_gpu_error, of_tpu_error
from moe_codesign.compiler.function import FunctionRequest, imported_sources, load_function, parse_arguments


def compile_triton_function(request: FunctionRequest) -> CompileResult:
    """Compile a user's Triton kernel of that signature."""
    from moe_codesign.compiler.gpu import binary_facts

    start = time.perf_counter()
    try:
        source = _described(load_function(request.function), request)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        return Unanswered(kind="missing", reason=first_and_last_line(error))
    try:
        facts = binary_facts(source, json.loads(request.options), request.target)
    except (Exception, SystemExit) as error:  # whatever a compiler, or the function, raises is a result
        return of_gpu_error(
            error,
            first_and_last_line(error),
            compiler=request.compiler,
            compile_s=time.perf_counter() - start,
            sources=imported_sources(request.function),
        )
    return Compiled(
        facts=facts,
        compiler=request.compiler,
        compile_s=time.perf_counter() - start,
        sources=imported_sources(request.function),
    )


def _described(kernel: Any, request: FunctionRequest) -> Any:
    """The source of a kernel with the types, alignments and constants that the request names."""
    import triton

    while not isinstance(kernel, triton.JITFunction):  # an autotuner, or heuristics, around it
        if not hasattr(kernel, "fn"):
            raise TypeError(f"{request.function} is no Triton kernel; name a function with @triton.jit")
        kernel = kernel.fn
    types: dict[str, str] = json.loads(request.signature)
    constants = {name: _constant(value) for name, value in json.loads(request.constants).items()}
    names = list(kernel.arg_names)
    defaults = {p.name: p.default for p in kernel.params if p.has_default and p.name not in types}
    constants = defaults | constants
    if unknown := [name for name in (*types, *constants) if name not in names]:
        raise TypeError(f"{unknown[0]!r} is no argument of the kernel; its arguments are {', '.join(names)}")
    if untold := [name for name in names if name not in types and name not in constants]:
        raise TypeError(f"argument {untold[0]!r} has neither a type nor a value; add it to signature or constants")
    attributes = {}
    for name, text in types.items():
        types[name], _, multiple = text.partition(":")
        if multiple:
            attributes[names.index(name),] = [["tt.divisibility", int(multiple)]]
    return triton.compiler.ASTSource(
        kernel,
        signature={name: "constexpr" if name in constants else types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs=attributes,
    )


def _constant(value: Any) -> Any:
    """``tl.bfloat16`` is the type of that name; everything else is itself."""
    if isinstance(value, str) and value.startswith("tl."):
        import triton.language

        return getattr(triton.language, value.removeprefix("tl."))
    return value


def compile_jax_function(request: FunctionRequest, folder: Path) -> CompileResult:
    """Compile a user's JAX function and read every kernel in it; ``folder`` is the process's dump folder."""
    import jax
    import jax.numpy as jnp

    from moe_codesign.compiler.llo import read_programs
    from moe_codesign.compiler.tpu import compile_for, empty

    start = time.perf_counter()
    try:
        function = load_function(request.function)
        constants = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(request.constants).items()
        }
        arguments = [jax.ShapeDtypeStruct(s, jnp.dtype(dtype)) for dtype, s in parse_arguments(request.arguments)]
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        return Unanswered(kind="missing", reason=named_line(error))
    empty(folder)
    try:
        compile_for(request.target, functools.partial(function, **constants) if constants else function, arguments)
        programs = [KernelProgram(name, *facts) for name, facts in read_programs(folder, request.target).items()]
    except (Exception, SystemExit) as error:  # whatever a compiler, or the function, raises is a result
        return of_tpu_error(
            error,
            compiler=request.compiler,
            compile_s=time.perf_counter() - start,
            sources=imported_sources(request.function),
        )
    finally:
        empty(folder)
    longest_first = sorted(programs, key=lambda k: (-(k.cycles or 0), -k.program.bundles))
    return Compiled(
        facts=JaxFacts(kernels=tuple(longest_first)),
        compiler=request.compiler,
        compile_s=time.perf_counter() - start,
        sources=imported_sources(request.function),
    )
