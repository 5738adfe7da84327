"""A CUDA or ROCm GPU, through PyTorch and Triton: CUDA graph, cold L2, device events."""

import datetime
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton

from moe_codesign.arrays import F64
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure.job import LayerJob, token_orders
from moe_kernels.tile import TileConfig, TritonTile
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import fp8_type
from moe_kernels.triton.launch import Weights
from moe_kernels.triton.layer import Expert, experts_of_pairs
from moe_kernels.triton.quantize import expert_matrix, quantize_weights

_FLUSH_BYTES = 512 << 20
"""Read before each sample: twice the largest last-level cache there is (256 MB on MI300)."""


def conditions() -> dict[str, str]:
    """What times of this device depend on, beside the code that is timed."""
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda or torch.version.hip),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


class CacheFlush:
    """Puts other data into the last-level cache by reading it.

    Writing would do so too, but leave it full of lines that have to be written back on the clock: up to 15 us on an
    H100 (results/accuracy/ours.md).
    """

    def __init__(self, device: torch.device) -> None:
        size = _FLUSH_BYTES // 4 if device.type == "cuda" else 1
        self._data = torch.ones(size, dtype=torch.float32, device=device)

    def __call__(self) -> None:
        self._data.sum()


def _runtime() -> str:
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


class CudaDevice:
    """The current CUDA device; or the interpreter's, which has no timer."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cuda")
        on_gpu = self._device.type == "cuda"
        self.name = torch.cuda.get_device_name(self._device) if on_gpu else "interpreter"
        self.software = f"torch {torch.__version__}, triton {triton.__version__}, {_runtime()}"
        self._flush = CacheFlush(self._device)
        self._arrays: dict[str, Any] = {}
        self._expert = Expert()
        self._graphs: dict[TilePair, tuple[Any, torch.Tensor]] = {}

    def load(self, job: LayerJob) -> None:
        generator = torch.Generator(device=self._device).manual_seed(job.seed)
        wide = torch.float16 if job.dtype == "float16" else torch.bfloat16
        experts, hidden, width = len(job.rows), job.hidden_size, job.intermediate_size

        def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=self._device, dtype=wide).mul_(scale)

        def weights(plain: torch.Tensor, matrices: int) -> Weights:
            if job.dtype in ("bfloat16", "float16"):
                return plain
            old = fp8_type(target_of(plain.device)) == "fp8e4b8"
            fp8 = torch.float8_e4m3fnuz if old else torch.float8_e4m3fn
            return quantize_weights(plain, job.dtype, matrices=matrices, fp8=fp8)

        def put(array: Any) -> torch.Tensor:
            return torch.from_numpy(array).to(device=self._device, dtype=torch.int32)

        self._graphs.clear()
        self._arrays.clear()
        self._expert = Expert(activation="swiglu" if job.gated else "relu2")
        matrices = self._expert.matrices
        # A hidden unit's variance does not grow with H or I.
        self._arrays = {
            "x": draw(job.tokens, hidden),
            "w_up": weights(draw(experts, matrices * width, hidden, scale=hidden**-0.5), matrices),
            "w_down": weights(draw(experts, hidden, width, scale=width**-0.5), 1),
            "pair_weight": torch.rand(sum(job.rows), generator=generator, device=self._device) + 0.1,
            "orders": [(put(np.repeat(np.arange(experts), sizes)), put(token)) for sizes, token in token_orders(job)],
            "width": width,
        }

    def _call(self, tiles: TilePair, order: int) -> torch.Tensor:
        expert, token = self._arrays["orders"][order]
        return experts_of_pairs(
            self._arrays["x"],
            self._arrays["w_up"],
            self._arrays["w_down"],
            expert,
            token,
            self._arrays["pair_weight"],
            self._expert,
            (self._own(tiles.up), self._own(tiles.down)),
        )

    def _own(self, tile: TileConfig) -> TritonTile:
        if not isinstance(tile, TritonTile):
            raise TypeError(f"{self.name} does not run a {type(tile).__name__}")
        return tile

    def run(self, tiles: TilePair, order: int) -> F64:
        if order == 0 and tiles in self._graphs:
            # What was timed is what is checked: the graph's own launches, into poisoned output.
            graph, out = self._graphs[tiles]
            out.fill_(float("nan"))
            graph.replay()
            return np.asarray(out.double().cpu().numpy())
        # The allocator hands the block just freed to the next request of its size: the hidden rows, so that rows
        # which GEMM 1 fails to write cannot hold an earlier candidate's right values.
        pairs = self._arrays["pair_weight"].numel()
        poison = torch.full(
            (pairs, self._arrays["width"]), float("nan"), dtype=self._arrays["x"].dtype, device=self._device
        )
        del poison
        return np.asarray(self._call(tiles, order).double().cpu().numpy())

    def timer(self, tiles: TilePair) -> Callable[[], float]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call(tiles, 0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._call(tiles, 0)
        self._graphs[tiles] = (graph, out)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def once() -> float:
            self._flush()
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) * 1e3

        return once

    def expected(self, order: int) -> F64:
        # Every expert by itself in PyTorch's float64, on the device: a host takes most of a minute for a large layer.
        expert, token = self._arrays["orders"][order]
        x, pair_weight = self._arrays["x"].double(), self._arrays["pair_weight"].double()
        out = torch.zeros_like(x)
        start = 0
        for index, size in enumerate(torch.bincount(expert.long(), minlength=self._arrays["w_down"].shape[0]).tolist()):
            if size:
                part = slice(start, start + size)
                up, down = (expert_matrix(self._arrays[name], index, torch.float64) for name in ("w_up", "w_down"))
                product = x[token[part].long()] @ up.T
                if self._expert.matrices == 2:
                    gate, value = product.chunk(2, -1)
                    hidden = torch.nn.functional.silu(gate) * value
                else:
                    hidden = torch.relu(product).square()
                out.index_add_(0, token[part].long(), (hidden @ down.T) * pair_weight[part, None])
            start += size
        return np.asarray(out.cpu().numpy())
