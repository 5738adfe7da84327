"""Golden text of what commands print: a report that changes is a change that a reviewer sees."""

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from moe_codesign.answers.audit import AuditRow
from moe_codesign.answers.bench import BenchRow
from moe_codesign.answers.compiled import CompiledKernel
from moe_codesign.answers.frontier_rows import json_rows
from moe_codesign.compiler import Request, artifact
from moe_codesign.cost.estimate import Estimate
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.trial import Answered, Refused, Trial
from moe_codesign.domain.workload import Workload
from moe_codesign.reports.terminal.audit import print_audit
from moe_codesign.reports.terminal.bench import print_bench
from moe_codesign.reports.terminal.compiled import print_compiled
from moe_codesign.reports.terminal.regression import print_history
from moe_codesign.reports.terminal.search import print_search
from moe_codesign.storage.regressions import RegressionRun
from moe_codesign.study.runner import SearchResult
from moe_kernels.tile import BlockedTile, TritonTile
from tests.conftest import make_space

TILE = TritonTile(block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=3, tma=True)
SMALL = BlockedTile(tile_m=16, tile_k=1024, tile_n=512)


def printed(report: Callable[..., None], *arguments: Any) -> str:
    """The text of a report on a wide terminal, without the blanks that fill its last column."""
    out = io.StringIO()
    report(Console(file=out, width=200, markup=False), *arguments)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_audit() -> None:
    timing = Timing(grade="modelled", latency_us=400.0, low_us=330.0, high_us=480.0, bound_us=100.0, limiter="memory")
    losses = {"padding": 100.0, "waves": 40.0, "launch": 12.0}
    rows = [
        AuditRow(
            "h100_sxm",
            64,
            "bfloat16",
            "uniform",
            Estimate(timing, "triton.grouped_gemm", TilePair(TILE, TILE), ("a note",), losses),
        ),
        AuditRow("l40s", 64, "fp8", "uniform", None, Failure(FailureKind.UNSUPPORTED, "no such type")),
        AuditRow("l40s", 4096, "fp8", "uniform", None, Failure(FailureKind.COMPILER, "too much")),
    ]
    assert printed(print_audit, "Some model", rows) == AUDIT


def test_bench() -> None:
    timing = Timing(
        grade="measured", latency_us=2500.0, low_us=2400.0, high_us=2650.0, bound_us=100.0, limiter="memory",
        samples_us=(2400.0, 2500.0, 2650.0),
    )  # fmt: skip
    common: dict[str, Any] = {
        "num_tokens": 8,
        "routing": "uniform",
        "dtype": "bfloat16",
        "tiles": TilePair(SMALL, SMALL),
        "device": "cpu",
        "software": "jax 1.0",
    }
    rows = [
        BenchRow(timing=timing, error=0.0031, checks=4, **common),
        BenchRow(reason=Failure(FailureKind.MEASUREMENT, "wrong result: row error 0.5"), **common),
    ]
    assert printed(print_bench, "Some model, ep 1", rows) == BENCH


def test_compile() -> None:
    facts = artifact.GpuFacts(
        registers=128, spill_bytes=0, stack_bytes=0, shared_bytes=65536, code_bytes=4096, loop_instructions=60,
        loop_matrix=8, instructions={"HGMMA.64x128x16.F32.BF16": 8, "UTMALDG.4D": 2, "FADD": 90},
    )  # fmt: skip
    asked = Request("triton.grouped_gemm", "down", TILE, "bfloat16", "cuda:90", "triton 3.7.1", "0123")
    rows = [
        CompiledKernel(
            asked,
            artifact.Compiled(facts=facts, compiler="triton 3.6.0"),
            None,
            "facts by triton 3.6.0; triton 3.7.1 is installed",
        ),
        CompiledKernel(
            asked, artifact.Refused(kind="refused", reason="shared memory: too much"), "shared memory: too much"
        ),
    ]
    assert printed(print_compiled, "h100_sxm", rows) == COMPILE


def test_what_a_list_leaves_out_is_counted() -> None:
    many = {f"HGMMA.64x{8 * n}x16.F32.BF16": n for n in range(1, 11)}
    facts = artifact.GpuFacts(
        registers=128, spill_bytes=0, stack_bytes=0, shared_bytes=65536, code_bytes=4096, loop_instructions=60,
        loop_matrix=8, instructions=many,
    )  # fmt: skip
    asked = Request("triton.grouped_gemm", "down", TILE, "bfloat16", "cuda:90", "triton 3.7.1", "0123")
    rows = [CompiledKernel(asked, artifact.Compiled(facts=facts, compiler="triton 3.7.1"), None)]
    (line,) = [one for one in printed(print_compiled, "h100_sxm", rows).splitlines() if "matrix, wgmma" in one]
    assert line.endswith("3 HGMMA.64x24x16.F32.BF16 and 2 more")
    runs = [
        RegressionRun("s", f"2026-01-{number:02}", f"r{number}", {"triton": "triton 3.7.1"}, 0, {})
        for number in range(1, 24)
    ]
    text = printed(print_history, "s", runs, [])
    assert "not shown: 3 earlier runs\n2026-01-04 r4: 0 worse" in text


