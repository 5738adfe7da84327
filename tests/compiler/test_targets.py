"""Every chip's own compiler runs here; the binaries hold what they should."""

import pytest

import moe_codesign as mc
from moe_codesign.chips import GpuChip, TpuChip, chip_names, load_chip
from moe_codesign.compiler.artifact import GpuFacts, Refused, TpuFacts

CHIPS = {name: load_chip(name) for name in chip_names() if name != "cpu"}
GPUS = [name for name, chip in CHIPS.items() if isinstance(chip, GpuChip)]
TPUS = [name for name, chip in CHIPS.items() if isinstance(chip, TpuChip)]
MATRIX = {"cuda:90": "HGMMA", "cuda:100": "UTC", "cuda:103": "UTC"}
"""Matrix instructions of the NVIDIA targets that have wider ones than a warp's."""


@pytest.mark.parametrize("chip", GPUS)
def test_gpu_binaries(chip: str) -> None:
    for one in mc.compile_kernel("triton.grouped_gemm", chip, jobs=2, recompile=True):
        facts = one.facts
        assert isinstance(facts, GpuFacts), one.outcome
        assert one.refused is None
        target = str(CHIPS[chip].target)
        on_amd = target.startswith("hip:")
        matrix, loads = ("v_mfma", ["global_load"]) if on_amd else (MATRIX.get(target, "HMMA"), ["LDGSTS", "UTMALDG"])
        assert facts.count(matrix) > 0
        assert facts.count(*loads) > 0
        assert facts.registers > 16
        assert facts.spill_bytes == 0, "the default tile does not spill"
        assert 0 < facts.loop_matrix < facts.loop_instructions


@pytest.mark.parametrize("chip", TPUS)
def test_tpu_programs(chip: str) -> None:
    for one in mc.compile_kernel(
        "pallas.grouped_matmul", chip, tile={"tile_m": 128, "tile_n": 256}, jobs=2, recompile=True
    ):
        facts = one.facts
        assert isinstance(facts, TpuFacts), one.outcome
        assert facts.program.bundles > 100
        assert facts.program.slots["matrix"] > 0
        assert facts.program.dma_bytes > 0
        # A bucket of 128 rows, 2048 deep and 256 wide, cannot beat the matrix units.
        assert facts.step_cycles(1, 2048) > 256


def test_what_cannot_fit_names_the_limit() -> None:
    tile = {"block_m": 128, "block_n": 256, "block_k": 128, "num_stages": 4}
    one = mc.compile_kernel("triton.grouped_gemm", "h100_sxm", tile=tile, jobs=2, recompile=True)[1]
    assert one.refused is not None
    assert "232448" in one.refused
    tile = {"tile_m": 1024, "tile_k": 16384, "tile_n": 1024}
    tpu = mc.compile_kernel("pallas.grouped_matmul", "tpu_v6e", tile=tile, jobs=2, recompile=True)[0]
    assert isinstance(tpu.outcome, Refused)
    assert tpu.outcome.kind == "refused"
    assert "VMEM" in tpu.outcome.reason
    assert "M" in tpu.outcome.reason
