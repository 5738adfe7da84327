"""Second-hand numbers widen every interval, whichever model answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moe_codesign as mc
from moe_codesign.chips import chip_names, load_chip
from tests.chips.test_chips import FOLDER

SHAPE = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
LAYER = {"num_tokens": 64, **SHAPE}
TILE = {"block_m": 64, "block_n": 128, "block_k": 64, "num_warps": 4, "num_stages": 3}
GEMM = {"op": "grouped_gemm", "m": 512, "k": 2048, "n": 768, "num_groups": 64}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "data sheet": ("trainium2", LAYER),
    "our kernels": ("h100_sxm", LAYER),
    "our TPU kernels": ("tpu_v6e", LAYER),
    "a stack": ("h200_sxm", LAYER | {"stack": "vllm"}),
    "ragged_dot": ("h100_sxm", GEMM | {"stack": "ragged_dot", "tile": TILE}),
}


@pytest.mark.parametrize("model", ASKED)
def test_an_interval_is_wider_by_what_the_numbers_may_be_off(model: str, tmp_path: Path) -> None:
    name, row = ASKED[model]
    doubtful = tmp_path / "mine.toml"
    text = (FOLDER / f"{name}.toml").read_text()
    doubtful.write_text(text.replace("\n[peak", '\nconfidence = "second_hand"\n\n[peak', 1))
    (sure,), (unsure,) = (mc.predict([row | {"chip": chip}]) for chip in (name, str(doubtful)))
    assert sure["error"] == unsure["error"] == ""
    assert unsure["latency_us"] == sure["latency_us"]
    assert unsure["high_us"] == pytest.approx(2 * sure["high_us"], rel=1e-4)
    assert unsure["bound_us"] == pytest.approx(sure["bound_us"] / 2, rel=1e-4)
    # Table cells are rounded; the lower end may rest on the bound.
    assert sure["low_us"] / 2 * (1 - 1e-4) <= unsure["low_us"] < sure["low_us"]
    assert "the chip's numbers are second-hand" in unsure["warning"]
    assert "second-hand" not in sure["warning"]


def test_every_second_hand_chip_is_audited_with_its_doubt() -> None:
    names = [name for name in chip_names() if load_chip(name).confidence == "second_hand"]
    assert names
    for name in names:
        dtype = next(iter(load_chip(name).peak_flops_per_s))
        for row in mc.audit("Qwen3-30B-A3B", [name], tokens=[1, 4096], dtype=dtype):
            assert row.estimate is not None, row.error
            timing = row.estimate.timing
            assert timing.bound_us <= timing.low_us < timing.latency_us / 1.5
            assert np.log(timing.high_us / timing.latency_us) > np.log(3)
            assert any("second-hand" in note for note in row.estimate.notes)
