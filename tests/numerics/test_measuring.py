"""What measures a layer on a GPU checks the kernels against its own float64, and catches a fault."""

import dataclasses
from types import ModuleType

import numpy as np
import pytest
import torch

from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure import LayerJob, Measurement
from moe_codesign.measure.cuda_device import CudaDevice
from moe_codesign.measure.draws import before_timing
from moe_codesign.measure.protocol import measure_layer
from moe_codesign.measure.verification import Tolerance, WrongResultError, check
from moe_kernels.tile import TritonTile
from tests.numerics.cases import benchmark_script

TILE = TritonTile(block_m=16, block_n=32, block_k=32, num_warps=4, num_stages=2)
TILES = TilePair(TILE, dataclasses.replace(TILE, split_k=2))
JOB = LayerJob(
    rows=(3, 0, 17, 1), tokens=9, hidden_size=128, intermediate_size=128, gated=True, candidates=(TILES,), budget_s=0.01
)


# The types' own arithmetic is test_layer.py's; here are weights as they are, and quantised ones.
@pytest.mark.parametrize(("dtype", "gated"), [("bfloat16", False), ("float16", True), ("fp8_block", True)])
def test_the_device_agrees_with_its_own_reference(dtype: str, gated: bool, device: torch.device) -> None:
    job = dataclasses.replace(JOB, dtype=dtype, gated=gated)
    on = CudaDevice(device)
    on.load(job)
    tolerance, before = Tolerance.of_layer(dtype), on.weights_checksum()
    for draw in before_timing(job):
        on.draw(draw)
        on.launch(TILES)
        assert not on.changed()
        found, expected = on.output(TILES), on.expected(draw)
        assert check(found, expected, tolerance) > 0
        with pytest.raises(WrongResultError):
            check(1.5 * found, expected, tolerance)
    assert on.weights_checksum() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="times are a device's")
def test_a_layer_is_timed() -> None:
    (found,) = measure_layer(JOB, CudaDevice())
    assert isinstance(found, Measurement), found
    assert np.isfinite(found.samples_us).all()
    assert min(found.samples_us) > 0


@pytest.fixture(scope="module")
def race() -> ModuleType:
    return benchmark_script("gpu/race")


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("fp8_block", marks=pytest.mark.slow)])
def test_each_gemm_of_the_race_is_verified(race: ModuleType, dtype: str, device: torch.device) -> None:
    case = race.Case("small", 1, 4, dtype, "uniform")
    work = dataclasses.replace(
        race.Case("Qwen3-30B-A3B", 16, 4, dtype, "uniform").work(), hidden_size=128, intermediate_size=128
    )
    for gemm in race.gemms_of(case, device, work):
        for tile in (TILE, dataclasses.replace(TILE, split_k=2)):
            run = gemm.launcher(tile)
            assert gemm.verify(run) <= race.TOLERANCE[dtype]
            gemm.expected *= 1 + 4 * race.TOLERANCE[dtype]
            assert not gemm.verify(run) <= race.TOLERANCE[dtype]
            gemm.expected /= 1 + 4 * race.TOLERANCE[dtype]
