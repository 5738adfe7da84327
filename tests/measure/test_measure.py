"""The measuring protocol catches wrong, slow-starting, crashing and hanging candidates."""

import dataclasses
import os
import signal
import time

import numpy as np
import pytest

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip, chip_names, load_chip
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.measure import LayerJob, Measurement, MeasuringProcess, worker
from moe_codesign.measure.draws import Draw
from moe_codesign.measure.presence import is_device, same_product
from moe_codesign.measure.protocol import measure_layer
from moe_kernels import reference
from moe_kernels.tile import BlockedTile


def pair(number: int) -> TilePair:
    tile = BlockedTile(tile_m=number, tile_k=128, tile_n=128)
    return TilePair(tile, tile)


GOOD, WRONG, NAN, DRIFTS, BREAKS, OTHER = (pair(i) for i in range(1, 7))
JOB = LayerJob(
    rows=(3, 0, 5), tokens=6, hidden_size=32, intermediate_size=16, gated=True, candidates=(GOOD,), budget_s=0.01
)


class FakeDevice:
    """A device whose candidates go wrong in known ways."""

    name, software = "fake", "none"

    def __init__(self) -> None:
        self.runs = 0
        self.last: dict[TilePair, F64] = {}

    def load(self, job: LayerJob) -> None:
        rng = np.random.default_rng(job.seed)
        experts, self.hidden, width = len(job.rows), job.hidden_size, job.intermediate_size
        self.gate, self.up = rng.normal(size=(2, experts, self.hidden, width))
        self.down = rng.normal(size=(experts, width, self.hidden))

    def weights_checksum(self) -> int:
        return hash((self.gate.tobytes(), self.up.tobytes(), self.down.tobytes()))

    def draw(self, draw: Draw) -> None:
        self.drawn = draw

    def changed(self) -> bool:
        return False

    def expected(self, draw: Draw) -> F64:
        rng = draw.generator()
        x, pair_weight = rng.normal(size=(draw.tokens, self.hidden)), rng.random(draw.pairs)
        return reference.moe_experts(
            x, self.gate, self.up, self.down, draw.pair_token(), pair_weight, draw.group_sizes()
        )

    def launch(self, tiles: TilePair) -> float:
        self.runs += 1
        out = self.expected(self.drawn) * (1 + 2**-9 * np.sin(np.arange(self.hidden)))
        if tiles == WRONG and 0 in self.drawn.rows[1:]:
            out = out * 1.2
        if tiles == NAN:
            out[0, 0] = np.nan
        if tiles == DRIFTS and self.runs > 9:
            out[-1] = 0
        if tiles == BREAKS:
            raise RuntimeError("launch failed")
        self.last[tiles] = out
        return 10.0

    def output(self, tiles: TilePair) -> F64:
        return self.last[tiles]


def outcome(tiles: TilePair) -> Measurement | Failure:
    return measure_layer(dataclasses.replace(JOB, candidates=(tiles,)), FakeDevice())[0]


def test_a_right_candidate_is_timed_with_all_samples() -> None:
    found = outcome(GOOD)
    assert isinstance(found, Measurement)
    assert len(found.samples_us) >= 5
    assert found.checks >= 9, "four routings before, two timed rounds or more, three routings after"


@pytest.mark.parametrize(
    ("tiles", "says"),
    [(WRONG, "wrong result"), (NAN, "wrong result"), (DRIFTS, "after timing"), (BREAKS, "launch failed")],
)
def test_a_wrong_candidate_never_has_a_time(tiles: TilePair, says: str) -> None:
    found = outcome(tiles)
    assert isinstance(found, Failure)
    assert says in found.text


def test_one_bad_candidate_does_not_stop_the_others() -> None:
    found = measure_layer(dataclasses.replace(JOB, candidates=(BREAKS, GOOD, WRONG)), FakeDevice())
    assert [type(f) for f in found] == [Failure, Measurement, Failure]


def test_every_candidate_is_warm_before_any_is_timed() -> None:
    calls: list[TilePair] = []

    class Watched(FakeDevice):
        def launch(self, tiles: TilePair) -> float:
            calls.append(tiles)
            return super().launch(tiles)

    found = measure_layer(dataclasses.replace(JOB, candidates=(GOOD, OTHER)), Watched())
    timed = [len(one.samples_us) for one in found if isinstance(one, Measurement)]
    assert calls[:12] == [*[GOOD] * 4, *[OTHER] * 4, GOOD, OTHER, GOOD, OTHER]
    assert calls.count(OTHER) > timed[1] + 4 + 3


def test_the_same_tiles_twice_are_two_measurements() -> None:
    found = measure_layer(dataclasses.replace(JOB, candidates=(GOOD, GOOD)), FakeDevice())
    assert [type(f) for f in found] == [Measurement, Measurement]


@pytest.mark.parametrize(
    ("product", "device", "same"),
    [
        ("NVIDIA H100 SXM5 80 GB", "NVIDIA H100 80GB HBM3", True),
        ("NVIDIA H100 SXM5 80 GB", "NVIDIA H100 PCIe", False),
        ("NVIDIA H100 SXM5 80 GB", "NVIDIA H200", False),
        ("NVIDIA L40S", "NVIDIA L40S", True),
        ("NVIDIA L40S", "NVIDIA L4", False),
        ("AMD Instinct MI300X", "AMD Instinct MI300X", True),
    ],
)
def test_a_device_is_the_chip_or_it_is_not(product: str, device: str, same: bool) -> None:
    assert same_product(product, device) == same


def test_each_drivers_name_is_one_gpu_of_the_catalogue() -> None:
    gpus = [chip for chip in map(load_chip, chip_names()) if isinstance(chip, GpuChip)]
    for chip in gpus:
        for name in chip.device_names:
            assert [one.name for one in gpus if is_device(one, name.replace("_", " "))] == [chip.name]


def crash_or_hang(job: LayerJob, platform: str) -> list[Measurement | Failure]:
    if job.seed == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.seed == 2:
        time.sleep(600)
    return [Failure(FailureKind.MEASUREMENT, "alive")]


def test_a_crash_and_a_hang_are_results_and_the_next_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_measure", crash_or_hang)
    with MeasuringProcess("cpu", time_limit_s=6) as device:
        outcomes = [device.measure(dataclasses.replace(JOB, seed=seed))[0] for seed in (1, 2, 3)]
    reasons = [o.text for o in outcomes if isinstance(o, Failure)]
    assert "died" in reasons[0]
    assert "6 s" in reasons[1]
    assert reasons[2] == "alive"


def test_a_device_measures_the_tiles_of_its_own_kernel_alone() -> None:
    from moe_codesign.measure.jax_device import JaxDevice
    from moe_kernels.tile import PallasTile

    own = BlockedTile(tile_m=16, tile_k=32, tile_n=32)
    others = PallasTile(tile_m=128, tile_k=128, tile_n=128)
    pairs = (TilePair(own, own), TilePair(own, others))
    first, second = measure_layer(dataclasses.replace(JOB, candidates=pairs), JaxDevice("cpu"))
    assert isinstance(first, Measurement), first
    assert isinstance(second, Failure)
    assert "does not run a PallasTile" in second.text
