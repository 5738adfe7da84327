"""The rules of a serving stack: planted ones are found."""

import dataclasses

import numpy as np
import pytest

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.cost.operations.fitted import find_operations
from moe_codesign.cost.step.modes import Modes
from moe_codesign.cost.step.rules import StackRules
from moe_codesign.cost.step.serving import Load, serve
from moe_codesign.domain.deployment import ModelSplit
from moe_codesign.fitting.serving import (
    TimedRuns,
    errors_by_family,
    fit_rules,
    time_runs,
    tpot_ms,
    ttft_ms,
    types_of_run,
)
from moe_codesign.formats.serving_runs import Run
from moe_codesign.models import model_shape

PLANTED = StackRules(
    step_us=800.0, layer_us=15.0, bytes=2.0, shared_hidden=0.6, attention=1.4, experts=1.2, communication=1.5,
    prefill=1.6, ttft_ms=80.0, ttft_prefill=2.0, ttft_steps=3.0,
)  # fmt: skip


def planted(noise: float) -> TimedRuns:
    rng = np.random.default_rng(0)
    rows = 240
    parts = {
        name: rng.uniform(0.2, 1.0, rows) * scale
        for name, scale in {
            "attention": 6e3, "experts": 1.2e4, "shared experts": 4e3, "all-reduce": 3e3, "projections": 2e3,
        }.items()
    }  # fmt: skip
    run = Run(
        model="org/one", chip="h200_sxm", stack="sglang", version="", precision="fp8", isl=1024, osl=1024, requests=1,
        split=ModelSplit(), tpot_ms=1.0, ttft_ms=1.0,
    )  # fmt: skip
    timed = TimedRuns(
        runs=(run,) * rows,
        families=np.repeat(["one", "two", "three"], rows // 3),
        parts_us=parts,
        layers=rng.choice([36.0, 61.0, 94.0], rows),
        moved_us=rng.uniform(50, 500, rows),
        prefill_us=rng.uniform(100, 5000, rows),
        first_us=rng.uniform(2e4, 5e5, rows),
    )
    token = tpot_ms(PLANTED, timed) * np.exp(rng.normal(0, noise, rows))
    first = ttft_ms(PLANTED, timed) * np.exp(rng.normal(0, noise, rows))
    runs = tuple(
        dataclasses.replace(run, tpot_ms=float(one), ttft_ms=float(other))
        for one, other in zip(token, first, strict=True)
    )
    return dataclasses.replace(timed, runs=runs)


def test_planted_rules_are_found() -> None:
    timed = planted(noise=0.0)
    found = fit_rules(timed)
    for name in ("attention", "experts", "communication", "prefill", "shared_hidden", "ttft_prefill"):
        assert getattr(found, name) == pytest.approx(getattr(PLANTED, name), rel=0.25), name
    for errors in errors_by_family(timed, found).values():
        assert errors.mape < 1.0
        assert errors.ttft_median < 2.0
        assert errors.elsewhere_mape < 2.0


def test_intervals_are_of_families_that_were_not_seen() -> None:
    timed = planted(noise=0.1)
    # One family takes half as long again: its runs are far off by rules of the others.
    odd = timed.families == "three"
    runs = tuple(
        dataclasses.replace(run, tpot_ms=1.5 * run.tpot_ms) if far else run
        for run, far in zip(timed.runs, odd, strict=True)
    )
    shifted = dataclasses.replace(timed, runs=runs)
    assert fit_rules(shifted).error > 2 * fit_rules(timed).error
    odd_one = errors_by_family(shifted, fit_rules(shifted))["three"]
    assert odd_one.elsewhere_mape > odd_one.mape


def test_what_is_served_is_what_was_fitted() -> None:
    """Times of runs by the fit's formula are those that serving gives under the same rules."""
    run = Run(
        model="deepseek-ai/DeepSeek-V3", chip="h200_sxm", stack="trtllm", version="", precision="fp8", isl=8192,
        osl=1024, requests=32, split=ModelSplit(tp=8, ep=8), tpot_ms=1.0, ttft_ms=1.0,
    )  # fmt: skip
    runs = [run, dataclasses.replace(run, isl=1024, requests=256, split=ModelSplit(dp=8, ep=8))]
    timed = time_runs(runs)[0]["trtllm"]
    shape = model_shape("DeepSeek-V3")
    model = dataclasses.replace(shape, types=types_of_run(shape, run))
    chip = GpuChip.of(load_chip("h200_sxm"))
    names = ("tp", "dp", "moe_tp", "ep")
    split = {name: np.array([float(getattr(one.split, name)) for one in runs]) for name in names}
    load = Load(np.array([32.0, 32.0]), np.array([8192.0, 1024.0]), np.array([1024.0, 1024.0]), **split)
    served = serve(model, load, Modes.of(model.types, chip), find_operations(chip, "trtllm"), PLANTED)
    assert served.tpot_ms == pytest.approx(tpot_ms(PLANTED, timed))
    assert served.ttft_ms == pytest.approx(ttft_ms(PLANTED, timed))
