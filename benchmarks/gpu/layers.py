"""Times the Triton layer on the GPU that is here, beside PyTorch's grouped matmul and a loop of matmuls.

Every path is verified before and after it is timed. Writes results/gpu/DEVICE.json and DEVICE.md with what ran where.
Needs a PyTorch that sees a GPU; without one it says so and ends well.

    make bench-gpu     (or: python benchmarks/gpu/layers.py [--models A,B] [--tokens 1,64,...] [--seconds S])
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from moe_codesign.errors import first_line
from moe_codesign.execution import Raised
from moe_codesign.measure.cuda_device import CacheFlush, conditions
from moe_kernels.reference import LAYER_TOLERANCE
from moe_kernels.tile import TritonTile
from moe_kernels.triton import Expert, quantize_weights
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import fp8_type, missing_on
from moe_kernels.triton.launch import Weights
from moe_kernels.triton.layer import experts_forward
from moe_kernels.triton.operators.choose_tiles import choose_tiles
from moe_kernels.triton.quantize import expert_matrix

OUT = Path(__file__).parents[2] / "results" / "gpu"
SHAPES = {
    # hidden_size, moe_intermediate_size, experts of one rank, top_k, ranks of expert parallelism
    "DeepSeek-V3 EP8": (7168, 2048, 32, 8, 8),
    "Qwen3-30B-A3B": (2048, 768, 128, 8, 1),
    "gpt-oss-120b": (2880, 2880, 128, 4, 1),
    "Mixtral-8x7B": (4096, 14336, 8, 2, 1),
}
DTYPES = ("bfloat16", "fp8", "fp8_block", "int8", "mxfp4")


@dataclass(frozen=True)
class Result:
    """One path on one problem; ``reason`` says why there is no time. Times are medians of CUDA graph replays."""

    model: str
    dtype: str
    tokens: int
    path: str
    latency_us: float | None
    low_us: float | None
    high_us: float | None
    error: float | None
    reason: str = ""


@dataclass(frozen=True)
class Layer:
    """Inputs of one rank: every token's choices that fall on it."""

    x: torch.Tensor
    w_up: Weights
    w_down: Weights
    topk_weights: torch.Tensor
    topk_ids: torch.Tensor


def make_layer(shape: tuple[int, int, int, int, int], tokens: int, dtype: str, device: torch.device) -> Layer:
    """Random weights, uniform routing over all ranks' experts."""
    hidden_size, width, experts, top_k, ranks = shape
    generator = torch.Generator(device=device).manual_seed(0)

    def draw(*size: int, scale: float) -> torch.Tensor:
        return (torch.randn(size, generator=generator, device=device) * scale).to(torch.bfloat16)

    def weights(plain: torch.Tensor, matrices: int) -> Weights:
        if dtype == "bfloat16":
            return plain
        fp8 = torch.float8_e4m3fnuz if fp8_type(target_of(device)) == "fp8e4b8" else torch.float8_e4m3fn
        return quantize_weights(plain, dtype, matrices=matrices, fp8=fp8)

    scores = torch.rand((tokens, experts * ranks), generator=generator, device=device)
    topk_weights, ids = scores.topk(top_k, dim=1)
    return Layer(
        x=draw(tokens, hidden_size, scale=1.0),
        w_up=weights(draw(experts, 2 * width, hidden_size, scale=hidden_size**-0.5), 2),
        w_down=weights(draw(experts, hidden_size, width, scale=width**-0.5), 1),
        topk_weights=topk_weights.float(),
        topk_ids=ids.to(torch.int32),
    )


