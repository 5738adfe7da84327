"""Our grouped GEMM beside two others, all compiled for sm_90: writes results/triton_inner_loops.md.

Beside a plain grouped GEMM (one tile a program, masked loads, vLLM's default tile rule) and PyPI moe-ops 0.1.0 (both
of its forward kernels, each of its autotuner's configurations): what the compiler made of the inner loop, the bytes
that the programs load and the rows they pad. Nothing is timed: there is no GPU in it.

moe-ops' configuration is the one with the least time by our cost model over its own binaries. Beside each of them
stands ours at the fastest tile, by the same model, that is no worse than it on any line; where no tile is, the one
with the fewest lines that are worse.

    pip install --no-deps moe-ops==0.1.0; python benchmarks/gpu/inner_loops.py
"""

import dataclasses
import functools
import itertools
import math
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton
import triton.language as tl

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler import Compiled, CompileResult, Refused, Request, requests_for
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.gpu import binary_facts
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables, TileTable, table_of
from moe_codesign.cost.ours import gpu
from moe_codesign.cost.ours.shipped import of_chip
from moe_codesign.domain.grouped_gemm import GroupedGemm, layer_gemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Balanced
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import first_line
from moe_codesign.models import find_model
from moe_codesign.stacks import default_rule
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel

MODELS = ("DeepSeek-V3", "Qwen3-30B-A3B", "gpt-oss-120b", "Mixtral-8x7B")
TOKENS = (1, 16, 128, 1024, 8192)
CHIP = "h100_sxm"
OUT = Path(__file__).parents[2] / "results" / "triton_inner_loops.md"
LINES = ("instructions", "bytes", "allocated", "shared", "padding")
DECODE_TOKENS = 1


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


@dataclasses.dataclass(frozen=True)
class Line:
    """One kernel on one problem. ``instructions``: issued per matrix instruction in the inner loop."""

    kernel: str
    tile: str
    num_warps: int
    time_us: float
    instructions: float
    per_mflop: float
    bytes: float
    registers: float
    shared: float
    padding: float

    @property
    def allocated(self) -> int:
        """Registers that a thread takes from the core: warps get them in units of 256, eight a thread."""
        return 8 * math.ceil(self.registers / 8)

    def row(self, where: str, note: str = "") -> str:
        """A line of the table."""
        return (
            f"| {where} | {self.kernel} | {self.tile} | {self.instructions:.1f} | {self.per_mflop:.0f} "
            f"| {1e3 * self.bytes:.2f} | {self.registers:.0f} ({self.allocated}) "
            f"| {self.shared / 1024:.1f} | {self.padding:.2f} "
            f"| {self.time_us:.1f} | {note} |"
        )

    def worse(self, other: "Line") -> list[str]:
        """Lines on which this is worse than the other."""
        return [name for name in LINES if getattr(self, name) > getattr(other, name) * (1 + 1e-9)]

    def rank(self, other: "Line") -> tuple[int, float]:
        """Order in which our tiles stand beside the other: fewest lines worse, then the fastest."""
        return len(self.worse(other)), self.time_us


