"""A CUDA or ROCm GPU, through PyTorch and Triton: CUDA graph, cold L2, device events."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton

from moe_codesign.measure.job import Inputs, Tiles
from moe_codesign.measure.protocol import F64
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import fp8_type
from moe_kernels.triton.launch import Weights, target_of
from moe_kernels.triton.layer import Expert, experts_of_pairs
from moe_kernels.triton.quantize import QuantizedWeights, dequantize_weights, quantize_weights

_FLUSH_BYTES = 512 << 20
"""Written before each sample: twice the largest last-level cache there is (256 MB on MI300)."""


def _runtime() -> str:
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


class CudaDevice:
    """The current CUDA device."""

    def __init__(self) -> None:
        self.name = torch.cuda.get_device_name()
        self.software = f"torch {torch.__version__}, triton {triton.__version__}, {_runtime()}"
        self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")
        self._arrays: dict[str, Any] = {}
        self._expert = Expert()
        self._graphs: dict[str, tuple[Any, torch.Tensor]] = {}

    def load(self, inputs: Inputs, dtype: str) -> None:
        def put(array: Any, dtype: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(array).to(device="cuda", dtype=dtype)

        def weights(array: Any, matrices: int) -> Weights:
            plain = put(np.ascontiguousarray(array), wide)
            if dtype in ("bfloat16", "float16"):
                return plain
            old = fp8_type(target_of(plain.device)) == "fp8e4b8"
            fp8 = torch.float8_e4m3fnuz if old else torch.float8_e4m3fn
            return quantize_weights(plain, dtype, matrices=matrices, fp8=fp8)

        self._graphs.clear()
        wide = torch.float16 if dtype == "float16" else torch.bfloat16
        self._expert = Expert(activation="relu2" if inputs.up is None else "swiglu")
        up = [w.transpose(0, 2, 1) for w in (inputs.gate, inputs.up) if w is not None]
        self._arrays = {
            "x": put(inputs.x, wide),
            "w_up": weights(np.concatenate(up, axis=1), len(up)),
            "w_down": weights(inputs.down.transpose(0, 2, 1), 1),
            "pair_weight": put(inputs.pair_weight, torch.float32),
            "routings": [
                (put(np.repeat(np.arange(len(sizes)), sizes), torch.int32), put(token, torch.int32))
                for sizes, token in inputs.routings
            ],
            "width": inputs.gate.shape[2],
        }

    def _call(self, tiles: Tiles, routing: int) -> torch.Tensor:
        expert, token = self._arrays["routings"][routing]
        return experts_of_pairs(
            self._arrays["x"],
            self._arrays["w_up"],
            self._arrays["w_down"],
            expert,
            token,
            self._arrays["pair_weight"],
            self._expert,
            (TritonTile.from_dict(tiles[0]), TritonTile.from_dict(tiles[1])),
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
        poison = torch.full((pairs, self._arrays["width"]), float("nan"), dtype=self._arrays["x"].dtype, device="cuda")
        del poison
        return np.asarray(self._call(tiles, routing).double().cpu().numpy())

    def timer(self, tiles: Tiles) -> Callable[[], float]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
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
        def host(held: Weights) -> F64:
            tensor = dequantize_weights(held) if isinstance(held, QuantizedWeights) else held
            return np.asarray(tensor.double().cpu().numpy())

        width = self._arrays["width"]
        stacked = host(self._arrays["w_up"]).transpose(0, 2, 1)
        up = stacked[:, :, width:] if stacked.shape[2] > width else None
        return host(self._arrays["x"]), stacked[:, :, :width], up, host(self._arrays["w_down"]).transpose(0, 2, 1)
