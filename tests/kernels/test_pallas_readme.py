"""The TPU example of kernels/README.md, as it stands there and in other sizes, against float64."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from moe_kernels import reference
from tests.kernels.tpu_interpreter import f64

README = Path(__file__).parents[2] / "kernels" / "README.md"


@pytest.mark.parametrize("sized", ["as it stands", "M, K and N that no tile divides"])
def test_the_example(sized: str) -> None:
    text = next(t for t in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "PallasTile" in t)
    sizes, hidden_size, width = [40, 0, 24], 256, 192
    if sized != "as it stands":
        for old, new in (
            ("[40, 0, 24]", "[13, 0, 7]"),
            ("(64, 256)", "(20, 480)"),
            ("(3, 256, 192), (3, 256, 192), (3, 192, 256)", "(3, 480, 360), (3, 480, 360), (3, 360, 480)"),
            ("tile_k=32768", "tile_k=128"),
        ):
            assert old in text
            text = text.replace(old, new)
        sizes, hidden_size, width = [13, 0, 7], 480, 360
    names: dict[str, object] = {"interpret": pltpu.InterpretParams()}
    exec(compile(text, str(README), "exec"), names)  # noqa: S102
    out, rows, gate, up, down = (names[name] for name in ("out", "rows", "w_gate", "w_up", "w_down"))
    assert all(isinstance(a, jnp.ndarray) for a in (out, rows, gate, up, down))
    products = [reference.grouped_gemm(f64(rows), f64(w), np.array(sizes)) for w in (gate, up)]
    hidden = reference.activate(products[0], products[1])
    expected = reference.grouped_gemm(hidden, f64(down), np.array(sizes))
    assert expected.shape == (sum(sizes), hidden_size)
    assert reference.row_error(f64(out), expected) <= reference.BF16_TOLERANCE
    # The gradient of a sum: each row of a group's weights has the sum of the group's rows at its place.
    gradient = names["gradient"]
    assert callable(gradient)
    found = gradient(gate)
    assert isinstance(found, jax.Array)
    ends = np.cumsum(sizes)
    sums = np.stack([f64(rows)[end - size : end].sum(0) for end, size in zip(ends, sizes, strict=True)])
    right = np.repeat(sums[:, :, None], width, axis=2)
    assert found.shape == right.shape
    assert reference.row_error(f64(found).reshape(3, -1), right.reshape(3, -1)) <= reference.BF16_TOLERANCE
