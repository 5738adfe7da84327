"""Shipped facts are made whole, in steps that can be cut off, and a sample of them is compared again."""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import ArtifactCache, Compiled, CompileResult, Refused, Request, Unanswered, build_facts
from moe_codesign.compiler import program as program_module
from moe_codesign.compiler.build_facts import build, plan
from moe_codesign.compiler.check_facts import check, lacking, other_compilers, sample, stale_files
from moe_codesign.compiler.facts_file import FactsFile, every_file
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.program import program_hash
from moe_codesign.compiler.request import request
from moe_codesign.compiler.shipped import Key, ShippedTable, read_table, write_table
from moe_codesign.models import models
from moe_kernels.kernel import Op, Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton import ahead_of_time
from moe_kernels.triton.grouped_gemm.kernel import grouped_gemm_kernel
from tests.compiler.facts import GPU

KERNEL = dataclasses.replace(
    kernel_for(load_chip("h100_sxm")),
    tile_spaces={
        "small": {
            "block_m": (16, 64), "block_n": (64,), "block_k": (64,), "num_warps": (4, 32), "num_stages": (3,),
            "group_m": (1, 8),
        }
    },
)  # fmt: skip

TILE = TritonTile(block_m=64, block_n=64, block_k=64, num_warps=4, num_stages=3)


class Compiler:
    """In place of the compilers: what it is asked for, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.crashes: Counter[Request] = Counter()
        self.registers = GPU.registers

    def __call__(self, requests: object, cache: ArtifactCache, **_: object) -> dict[Request, CompileResult]:
        found: dict[Request, CompileResult] = {}
        for one in requests:  # type: ignore[attr-defined]
            known = cache.get(one)
            if known is None:
                self.asked.append(one)
                known = Compiled(
                    facts=dataclasses.replace(GPU, registers=self.registers), compiler=one.compiler, compile_s=2.0
                )
                if self.crashes[one]:
                    self.crashes[one] -= 1
                    known = Unanswered(kind="crashed", reason="the compiler took its process down (exit code -6)")
                cache.put(one, known)
            found[one] = known
        return found


class FrontEnd:
    """In place of Triton's: the program of each tile is its label and an edition."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.editions: Counter[int] = Counter()

    def __call__(self, requests: dict[Key, Request], jobs: int) -> dict[Key, str]:
        self.asked += requests.values()
        return {
            key: f"{one.tile.label()} {self.editions[int(one.tile.as_dict()['block_m'])]}"
            for key, one in requests.items()
        }


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(build_facts, "compile_all", made)
    return made