def _sorted(layer: Layer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(token, slot, ends) of this rank's rows in expert order, by PyTorch alone."""
    experts, top_k = layer.w_down.shape[0], layer.topk_ids.shape[1]
    ids = layer.topk_ids.reshape(-1).long()
    here = ids < experts
    slot = torch.argsort(torch.where(here, ids, experts), stable=True)[: int(here.sum())]
    ends = torch.cumsum(torch.bincount(ids[here], minlength=experts), 0).to(torch.int32)
    return slot // top_k, slot, ends


def _summed(layer: Layer, rows: torch.Tensor, token: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(layer.x.shape, dtype=torch.float32, device=layer.x.device)
    return out.index_add_(0, token, rows.float() * layer.topk_weights.reshape(-1)[slot, None])


def by_grouped_mm(layer: Layer) -> Callable[[], torch.Tensor]:
    """PyTorch's grouped matmul for both GEMMs; sorting is done beforehand and not timed."""
    token, slot, ends = _sorted(layer)
    assert isinstance(layer.w_up, torch.Tensor)
    assert isinstance(layer.w_down, torch.Tensor)
    up, down = layer.w_up.transpose(1, 2), layer.w_down.transpose(1, 2)

    def run() -> torch.Tensor:
        gate, value = torch.nn.functional.grouped_mm(layer.x[token], up, offs=ends).chunk(2, -1)
        hidden = torch.nn.functional.silu(gate) * value
        return _summed(layer, torch.nn.functional.grouped_mm(hidden, down, offs=ends), token, slot)

    return run


def by_loop(layer: Layer, wide: torch.dtype | None = None) -> Callable[[], torch.Tensor]:
    """A matmul per expert, the sizes known on the host. In ``wide`` (float64) it is the reference."""
    token, slot, ends = _sorted(layer)
    bounds = [0, *ends.tolist()]
    dtype = wide or layer.x.dtype

    def run() -> torch.Tensor:
        out = torch.zeros(layer.x.shape, dtype=wide or torch.float32, device=layer.x.device)
        for expert, (start, end) in enumerate(itertools.pairwise(bounds)):
            if start == end:
                continue
            rows = layer.x[token[start:end]].to(dtype)
            gate, value = (rows @ expert_matrix(layer.w_up, expert, dtype).T).chunk(2, -1)
            y = (torch.nn.functional.silu(gate) * value) @ expert_matrix(layer.w_down, expert, dtype).T
            weight = layer.topk_weights.reshape(-1)[slot[start:end], None]
            out.index_add_(0, token[start:end], (y * weight).to(out.dtype))
        return out

    return run


def our_paths(layer: Layer, ranks: int) -> dict[str, Callable[[], torch.Tensor]]:
    """The layer with the tiles an untuned call takes, and with each path switched on."""
    chosen = choose_tiles(layer.x, layer.w_up, layer.w_down, layer.topk_ids, Expert(ranks=ranks))
    rows = max(16, min(128, 1 << (layer.topk_ids.numel() // (ranks * layer.w_down.shape[0])).bit_length()))
    plain = TritonTile(block_m=min(rows, 64), block_n=64, block_k=64, num_warps=4, num_stages=3)
    pairs = {
        "default tiles": chosen,
        "plain": (plain, plain),
        "persistent": (replace(plain, persistent=True),) * 2,
        "split-k": (replace(plain, split_k=2),) * 2,
        "swapped": (replace(plain, block_m=16, swap_ab=True),) * 2,
        "descriptors": (replace(plain, tma=True),) * 2,
        "persistent descriptors": (replace(plain, tma=True, persistent=True),) * 2,
    }
    runs: dict[str, Callable[[], torch.Tensor]] = {}
    for name, tiles in pairs.items():
        for deterministic in (True, False) if name == "default tiles" else (True,):
            expert = Expert(deterministic=deterministic)
            label = name if deterministic else f"{name}, atomic adds"
            runs[label] = lambda expert=expert, tiles=tiles: experts_forward(  # type: ignore[misc]
                layer.x, layer.w_up, layer.w_down, layer.topk_weights, layer.topk_ids, expert, tiles
            )
    return runs


def row_error(out: torch.Tensor, expected: torch.Tensor) -> float:
    """As :func:`moe_kernels.reference.row_error`, on the device; a row that should be zero must be."""
    scale = expected.square().mean(1, keepdim=True).sqrt()
    error = (out.double() - expected).abs() / torch.where(scale > 0, scale, 1e-30)
    return float(error.max()) if not bool(error.isnan().any()) else float("nan")


def graph_times_us(run: Callable[[], torch.Tensor], seconds: float) -> tuple[list[float], torch.Tensor]:
    """Replays of a CUDA graph with a cold L2, and the graph's output after the last."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    flush = CacheFlush(torch.device("cuda"))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    samples: list[float] = []
    while len(samples) < 10 or (sum(samples) < 1e6 * seconds and len(samples) < 200):
        flush()
        out.fill_(float("nan"))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) * 1e3)
    return samples, out


def measure(model: str, dtype: str, tokens: int, seconds: float) -> list[Result]:
    """Every path of one problem; a path that fails does not stop the others."""
    device = torch.device("cuda")
    if reason := missing_on(dtype, target_of(device)):
        return [Result(model, dtype, tokens, "all", None, None, None, None, reason)]
    try:
        layer = make_layer(SHAPES[model], tokens, dtype, device)
        expected = by_loop(layer, torch.float64)()
    except torch.OutOfMemoryError as problem:
        return [Result(model, dtype, tokens, "all", None, None, None, None, first_line(problem))]
    runs = our_paths(layer, SHAPES[model][4])
    if dtype == "bfloat16":
        runs |= {"torch grouped_mm": by_grouped_mm(layer), "loop of matmuls": by_loop(layer)}
    results = []
    for path, run in runs.items():
        blank = Result(model, dtype, tokens, path, None, None, None, None)
        try:
            error = row_error(run(), expected)
            samples, out = graph_times_us(run, seconds)
            after = row_error(out, expected)
        except Exception as problem:
            results.append(replace(blank, reason=str(Raised.of(problem))))
            continue
        worst = max(error, after) if error == error and after == after else float("nan")
        if not worst <= LAYER_TOLERANCE[dtype]:
            results.append(replace(blank, error=worst, reason="wrong result"))
            continue
        times = torch.tensor(samples)
        low, median, high = (float(times.quantile(q)) for q in (0.05, 0.5, 0.95))
        results.append(replace(blank, latency_us=median, low_us=low, high_us=high, error=worst))
    return results


def compile_one(problem: tuple[str, str, int]) -> None:
    """Run every path of a problem once, untimed: what it compiles stays in Triton's cache."""
    model, dtype, tokens = problem
    layer = make_layer(SHAPES[model], tokens, dtype, torch.device("cuda"))
    for run in our_paths(layer, SHAPES[model][4]).values():
        with contextlib.suppress(Exception):  # reported when it is timed
            run()
    torch.cuda.synchronize()


def provenance() -> dict[str, str]:
    """What the times depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return conditions() | {
        "commit": os.environ.get("COMMIT") or commit,
        "protocol": "CUDA graph, L2 flushed by reading, outputs poisoned, verified against float64 before and after",
    }


def write(results: list[Result], versions: dict[str, str]) -> Path:
    """DEVICE.json with everything, DEVICE.md to read."""
    OUT.mkdir(parents=True, exist_ok=True)
    stem = OUT / re.sub(r"[\s/]+", "_", versions["device"])
    data = {"provenance": versions, "results": [asdict(r) for r in results]}
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    lines = [
        f"# The Triton layer on {versions['device']}\n",
        *(f"- {k}: {v}" for k, v in versions.items()),
        "\n| model | type | tokens | path | us | 5 % to 95 % | row error | |\n|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        time = (f"{r.latency_us:.1f}", f"{r.low_us:.1f} to {r.high_us:.1f}") if r.latency_us else ("", "")
        error = f"{r.error:.3g}" if r.error is not None else ""
        lines.append(
            f"| {r.model} | {r.dtype} | {r.tokens} | {r.path} | {time[0]} | {time[1]} | {error} | {r.reason} |"
        )
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return stem.with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--tokens", default="1,16,64,512,4096")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--seconds", type=float, default=0.1, help="of timing per path")
    parser.add_argument(
        "--jobs", type=int, default=min(os.cpu_count() or 1, 12), help="processes that compile beforehand"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU here (torch.cuda.is_available() is False)")
        return
    problems = list(
        itertools.product(options.models.split(","), options.dtypes.split(","), map(int, options.tokens.split(",")))
    )
    # Binaries do not know their model's sizes, so one model's problems compile nearly all.
    first = [
        one for one in problems if one[0] == problems[0][0] and not missing_on(one[1], target_of(torch.device("cuda")))
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        pool.map(compile_one, first, chunksize=1)
    results: list[Result] = []
    for model, dtype, tokens in problems:
        found = measure(model, dtype, tokens, options.seconds)
        results += found
        best = min((r for r in found if r.latency_us), key=lambda r: r.latency_us or 0.0, default=None)
        print(
            f"{model} {dtype} {tokens}: {best.path} {best.latency_us:.1f} us" if best else f"{found[0].reason}",
            flush=True,
        )
        write(results, provenance())
    print(f"written to {write(results, provenance())}")


if __name__ == "__main__":
    main()
