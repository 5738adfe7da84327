"""One GEMM of a layer on the GPU: its operands, its float64 result, and the times of its tiles side by side."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.workload import Workload
from moe_codesign.execution import Raised
from moe_codesign.measure.cuda_device import CacheFlush
from moe_codesign.models import find_model
from moe_kernels.kernel import Op
from moe_kernels.tile import TritonTile
from moe_kernels.triton.alignment import Alignment, align
from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel
from moe_kernels.triton.launch import Weights, launch_gemm
from moe_kernels.triton.quantize import QuantizedWeights, expert_matrix, quantize_rows, quantize_weights
from moe_kernels.triton.rows import activate_rows

TOLERANCE = {"bfloat16": 0.01, "mxfp4": 0.01, "int8": 0.01, "fp8_block": 0.03, "fp8": 0.03}
"""Largest error of a result in bfloat16, which rounds by 2**-8 of itself; Hopper sums fp8 products with fewer bits than
float32."""
ROUNDS = 7
LEAD = 4
"""Flushes before a round: the host is that much ahead, so that no kernel waits for its launch."""
HOPELESS = 3.0
"""Times the fastest: such a tile is timed once."""


@dataclass(frozen=True)
class Case:
    """One layer of a rank."""

    model: str
    ep: int
    tokens: int
    dtype: str
    routing: str
    seed: int = 0

    def about(self) -> dict[str, Any]:
        """The columns of `predict`, by which a time is asked for again."""
        shape = find_model(self.model)
        sizes = ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "n_shared_experts")
        own = {name: value for name, value in dataclasses.asdict(self).items() if name != "tokens"}
        return own | {name: getattr(shape, name) for name in sizes} | {"num_tokens": self.tokens, "flush": "read"}

    def work(self) -> RankWork:
        workload = Workload(
            name="race",
            num_tokens=self.tokens,
            dtype=self.dtype,
            routing=parse_routing(self.routing),
            ep=self.ep,
            seed=self.seed,
        )
        return rank_work(find_model(self.model), workload)


@dataclass
class Gemm:
    """Operands of one GEMM of a layer, and its float64 result."""

    op: Op
    a: torch.Tensor
    a_scale: torch.Tensor | None
    weights: Weights
    rows: dict[int, Alignment]
    pair_weight: torch.Tensor
    out: torch.Tensor
    expected: torch.Tensor
    parts: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def k(self) -> int:
        return int(self.weights.shape[2])

    @property
    def matrices(self) -> int:
        return 2 if self.op == "gate_up" else 1

    @property
    def n(self) -> int:
        return int(self.weights.shape[1]) // self.matrices

    def launcher(self, tile: TritonTile) -> Callable[[], Any]:
        rows = self.rows[tile.block_m]
        common: dict[str, Any] = {"a_scale": self.a_scale, "matrices": self.matrices}
        if self.op == "down":
            return lambda: launch_gemm(
                self.a, self.weights, self.out, rows, tile,
                gather=False, epilogue="add", row_weight=self.pair_weight, **common,
            )  # fmt: skip
        if tile.split_k == 1:
            return lambda: launch_gemm(
                self.a,
                self.weights,
                self.out,
                rows,
                tile,
                gather=True,
                epilogue="hidden",
                activation="swiglu",
                **common,
            )
        if tile.split_k not in self.parts:
            size = (tile.split_k, len(self.out), 2 * self.n)
            self.parts[tile.split_k] = torch.empty(size, dtype=torch.float32, device=self.out.device)
        parts = self.parts[tile.split_k]

        def run() -> torch.Tensor:
            launch_gemm(self.a, self.weights, parts, rows, tile, gather=True, epilogue="partial", **common)
            return activate_rows(parts, rows.start[-1:], "swiglu", 1.0, 0.0, self.out.dtype)

        return run

    def verify(self, run: Callable[[], Any]) -> float:
        """Largest error of an element over its own size and its row's root mean square; NaN if it was not written."""
        self.out.fill_(0.0 if self.op == "down" else float("nan"))
        returned = run()
        error = ((self.out if returned is None else returned).double() - self.expected).abs()
        scale = self.expected.abs() + self.expected.square().mean(1, keepdim=True).sqrt()
        return float((error / scale.clamp(min=1e-30)).max())


