"""The child process that compiles. Kept importable without any compiler, so that starting it is cheap."""

import atexit
import os
import shutil
from pathlib import Path

from moe_codesign.compiler.artifact import Artifact, Request

_dump_folder: Path | None = None


def silence() -> None:
    """Send this process's output nowhere: compilers print dumps of what they fail on; the artifact has the reason."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def compile_one(request: Request) -> Artifact:
    """Compile in this process, by the target's own compiler."""
    if request.kernel.startswith("triton."):
        from moe_codesign.compiler.gpu import compile_gpu

        return compile_gpu(request)
    global _dump_folder
    if _dump_folder is None:
        from moe_codesign.compiler.tpu import prepare_process

        _dump_folder = prepare_process()
        atexit.register(shutil.rmtree, _dump_folder, ignore_errors=True)
    from moe_codesign.compiler.tpu import compile_tpu

    return compile_tpu(request, _dump_folder)