@pytest.fixture(autouse=True)
def front_end(monkeypatch: pytest.MonkeyPatch) -> FrontEnd:
    made = FrontEnd()
    monkeypatch.setattr(build_facts, "programs_of", made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> FactsFile:
    return FactsFile(KERNEL, "cuda:90", "bfloat16", "down", tmp_path / "facts")


def test_a_file_holds_the_tile_space_and_every_models_default_tiles(file: FactsFile) -> None:
    requests = file.requests()
    tiles = {one.tile for one in requests.values()}
    assert all(isinstance(tile, TritonTile) and tile.group_m == 8 for tile in tiles), "launch fields at their defaults"
    assert {tile.block_m for tile in tiles if isinstance(tile, TritonTile)} >= {16, 64}
    for shape in models().values():
        problem = Problem(op="down", dtype="bfloat16", k=shape.moe_intermediate_size, n=shape.hidden_size)
        for rows in (1.0, 32.0, 1000.0):
            default = KERNEL.default_tile(problem, rows, "cuda:90")
            assert isinstance(default, TritonTile)
            assert dataclasses.replace(default, group_m=8, split_k=1) in tiles
    lacks = FactsFile(KERNEL, "cuda:80", "fp8_block", "down", file.folder)
    assert lacks.requests() == {}, "what the kernel refuses needs no facts"


def test_a_file_is_made_and_then_left_alone(file: FactsFile, tmp_path: Path, compiler: Compiler) -> None:
    cache = ArtifactCache(tmp_path)
    assert build(plan([file], cache, jobs=1), cache, jobs=1) == []
    made = file.shipped()
    assert made is not None
    assert made.artifacts.keys() == file.requests().keys()
    assert all(isinstance(one, Compiled) and one.compile_s == 0 for one in made.artifacts.values())
    before, asked = file.path.read_bytes(), len(compiler.asked)
    assert build(plan([file], cache, jobs=1), cache, jobs=1) == []
    assert (file.path.read_bytes(), len(compiler.asked)) == (before, asked)
    assert [work.missing for work in plan([file], ArtifactCache(tmp_path / "empty"), jobs=1, recompile=True)] != [{}]


def test_what_was_cut_off_goes_on_from_the_cache_and_from_the_file(
    file: FactsFile, tmp_path: Path, compiler: Compiler
) -> None:
    requests = file.requests()
    first, second, *others = requests.values()
    compiler([first], ArtifactCache(tmp_path))
    file.write(
        {key: Compiled(facts=GPU, compiler=one.compiler) for key, one in requests.items() if one == second},
        second.compiler,
        {},
    )
    compiler.asked.clear()
    assert build(plan([file], ArtifactCache(tmp_path), jobs=1), ArtifactCache(tmp_path), jobs=1) == []
    assert set(compiler.asked) == set(others)
    made = file.shipped()
    assert made is not None
    assert made.artifacts.keys() == requests.keys()


def test_after_an_edit_those_tiles_are_compiled_whose_program_it_changes(
    file: FactsFile, tmp_path: Path, compiler: Compiler, front_end: FrontEnd
) -> None:
    cache = ArtifactCache(tmp_path)
    build(plan([file], cache, jobs=1), cache, jobs=1)
    made = file.shipped()
    assert made is not None
    assert made.programs.keys() == made.artifacts.keys()
    write_table(file.path, dataclasses.replace(made, source_hash="of yesterday"))
    front_end.editions[16] = 1
    compiler.asked.clear()
    empty = ArtifactCache(tmp_path / "empty")
    assert build(plan([file], empty, jobs=1), empty, jobs=1) == []
    assert compiler.asked
    assert {one.tile.as_dict()["block_m"] for one in compiler.asked} == {16}
    after = file.shipped()
    assert after is not None
    assert after.artifacts == made.artifacts
    assert sum(after.programs[key] != program for key, program in made.programs.items()) == len(compiler.asked)


def test_without_its_programs_a_file_of_another_source_is_made_again(
    file: FactsFile, tmp_path: Path, compiler: Compiler, front_end: FrontEnd
) -> None:
    here = request(KERNEL, "down", TILE, "bfloat16", "cuda:90").compiler
    file.write({key: Compiled(facts=GPU, compiler=here) for key in file.requests()}, here, {})
    made = file.shipped()
    assert made is not None
    (work,) = plan([file], ArtifactCache(tmp_path), jobs=1)
    assert not work.missing
    assert not work.written, "its programs are to be written"
    write_table(file.path, dataclasses.replace(made, source_hash="of yesterday"))
    (work,) = plan([file], ArtifactCache(tmp_path), jobs=1)
    assert work.missing.keys() == file.requests().keys()


def test_a_program_is_of_the_code_and_the_options_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(tile: TritonTile = TILE, target: str = "cuda:90", **changes: Any) -> str:
        def build(*asked: Any) -> Any:
            return ahead_of_time.source(grouped_gemm_kernel, *asked, **changes)

        monkeypatch.setattr(program_module, "kernel_named", lambda _: dataclasses.replace(KERNEL, build=build))
        return program_hash(request(KERNEL, "down", tile, "bfloat16", target))

    assert program() == program() == program(dataclasses.replace(TILE, group_m=1)) != ""
    others = [
        program(dataclasses.replace(TILE, num_stages=4)),
        program(dataclasses.replace(TILE, block_k=128)),
        program(epilogue="rows"),
        program(even_k=False),
    ]
    assert len({program(), *others}) == 5
    assert program(epilogue="no such epilogue") == "", "the front end refuses it"
    monkeypatch.undo()
    tpu = kernel_for(load_chip("tpu_v6e"))
    tile = tpu.default_tile(Problem(op="down", dtype="bfloat16"), 64, "v6e:2x2")
    assert program_hash(request(tpu, "down", tile, "bfloat16", "v6e:2x2")) == ""


def test_a_file_is_by_one_compiler(file: FactsFile, tmp_path: Path, compiler: Compiler) -> None:
    requests = file.requests()
    old = {key: Compiled(facts=GPU, compiler="triton 3.0.0") for key in requests}
    file.write(dict(list(old.items())[:1]), "triton 3.0.0", {})
    assert len(other_compilers([file])) == 1
    assert build(plan([file], ArtifactCache(tmp_path), jobs=1), ArtifactCache(tmp_path), jobs=1) == []
    assert set(compiler.asked) == set(requests.values()), "an incomplete file is made by the compiler that is here"
    assert other_compilers([file]) == []
    file.write(old, "triton 3.0.0", {})
    compiler.asked.clear()
    build(plan([file], ArtifactCache(tmp_path / "other"), jobs=1), ArtifactCache(tmp_path / "other"), jobs=1)
    assert compiler.asked == [], "a complete one stays"


@pytest.mark.parametrize(("times", "refused"), [(1, False), (build_facts.TRIES, True)])
def test_a_tile_that_always_takes_the_compiler_down_is_refused(
    file: FactsFile, tmp_path: Path, compiler: Compiler, times: int, refused: bool
) -> None:
    key, one = next(iter(file.requests().items()))
    compiler.crashes[one] = times
    assert build(plan([file], ArtifactCache(tmp_path), jobs=1), ArtifactCache(tmp_path), jobs=1) == []
    made = file.shipped()
    assert made is not None
    assert isinstance(made.artifacts[key], Refused) is refused


def test_a_sample_is_of_every_target_and_repeats_by_its_seed(file: FactsFile) -> None:
    targets: tuple[str, ...] = ("cuda:90", "cuda:100")
    ops: tuple[Op, ...] = ("down", "gate_up")
    files = [dataclasses.replace(file, target=target, op=op) for target in targets for op in ops]
    for one in files:
        one.write({key: Compiled(facts=GPU, compiler="c") for key in one.requests()}, "c", {})
    absent = dataclasses.replace(file, target="hip:gfx942")
    drawn = sample([*files, absent], 0.25, seed=1)
    for target in targets:
        there = sum(len(one.requests()) for one in files if one.target == target)
        assert sum(len(keys) for one, keys in drawn if one.target == target) == math.ceil(0.25 * there)
    assert {one.path for one, _ in drawn} == {one.path for one in files}
    assert all(set(keys) <= one.requests().keys() for one, keys in drawn)
    assert sample(files, 0.5, seed=2) == sample(files, 0.5, seed=2)
    assert sample(files, 0.5, seed=2) != sample(files, 0.5, seed=3)
    assert {one.target for one, _ in sample(files, 1e-9, seed=1)} == set(targets)


def test_what_is_lacking_is_counted(file: FactsFile) -> None:
    key, *others = file.requests()
    assert lacking([file]) == [(file, 1 + len(others))]
    file.write({key: Compiled(facts=GPU, compiler="c")}, "c", {})
    assert lacking([file]) == [(file, len(others))]
    file.write({key: Compiled(facts=GPU, compiler="c") for key in file.requests()}, "c", {})
    assert lacking([file]) == []


def test_a_difference_is_found(file: FactsFile, tmp_path: Path, compiler: Compiler) -> None:
    build(plan([file], ArtifactCache(tmp_path), jobs=1), ArtifactCache(tmp_path), jobs=1)
    drawn = sample([file], 1.0, seed=0)
    assert check(drawn, ArtifactCache(tmp_path / "empty"), jobs=1) == []
    compiler.registers += 1
    differences = check(drawn, ArtifactCache(tmp_path / "another"), jobs=1)
    assert len(differences) == len(file.requests())
    assert "triton.grouped_gemm down bfloat16" in differences[0].what


def test_a_file_of_another_source_is_stale(tmp_path: Path) -> None:
    file = next(one for one in every_file(tmp_path) if one.kernel.name == "triton.grouped_gemm")
    key = next(iter(file.requests()))
    file.write({key: Compiled(facts=GPU, compiler="c")}, "c", {})
    assert stale_files(tmp_path) == []
    made = read_table(file.path)
    assert isinstance(made, ShippedTable)
    write_table(file.path, dataclasses.replace(made, source_hash="of yesterday"))
    assert len(stale_files(tmp_path)) == 1
    assert file.shipped() is None
    file.path.rename(file.path.with_name("float99.down.json.xz"))
    assert "no such kernel" in stale_files(tmp_path)[0]
