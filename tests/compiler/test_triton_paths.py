"""Every path of the Triton kernels compiles for every family, and the binaries hold the instructions they should."""

import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    CompileResult,
    compile_all,
    requests_for,
    shipped,
    unlaunchable,
)
from moe_codesign.compiler.artifact import GpuFacts
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.request import Request
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import SERVED, missing_on
from moe_kernels.triton.tiles import ROW_STEPS, default_tile, width_class
from tests.compiler.variants import AUXILIARY, FORMS, compile_auxiliary, compile_form
from tests.pairs import covering

pytestmark = pytest.mark.compile

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


def requests_of(chip: str, dtype: str, op: Op, tiles: Iterable[TritonTile]) -> dict[TritonTile, Request]:
    """The compile behind each tile that the kernel does not refuse on this chip."""
    one = load_chip(chip)
    found = requests_for(kernel_for(one), one, (op,), dtype, tiles)
    return {tile: request for (_, tile), request in found.items() if request.refusal() is None}  # type: ignore[misc]


def known(request: Request) -> bool:
    """Whether the package ships what this very compiler made of this very source, so that to compile tells nothing.

    ``make facts-check`` compiles a sample of these again.
    """
    artifact = shipped.find(request)
    return artifact is not None and artifact.compiler == request.compiler


def compiled(requests: Iterable[Request]) -> dict[Request, CompileResult]:
    """What ships with the package, else compiled here: by this compiler, in either case."""
    requests = list(requests)
    found: dict[Request, CompileResult] = {}
    for request in filter(known, requests):
        artifact = shipped.find(request)
        assert artifact is not None
        found[request] = artifact
    return found | compile_all([r for r in requests if r not in found], ArtifactCache(), jobs=1, recompile=True)


def facts_of(result: CompileResult) -> GpuFacts:
    assert isinstance(result, Compiled), result
    assert isinstance(result.facts, GpuFacts)
    return result.facts


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_every_path(chip: str) -> None:
    """Every type by every path, for one of the GEMMs in turn; for both where their facts ship."""
    dtypes = [dtype for one, dtype in CASES if one == chip]
    wanted: dict[tuple[str, Op, str], Request] = {}
    for (i, dtype), (j, path), (o, op) in itertools.product(enumerate(dtypes), enumerate(PATHS), enumerate(OPS)):
        for request in requests_of(chip, dtype, op, [PATHS[path]]).values():
            if (i + j) % len(OPS) == o or known(request):
                wanted[dtype, op, path] = request
    found = compiled(wanted.values())
    for (dtype, op, path), request in wanted.items():
        case, facts = (dtype, op, path), facts_of(found[request])
        assert facts.count(*MATRIX[chip, width(dtype)]) > 0, (case, facts.instructions)
        assert 0 < facts.loop_matrix < facts.loop_instructions, case
        if PATHS[path].tma:
            assert facts.count("UTMALDG") > 0, case
        elif chip in ("a100_sxm", "h100_sxm", "b200"):
            assert facts.count("LDGSTS") > 0, (case, "loads are asynchronous copies")


def test_only_what_a_chip_lacks_is_refused() -> None:
    refused: dict[tuple[str, str, str], str | None] = {}
    for (chip, dtype), (path, tile), op in itertools.product(CASES, PATHS.items(), OPS):
        one = load_chip(chip)
        if reason := kernel_for(one).refuses(Problem(op=op, dtype=dtype), tile, one.target):
            refused[chip, dtype, path] = reason
            assert missing_on(dtype, one.target) or "accelerator" in reason
    no_fp8 = {("a100_sxm", "fp8_block", p) for p in PATHS}
    without = ("a100_sxm", "mi300x", "mi355x")
    no_tma = {(c, d, p) for c, d in CASES for p in PATHS if c in without and PATHS[p].tma}
    assert set(refused) == no_fp8 | no_tma


