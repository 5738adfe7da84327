"""Builds a layer's inputs on a device, runs it stage by stage, and compares each stage with float64.

A stage's reference starts from what the kernel's previous stage really gave it, quantised as the kernel quantised
it: then only the stage's own rounding is left, and the tolerance is tight for every data type.
"""

import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from moe_kernels import reference
from moe_kernels.tile import TritonTile
from moe_kernels.triton.alignment import Alignment, align
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import fp8_type
from moe_kernels.triton.launch import Weights
from moe_kernels.triton.layer import Expert, experts_forward, gemm_down, gemm_up
from moe_kernels.triton.quantize import QuantizedWeights, dequantize_weights, quantize_rows, quantize_weights

SMALL = TritonTile(block_m=16, block_n=64, block_k=64, num_warps=4, num_stages=2, group_m=1)
WIDE = TritonTile(block_m=32, block_n=128, block_k=128, num_warps=4, num_stages=2, group_m=4)
LARGE = TritonTile(block_m=128, block_n=128, block_k=64, num_warps=8, num_stages=2, group_m=1)
"""Large enough that its columns are stored by quarters."""
PATHS: dict[str, dict[str, bool | int]] = {
    "plain": {},
    "persistent": {"persistent": True},
    "split-k": {"split_k": 2},
    "swapped": {"swap_ab": True, "block_m": 8},
    "descriptors": {"tma": True},
    "all at once": {"persistent": True, "split_k": 2, "swap_ab": True, "tma": True},
}


def tile_of(path: str) -> TritonTile:
    return replace(SMALL, **PATHS[path])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """One layer. ``routing``: random, skewed (all tokens first choose expert 1), empty (only even experts).

    ``rows`` is the type of the activations that quantised weights meet. ``alpha`` and ``limit`` are not the defaults
    (gpt-oss's), so that a kernel which ignores them is wrong, and so low that many values meet the limit.
    """

    dtype: str = "bfloat16"
    rows: str = "bfloat16"
    activation: str = "swiglu"
    tiles: tuple[TritonTile, TritonTile] = (SMALL, SMALL)
    hidden_size: int = 160
    width: int = 96
    tokens: int = 6
    experts: int = 3
    top_k: int = 2
    routing: str = "random"
    bias: bool = False
    deterministic: bool = True
    seed: int = 0
    group: int = 32
    alpha: float = 1.3
    limit: float = 1.5


@dataclass
class Layer:
    x: torch.Tensor
    w_up: Weights
    w_down: Weights
    b_up: torch.Tensor | None
    b_down: torch.Tensor | None
    topk_weights: torch.Tensor
    topk_ids: torch.Tensor
    expert: Expert


def make_layer(case: Case, device: torch.device) -> Layer:
    rng = np.random.default_rng(case.seed)
    expert = Expert(
        activation=case.activation, deterministic=case.deterministic, alpha=case.alpha, limit=case.limit
    )  # fmt: skip
    out_dtype = torch.float16 if "float16" in (case.dtype, case.rows) else torch.bfloat16

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) * scale).to(out_dtype).to(device)

    def weights(rows: int, k: int, matrices: int) -> Weights:
        # Experts of different size: a wrong expert's scale is then a wrong result.
        plain = draw(case.experts, rows, k, scale=k**-0.5)
        plain = plain * torch.linspace(0.5, 2.0, case.experts, device=device)[:, None, None].to(out_dtype)
        if case.dtype in ("bfloat16", "float16"):
            return plain
        fp8 = torch.float8_e4m3fnuz if fp8_type(target_of(device)) == "fp8e4b8" else torch.float8_e4m3fn
        return quantize_weights(plain, case.dtype, matrices=matrices, group=case.group, fp8=fp8)

    ids = np.stack([rng.permutation(case.experts)[: case.top_k] for _ in range(case.tokens)])
    if case.routing == "skewed":
        others = np.array([e for e in range(case.experts) if e != 1])
        ids = np.stack([np.r_[1, rng.permutation(others)[: case.top_k - 1]] for _ in range(case.tokens)])
    elif case.routing == "empty":
        even = np.arange(0, case.experts, 2)
        ids = np.stack([rng.permutation(even)[: case.top_k] for _ in range(case.tokens)])
    return Layer(
        x=draw(case.tokens, case.hidden_size),
        w_up=weights(expert.matrices * case.width, case.hidden_size, expert.matrices),
        w_down=weights(case.hidden_size, case.width, 1),
        b_up=draw(case.experts, expert.matrices * case.width, scale=0.3) if case.bias else None,
        b_down=draw(case.experts, case.hidden_size, scale=0.3) if case.bias else None,
        topk_weights=torch.tensor(rng.random((case.tokens, case.top_k)) + 0.1, dtype=torch.float32, device=device),
        topk_ids=torch.tensor(ids, dtype=torch.int32, device=device),
        expert=expert,
    )


def f64(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().double().cpu().numpy())


def numbers(weights: Weights) -> np.ndarray:
    return f64(dequantize_weights(weights) if isinstance(weights, QuantizedWeights) else weights)


