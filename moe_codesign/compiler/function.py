"""Any function of a user's, Triton or JAX, as a compile to make: where it is, what it is called with."""

import hashlib
import importlib
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_codesign.compiler.availability import backend_of
from moe_codesign.compiler.cache import file_hash
from moe_codesign.compiler.settings import settings
from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.errors import UserError
from moe_codesign.versions import compiler_version

_ARGUMENT = re.compile(r"(?P<dtype>[a-z]\w*)\[(?P<shape>[\d,\s]*)\]")
_SHORT = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "s8": "int8", "s32": "int32"}


@dataclass(frozen=True, kw_only=True)
class FunctionRequest:
    """One compile of a user's function.

    Args:
        function: ``module:name`` or ``file.py:name``.
        arguments: of a JAX function, types and shapes.
        signature: of a Triton kernel, JSON of argument to type, ``*bf16:16`` being a pointer aligned to 16 bytes.
        constants: JSON of argument to value: compile-time constants, or keyword arguments of a JAX function.
        options: JSON of Triton's own (num_warps, ..).
        settings: JSON of the environment variables that change what compilers make.
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
    settings: str = "{}"
    profile: bool = True

    @property
    def is_gpu(self) -> bool:
        return backend_of(self.target) == "triton"

    @property
    def key(self) -> str:
        """Hash of the request; the outcome's name in the cache."""
        return hashlib.sha256(json.dumps(self.__dict__, sort_keys=True).encode()).hexdigest()[:32]

    def describe(self) -> str:
        return f"{self.function} for {self.target}"


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
        raise UserError("function", value=function, fix="write module:name or file.py:name, as in my_kernels:matmul")
    backend = backend_of(target)
    if backend == "pallas":
        parse_arguments(arguments)
    if place.endswith(".py"):
        function = f"{(folder or Path()).joinpath(place).resolve()}:{name}"
    file = _file_of(function)
    own = (file,) if file is not None and file.is_file() else ()
    return FunctionRequest(
        function=function,
        target=target,
        compiler=compiler_version(backend),
        source_hash=source_hash(own),
        arguments=arguments,
        signature=json.dumps(signature or {}, sort_keys=True),
        constants=json.dumps(constants or {}, sort_keys=True),
        options=json.dumps(options or {}, sort_keys=True),
        settings=json.dumps(settings()),
    )


def _file_of(function: str) -> Path | None:
    """The function's file, found without importing: a package's parents may load a compiler."""
    place = function.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    first, *rest = place.split(".")
    sys.path.insert(0, "")
    try:
        spec = importlib.util.find_spec(first)
    finally:
        sys.path.remove("")
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    places = [folder.joinpath(*rest) for folder in folders] or ([Path(spec.origin)] if spec.origin else [])
    candidates = [file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")]
    return next((file for file in candidates if file.is_file()), None)


def imported_sources(function: str) -> dict[str, str]:
    """Files that this process has imported and that are the function's, with their hashes.

    Those beside its own file, and all that are of no installed package: these have versions.
    """
    own = _file_of(function)
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        installed = any(part in ("site-packages", "dist-packages") for part in path.parts)
        base = path.is_relative_to(sys.base_prefix) or path.is_relative_to(Path(__file__).parents[1])
        beside = own is not None and path.parent == own.resolve().parent
        if beside or not (installed or base):
            found[str(path)] = file_hash(path)
    return dict(sorted(found.items()))


def load_function(function: str) -> Any:
    """Import it. Raises what the import raises."""
    place, _, name = function.rpartition(":")
    if not place.endswith(".py"):
        sys.path.insert(0, "")
        return getattr(importlib.import_module(place), name)
    sys.path.insert(0, str(Path(place).parent))
    return getattr(load_file(Path(place)), name)


def load_file(path: Path) -> Any:
    """The module of a file, under a name that shadows nothing. Raises what the import raises."""
    name = f"moe_codesign_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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
        raise UserError("arguments", value=text, fix="write types and shapes, as in 'bfloat16[512,2048] int32[8]'")
    return found
