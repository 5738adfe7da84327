"""A CUDA or ROCm GPU, through PyTorch and Triton: CUDA graph, cold L2, device events."""

import dataclasses
import datetime
import functools
import platform
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import triton

from moe_codesign.arrays import F64
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure.draws import Draw
from moe_codesign.measure.job import LayerJob
from moe_codesign.measure.verification import copied, hold_cuda, timed
from moe_kernels.tile import TileConfig, TritonTile
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import fp8_type
from moe_kernels.triton.launch import Weights
from moe_kernels.triton.layer import Expert, experts_of_pairs
from moe_kernels.triton.quantize import expert_matrix, quantize_weights

_CHUNK = 1 << 24
"""Bytes of a tensor that are summed at once."""
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
        self._weights: dict[str, Weights] = {}
        self._expert = Expert()
        self._operands = _Operands.empty(self._device)
        self._graphs: dict[TilePair, _Graph] = {}
        self._outputs: dict[TilePair, torch.Tensor] = {}
        if on_gpu:
            hold_cuda()
            self._clock = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self._synchronize = torch.cuda.synchronize

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

        self._graphs.clear()
        self._outputs.clear()
        self._weights.clear()
        self._expert = Expert(activation="swiglu" if job.gated else "relu2")
        matrices = self._expert.matrices
        # A hidden unit's variance does not grow with H or I.
        self._weights = {
            "w_up": weights(draw(experts, matrices * width, hidden, scale=hidden**-0.5), matrices),
            "w_down": weights(draw(experts, hidden, width, scale=width**-0.5), 1),
        }
        self._width = width
        self._operands = _Operands.like(job.tokens, hidden, sum(job.rows), wide, self._device)

    def weights_checksum(self) -> int:
        return hash(tuple(_checksum(part) for held in self._weights.values() for part in _tensors(held)))

    def draw(self, draw: Draw) -> None:
        # Into the same memory each time: a captured graph reads it, and an address says nothing of what it holds.
        self._draw = draw
        for held, new in zip(self._operands, self._operands.drawn(draw), strict=True):
            held.copy_(new)

    def changed(self) -> bool:
        return not all(
            torch.equal(held, new) for held, new in zip(self._operands, self._operands.drawn(self._draw), strict=True)
        )

    def launch(self, tiles: TilePair) -> float:
        if self._device.type != "cuda":
            self._poison_hidden_rows()
            us, found = timed(functools.partial(self._call, tiles))
            self._outputs[tiles] = torch.from_numpy(found)
            return us
        if tiles not in self._graphs:
            self._graphs[tiles] = self._capture(tiles)
        graph, out, copy = self._graphs[tiles]
        out.fill_(float("nan"))
        self._flush()
        start, end = self._clock
        start.record()
        graph.replay()
        end.record()
        # At once, in this stream: what another one writes later is not in the copy.
        copy.copy_(out)
        self._synchronize()
        self._outputs[tiles] = copy
        return float(start.elapsed_time(end)) * 1e3

    def output(self, tiles: TilePair) -> F64:
        return copied(self._outputs[tiles])

    def expected(self, draw: Draw) -> F64:
        # Every expert by itself in PyTorch's float64, on the device: a host takes most of a minute for a large layer.
        made = self._operands.drawn(draw)
        x, pair_weight, token = made.x.double(), made.pair_weight.double(), made.token.long()
        out = torch.zeros_like(x)
        start = 0
        for index, size in enumerate(draw.rows):
            if size:
                part = slice(start, start + size)
                up, down = (expert_matrix(self._weights[name], index, torch.float64) for name in ("w_up", "w_down"))
                product = x[token[part]] @ up.T
                if self._expert.matrices == 2:
                    gate, value = product.chunk(2, -1)
                    hidden = torch.nn.functional.silu(gate) * value
                else:
                    hidden = torch.relu(product).square()
                out.index_add_(0, token[part], (hidden @ down.T) * pair_weight[part, None])
            start += size
        return np.asarray(out.cpu().numpy())

    def _capture(self, tiles: TilePair) -> "_Graph":
        self._poison_hidden_rows()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call(tiles)
        self._synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._call(tiles)
        return _Graph(graph, out, torch.empty_like(out))

    def _poison_hidden_rows(self) -> None:
        """Leave NaN in the block that the allocator hands to the next request of its size.

        That is the one for the hidden rows, so that rows which GEMM 1 fails to write cannot hold right values.
        """
        size = (self._operands.token.numel(), self._width)
        torch.full(size, float("nan"), dtype=self._operands.x.dtype, device=self._device)

    def _call(self, tiles: TilePair) -> torch.Tensor:
        x, pair_weight, token, expert = self._operands
        w_up, w_down = self._weights["w_up"], self._weights["w_down"]
        own = (self._own(tiles.up), self._own(tiles.down))
        return experts_of_pairs(x, w_up, w_down, expert, token, pair_weight, self._expert, own)

    def _own(self, tile: TileConfig) -> TritonTile:
        if not isinstance(tile, TritonTile):
            raise TypeError(f"{self.name} does not run a {type(tile).__name__}")
        return tile


class _Graph(NamedTuple):
    """A captured launch, the output that it writes, and where that is copied to."""

    graph: Any
    out: torch.Tensor
    copy: torch.Tensor


class _Operands(NamedTuple):
    """What a draw becomes on the device.

    Attributes:
        x: activations [T, H].
        pair_weight: float32 [P].
        token, expert: int32 [P], of each pair.
    """

    x: torch.Tensor
    pair_weight: torch.Tensor
    token: torch.Tensor
    expert: torch.Tensor

    @classmethod
    def empty(cls, device: torch.device) -> Self:
        return cls.like(0, 0, 0, torch.bfloat16, device)

    @classmethod
    def like(cls, tokens: int, hidden: int, pairs: int, dtype: torch.dtype, device: torch.device) -> Self:
        def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        token, expert = (zeros(pairs, dtype=torch.int32) for _ in range(2))
        return cls(zeros(tokens, hidden, dtype=dtype), zeros(pairs, dtype=torch.float32), token, expert)

    def drawn(self, draw: Draw) -> Self:
        """New operands of these sizes; of one draw always the same."""
        device = self.x.device
        generator = torch.Generator(device=device).manual_seed(int(draw.generator().integers(2**62)))
        x = torch.randn(self.x.shape, generator=generator, device=device, dtype=self.x.dtype)
        pair_weight = torch.rand(self.pair_weight.shape, generator=generator, device=device) + 0.1
        token, expert = (torch.from_numpy(one).to(device) for one in (draw.pair_token(), draw.pair_expert()))
        return type(self)(x, pair_weight, token, expert)


def _tensors(held: Weights) -> list[torch.Tensor]:
    """Everything that weights consist of."""
    if isinstance(held, torch.Tensor):
        return [held]
    parts = (getattr(held, one.name) for one in dataclasses.fields(held))
    return [part for part in parts if isinstance(part, torch.Tensor)]


def _checksum(tensor: torch.Tensor) -> int:
    """Summed where it lies; every one of its bytes changes it."""
    data = tensor.reshape(-1).view(torch.uint8)
    total = 0
    for start in range(0, data.numel(), _CHUNK):
        part = data[start : start + _CHUNK].long()
        place = torch.arange(start, start + part.numel(), device=data.device)
        total = (total + int((part * (2 * place + 1)).sum())) % 2**64
    return total