def as_quantized(rows: torch.Tensor, weights: Weights, valid: torch.Tensor | None = None) -> np.ndarray:
    """The numbers that the GEMM sees for these activation rows."""
    if not isinstance(weights, QuantizedWeights):
        return f64(rows)
    values, scale = quantize_rows(rows, weights, valid)
    if scale is None:
        return f64(values)
    if weights.dtype == "fp8":
        return np.asarray(f64(values) * f64(scale))
    if weights.dtype == "int8":
        return np.asarray(f64(values) * f64(scale)[:, None])
    return np.asarray(f64(values) * np.repeat(f64(scale), 128, axis=1)[:, : rows.shape[1]])


@dataclass
class Stages:
    """What both GEMMs of a layer gave."""

    rows: Alignment
    hidden: torch.Tensor
    out: torch.Tensor


def run_stages(case: Case, layer: Layer) -> Stages:
    rows = align(layer.topk_ids, case.experts, (case.tiles[0].block_m, case.tiles[1].block_m))
    hidden = gemm_up(layer.x, layer.w_up, rows, layer.expert, case.tiles[0], layer.b_up)
    out = gemm_down(
        hidden, layer.w_down, rows, layer.topk_weights, layer.topk_ids, layer.expert, case.tiles[1], layer.b_down
    )
    return Stages(rows, hidden, out)


def activate(gate: np.ndarray, up: np.ndarray | None, activation: str, alpha: float, limit: float) -> np.ndarray:
    """The reference's activations, with any alpha and limit of ``swiglu_oai``."""
    if activation != "swiglu_oai":
        return reference.activate(gate, up, activation)
    assert up is not None
    gate = np.minimum(gate, limit)
    return np.asarray(gate / (1 + np.exp(-alpha * gate)) * (np.clip(up, -limit, limit) + 1))


def stage_errors(case: Case, layer: Layer, stages: Stages, fault: str | None = None) -> tuple[float, float]:
    """Row errors of GEMM 1 with its activation, and of GEMM 2 with the weighted sum.

    ``fault`` spoils the reference as a broken kernel would the result: ``scale`` doubles the last expert's weights,
    ``tail`` drops the last step of K, ``expert`` drops the last expert.
    """
    rows, hidden, out = stages.rows, stages.hidden, stages.out
    sizes = np.bincount(layer.topk_ids.cpu().numpy().ravel(), minlength=case.experts)
    token, slot = rows.token.cpu().numpy(), rows.slot.cpu().numpy()
    w_up, w_down = (
        _spoil(numbers(w), fault, tile.block_k) for w, tile in zip((layer.w_up, layer.w_down), case.tiles, strict=True)
    )
    product = reference.grouped_gemm(as_quantized(layer.x, layer.w_up)[token], w_up.transpose(0, 2, 1), sizes)
    if layer.b_up is not None:
        product += np.repeat(f64(layer.b_up), sizes, axis=0)
    gate, up = (product[:, : case.width], product[:, case.width :]) if layer.expert.matrices == 2 else (product, None)
    activated = activate(gate, up, case.activation, layer.expert.alpha, layer.expert.limit)
    first = reference.row_error(f64(hidden), activated)
    y = reference.grouped_gemm(as_quantized(hidden, layer.w_down, rows.start[-1:]), w_down.transpose(0, 2, 1), sizes)
    if layer.b_down is not None:
        y += np.repeat(f64(layer.b_down), sizes, axis=0)
    expected = np.zeros((case.tokens, case.hidden_size))
    np.add.at(expected, token, y * f64(layer.topk_weights).ravel()[slot][:, None])
    return first, reference.row_error(f64(out), expected)


def _spoil(weights: np.ndarray, fault: str | None, block_k: int) -> np.ndarray:
    weights = weights.copy()
    if fault == "scale":
        weights[-1] *= 2
    elif fault == "expert":
        weights[-1] = 0
    elif fault == "tail":
        k = weights.shape[2]
        weights[:, :, k - (k % block_k or block_k) :] = 0
    return weights


def layer_error(case: Case, layer: Layer) -> float:
    """Row error of the whole layer, whose reference knows nothing of quantised activations."""
    out = experts_forward(
        layer.x, layer.w_up, layer.w_down, layer.topk_weights, layer.topk_ids, layer.expert, case.tiles, layer.b_up,
        layer.b_down,
    )  # fmt: skip
    ids, weight = layer.topk_ids.cpu().numpy(), f64(layer.topk_weights)
    order = np.argsort(ids.ravel(), kind="stable")
    sizes = np.bincount(ids.ravel(), minlength=case.experts)
    up, width = numbers(layer.w_up).transpose(0, 2, 1), case.width
    expected = reference.moe_experts(
        f64(layer.x),
        up[:, :, :width],
        up[:, :, width:] if layer.expert.matrices == 2 else None,
        numbers(layer.w_down).transpose(0, 2, 1),
        order // case.top_k,
        weight.ravel()[order],
        sizes,
        activation=case.activation,
    )
    return reference.row_error(f64(out), expected)


def benchmark_script(name: str) -> ModuleType:
    """A script of benchmarks/, as in ``gpu/race``, imported."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