def test_search() -> None:
    space = make_space(chips=["trainium2"])
    shape = MoEShape(hidden_size=2048, moe_intermediate_size=512, num_experts=192, num_experts_per_tok=9)
    timing = Timing(grade="datasheet", latency_us=380.0, low_us=300.0, high_us=800.0, bound_us=300.0, limiter="memory")

    def pair(quality: float) -> Pair:
        return Pair(
            chip="trainium2", shape=shape, workload=Workload(name="decode", num_tokens=64), kernel=None, tiles=None,
            timing=timing, quality_ratio=quality, outside=("G",), quality_by_law={"abnar": 0.97, "zhao": 1.05},
        )  # fmt: skip

    trials = [
        Trial(chip="trainium2", mode="nested", number=0, outcome=Answered((pair(1.02),))),
        Trial(chip="trainium2", mode="nested", number=1, outcome=Refused(Failure(FailureKind.MEMORY, "too large"))),
    ]
    result = SearchResult("mine", space, trials, {"trainium2": (pair(1.0),)}, {})
    assert printed(print_search, result) == SEARCH


def test_search_says_a_note_once_for_all_pairs_that_it_is_on() -> None:
    space = make_space(chips=["trainium2"])
    timing = Timing(grade="datasheet", latency_us=380.0, low_us=300.0, high_us=800.0, bound_us=300.0, limiter="memory")
    sheet, narrow = "from the data sheet alone: no compiler for trainium2 here", "rows of {} elements are narrow"

    def pair(width: int, quality: float, *notes: str) -> Pair:
        shape = MoEShape(hidden_size=2048, moe_intermediate_size=width, num_experts=192, num_experts_per_tok=9)
        return Pair(
            chip="trainium2", shape=shape, workload=Workload(name="decode", num_tokens=64, dtype="fp8"), kernel=None,
            tiles=None, timing=timing, quality_ratio=quality, notes=notes,
        )  # fmt: skip

    tried = [
        pair(512, 1.02, sheet),
        pair(516, 1.03, sheet, narrow.format(516)),
        pair(510, 1.01, sheet, narrow.format(510)),
    ]
    trials = [
        Trial(chip="trainium2", mode="nested", number=number, outcome=Answered((one,)))
        for number, one in enumerate(tried)
    ]
    reference = pair(768, 1.0, "does not fit: 415 GB", sheet)
    result = SearchResult("mine", space, trials, {"trainium2": (reference,)}, {})
    assert printed(print_search, result) == NOTED
    said = json_rows(result)
    assert said["notes"] == [line.partition("] ")[2] for line in NOTED.splitlines() if line.startswith("[")]
    assert [pair["notes"] for pair in said["all_pairs"]] == [list(one.notes) for one in tried]


AUDIT = """\
Some model
┏━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ chip     ┃ tokens ┃   time ┃         interval ┃    grade ┃  bound ┃ of bound ┃ lost: padding ┃ lost: waves ┃ lost: launch ┃ tiles: GEMM 1 | GEMM 2                          ┃
┡━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ h100_sxm │     64 │ 400 us │ 330 us .. 480 us │ modelled │ 100 us │      25% │           25% │         10% │           3% │ 64x128x64 w4 s3 g8 tma | 64x128x64 w4 s3 g8 tma │
│ l40s     │     64 │      - │                - │        - │      - │        - │             - │           - │            - │ see below                                       │
│ l40s     │   4096 │      - │                - │        - │      - │        - │             - │           - │            - │ see below                                       │
└──────────┴────────┴────────┴──────────────────┴──────────┴────────┴──────────┴───────────────┴─────────────┴──────────────┴─────────────────────────────────────────────────┘
h100_sxm: a note
l40s, 64 tokens: no such type
l40s, 4096 tokens: too much
quality: not judged, as it is a ratio to another model on as many training tokens: give --reference and \
--training-tokens"""
BENCH = """\
Some model, ep 1
┏━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━┓
┃ tokens ┃ tiles: GEMM 1 | GEMM 2    ┃                        time ┃           5..95 % ┃    grade ┃ samples ┃ row error ┃ checks ┃
┡━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━┩
│      8 │ 16x1024x512 | 16x1024x512 │                      2.5 ms │ 2.4 ms .. 2.65 ms │ measured │       3 │    0.0031 │      4 │
│      8 │ 16x1024x512 | 16x1024x512 │ wrong result: row error 0.5 │                   │          │         │           │        │
└────────┴───────────────────────────┴─────────────────────────────┴───────────────────┴──────────┴─────────┴───────────┴────────┘
cpu, jax 1.0"""
COMPILE = """\
triton.grouped_gemm down on h100_sxm (cuda:90, triton 3.6.0)
  tile              block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=3, group_m=8, split_k=1, persistent=False, tma=True, swap_ab=False, maxnreg=255
  note: facts by triton 3.6.0; triton 3.7.1 is installed
  registers         128 a thread, 0 bytes spilled
  shared memory     65536 bytes a block
  code              4096 bytes
  main loop         60 instructions a warp, 8 of them matrix (7.5 issued per matrix instruction)
  instructions      100
    matrix, wgmma     8 HGMMA.64x128x16.F32.BF16
    async copies      2 UTMALDG.4D
triton.grouped_gemm down on h100_sxm (cuda:90, triton 3.7.1)
  tile              block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=3, group_m=8, split_k=1, persistent=False, tma=True, swap_ab=False, maxnreg=255
  refused: shared memory: too much"""
