"""Grouped GEMMs that are not ours, compiled for sm_90: a plain one, and both forward kernels of PyPI moe-ops 0.1.0."""

import dataclasses
import functools
from typing import Any

import numpy as np
import triton
import triton.language as tl
from loop_lines import Line, measure

from moe_codesign.chips import GpuChip
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.gpu import binary_facts
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.shipped import of_chip
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.errors import first_line
from moe_codesign.stacks import default_rule
from moe_kernels.tile import TritonTile


@triton.jit  # type: ignore[untyped-decorator]
def plain_kernel(  # type: ignore[no-untyped-def]
    a_ptr, b_ptr, c_ptr, offsets_ptr, tile_group_ptr, tile_row_ptr, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """What a first grouped GEMM looks like: [rows, K] times [groups, N, K], one tile a program."""
    group = tl.load(tile_group_ptr + tl.program_id(0))
    rows = tl.load(tile_row_ptr + tl.program_id(0)) + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    row_ok = rows < tl.load(offsets_ptr + group + 1)
    a_ptrs = a_ptr + rows.to(tl.int64)[:, None] * K + ks[None, :]
    b_ptrs = b_ptr + group.to(tl.int64) * N * K + cols[None, :] * K + ks[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        a = tl.load(a_ptrs + k, mask=row_ok[:, None] & (ks < K - k)[None, :], other=0.0)
        b = tl.load(b_ptrs + k, mask=(cols < N)[None, :] & (ks < K - k)[:, None], other=0.0)
        acc = tl.dot(a, b, acc)
    ok = row_ok[:, None] & (cols < N)[None, :]
    tl.store(c_ptr + rows.to(tl.int64)[:, None] * N + cols[None, :], acc.to(tl.bfloat16), mask=ok)


@dataclasses.dataclass(frozen=True)
class Other:
    """One configuration of another's kernel, compiled for one problem's N and K."""

    kernel: str
    tile: TritonTile
    n: int
    k: int


@functools.cache
def compile_other(other: Other) -> GpuFacts:
    """Facts of another's kernel. Raises what the compiler raises."""
    tile = other.tile
    constants: dict[str, Any]
    if other.kernel == "plain":
        function: Any = plain_kernel
        constants = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    else:
        from moe_ops import grouped_gemm_ops, grouped_gemm_ops_sm90

        constants = {
            "BLOCK_SIZE_M": tile.block_m, "BLOCK_SIZE_N": tile.block_n, "BLOCK_SIZE_K": tile.block_k,
            "N": other.n, "K": other.k, "lda": other.k, "ldc": other.n, "TRANS_B": True, "BLOCK_DTYPE": tl.bfloat16,
        }  # fmt: skip
        if other.kernel == "moe-ops tma":
            function = grouped_gemm_ops_sm90.grouped_matmul_tma_kernel.fn
            constants["NUM_SM"] = 132
        else:
            function = grouped_gemm_ops.gmm_forward_kernel.fn
    names = function.arg_names
    types = {"offsets": "*i32", "group_size": "i32", "N": "i32", "K": "i32"}
    types |= {
        n: "*i32" if n in ("offsets_ptr", "tile_group_ptr", "tile_row_ptr") else "*bf16"
        for n in names
        if n.endswith("_ptr")
    }
    signature = {n: "constexpr" if n in constants else types[n] for n in names}
    aligned = [n for n in names if signature[n].startswith("*") or (n in ("N", "K") and signature[n] == "i32")]
    source = triton.compiler.ASTSource(
        function,
        signature=signature,
        constexprs={(names.index(n),): v for n, v in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
    )
    return binary_facts(source, {"num_warps": tile.num_warps, "num_stages": tile.num_stages}, "cuda:90")


def facts_or_none(other: Other) -> GpuFacts | None:
    try:
        return compile_other(other)
    except Exception as error:
        print(f"{other}: {first_line(error)}")
        return None


def moe_ops_tiles() -> dict[str, list[TritonTile]]:
    """moe-ops' own configurations, from its autotuners."""
    from moe_ops import grouped_gemm_ops, grouped_gemm_ops_sm90

    tuners = {
        "moe-ops": grouped_gemm_ops.gmm_forward_kernel,
        "moe-ops tma": grouped_gemm_ops_sm90.grouped_matmul_tma_kernel,
    }
    return {
        name: [
            TritonTile(
                block_m=c.kwargs["BLOCK_SIZE_M"],
                block_n=c.kwargs["BLOCK_SIZE_N"],
                block_k=c.kwargs["BLOCK_SIZE_K"],
                num_warps=c.num_warps,
                num_stages=c.num_stages,
                group_m=1,
                persistent="tma" in name,
                tma="tma" in name,
            )
            for c in tuner.configs
        ]
        for name, tuner in tuners.items()
    }


def vllm_default(num_tokens: int, num_experts: int) -> TritonTile:
    """vLLM's rule for 16-bit layers without a tuned file."""
    tokens, experts = np.array([float(num_tokens)]), np.array([float(num_experts)])
    tile = default_rule("vllm")("bfloat16", tokens, experts).of_row(0)
    return TritonTile(
        block_m=tile.BLOCK_SIZE_M,
        block_n=tile.BLOCK_SIZE_N,
        block_k=tile.BLOCK_SIZE_K,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        group_m=1,  # rows of all experts pass before the next column, as in the plain kernel
    )


def table_of_facts(tiles: list[TritonTile], facts: list[GpuFacts], template: TileTable) -> TileTable:
    columns = {f: np.array([getattr(t, f) for t in tiles], dtype=float) for f in TritonTile.fields()}
    for name in ("registers", "shared_bytes", "spill_bytes", "loop_instructions"):
        columns[name] = np.array([getattr(f, name) for f in facts], dtype=float)
    columns["waves_per_simd"] = np.zeros(len(tiles))
    columns["wide_mma"] = np.array([f.count("GMMA") > 0 for f in facts], dtype=float)
    columns["narrow_mma"] = np.zeros(len(tiles))
    return dataclasses.replace(template, tiles=tuple(tiles), facts=(), columns=columns, refused={})


def others(gemm: GroupedGemm, num_tokens: int, facts: dict[Other, GpuFacts], template: TileTable) -> list[Line]:
    """The plain kernel, and each of moe-ops' two at its fastest configuration by the model."""
    # Neither fuses the activation: GEMM 1 is one product of 2 I columns.
    flat = dataclasses.replace(gemm, op="down" if gemm.op == "down" else "up", n=gemm.n * gemm.matrices)
    found = []
    candidates = {"plain": [vllm_default(num_tokens, len(gemm.rows))], **moe_ops_tiles()}
    for kernel, tiles in candidates.items():
        known = [(t, facts[o]) for t in tiles if (o := Other(kernel, t, flat.n, flat.k)) in facts]
        known = [(t, f) for t, f in known if f.shared_bytes <= 232448]
        if not known:
            continue
        of_flat = dataclasses.replace(template, op=flat.op)
        table = table_of_facts([t for t, _ in known], [f for _, f in known], of_flat)
        times = gpu.tile_times(table, flat, of_chip(GpuChip.of(table.chip)).calibration.coefficients).total_us
        best = int(np.argmin(times))
        found.append(measure(kernel, *known[best], flat, float(times[best]), 1))
    return found
