"""Every path of the Triton kernels compiles for every family, and the binaries hold the instructions they should."""

import dataclasses
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    CompileResult,
    Refused,
    compile_all,
    requests_for,
    unlaunchable,
)
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.kernels import kernel_for
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import SERVED, missing_on
from moe_kernels.triton.tiles import ROW_STEPS, default_tile
from tests.compiler.variants import AUXILIARY, FORMS, compile_auxiliary, compile_form

CHIPS = ("a100_sxm", "h100_sxm", "b200", "mi300x", "mi355x")
EVERY_TYPE = ("h100_sxm", "mi300x")
"""One chip per vendor compiles every type; the others those whose code differs from each other's."""
DIFFERENT = ("bfloat16", "fp8_block", "int8", "mxfp4")
CASES = [(chip, dtype) for chip in CHIPS for dtype in SERVED if chip in EVERY_TYPE or dtype in DIFFERENT]
OPS: tuple[Op, ...] = ("gate_up", "down")
BASE = TritonTile(block_m=64, block_n=64, block_k=64, num_warps=4, num_stages=3)
PATHS = {
    "plain": BASE,
    "swapped": dataclasses.replace(BASE, block_m=16, swap_ab=True),
    "persistent": dataclasses.replace(BASE, persistent=True),
    "descriptors": dataclasses.replace(BASE, tma=True),
    "all at once": dataclasses.replace(BASE, block_m=16, swap_ab=True, persistent=True, tma=True),
}
MATRIX = {
    # (chip, width of the operands) to the words of its matrix instructions. Triton 3.7 has no tcgen05 for int8.
    ("a100_sxm", "16"): ("HMMA",),
    ("a100_sxm", "int8"): ("IMMA",),
    ("h100_sxm", "16"): ("HGMMA",),
    ("h100_sxm", "fp8"): ("QGMMA",),
    ("h100_sxm", "int8"): ("IGMMA",),
    ("b200", "16"): ("UTCHMMA",),
    ("b200", "fp8"): ("UTCQMMA",),
    ("b200", "int8"): ("IMMA",),
    ("mi300x", "16"): ("bf16", "f16"),
    ("mi300x", "fp8"): ("fp8_fp8",),
    ("mi300x", "int8"): ("_i8",),
    ("mi355x", "16"): ("bf16", "f16"),
    ("mi355x", "fp8"): ("fp8_fp8", "f8f6f4"),
    ("mi355x", "int8"): ("_i8",),
}


def width(dtype: str) -> str:
    return "fp8" if dtype.startswith("fp8") else "int8" if dtype == "int8" else "16"


@pytest.fixture(scope="module")
def binaries() -> dict[tuple[str, str, Op, str], CompileResult]:
    """Artifacts by (chip, dtype, op, path)."""
    requests = {}
    for chip, dtype in CASES:
        one = load_chip(chip)
        for (op, tile), request in requests_for(kernel_for(one), one, OPS, dtype, PATHS.values()).items():
            path = next(name for name, known in PATHS.items() if known == tile)
            requests[chip, dtype, op, path] = request
    artifacts = compile_all(requests.values(), ArtifactCache(), jobs=2, recompile=True)
    return {key: artifacts[request] for key, request in requests.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("chip", "dtype"), CASES)
def test_every_path(binaries: dict[tuple[str, str, Op, str], CompileResult], chip: str, dtype: str, path: str) -> None:
    target = load_chip(chip).target
    for op in OPS:
        artifact = binaries[chip, dtype, op, path]
        reason = kernel_for(load_chip(chip)).refuses(Problem(op=op, dtype=dtype), PATHS[path], target)
        if reason:
            assert artifact == Refused(kind="refused", reason=reason)
            assert missing_on(dtype, target) or "accelerator" in reason
            continue
        assert isinstance(artifact, Compiled), artifact
        facts = artifact.facts
        assert isinstance(facts, GpuFacts)
        assert facts.count(*MATRIX[chip, width(dtype)]) > 0, facts.instructions
        assert 0 < facts.loop_matrix < facts.loop_instructions
        if PATHS[path].tma:
            assert facts.count("UTMALDG") > 0
        elif chip in ("a100_sxm", "h100_sxm", "b200"):
            assert facts.count("LDGSTS") > 0, "loads are asynchronous copies"


def test_only_what_a_chip_lacks_is_refused(binaries: dict[tuple[str, str, Op, str], CompileResult]) -> None:
    refused = {(chip, dtype, path) for (chip, dtype, _, path), a in binaries.items() if not isinstance(a, Compiled)}
    no_fp8 = {("a100_sxm", "fp8_block", p) for p in PATHS}
    without = ("a100_sxm", "mi300x", "mi355x")
    no_tma = {(c, d, p) for c, d in CASES for p in PATHS if c in without and PATHS[p].tma}
    assert refused == no_fp8 | no_tma


@pytest.fixture(scope="module")
def forms() -> dict[tuple[str, str, str], GpuFacts | str]:
    cases = [(f, d, load_chip(c).target or "") for c in CHIPS for f in FORMS for d in ("bfloat16", "float16")]
    cases += [(f, d, load_chip(c).target or "") for c in CHIPS for f in list(FORMS)[:3] for d in ("fp8_block", "mxfp4")]
    cases += [("weight gradient", d, load_chip(c).target or "") for c in CHIPS for d in ("bfloat16", "float16")]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return dict(zip(cases, pool.map(compile_form, *zip(*cases, strict=True)), strict=True))


def test_every_form_compiles(forms: dict[tuple[str, str, str], GpuFacts | str]) -> None:
    for (name, dtype, target), facts in forms.items():
        if isinstance(facts, str):
            assert target == "cuda:80"
            assert dtype == "fp8_block"
            continue
        assert facts.loop_matrix > 0, (name, dtype, target)
        assert facts.spill_bytes == 0, (name, dtype, target)
        if target in ("cuda:90", "cuda:100"):
            assert facts.count("HGMMA", "QGMMA", "UTC") > 0, (name, dtype, target, facts.instructions)


def test_the_kernels_around_the_gemms_compile_also_for_ones() -> None:
    """A launch makes a number that is 1 a compile-time constant, which has fewer methods."""
    targets = [load_chip(chip).target or "" for chip in CHIPS]
    cases = list(itertools.product(AUXILIARY, (False, True), targets))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        problems = dict(zip(cases, pool.map(compile_auxiliary, *zip(*cases, strict=True)), strict=True))
    assert {case: text for case, text in problems.items() if text} == {}


def test_the_default_tiles_launch_and_do_not_spill() -> None:
    requests, tiles = {}, {}
    for chip, dtype in [*CASES, *(("l40s", dtype) for dtype in DIFFERENT)]:
        one = load_chip(chip)
        if missing_on(dtype, one.target):
            continue
        for op in OPS:
            problem = Problem(op=op, dtype=dtype)
            defaults = {default_tile(problem, rows, one.target) for rows in (*ROW_STEPS, 10_000)}
            found = requests_for(kernel_for(one), one, (op,), dtype, defaults)
            for (_, tile), request in found.items():
                requests[chip, dtype, op, tile.label()], tiles[chip, dtype, op, tile.label()] = request, tile
    artifacts = compile_all(requests.values(), ArtifactCache(), jobs=2, recompile=True)
    for key, request in requests.items():
        artifact = artifacts[request]
        assert unlaunchable(artifact, tiles[key], load_chip(key[0])) is None, (key, artifact)
        assert isinstance(artifact, Compiled)
        assert isinstance(artifact.facts, GpuFacts)
        assert artifact.facts.spill_bytes == 0, key
