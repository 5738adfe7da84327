"""Shipped facts are made whole, in steps that can be cut off, and a sample of them is compared again."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import ArtifactCache, Compiled, Outcome, Refused, Request, Unanswered, build_facts
from moe_codesign.compiler.build_facts import (
    FactsFile,
    build,
    check,
    every_file,
    other_compilers,
    plan,
    sample,
    stale_files,
)
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.shipped import ShippedTable, read_table, write_table
from moe_codesign.models import models
from moe_kernels.kernel import Problem
from moe_kernels.tile import TritonTile
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


class Compiler:
    """In place of the compilers: what it is asked for, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.crashes: Counter[Request] = Counter()
        self.registers = GPU.registers

    def __call__(self, requests: object, cache: ArtifactCache, **_: object) -> dict[Request, Outcome]:
        found: dict[Request, Outcome] = {}
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


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(build_facts, "compile_all", made)
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
    assert build(plan([file], cache), cache, jobs=1) == []
    made = file.shipped()
    assert made is not None
    assert made.artifacts.keys() == file.requests().keys()
    assert all(isinstance(one, Compiled) and one.compile_s == 0 for one in made.artifacts.values())
    before, asked = file.path.read_bytes(), len(compiler.asked)
    assert build(plan([file], cache), cache, jobs=1) == []
    assert (file.path.read_bytes(), len(compiler.asked)) == (before, asked)
    assert [work.missing for work in plan([file], ArtifactCache(tmp_path / "empty"), recompile=True)] != [{}]


def test_what_was_cut_off_goes_on_from_the_cache_and_from_the_file(
    file: FactsFile, tmp_path: Path, compiler: Compiler
) -> None:
    requests = file.requests()
    first, second, *others = requests.values()
    compiler([first], ArtifactCache(tmp_path))
    file.write(
        {key: Compiled(facts=GPU, compiler=one.compiler) for key, one in requests.items() if one == second},
        second.compiler,
    )
    compiler.asked.clear()
    assert build(plan([file], ArtifactCache(tmp_path)), ArtifactCache(tmp_path), jobs=1) == []
    assert set(compiler.asked) == set(others)
    made = file.shipped()
    assert made is not None
    assert made.artifacts.keys() == requests.keys()


def test_a_file_is_by_one_compiler(file: FactsFile, tmp_path: Path, compiler: Compiler) -> None:
    requests = file.requests()
    old = {key: Compiled(facts=GPU, compiler="triton 3.0.0") for key in requests}
    file.write(dict(list(old.items())[:1]), "triton 3.0.0")
    assert len(other_compilers([file])) == 1
    assert build(plan([file], ArtifactCache(tmp_path)), ArtifactCache(tmp_path), jobs=1) == []
    assert set(compiler.asked) == set(requests.values()), "an incomplete file is made by the compiler that is here"
    assert other_compilers([file]) == []
    file.write(dict(old), "triton 3.0.0")
    compiler.asked.clear()
    build(plan([file], ArtifactCache(tmp_path / "other")), ArtifactCache(tmp_path / "other"), jobs=1)
    assert compiler.asked == [], "a complete one stays"


@pytest.mark.parametrize(("times", "refused"), [(1, False), (build_facts.TRIES, True)])
def test_a_tile_that_always_takes_the_compiler_down_is_refused(
    file: FactsFile, tmp_path: Path, compiler: Compiler, times: int, refused: bool
) -> None:
    key, one = next(iter(file.requests().items()))
    compiler.crashes[one] = times
    assert build(plan([file], ArtifactCache(tmp_path)), ArtifactCache(tmp_path), jobs=1) == []
    made = file.shipped()
    assert made is not None
    assert isinstance(made.artifacts[key], Refused) is refused


def test_a_sample_is_of_every_target_and_repeats_by_its_seed(file: FactsFile, tmp_path: Path) -> None:
    files = [dataclasses.replace(file, target=target) for target in ("cuda:90", "cuda:80", "cuda:100")]
    for one in files:
        one.write({key: Compiled(facts=GPU, compiler="c") for key in one.requests()}, "c")
    absent = dataclasses.replace(file, target="hip:gfx942")
    drawn = sample([*files, absent], 0.02, seed=1)
    assert {one.target for one, _ in drawn} == {"cuda:90", "cuda:80", "cuda:100"}
    assert all(len(keys) >= 0.02 * len(one.requests()) and keys for one, keys in drawn)
    assert sample(files, 0.5, seed=2) == sample(files, 0.5, seed=2)
    assert sample(files, 0.5, seed=2) != sample(files, 0.5, seed=3)


def test_a_difference_is_found(file: FactsFile, tmp_path: Path, compiler: Compiler) -> None:
    build(plan([file], ArtifactCache(tmp_path)), ArtifactCache(tmp_path), jobs=1)
    drawn = sample([file], 1.0, seed=0)
    assert check(drawn, ArtifactCache(tmp_path / "empty"), jobs=1) == []
    compiler.registers += 1
    differences = check(drawn, ArtifactCache(tmp_path / "another"), jobs=1)
    assert len(differences) == len(file.requests())
    assert "triton.grouped_gemm down bfloat16" in differences[0].what


def test_a_file_of_another_source_is_stale(tmp_path: Path) -> None:
    file = next(one for one in every_file(tmp_path) if one.kernel.name == "triton.grouped_gemm")
    key = next(iter(file.requests()))
    file.write({key: Compiled(facts=GPU, compiler="c")}, "c")
    assert stale_files(tmp_path) == []
    made = read_table(file.path)
    assert isinstance(made, ShippedTable)
    write_table(file.path, dataclasses.replace(made, source_hash="of yesterday"))
    assert len(stale_files(tmp_path)) == 1
    assert file.shipped() is None
    file.path.rename(file.path.with_name("float99.down.json.xz"))
    assert "no such kernel" in stale_files(tmp_path)[0]
