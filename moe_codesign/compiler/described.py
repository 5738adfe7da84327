"""Compile a user's function, Triton or JAX, as a request describes it. Runs in a child process."""

import functools
import json
import time
from pathlib import Path
from typing import Any

from moe_codesign.compiler.function import (
    CompiledFunction,
    FunctionRequest,
    KernelProgram,
    imported_sources,
    load_function,
    parse_arguments,
)


def compile_triton_function(request: FunctionRequest) -> CompiledFunction:
    """Compile a user's Triton kernel of that signature."""
    from moe_codesign.compiler.gpu import binary_facts

    start = time.perf_counter()
    try:
        source = _described(load_function(request.function), request)
    except Exception as error:  # whatever a user's module raises
        return request.outcome("missing", _first_line(error))
    try:
        facts = binary_facts(source, json.loads(request.options), request.target)
    except Exception as error:  # whatever a compiler raises is a result
        return request.outcome(
            "failed",
            _first_line(error),
            compile_s=time.perf_counter() - start,
            sources=imported_sources(request.function),
        )
    sources = imported_sources(request.function)
    return request.outcome("ok", compile_s=time.perf_counter() - start, gpu=facts, sources=sources)


def _first_line(error: Exception) -> str:
    """In one line: Triton begins with the place, quotes the source, and ends with what is wrong there."""
    lines = [line.strip() for line in (str(error).strip() or repr(error)).splitlines() if line.strip(" ^\t")]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
    return f"{type(error).__name__}: {text[:300]}"


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


def compile_jax_function(request: FunctionRequest, folder: Path) -> CompiledFunction:
    """Compile a user's JAX function and read every kernel in it; ``folder`` is the process's dump folder."""
    import jax
    import jax.numpy as jnp

    from moe_codesign.compiler.llo import read_programs
    from moe_codesign.compiler.tpu import compile_for, empty, outcome_of

    start = time.perf_counter()
    try:
        function = load_function(request.function)
        constants = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(request.constants).items()
        }
        arguments = [jax.ShapeDtypeStruct(s, jnp.dtype(dtype)) for dtype, s in parse_arguments(request.arguments)]
    except Exception as error:  # whatever a user's module raises
        return request.outcome("missing", outcome_of(error)[1])
    empty(folder)
    try:
        compile_for(request.target, functools.partial(function, **constants) if constants else function, arguments)
        programs = [KernelProgram(name, *facts) for name, facts in read_programs(folder, request.target).items()]
    except Exception as error:  # whatever a compiler raises is a result
        return request.outcome(
            *outcome_of(error), compile_s=time.perf_counter() - start, sources=imported_sources(request.function)
        )
    finally:
        empty(folder)
    longest_first = sorted(programs, key=lambda k: (-(k.cycles or 0), -k.program.bundles))
    return request.outcome(
        "ok",
        compile_s=time.perf_counter() - start,
        kernels=tuple(longest_first),
        sources=imported_sources(request.function),
    )
