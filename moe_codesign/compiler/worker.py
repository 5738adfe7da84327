"""The child process that compiles. Kept importable without any compiler, so that starting it is cheap."""

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from moe_codesign.compiler.artifact import CompileResult
from moe_codesign.compiler.function import FunctionRequest
from moe_codesign.compiler.request import Request
from moe_codesign.compiler.settings import forget_settings

_ROOM_BYTES = 64 * 2**20
"""More than a compiler of one tile writes: libtpu's dump of one has a few million bytes."""
_dump_folder: Path | None = None


def start(plain: bool) -> None:
    """Begin a compiling process.

    Args:
        plain: leave out what the user's environment says to compilers. An artifact of our kernels is of its request
            alone, and would else be another one for whoever sets the same variables tomorrow.
    """
    silence()
    if plain:
        forget_settings()


def silence() -> None:
    """Send this process's output nowhere: compilers print dumps of what they fail on; the artifact has the reason."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def lacks_room() -> str | None:
    """What this machine lacks for a compile; None where it has it."""
    with contextlib.ExitStack() as removing:
        file = Path(tempfile.gettempdir()) / f"room-{os.getpid()}"
        removing.callback(file.unlink, missing_ok=True)
        try:
            file.write_bytes(bytes(_ROOM_BYTES))
        except OSError as error:
            return f"{Path(tempfile.gettempdir()).parent} has no room for its files ({error.strerror})"
    if psutil.virtual_memory().available < _ROOM_BYTES:
        return "the machine is short of memory"
    return None


def compile_one(request: Request | FunctionRequest) -> CompileResult:
    """Compile in this process, by the target's own compiler."""
    if isinstance(request, FunctionRequest):
        if request.is_gpu:
            from moe_codesign.compiler.described import compile_triton_function

            return compile_triton_function(request)
        from moe_codesign.compiler.described import compile_jax_function

        return compile_jax_function(request, _folder(profile=request.profile))
    return _compile_kernel(request)


def _compile_kernel(request: Request) -> CompileResult:
    if request.kernel.startswith("triton."):
        from moe_codesign.compiler.gpu import compile_gpu

        return compile_gpu(request)
    from moe_codesign.compiler.tpu import compile_tpu

    return compile_tpu(request, _folder(profile=True))


def _folder(*, profile: bool) -> Path:
    """The dump folder of this process, which is asked for one setting of the profile all its life."""
    global _dump_folder
    if _dump_folder is None:
        from moe_codesign.compiler.tpu import prepare_process

        _dump_folder = prepare_process(profile=profile)
        atexit.register(shutil.rmtree, _dump_folder, ignore_errors=True)
    return _dump_folder
