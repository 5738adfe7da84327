"""A CUDA or ROCm GPU, through PyTorch and Triton: CUDA graph, cold L2, device events."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton

from moe_codesign.measure.job import Inputs, Tiles
from moe_codesign.measure.protocol import F64
from moe_kernels.tile import TritonTile
from moe_kernels.triton.fused_moe import moe_experts

_FLUSH_BYTES = 512 << 20
"""Written before each sample: twice the largest last-level cache there is (256 MB on MI300)."""


class CudaDevice:
    """The current CUDA device."""

    def __init__(self) -> None:
        self.name = torch.cuda.get_device_name()
        self.software = f"torch {torch.__version__}, triton {triton.__version__}, driver {torch.version.cuda}"
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
        self._arrays: dict[str, Any] = {}
        self._graphs: dict[str, tuple[Any, torch.Tensor]] = {}

    def load(self, inputs: Inputs) -> None:
        def put(array: Any, dtype: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(array).to(device="cuda", dtype=dtype)

        self._graphs.clear()
        up = [w.transpose(0, 2, 1) for w in (inputs.gate, inputs.up) if w is not None]
        self._arrays = {
            "x": put(inputs.x, torch.bfloat16),
            "w_up": put(np.ascontiguousarray(np.concatenate(up, axis=1)), torch.bfloat16),
            "w_down": put(np.ascontiguousarray(inputs.down.transpose(0, 2, 1)), torch.bfloat16),
            "pair_weight": put(inputs.pair_weight, torch.float32),
            "routings": [(put(s, torch.int32), put(t, torch.int32)) for s, t in inputs.routings],
            "width": inputs.gate.shape[2],
        }

    def _call(self, tiles: Tiles, routing: int) -> torch.Tensor:
        sizes, token = self._arrays["routings"][routing]
        return moe_experts(
            self._arrays["x"],
            self._arrays["w_up"],
            self._arrays["w_down"],
            token,
            self._arrays["pair_weight"],
            sizes,
            tile_up=TritonTile.from_dict(tiles[0]),
            tile_down=TritonTile.from_dict(tiles[1]),
        )

    def run(self, tiles: Tiles, routing: int) -> F64:
        if routing == 0 and (key := str(tiles)) in self._graphs:
            # What was timed is what is checked: the graph's own launches, into poisoned output.
            graph, out = self._graphs[key]
            out.fill_(float("nan"))
            graph.replay()
            return np.asarray(out.double().cpu().numpy())
        # The allocator hands the block just freed to the next request of its size: the hidden rows, so that rows
        # which GEMM 1 fails to write cannot hold an earlier candidate's right values.
        pairs = self._arrays["pair_weight"].numel()
        poison = torch.full((pairs, self._arrays["width"]), float("nan"), dtype=torch.bfloat16, device="cuda")
        del poison
        return np.asarray(self._call(tiles, routing).double().cpu().numpy())

    def timer(self, tiles: Tiles) -> Callable[[], float]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._call(tiles, 0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._call(tiles, 0)
        self._graphs[str(tiles)] = (graph, out)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def once() -> float:
            self._flush.zero_()
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) * 1e3

        return once

    def weights(self) -> tuple[F64, F64, F64 | None, F64]:
        def host(tensor: torch.Tensor) -> F64:
            return np.asarray(tensor.double().cpu().numpy())

        width = self._arrays["width"]
        stacked = host(self._arrays["w_up"]).transpose(0, 2, 1)
        up = stacked[:, :, width:] if stacked.shape[2] > width else None
        return host(self._arrays["x"]), stacked[:, :, :width], up, host(self._arrays["w_down"]).transpose(0, 2, 1)