SEARCH = """\
trainium2: nothing beats your reference Qwen3-30B-A3B with its default tiles (its best ones are not known) beyond error. The rule takes the reference itself. Quality +2.0% by efficiency_leverage, -3.0% by abnar, +5.0% by zhao; it does NOT hold under abnar, and no shape holds under all. Weights 1.2 GB a chip, the reference's 1.2.
mine: pairs on each chip's frontier
┏━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┓
┃ chip      ┃ shape              ┃ workload                   ┃ found by ┃ tiles: GEMM 1 | GEMM 2 ┃   time ┃         interval ┃     grade ┃ of peak ┃ limiter ┃             quality ┃  gain ┃
┡━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━┩
│ trainium2 │ H2048 I512 E192 k9 │ decode 64 bfloat16 uniform │ nested 0 │ -                      │ 380 us │ 300 us .. 800 us │ datasheet │      1% │  memory │ +2.0%* (-3% .. +5%) │ 1.00x │
└───────────┴────────────────────┴────────────────────────────┴──────────┴────────────────────────┴────────┴──────────────────┴───────────┴─────────┴─────────┴─────────────────────┴───────┘
gain: Qwen3-30B-A3B with its default tile over this pair. Times are one layer's; in brackets is what other scaling laws say of the quality.
Quality by the law efficiency_leverage (Tian et al., arXiv 2507.17702): size that the reference would need for the same loss, at equal training tokens; it is carried on far beyond its experiments: Qwen3-30B-A3B's training compute C 1.89e+23 is 631 times above the 3e+20 of its experiments.
Other laws that apply to Qwen3-30B-A3B: abnar, zhao.
* marks shapes unlike the law's experiments: G, for one.
trainium2: 2 trials, 1 feasible; ruled out: 1 memory"""
NOTED = """\
trainium2: nothing beats your reference Qwen3-30B-A3B with its default tiles (its best ones are not known) beyond error. Nearest is H2048 I516 E192 k9, 1.00x (0.82 .. 1.22, a tie). Quality +3.0% by efficiency_leverage. Weights 0.6 GB a chip, the reference's 0.9. What would change it: next is H2048 I512 E192 k9, as fast, a tie (2 shapes tie).
mine: pairs on each chip's frontier
┏━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┳━━━━━━━┓
┃ chip      ┃ shape              ┃ workload              ┃ found by ┃ tiles: GEMM 1 | GEMM 2 ┃   time ┃         interval ┃             grade ┃ of peak ┃ limiter ┃ quality ┃  gain ┃
┡━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━╇━━━━━━━┩
│ trainium2 │ H2048 I516 E192 k9 │ decode 64 fp8 uniform │ nested 1 │ -                      │ 380 us │ 300 us .. 800 us │ datasheet [1] [2] │      1% │  memory │   +3.0% │ 1.00x │
└───────────┴────────────────────┴───────────────────────┴──────────┴────────────────────────┴────────┴──────────────────┴───────────────────┴─────────┴─────────┴─────────┴───────┘
gain: Qwen3-30B-A3B with its default tile over this pair. Times are one layer's; in brackets is what other scaling laws say of the quality.
Quality by the law efficiency_leverage (Tian et al., arXiv 2507.17702): size that the reference would need for the same loss, at equal training tokens; it is carried on far beyond its experiments: Qwen3-30B-A3B's training compute C 1.89e+23 is 631 times above the 3e+20 of its experiments.
Other laws that apply to Qwen3-30B-A3B: abnar, zhao.
[1] trainium2, 3 of 3 pairs and the reference: from the data sheet alone: no compiler for trainium2 here
[2] trainium2, 2 of 3 pairs: rows of 516 elements are narrow (and 1 more that differ in their numbers)
[3] trainium2, the reference: does not fit: 415 GB
trainium2: 3 trials, 3 feasible; ruled out: none"""