def gemms_of(case: Case, device: torch.device, work: RankWork) -> Iterator[Gemm]:
    """Both GEMMs of a layer with random operands."""
    experts, hidden, width = len(work.rows), work.hidden_size, work.intermediate_size
    generator = torch.Generator(device=device).manual_seed(case.seed)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16).mul_(scale)

    def weights(n: int, k: int, matrices: int) -> Weights:
        plain = draw(experts, matrices * n, k, scale=k**-0.5)
        if case.dtype == "bfloat16":
            return plain
        return quantize_weights(plain, case.dtype, matrices=matrices, fp8=torch.float8_e4m3fn)

    sizes = work.rows.tolist()
    pairs = sum(sizes)
    expert = torch.repeat_interleave(torch.arange(experts), torch.tensor(sizes)).to(device, torch.int32)
    token = (torch.arange(pairs, device=device) % work.tokens).to(torch.int32)
    pair_weight = torch.rand(pairs, generator=generator, device=device) + 0.1
    rows: dict[int, Alignment] = {}
    for block_m in (8, 16, 32, 64, 128):
        one = align(expert[:, None], experts, (block_m, block_m))
        rows[block_m] = dataclasses.replace(one, token=token[one.slot])
    own = rows[16]
    ops: tuple[Op, ...] = ("gate_up", "down")
    for op in ops:
        up = op == "gate_up"
        k, n, matrices = (hidden, width, 2) if up else (width, hidden, 1)
        held = weights(n, k, matrices)
        plain = draw(work.tokens if up else pairs, k)
        a, a_scale = quantize_rows(plain, held) if isinstance(held, QuantizedWeights) else (plain, None)
        exact = _activations(a, a_scale, case.dtype)
        expected = torch.zeros((pairs if up else work.tokens, n), dtype=torch.float64, device=device)
        start = 0
        for index, size in enumerate(sizes):
            part, start = slice(start, start + size), start + size
            if not size:
                continue
            matrix = expert_matrix(held, index, torch.float64)
            if up:
                gate, value = (exact[own.token[part].long()] @ matrix.T).chunk(2, -1)
                expected[part] = torch.nn.functional.silu(gate) * value
            else:
                scaled = (exact[part] @ matrix.T) * pair_weight[own.slot[part].long(), None].double()
                expected.index_add_(0, own.token[part].long(), scaled)
        out = torch.empty(expected.shape, dtype=torch.bfloat16 if up else torch.float32, device=device)
        yield Gemm(op, a, a_scale, held, rows, pair_weight, out, expected)


def _activations(a: torch.Tensor, scale: torch.Tensor | None, dtype: str) -> torch.Tensor:
    """Float64 of what the kernel multiplies."""
    if scale is None or dtype in ("mxfp4", "int4"):
        return a.double()
    wide = scale.double()
    if dtype == "fp8_block":
        return a.double() * wide.repeat_interleave(128, 1)[:, : a.shape[1]]
    return a.double() * (wide[:, None] if dtype == "int8" else wide)


def small(dtype: str, op: Op) -> Gemm:
    k, n, matrices = 1024, 256, 2 if op == "gate_up" else 1
    plain = torch.randn((2, matrices * n, k), device="cuda", dtype=torch.bfloat16)
    held = plain if dtype == "bfloat16" else quantize_weights(plain, dtype, matrices=matrices, fp8=torch.float8_e4m3fn)
    x = torch.randn((16, k), device="cuda", dtype=torch.bfloat16)
    a, a_scale = quantize_rows(x, held) if isinstance(held, QuantizedWeights) else (x, None)
    ids = (torch.arange(16, device="cuda", dtype=torch.int32) % 2)[:, None]
    rows = {m: align(ids, 2, (m, m)) for m in (8, 16, 32, 64, 128)}
    out = torch.zeros((16, n), device="cuda", dtype=torch.bfloat16 if op == "gate_up" else torch.float32)
    return Gemm(op, a, a_scale, held, rows, torch.ones(16, device="cuda"), out, out.double())


def race(gemm: Gemm, tiles: list[TritonTile], dtype: str, flush: CacheFlush) -> list[dict[str, Any]]:
    """A row per tile: verified, then timed in rounds over all."""
    rows: list[dict[str, Any]] = []
    alive: list[tuple[dict[str, Any], Callable[[], Any], list[float]]] = []
    launched = watched()
    for tile in tiles:
        row: dict[str, Any] = {"tile": json.dumps(tile.as_dict()), "reason": ""}
        rows.append(row)
        try:
            run = gemm.launcher(tile)
            row["error"] = gemm.verify(run)
        except Exception as problem:
            if "CUDA error" in str(problem):
                raise
            row["reason"] = str(Raised.of(problem))
            continue
        if not row["error"] <= TOLERANCE[dtype]:
            row["reason"] = "wrong result"
            continue
        binary = launched[0]
        row |= {"registers": binary.n_regs, "spills": binary.n_spills, "shared_bytes": binary.metadata.shared}
        alive.append((row, run, []))
    samples: list[tuple[list[float], torch.cuda.Event, torch.cuda.Event]] = []
    best = float("inf")
    for _ in range(ROUNDS):
        for _ in range(LEAD):
            flush()
        for _, run, times in alive:
            if times and min(times) > HOPELESS * best:
                continue
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            # The flush keeps the device busy while the host launches: events then lie around the kernel alone.
            flush()
            start.record()
            run()
            end.record()
            samples.append((times, start, end))
        torch.cuda.synchronize()
        for times, start, end in samples:
            times.append(1e3 * start.elapsed_time(end))
        samples.clear()
        best = min((min(times) for _, _, times in alive), default=best)
    for row, _, times in alive:
        low, median, high = np.percentile(times, [5, 50, 95])
        row |= {"latency_us": median, "low_us": low, "high_us": high, "samples": len(times)}
    return rows


def watched() -> list[Any]:
    """A list that holds, from now on, the binary that the kernel's last launch ran."""
    kernel: Any = grouped_gemm_kernel
    held: list[Any] = []
    run = type(kernel).run

    def watching(*arguments: Any, **options: Any) -> Any:
        held[:] = [run(kernel, *arguments, **options)]
        return held[0]

    kernel.run = watching
    return held


@triton.jit
def _nothing_kernel(x_ptr):  # type: ignore[no-untyped-def]
    tl.store(x_ptr, 0.0)


def floor_us(flush: CacheFlush) -> list[float]:
    """A kernel that does nothing, timed in the same way: what events and launch add."""
    x = torch.zeros(1, device="cuda")
    found = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush()
        start.record()
        _nothing_kernel[(1,)](x)
        end.record()
        torch.cuda.synchronize()
        found.append(1e3 * start.elapsed_time(end))
    return found[5:]
