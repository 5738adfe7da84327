"""The page that lays the kernels side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

from loop_lines import Line, decode_bytes
from loops_of_others import Other, others
from loops_of_ours import our_tiles, ours

from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.tile_table import TileTable
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.versions import compiler_version
from moe_kernels.kernel import Op

DECODE_TOKENS = 1
Asked = tuple[str, int, GroupedGemm]
"""A model, its tokens, and one of its two GEMMs."""


def page(problems: Sequence[Asked], facts: dict[Other, GpuFacts], our_tables: Mapping[Op, TileTable]) -> str:
    """Every problem with each of the others' kernels, and under each of them our tile beside it."""
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
    return (
        "# Inner loops on sm_90: ours, a plain grouped GEMM, and PyPI moe-ops 0.1.0\n\n"
        f"Made by `python benchmarks/gpu/inner_loops.py` with {compiler_version('triton')}; nothing here is timed on a "
        "GPU. bfloat16, routed experts only, balanced routing. GEMM 1 of the others is one product of 2 I columns "
        "without the activation; ours has the activation fused. GEMM 2 stores rows in all. The plain kernel has vLLM's "
        "default tile, moe-ops the configuration of its own autotuner that our cost model finds fastest, for each of "
        "its two forward kernels (the persistent TMA one takes only blocks of 128 rows). Under each stands ours at the "
        f"fastest tile, by the same model, that is no worse on any line, of a search of {len(our_tiles())} tiles "
        "(`our_tiles` in loops_of_ours.py); where no tile is, the one with the fewest lines that are worse.\n\n"
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
        "| padding | us | |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(text) + "\n"
    )
