"""The tiles of our grouped GEMM that are looked at, compiled for sm_90."""

import dataclasses
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from loop_lines import Line, measure

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler import Compiled, CompileResult, Refused, Request, requests_for
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.gpu import binary_facts
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable, table_of
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.shipped import of_chip
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import first_line
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel

CHIP = "h100_sxm"


def our_tiles() -> list[TritonTile]:
    """The stated search: few rows swapped or not, many rows not, each by pointers and by descriptors."""
    names = ("block_m", "block_n", "block_k", "num_warps", "num_stages")
    swapped, small, large, tall = (
        ((8, 16, 32), (32, 64, 128), (64, 128), (4,), (2, 3, 4)),
        ((16, 32), (32, 64, 128), (64, 128), (4,), (2, 3, 4)),
        ((64, 128), (32, 64, 128, 256), (64, 128), (4, 8), (2, 3)),
        ((256,), (64, 128), (32, 64), (8,), (2, 3, 4)),
    )
    own = [
        TritonTile(**dict(zip(names, values, strict=True)), tma=tma, swap_ab=grid is swapped)
        for grid in (swapped, small, large, tall)
        for values in itertools.product(*grid)
        for tma in (False, True)
    ]
    spaces = list(kernel_for(GpuChip.of(load_chip(CHIP))).tiles())
    # At 8 warps the compiler takes up to 128 registers where two blocks would share a core anyway.
    capped = [
        dataclasses.replace(tile, maxnreg=registers)
        for tile in [*spaces, *own]
        if isinstance(tile, TritonTile) and tile.block_m >= 64 and tile.num_warps == 8
        for registers in (96, 104, 112, 152, 160)
    ]
    return list(dict.fromkeys([*spaces, *own, *capped]))  # type: ignore[list-item]


def compile_rows(tile: TritonTile) -> GpuFacts | None:
    """Our GEMM 2 as the layer launches it: rows for an ordered sum. (The tool times the one with atomic adds.)"""
    source, options = ahead_of_time.source(grouped_gemm_kernel, "down", tile, "bfloat16", "cuda:90", epilogue="rows")
    try:
        return binary_facts(source, options, "cuda:90")
    except Exception as error:
        print(f"{tile.label()}: {first_line(error)}")
        return None


def our_table(tables: Tables, op: Op) -> TileTable:
    """Our tiles, compiled."""
    chip = GpuChip.of(load_chip(CHIP))
    kernel = kernel_for(chip)
    tiles = [t for t in our_tiles() if kernel.refuses(Problem(op=op, dtype="bfloat16"), t, chip.target) is None]
    requests = requests_for(kernel, chip, (op,), "bfloat16", tiles)
    if op == "gate_up":
        outcomes = tables.compile(requests.values())
    else:
        once = {request: tile for (_, tile), request in requests.items()}
        with ProcessPoolExecutor(tables.jobs, multiprocessing.get_context("spawn")) as pool:
            facts = pool.map(compile_rows, once.values())
            outcomes = {r: _outcome(r, f) for r, f in zip(once, facts, strict=True)}
    return table_of(kernel, chip, op, {tile: outcomes[r] for (_, tile), r in requests.items()})


def _outcome(request: Request, facts: GpuFacts | None) -> CompileResult:
    if facts is None:
        return Refused(kind="failed", reason="it does not compile", compiler=request.compiler)
    return Compiled(facts=facts, compiler=request.compiler)


def ours(gemm: GroupedGemm, table: TileTable) -> list[Line]:
    """Every tile of ours that runs the problem, fastest first."""
    times = gpu.tile_times(table, gemm, of_chip(GpuChip.of(table.chip)).calibration.coefficients).total_us
    order = np.argsort(times)
    kernel = table.kernel
    lines = []
    for i in order:
        tile, facts = table.tiles[i], table.facts[i]
        assert isinstance(tile, TritonTile)
        assert isinstance(facts, GpuFacts)
        if facts.spill_bytes or kernel.refuses(gemm.problem, tile, table.chip.target):
            continue
        lines.append(measure("ours", tile, facts, gemm, float(times[i]), gemm.matrices))
    return lines
