"""Our grouped GEMM beside two others, all compiled for sm_90: writes results/triton_inner_loops.md.

Beside a plain grouped GEMM (one tile a program, masked loads, vLLM's default tile rule) and PyPI moe-ops 0.1.0 (both
of its forward kernels, each of its autotuner's configurations): what the compiler made of the inner loop, the bytes
that the programs load and the rows they pad. Nothing is timed: there is no GPU in it.

moe-ops' configuration is the one with the least time by our cost model over its own binaries. Beside each of them
stands ours at the fastest tile, by the same model, that is no worse than it on any line; where no tile is, the one
with the fewest lines that are worse.

It takes ten minutes on two cores, most of it compiling.

    pip install --no-deps moe-ops==0.1.0; python benchmarks/gpu/inner_loops.py [--jobs N] [--out FILE]
"""

import argparse
import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from loop_page import Asked, page
from loops_of_others import Other, facts_or_none, moe_ops_tiles, vllm_default
from loops_of_ours import our_table

from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.grouped_gemm import layer_gemms
from moe_codesign.domain.rank import rank_work
from moe_codesign.domain.routing import Balanced
from moe_codesign.domain.workload import Workload
from moe_codesign.models import find_model
from moe_kernels.kernel import Op

MODELS = ("DeepSeek-V3", "Qwen3-30B-A3B", "gpt-oss-120b", "Mixtral-8x7B")
TOKENS = (1, 16, 128, 1024, 8192)
OUT = Path(__file__).parents[2] / "results" / "triton_inner_loops.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="compiler processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the page (default: %(default)s)")
    options = parser.parse_args()
    tables = Tables(jobs=options.jobs)
    problems: list[Asked] = []
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
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        ordered = sorted(wanted, key=repr)
        facts = {o: f for o, f in zip(ordered, pool.map(facts_or_none, ordered), strict=True) if f is not None}
    ops: tuple[Op, ...] = ("gate_up", "down")
    our_tables = {op: our_table(tables, op) for op in ops}
    text = page(problems, facts, our_tables)
    options.out.write_text(text, encoding="utf-8")
    print(text[:3500])


if __name__ == "__main__":
    main()
