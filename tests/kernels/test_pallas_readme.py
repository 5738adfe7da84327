"""The TPU example of kernels/README.md runs as it stands."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from moe_kernels import reference
from tests.kernels.tpu_interpreter import INTERPRET, f64

README = Path(__file__).parents[2] / "kernels" / "README.md"


def test_the_example_runs() -> None:
    text = next(t for t in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "PallasTile" in t)
    names: dict[str, object] = {"interpret": INTERPRET}
    exec(compile(text, str(README), "exec"), names)  # noqa: S102
    out, rows, gate, up, down = (names[name] for name in ("out", "rows", "w_gate", "w_up", "w_down"))
    assert all(isinstance(a, jnp.ndarray) for a in (out, rows, gate, up, down))
    sizes = np.array([40, 0, 24])
    products = [reference.grouped_gemm(f64(rows), f64(w), sizes) for w in (gate, up)]
    hidden = reference.activate(products[0], products[1])
    expected = reference.grouped_gemm(hidden, f64(down), sizes)
    assert reference.row_error(f64(out), expected) <= reference.BF16_TOLERANCE
