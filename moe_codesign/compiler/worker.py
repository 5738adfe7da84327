"""The child process that compiles. Kept importable without any compiler, so that starting it is cheap."""

import atexit
import shutil
from pathlib import Path

from moe_codesign.compiler.artifact import Artifact, Request

_dump_folder: Path | None = None


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
