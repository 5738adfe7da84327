"""Runs Triton kernels in the interpreter; a process of its own, since the interpreter is chosen at import.

Reads cases as JSON from standard input, writes one row error (or null for NaN) per case.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from moe_kernels import reference
from moe_kernels.tile import TritonTile
from moe_kernels.triton.fused_moe import moe_experts
from moe_kernels.triton.interpreter import enable_bfloat16_dot


def run(case: dict) -> float:
    rng = np.random.default_rng(case["seed"])
    H, width, tokens, sizes = case["H"], case["I"], case["T"], np.array(case["sizes"])
    token = np.concatenate([rng.permutation(tokens)[:s] for s in sizes]) if sizes.sum() else np.zeros(0, int)
    weight = (rng.random(len(token)) + 0.1).astype(np.float32)

    def draw(*shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) / shape[-1] ** 0.5).to(torch.bfloat16)

    x = draw(tokens, H) * H**0.5
    w_up = draw(len(sizes), (2 if case["gated"] else 1) * width, H)
    w_down = draw(len(sizes), H, width)
    out = moe_experts(
        x,
        w_up,
        w_down,
        torch.tensor(token, dtype=torch.int32),
        torch.tensor(weight),
        torch.tensor(sizes, dtype=torch.int32),
        tile_up=TritonTile(**case["tile_up"]),
        tile_down=TritonTile(**case["tile_down"]),
    )

    def f64(t: torch.Tensor) -> np.ndarray:
        return t.double().numpy()

    up = f64(w_up).transpose(0, 2, 1)
    expected = reference.moe_experts(
        f64(x),
        up[:, :, :width],
        up[:, :, width:] if case["gated"] else None,
        f64(w_down).transpose(0, 2, 1),
        token,
        weight.astype(np.float64),
        sizes,
    )
    fault = case.get("fault")
    if fault == "scale":
        expected *= 1.1
    elif fault == "tail":
        expected[:, -1] = 0
    elif fault == "expert":
        weight[: sizes[0]] = 0
        expected = reference.moe_experts(
            f64(x), up[:, :, :width], up[:, :, width:], f64(w_down).transpose(0, 2, 1), token, weight, sizes
        )
    return reference.row_error(f64(out), expected)


def main() -> None:
    enable_bfloat16_dot()
    errors = []
    for case in json.load(sys.stdin):
        error = run(case)
        errors.append(None if error != error else error)
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
