"""The examples of kernels/README.md, as they stand there, against float64."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_kernels import reference
from moe_kernels.reference import LAYER_TOLERANCE
from moe_kernels.triton import QuantizedWeights
from moe_kernels.triton.device import target_of
from moe_kernels.triton.formats import fp8_type, missing_on
from tests.numerics.cases import f64, numbers
from tests.numerics.test_gradients import reference_experts

README = Path(__file__).parents[2] / "kernels" / "README.md"


def test_the_first_example(device: torch.device) -> None:
    first, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)  # noqa: S102
    layer = names["layer"]
    assert isinstance(layer, torch.nn.Module)
    assert all(p.grad is not None for p in layer.parameters())

    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((16, 64))).to(torch.bfloat16).to(device).requires_grad_()
    logits = layer.gate(x)
    seed = torch.tensor(rng.standard_normal((16, 64))).to(torch.bfloat16).to(device)
    leaves = [x, *layer.parameters()]
    out = layer(x)
    got = torch.autograd.grad(out, leaves, seed)

    # The layer's own logits, in bfloat16, choose the experts; all else is in float64.
    chosen, ids = logits.double().topk(2, 1)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    by_name = dict(zip(("x", *(name for name, _ in layer.named_parameters())), wide, strict=True))
    own = by_name["x"] @ by_name["gate.weight"].T
    weights = (own + (logits.double() - own).detach()).gather(1, ids).softmax(1)
    assert torch.allclose(weights, chosen.softmax(1))
    wanted_out = reference_experts(
        by_name["x"], by_name["w_gate_up"], by_name["w_down"], weights, ids, None, None, "swiglu"
    )
    assert reference.row_error(f64(out), f64(wanted_out)) <= LAYER_TOLERANCE["bfloat16"]
    wanted = torch.autograd.grad(wanted_out, wide, seed.double())
    for one, other in zip(got, wanted, strict=True):
        error = (one.double() - other).square().mean().sqrt() / other.square().mean().sqrt()
        # Every product in the chain rounds once, by 2**-9.3 of its rms: six in a row, through the router too.
        assert float(error) <= 0.015


@pytest.mark.parametrize("dtype", ["fp8_block", "fp8", "int8", "mxfp4", "int4"])
def test_the_second_example(dtype: str, device: torch.device) -> None:
    if reason := missing_on(dtype, target_of(device)):
        pytest.skip(reason)
    _, second, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if fp8_type(target_of(device)) == "fp8e4b8":
        second = second.replace("matrices=", "fp8=torch.float8_e4m3fnuz, matrices=")
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) * shape[-1] ** -0.5).to(torch.bfloat16).to(device)

    ids = np.array([[0, 1], [1, 2], [2, 0], [1, 0]])
    weights = rng.random((4, 2)) + 0.1
    names: dict[str, object] = {
        "torch": torch,
        "x": 11 * draw(4, 128),
        "w_gate_up": draw(3, 256, 128),
        "w_down": draw(3, 128, 128),
        "topk_weights": torch.tensor(weights, dtype=torch.float32, device=device),
        "topk_ids": torch.tensor(ids, device=device),
    }
    exec(second.replace("fp8_block", dtype), names)  # noqa: S102
    x, y, w_up, w_down = (names[name] for name in ("x", "y", "w_gate_up", "w_down"))
    assert isinstance(x, torch.Tensor)
    assert isinstance(y, torch.Tensor)
    assert isinstance(w_up, QuantizedWeights)
    assert isinstance(w_down, QuantizedWeights)
    order = np.argsort(ids.ravel(), kind="stable")
    up = numbers(w_up).transpose(0, 2, 1)
    expected = reference.moe_experts(
        f64(x), up[:, :, :128], up[:, :, 128:], numbers(w_down).transpose(0, 2, 1), order // 2,
        weights.ravel()[order], np.bincount(ids.ravel()), activation="swiglu",
    )  # fmt: skip
    assert reference.row_error(f64(y), expected) <= LAYER_TOLERANCE[dtype]
    assert not reference.row_error(1.5 * f64(y), expected) <= LAYER_TOLERANCE[dtype]