def measure(kernel: str, tile: TritonTile, facts: GpuFacts, gemm: GroupedGemm, time_us: float, matrices: int) -> Line:
    rows = gemm.rows[gemm.rows > 0]
    row_tiles = np.ceil(rows / tile.block_m)
    width = gemm.n * gemm.matrices
    block_n = tile.block_n * matrices
    # A descriptor takes whole blocks of rows in expert order; masked and gathered loads take the rows there are.
    whole = tile.tma and not tile.swap_ab and gemm.op == "down" and kernel == "ours"
    loaded_rows = float((row_tiles * tile.block_m).sum()) if whole else float(rows.sum())
    loaded = 2.0 * gemm.k * (loaded_rows * math.ceil(width / block_n) + float(row_tiles.sum()) * width)
    loop_flops = 2.0 * tile.block_m * block_n * tile.block_k
    # The compiler may unroll: matrix instructions of one iteration of K, from their share of the loop.
    issued = facts.loop_instructions * tile.num_warps
    return Line(
        kernel=kernel,
        tile=tile.label(),
        num_warps=tile.num_warps,
        time_us=time_us,
        instructions=facts.loop_instructions / max(facts.loop_matrix, 1),
        per_mflop=1e6 * issued / loop_flops,
        bytes=loaded / gemm.flops,
        registers=facts.registers,
        shared=facts.shared_bytes,
        padding=float((row_tiles * tile.block_m).sum() / rows.sum()),
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
        table = table_of_facts([t for t, _ in known], [f for _, f in known], template)
        times = gpu.tile_times(table, flat, of_chip(GpuChip.of(table.chip)).calibration.coefficients).total_us
        best = int(np.argmin(times))
        found.append(measure(kernel, *known[best], flat, float(times[best]), 1))
    return found


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
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
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


def decode_bytes(gemms: Iterable[GroupedGemm], lines: Iterable[Line]) -> float:
    """Bytes that both GEMMs load and store at one token over the bytes that nobody can avoid."""
    gemms, lines = list(gemms), list(lines)
    moved = needed = 0.0
    for gemm, one in zip(gemms, lines, strict=True):
        moved += one.bytes * gemm.flops + 2.0 * gemm.total_rows * gemm.n
        # Per row tile: its expert, first row and end; per row its token or slot and weight.
        moved += 24.0 * gemm.total_rows
        needed += gemm.weight_bytes
    hidden = gemms[0].k
    return moved / (needed + 2 * 2.0 * hidden)


def main() -> None:
    tables = Tables(jobs=2)
    problems = []
    for name in MODELS:
        shape = dataclasses.replace(find_model(name), n_shared_experts=0)
        for num_tokens in TOKENS:
            work = rank_work(shape, Workload(name="w", num_tokens=num_tokens, routing=Balanced()))
            problems += [(name, num_tokens, gemm) for gemm in layer_gemms(work)]
    wanted = {
        Other(kernel, tile, gemm.n * gemm.matrices, gemm.k)
        for _, num_tokens, gemm in problems
        for kernel, tiles in {"plain": [vllm_default(num_tokens, len(gemm.rows))], **moe_ops_tiles()}.items()
        for tile in tiles
    }
    print(f"compiling {len(wanted)} configurations of others")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        ordered = sorted(wanted, key=repr)
        facts = {o: f for o, f in zip(ordered, pool.map(facts_or_none, ordered), strict=True) if f is not None}
    our_tables = {op: our_table(tables, op) for op in ("gate_up", "down")}
    text = []
    counts: dict[str, list[int]] = {}
    decode: dict[str, list[tuple[GroupedGemm, Line]]] = {}
    for name, num_tokens, gemm in problems:
        table = our_tables[gemm.op]
        mine = ours(gemm, table)
        where = f"{name} | {num_tokens} | {2 if gemm.op == 'down' else 1}"
        if num_tokens == DECODE_TOKENS:
            decode.setdefault(name, []).append((gemm, mine[0]))
        for other in others(gemm, num_tokens, facts, table):
            line = min(mine, key=lambda one, other=other: one.rank(other))  # type: ignore[misc]
            worse = line.worse(other)
            count = counts.setdefault(other.kernel, [0, 0])
            count[0], count[1] = count[0] + (not worse), count[1] + 1
            note = ("worse: " + ", ".join(worse)) if worse else "no worse on any line"
            text += [other.row(where), line.row(where, note)]
        text.append(dataclasses.replace(mine[0], kernel="**ours, fastest**").row(where))
    ratios = {n: decode_bytes((g for g, _ in pair), (line for _, line in pair)) for n, pair in decode.items()}
    summary = "\n".join(f"| {kernel} | {count[0]} of {count[1]} |" for kernel, count in counts.items())
    OUT.write_text(
        "# Inner loops on sm_90: ours, a plain grouped GEMM, and PyPI moe-ops 0.1.0\n\n"
        f"Made by `python benchmarks/gpu/inner_loops.py` with {compiler_version('triton')}; nothing here is timed on a "
        "GPU. bfloat16, routed experts only, balanced routing. GEMM 1 of the others is one product of 2 I columns "
        "without the activation; ours has the activation fused. GEMM 2 stores rows in all. The plain kernel has vLLM's "
        "default tile, moe-ops the configuration of its own autotuner that our cost model finds fastest, for each of "
        "its two forward kernels (the persistent TMA one takes only blocks of 128 rows). Under each stands ours at the "
        f"fastest tile, by the same model, that is no worse on any line, of a search of {len(our_tiles())} tiles "
        "(`our_tiles` in the script); where no tile is, the one with the fewest lines that are worse.\n\n"
        "- **instr/mma**: instructions in the inner loop per matrix instruction. These differ in size (HMMA 16x8x16, "
        "HGMMA 64xNx16), so **instr/MFLOP** counts warp instructions per million FLOPs of the padded tile.\n"
        "- **B/kFLOP**: bytes that the programs load (from L2 or HBM) per thousand useful FLOPs.\n"
        "- **registers** of a thread; in brackets what the core gives it, whole units of eight, which are compared.\n"
        "- **padding**: rows computed per useful row. **us**: modelled, not measured.\n\n"
        "GEMMs on which a tile of ours is no worse on any of the five lines (instr/mma, B/kFLOP, registers, shared, "
        "padding):\n\n| beside | no worse |\n"
        f"|---|---|\n{summary}\n\n"
        "Bytes moved at one token over the unavoidable (active weights, token in and out), both GEMMs at our fastest "
        "tiles, re-reads of the token's row by every column of tiles included: "
        + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        + ".\n\n| model | tokens | GEMM | kernel | tile | instr/mma | instr/MFLOP | B/kFLOP | registers | shared KiB "
        "| padding | us | |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(text) + "\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8")[:3500])


if __name__ == "__main__":
    main()
