"""The example of kernels/README.md runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[2] / "kernels" / "README.md"


def test_the_first_example_runs(device: torch.device) -> None:
    first, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)  # noqa: S102
    layer = names["layer"]
    assert isinstance(layer, torch.nn.Module)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())
    assert any(bool(p.grad.any()) for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_second_example_runs(dtype: str, device: torch.device) -> None:
    _, second, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(torch.bfloat16)

    names: dict[str, object] = {
        "x": draw(4, 128),
        "w_gate_up": draw(2, 256, 128),
        "w_down": draw(2, 128, 128),
        "topk_weights": torch.ones(4, 1, device=device),
        "topk_ids": torch.tensor([[0], [1], [0], [1]], device=device),
    }
    exec(second.replace("fp8_block", dtype), names)  # noqa: S102
    y = names["y"]
    assert isinstance(y, torch.Tensor)
    assert y.shape == (4, 128)
