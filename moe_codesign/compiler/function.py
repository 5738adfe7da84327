"""Any function of a user's, Triton or JAX, as a compile to make: where it is, what it is called with."""

import hashlib
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from moe_codesign.compiler.artifact import GpuFacts, ProgramFacts, Status, compiler_version, source_hash
from moe_codesign.errors import UserError

_ARGUMENT = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<shape>[\d,\s]*)\]")
_SHORT = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "s8": "int8", "s32": "int32"}


@checked_dataclass(frozen=True)
class KernelProgram:
    """One kernel (or fusion) of a compiled function; ``cycles`` are static, None where the compiler did not count."""

    name: str
    cycles: int | None
    program: ProgramFacts


@checked_dataclass(frozen=True, kw_only=True)
class CompiledFunction:
    """What became of a function: ``gpu`` facts of a Triton kernel; of a JAX function its kernels, longest first."""

    key: str
    function: str
    target: str
    compiler: str
    status: Status
    reason: str = ""
    note: str = ""
    compile_s: float = 0.0
    gpu: GpuFacts | None = None
    kernels: tuple[KernelProgram, ...] = ()

    @property
    def refused(self) -> str | None:
        """Why there is nothing, if there is nothing."""
        return self.reason if self.status != "ok" else None

    def to_json(self) -> str:
        return _ADAPTER.dump_json(self, indent=1, exclude_defaults=True).decode()


_ADAPTER: TypeAdapter[CompiledFunction] = TypeAdapter(CompiledFunction)


@dataclass(frozen=True, kw_only=True)
class FunctionRequest:
    """One compile of a user's function.

    Args:
        function: ``module:name`` or ``file.py:name``.
        arguments: of a JAX function, types and shapes.
        signature: of a Triton kernel, JSON of argument to type, ``*bf16:16`` being a pointer aligned to 16 bytes.
        constants: JSON of argument to value: compile-time constants, or keyword arguments of a JAX function.
        options: JSON of Triton's own (num_warps, ..).
        profile: have static cycles counted, on which libtpu aborts where a grid's size is not known.
    """

    function: str
    target: str
    compiler: str
    source_hash: str
    arguments: str = ""
    signature: str = "{}"
    constants: str = "{}"
    options: str = "{}"
    profile: bool = True

    @property
    def is_gpu(self) -> bool:
        return self.target.startswith(("cuda:", "hip:"))

    @property
    def key(self) -> str:
        """Hash of the request; the outcome's name in the cache."""
        return hashlib.sha256(json.dumps(self.__dict__, sort_keys=True).encode()).hexdigest()[:32]

    def outcome(self, status: Status, reason: str = "", **facts: object) -> CompiledFunction:
        return CompiledFunction(
            key=self.key,
            function=self.function,
            target=self.target,
            compiler=self.compiler,
            status=status,
            reason=reason,
            **facts,  # type: ignore[arg-type]
        )

    def read(self, text: bytes) -> CompiledFunction:
        return _ADAPTER.validate_json(text)


def function_request(
    function: str,
    target: str,
    *,
    arguments: str = "",
    signature: dict[str, str] | None = None,
    constants: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> FunctionRequest:
    """The compile of ``module:name`` or ``file.py:name``.

    Args:
        folder: that a file's name is relative to; default the current one.
        arguments, signature, constants, options: see :class:`FunctionRequest`.

    Raises:
        UserError: the address, or the arguments of a JAX function, cannot be read.
    """
    place, _, name = function.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError("function", value=function, mend="write module:name or file.py:name, as in my_kernels:matmul")
    gpu = target.startswith(("cuda:", "hip:"))
    if not gpu:
        parse_arguments(arguments)
    if place.endswith(".py"):
        function = f"{(folder or Path()).joinpath(place).resolve()}:{name}"
    backend = "triton" if gpu else "pallas"
    return FunctionRequest(
        function=function,
        target=target,
        compiler=compiler_version(backend),
        source_hash=source_hash((*_files(function), Path(__file__).with_name("described.py")), backend),
        arguments=arguments,
        signature=json.dumps(signature or {}, sort_keys=True),
        constants=json.dumps(constants or {}, sort_keys=True),
        options=json.dumps(options or {}, sort_keys=True),
    )


def _files(function: str) -> tuple[Path, ...]:
    """Files that decide the function: all Python beside its own. Those further away are not seen.

    Found without importing: a package's parents may load a compiler.
    """
    place = function.rpartition(":")[0]
    if place.endswith(".py"):
        file = Path(place)
    else:
        first, *rest = place.split(".")
        sys.path.insert(0, "")
        try:
            spec = importlib.util.find_spec(first)
        finally:
            sys.path.remove("")
        if spec is None or spec.origin is None:
            return ()
        file = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    return tuple(sorted(file.parent.glob("*.py"))) if file.is_file() else ()


def load_function(function: str) -> Any:
    """Import it. Raises what the import raises."""
    place, _, name = function.rpartition(":")
    if place.endswith(".py"):
        path = Path(place)
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ImportError(f"no file {path}")
        module = importlib.util.module_from_spec(spec)
        # Triton looks its kernels' globals up in their module.
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, "")
        module = importlib.import_module(place)
    return getattr(module, name)


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