@pytest.fixture(scope="module")
def compiler() -> Iterator[ProcessPoolExecutor]:
    """A process that has imported the compiler: what takes it down does not take the tests down."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


FORM_CASES = covering(CHIPS, list(FORMS), ("bfloat16", "float16"))
FORM_CASES += covering(CHIPS, list(FORMS)[:3], ("fp8_block", "mxfp4"))
FORM_CASES += [(chip, "weight gradient", dtype) for chip, dtype in zip(CHIPS, itertools.cycle(("bfloat16", "float16")))]


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_every_form_compiles(compiler: ProcessPoolExecutor, chip: str) -> None:
    cases = [(name, dtype) for one, name, dtype in FORM_CASES if one == chip]
    target = load_chip(chip).target or ""
    found = compiler.map(compile_form, *zip(*cases, strict=True), [target] * len(cases))
    for (name, dtype), facts in zip(cases, found, strict=True):
        if isinstance(facts, str):
            assert (target, dtype) == ("cuda:80", "fp8_block")
            continue
        assert facts.loop_matrix > 0, (name, dtype)
        assert facts.spill_bytes == 0, (name, dtype)
        if target in ("cuda:90", "cuda:100"):
            assert facts.count("HGMMA", "QGMMA", "UTC") > 0, (name, dtype, facts.instructions)


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_the_kernels_around_the_gemms_compile_also_for_ones(compiler: ProcessPoolExecutor, chip: str) -> None:
    """A launch makes a number that is 1 a compile-time constant, which has fewer methods."""
    cases = list(itertools.product(AUXILIARY, (False, True), [load_chip(chip).target or ""]))
    problems = dict(zip(cases, compiler.map(compile_auxiliary, *zip(*cases, strict=True)), strict=True))
    assert {case: text for case, text in problems.items() if text} == {}


def default_requests(chip: str) -> dict[tuple[str, Op, TritonTile], Request]:
    """The default tiles of every type: all whose facts ship, and of the others each tile in one type of its width.

    Types whose weights have as many bits share their default tiles, and a tile takes as much shared memory in all of
    them. Which type stands for a tile takes turns, so that each type comes with both GEMMs and with many tiles.
    """
    found: dict[tuple[str, Op, TritonTile], Request] = {}
    others: dict[tuple[str, Op, TritonTile], list[tuple[str, Request]]] = {}
    for dtype, op in itertools.product(SERVED if chip in EVERY_TYPE else DIFFERENT, OPS):
        target = load_chip(chip).target
        if missing_on(dtype, target):
            continue
        problem = Problem(op=op, dtype=dtype)
        tiles = {default_tile(problem, rows, target): None for rows in (*ROW_STEPS, 10_000)}
        for tile, request in requests_of(chip, dtype, op, tiles).items():
            found[dtype, op, tile] = request
            if not known(request):
                others.setdefault((width_class(dtype), op, tile), []).append((dtype, request))
    for turn, ((_, op, tile), alike) in enumerate(others.items()):
        for place, (dtype, _) in enumerate(alike):
            if place != turn % len(alike):
                del found[dtype, op, tile]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chip", [*CHIPS, "l40s"])
def test_the_default_tiles_launch_and_do_not_spill(chip: str) -> None:
    requests = default_requests(chip)
    found = compiled(requests.values())
    for (dtype, op, tile), request in requests.items():
        assert unlaunchable(found[request], tile, load_chip(chip)) is None, (dtype, op, tile.label(), found[request])
        assert facts_of(found[request]).spill_bytes == 0, (dtype, op, tile.label())


@pytest.mark.parametrize("chip", [*CHIPS, "l40s"])
def test_each_default_tile_is_among_them(chip: str) -> None:
    target = load_chip(chip).target
    wanted, found = set(), set()
    for dtype, op, rows in itertools.product(DIFFERENT, OPS, (*ROW_STEPS, 10_000)):
        if not missing_on(dtype, target):
            wanted.add((width_class(dtype), op, default_tile(Problem(op=op, dtype=dtype), rows, target)))
    for dtype, op, tile in default_requests(chip):
        found.add((width_class(dtype), op, tile))
    assert wanted <= found
