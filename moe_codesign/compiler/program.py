"""The program that a tile's source says, before any compiler has worked on it.

Two sources that say the same program, with the same options, make the same binary. So an edit of a kernel's source
throws away the facts of those tiles alone whose program it changes, and to find out takes 40 ms a tile, where to
compile takes a second. Triton kernels alone: what is kept for Pallas is compiled again.
"""

import hashlib

from moe_codesign.compiler.request import Request
from moe_codesign.compiler.source_hash import ANALYSIS
from moe_kernels.kernel import Kernel
from moe_kernels.registry import kernel_named
from moe_kernels.tile import TritonTile


def makes_programs(kernel: Kernel) -> bool:
    """Whether a kernel's tiles have programs that can be compared."""
    return issubclass(kernel.tile_type, TritonTile)


def program_hash(request: Request) -> str:
    """Hash of the front end's intermediate code, the compiler's options and :data:`ANALYSIS`.

    An empty text for a Pallas kernel, and for a tile that Triton's front end refuses.
    """
    kernel = kernel_named(request.kernel)
    if kernel is None or kernel.build is None or not makes_programs(kernel):
        return ""
    from triton._C.libtriton import ir
    from triton.compiler import make_backend

    from moe_codesign.compiler.gpu import gpu_target

    target = gpu_target(request.target)
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    try:
        source, options = kernel.build(request.op, request.tile, request.dtype, request.target)
        parsed = backend.parse_options(options)
        codegen, modules = backend.get_codegen_implementation(parsed), backend.get_module_map()
        program = source.make_ir(target, parsed, codegen, modules, context).str_nodebug()
    except Exception:  # whatever a compiler raises: there is no program
        return ""
    text = f"analysis {ANALYSIS}\n{sorted(options.items())}\n{program}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]
