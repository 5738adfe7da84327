"""Which tiles run which problems on which targets; search, tuner, compiler and launch all ask here.

What only the compiler knows (registers, shared memory) is in the compiled artifact, not here.
"""

from moe_kernels.kernel import Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import BLOCK, FORMATS, capability, fp8_type, missing_on

_POWERS = ("block_m", "block_n", "block_k", "num_warps")


def refusal(problem: Problem, tile: TritonTile, target: str | None = None) -> str | None:
    """The reason why ``tile`` cannot run ``problem``, or None.

    Args:
        problem: which GEMM, its data type and, where known, K and N.
        tile: the configuration.
        target: ``cuda:90``, ``hip:gfx942``; None stands for no chip in particular (the interpreter).
    """
    return (
        missing_on(problem.dtype, target)
        or _shape(problem, tile)
        or _scales(problem, tile)
        or _path(problem, tile, target)
        or _registers(problem, tile, target)
    )


_E4M3 = {"fp8e4nv": "float8_e4m3fn", "fp8e4b8": "float8_e4m3fnuz"}
"""torch's names of Triton's e4m3 types."""


def wrong_e4m3(stored: str, target: str | None) -> str | None:
    """The reason why fp8 weights that are stored so cannot be multiplied on the target, or None.

    Triton compiles the other type too, but CDNA 3 then multiplies in float16, at half the rate, and NVIDIA's compiler
    stops.

    Args:
        stored: torch's name of the weights' type, ``float8_e4m3fn`` or ``float8_e4m3fnuz``.
        target: as in :func:`refusal`.
    """
    wanted = _E4M3[fp8_type(target)]
    if stored == wanted:
        return None
    how = "to_e4m3fnuz() of the weights" if wanted == "float8_e4m3fnuz" else f"quantize_weights(fp8=torch.{wanted})"
    return f"they are stored as {stored}, and {target or 'the interpreter'} multiplies {wanted}; use {how}"


def _shape(problem: Problem, tile: TritonTile) -> str | None:
    for field in _POWERS:
        value = getattr(tile, field)
        if value & (value - 1):
            return f"{field} = {value} is not a power of two"
    least = {
        # In a swapped instruction the weights are the wide side, so there may be few rows.
        "block_m": 8 if tile.swap_ab else 16,
        "block_n": 16,
        # One matrix instruction takes 32 bytes of K; the whole loop steps in powers of two.
        "block_k": 32 if FORMATS[problem.dtype].weight_bits <= 8 else 16,
    }
    for field, value in least.items():
        if getattr(tile, field) < value:
            return f"{field} = {getattr(tile, field)} is below the {value} that matrix instructions need"
    if tile.num_warps > 16:
        return f"num_warps = {tile.num_warps} is over 16"
    return None


def _scales(problem: Problem, tile: TritonTile) -> str | None:
    form, k = FORMATS[problem.dtype], problem.k
    if k is not None and k % form.k_multiple:
        return f"K = {k} is not a multiple of {form.k_multiple}, which share a scale in {problem.dtype}; pad K"
    if problem.dtype == "fp8_block" and BLOCK % tile.block_k:
        return f"block_k = {tile.block_k} spans more than one {BLOCK}-block of scales; use {BLOCK} or less"
    if problem.dtype == "int4" and k is not None and k % problem.group:
        return f"K = {k} is not a multiple of the group of {problem.group}; use smaller groups"
    if problem.dtype == "int4" and problem.group != k and problem.group % tile.block_k and tile.block_k % problem.group:
        return (
            f"block_k = {tile.block_k} is neither a multiple nor a part of the group of {problem.group}; "
            f"use {problem.group & -problem.group}"
        )
    return None


def _path(problem: Problem, tile: TritonTile, target: str | None) -> str | None:
    form = FORMATS[problem.dtype]
    if tile.tma:
        sm = capability(target)
        if target is not None and (sm is None or sm < 90):
            return f"tma: {target} has no tensor memory accelerator (Hopper and later have); use tma=false"
        if form.weight_bits > 16:
            return f"tma: descriptors of {problem.dtype} are not built; use tma=false"
        stride_bits = min(form.weight_bits, form.activation_bits) * (problem.k or BLOCK)
        if stride_bits % 128:
            return f"tma: rows of K = {problem.k} {problem.dtype} are not a multiple of 16 bytes; use tma=false"
        if max(tile.block_m, tile.block_n, tile.block_k) > 256:
            return "tma: a descriptor's box has at most 256 elements per side; use smaller blocks"
    if problem.k is not None and tile.split_k > -(-problem.k // tile.block_k):
        return f"split_k = {tile.split_k} exceeds the {-(-problem.k // tile.block_k)} steps of K = {problem.k}"
    return None


def _registers(problem: Problem, tile: TritonTile, target: str | None) -> str | None:
    amd = target is not None and target.startswith("hip:")
    if tile.maxnreg < 255 and amd:
        return f"maxnreg = {tile.maxnreg}: {target} has no such cap; leave it at 255"
    if tile.maxnreg > 255 or (tile.maxnreg % 8 and tile.maxnreg < 255) or tile.maxnreg < 24:
        return f"maxnreg = {tile.maxnreg} is neither 255 nor a multiple of 8 from 24 to 248 (registers come in eights)"
    accumulators = (2 if problem.op == "gate_up" else 1) * tile.block_m * tile.block_n
    in_registers = problem.dtype in ("fp8_block", "int8")  # scaled at each step; no tcgen05 in Triton
    if capability(target) in (100, 103) and tile.block_m >= 64 and not in_registers:
        # tcgen05 accumulates in tensor memory: 128 lanes of 512 columns.
        if accumulators > 128 * 512:
            return f"{accumulators} accumulator values exceed the {128 * 512} that a core's tensor memory holds"
        return None
    lanes, registers = (64, 512) if amd else (32, 256)
    per_thread = accumulators // (lanes * tile.num_warps)
    if per_thread > registers:
        # The accumulator alone would need more registers than a thread can name; the compiler would take a minute
        # to spill it all.
        return f"{per_thread} accumulator values per thread exceed the {registers} registers a thread can name"
    return None
