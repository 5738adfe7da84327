"""The command ``moe-codesign compile``."""

import sys

import click

from moe_codesign.cli.options import CHIP, DTYPE, JOBS, JSON, RECOMPILE, Fields, console, emit, progress
from moe_codesign.errors import UserError


@click.command("compile")
@click.option("--kernel", help="A kernel of `moe-codesign list kernels`.")
@click.option("--function", "function", help="A JAX function of your own, as module:callable, for a TPU.")
@click.option("--arguments", help="Types and shapes of the function's arguments: 'bfloat16[512,2048] int32[8]'.")
@CHIP
@click.option("--tile", type=Fields(), help="Tile fields that differ from the kernel's default tile.")
@DTYPE
@JOBS
@RECOMPILE
@JSON
def compile_(
    kernel: str | None,
    function: str | None,
    arguments: str | None,
    chip: str,
    tile: dict[str, int | bool] | None,
    dtype: str,
    jobs: int,
    recompile: bool,
    as_json: bool,
) -> None:
    """Show what the chip's compiler made of a kernel, or of any JAX function.

    \b
    Example: moe-codesign compile --kernel triton.grouped_gemm --chip h100_sxm --tile block_m=64,block_n=256
             moe-codesign compile --chip tpu_v6e --function jax.numpy:dot --arguments 'bf16[512,1024] bf16[1024,512]'
    """
    import moe_codesign as mc
    from moe_codesign.reports.terminal.compiled import print_compiled, print_function

    if (kernel is None) == (function is None) or (function is None) != (arguments is None):
        raise UserError("compile takes a kernel or a function", fix="give --kernel, or --function and --arguments")
    if function is not None and arguments is not None:
        found = mc.compile_function(function, arguments, chip)
        if as_json:
            emit(found.to_dict())
        else:
            print_function(console(), function, chip, found)
        if found.refused:
            sys.exit(1)
        return
    assert kernel is not None
    with progress() as bar:
        compiled = mc.compile_kernel(
            kernel, chip, tile=tile, dtype=dtype, jobs=jobs, recompile=recompile, compiling=bar("compile")
        )
    if as_json:
        emit([one.to_dict() for one in compiled])
    else:
        print_compiled(console(), chip, compiled)
    if any(one.refused for one in compiled):
        sys.exit(1)
