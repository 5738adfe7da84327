"""Facts that ship: written and read back whole, searched for in the right order, and current."""

import dataclasses
import lzma
from pathlib import Path

import pytest

import moe_codesign as mc
from moe_codesign.answers.audit import audit_shape
from moe_codesign.chips import chip_names, load_chip
from moe_codesign.compiler import (
    ArtifactCache,
    Compiled,
    Refused,
    Request,
    availability,
    compile_all,
    shipped,
    tile_table,
)
from moe_codesign.compiler.artifact import Artifact, CompileResult, GpuFacts, TpuFacts
from moe_codesign.compiler.check_facts import stale_files
from moe_codesign.compiler.facts_file import every_file
from moe_codesign.compiler.gpu import compile_gpu
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.request import request
from moe_codesign.compiler.shipped import FOLDER, SAME_BINARIES, ShippedTable, key_of, path_of, read_table, write_table
from moe_codesign.compiler.source_hash import source_hash
from moe_codesign.compiler.tile_table import Tables, tiles_of
from moe_codesign.errors import UserError
from moe_codesign.execution import LOCAL
from moe_codesign.models import models
from moe_kernels.kernel import OPS, Op, up_op
from moe_kernels.registry import kernel_named
from moe_kernels.tile import TritonTile
from tests.compiler.facts import AMD, GPU, TPU

CHIP = load_chip("h100_sxm")
KERNEL = kernel_for(CHIP)
TILE = TritonTile(block_m=64, block_n=64, block_k=64, num_warps=4, num_stages=3)
OTHER = dataclasses.replace(TILE, num_stages=4)
OLD = "triton 3.0.0"


def asked(tile: TritonTile = TILE) -> Request:
    return request(KERNEL, "down", tile, "bfloat16", "cuda:90")


def table(artifacts: dict[TritonTile, Artifact], **changes: object) -> ShippedTable:
    made = ShippedTable(
        source_hash=source_hash(KERNEL.sources),
        compiler=OLD,
        fields=TritonTile.fields(),
        artifacts={key_of(asked(tile).tile): artifact for tile, artifact in artifacts.items()},
        programs={key_of(asked(tile).tile): f"{i:08x}" for i, tile in enumerate(sorted(artifacts, key=repr)) if i},
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def compiled(facts: GpuFacts | TpuFacts, compiler: str = OLD) -> Compiled:
    return Compiled(facts=facts, compiler=compiler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the shipped one."""

    def elsewhere(kernel: str, target: str, dtype: str, op: str) -> Path:
        return path_of(kernel, target, dtype, op, tmp_path / "facts")  # type: ignore[arg-type]

    monkeypatch.setattr(shipped, "path_of", elsewhere)
    shipped._table.cache_clear()
    return tmp_path / "facts"


def ship(folder: Path, made: ShippedTable) -> Path:
    path = path_of(KERNEL.name, "cuda:90", "bfloat16", "down", folder)
    write_table(path, made)
    return path


@pytest.fixture
def no_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something would be compiled, an AssertionError."""

    def refusing(*_: object, **__: object) -> None:
        raise AssertionError("something is compiled")

    monkeypatch.setattr(type(LOCAL), "pool", refusing)


@pytest.mark.parametrize(
    "artifacts",
    [
        {TILE: compiled(GPU)},
        {TILE: compiled(AMD), OTHER: Refused(kind="failed", reason="ValueError: no", compiler=OLD)},
        {TILE: Refused(kind="refused", reason="VMEM", compiler=OLD), OTHER: compiled(TPU)},
        {TILE: Refused(kind="refused", reason="a", compiler=OLD)},
        {TILE: compiled(GPU), OTHER: compiled(dataclasses.replace(GPU, instructions={"HMMA": 3}))},
    ],
)
def test_a_table_survives_its_file(tmp_path: Path, artifacts: dict[TritonTile, Artifact]) -> None:
    made = table(artifacts)
    write_table(tmp_path / "a" / "b.xz", made)
    assert read_table(tmp_path / "a" / "b.xz") == made
    first = (tmp_path / "a" / "b.xz").read_bytes()
    backwards = table(dict(reversed(artifacts.items())))
    write_table(tmp_path / "a" / "b.xz", backwards)
    assert (tmp_path / "a" / "b.xz").read_bytes() == first, "the same table is the same file"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.xz"]


@pytest.mark.parametrize("damage", ["cut", "text", "format", "fewer", "more"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "b.xz"
    write_table(path, table({TILE: compiled(GPU), OTHER: compiled(GPU)}))
    text = lzma.decompress(path.read_bytes()).decode()
    changed = {
        "text": "{}",
        "format": text.replace('"format":1', '"format":9'),
        "fewer": text.replace("[168,168]", "[168]"),
        "more": text.replace('"block_m":[64,64]', '"block_m":[64]'),
    }
    assert damage == "cut" or changed[damage] != text
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else lzma.compress(changed[damage].encode()))
    with pytest.raises(UserError, match="cannot be read") as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_shipped_facts_answer_whichever_compiler_made_them(folder: Path, tmp_path: Path, no_compiles: None) -> None:
    ship(folder, table({TILE: compiled(GPU)}))
    assert compile_all([asked()], ArtifactCache(tmp_path)) == {asked(): compiled(GPU)}


def test_what_was_compiled_here_comes_first(folder: Path, tmp_path: Path, no_compiles: None) -> None:
    ship(folder, table({TILE: compiled(GPU)}))
    here = compiled(dataclasses.replace(GPU, registers=99), compiler=asked().compiler)
    cache = ArtifactCache(tmp_path)
    cache.put(asked(), here)
    assert compile_all([asked()], ArtifactCache(tmp_path)) == {asked(): here}
    assert compile_all([asked()], ArtifactCache(tmp_path), recompile=True) == {asked(): here}


@pytest.mark.parametrize(
    "made",
    [
        table({TILE: compiled(GPU)}, source_hash="another kernel"),
        table({TILE: compiled(GPU)}, fields=("block_m",)),
        table({OTHER: compiled(GPU)}),
    ],
)
def test_facts_of_an_edited_kernel_or_another_tile_are_not_used(
    folder: Path, tmp_path: Path, no_compiles: None, made: ShippedTable
) -> None:
    if made.fields == ("block_m",):
        made = dataclasses.replace(made, artifacts={(64,): compiled(GPU)})
    ship(folder, made)
    with pytest.raises(AssertionError, match="something is compiled"):
        compile_all([asked()], ArtifactCache(tmp_path))


def test_recompile_passes_over_what_is_shipped(folder: Path, tmp_path: Path, no_compiles: None) -> None:
    ship(folder, table({TILE: compiled(GPU)}))
    with pytest.raises(AssertionError, match="something is compiled"):
        compile_all([asked()], ArtifactCache(tmp_path), recompile=True)


def test_what_the_kernel_refuses_needs_no_compiler(
    folder: Path, tmp_path: Path, no_compiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "missing_package", lambda backend: "triton")
    tile = dataclasses.replace(TILE, num_warps=32)
    (outcome,) = compile_all([asked(tile)], ArtifactCache(tmp_path)).values()
    assert outcome == Refused(kind="refused", reason="num_warps = 32 is over 16")


def test_without_a_compiler_one_line_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "missing_package", lambda backend: {"triton": "triton", "pallas": "jax"}[backend])
    with pytest.raises(UserError, match=r'triton.grouped_gemm down .* pip install "moe-codesign\[gpu\]"') as error:
        compile_all([asked()], ArtifactCache(tmp_path))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"moe-codesign\[tpu\]"):
        mc.compile_kernel("pallas.grouped_matmul", "tpu_v6e", recompile=True)


def test_without_a_compiler_an_audit_says_so_in_the_row_it_concerns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path))
    for module in (availability, tile_table):
        monkeypatch.setattr(module, "missing_package", lambda backend: "triton" if backend == "triton" else "jax")
    rows = mc.audit("Qwen3-30B-A3B", ["h100_sxm", "trainium2"], tokens=[64])
    assert rows[0].estimate is None
    assert rows[0].error is not None
    assert "moe-codesign[gpu]" in rows[0].error.text
    assert rows[1].estimate is not None, "a chip that needs no compiler is answered beside it"


def test_the_answer_says_by_which_compiler_the_facts_are(
    folder: Path, tmp_path: Path, no_compiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path))
    ship(folder, table({TILE: compiled(GPU)}))
    assert OLD in Tables().get(CHIP, KERNEL, "down", only=TILE).note
    ship(folder, table({TILE: compiled(GPU, compiler=asked().compiler)}, compiler=asked().compiler))
    assert Tables().get(CHIP, KERNEL, "down", only=TILE).note == ""
    ship(folder, table({TILE: compiled(GPU)}))
    monkeypatch.setattr(tile_table, "missing_package", lambda backend: "triton")
    assert Tables().get(CHIP, KERNEL, "down", only=TILE).note == f"compiled facts are by {OLD}"


@pytest.mark.parametrize("first", ["shipped chip", "changed copy"])
def test_a_changed_copy_of_a_chip_has_a_table_of_its_own(
    folder: Path, tmp_path: Path, no_compiles: None, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path))
    ship(folder, table({TILE: compiled(GPU)}))
    core = CHIP.core.model_copy(update={"shared_bytes_per_block": 512})
    small = CHIP.model_copy(update={"core": core})
    tables = Tables()
    chips = [CHIP, small] if first == "shipped chip" else [small, CHIP]
    found = {chip: tables.get(chip, KERNEL, "down", only=TILE) for chip in chips}
    assert len(found[CHIP]) == 1
    assert "shared memory" in found[small].refused[TILE]
    assert all(found[chip].chip is chip for chip in chips)


def test_the_shipped_facts_are_of_the_kernels_as_they_are() -> None:
    """If this fails, a kernel's code changed: run ``make facts``, or raise ANALYSIS only where a fact can change."""
    assert stale_files() == []


def whole(name: str, target: str, op: Op) -> bool:
    """Whether every tile that a table is made of is among the shipped facts."""
    kernel = kernel_named(name)
    assert kernel is not None
    made = read_table(path_of(name, SAME_BINARIES.get(target, (target,))[0], "bfloat16", op))
    keys = {
        key_of(request(kernel, op, tile, "bfloat16", target).tile) for tile in tiles_of(kernel, target, op, "bfloat16")
    }
    return made is not None and keys <= made.artifacts.keys()


@pytest.mark.parametrize("chip", [name for name in chip_names() if load_chip(name).compiles])
def test_an_audit_of_any_model_compiles_nothing_where_the_facts_are_whole(
    chip: str, no_compiles: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_CODESIGN_CACHE", str(tmp_path))
    one = load_chip(chip)
    shipped_ops = {op for op in OPS if whole(kernel_for(one).name, str(one.target), op)}
    tables = Tables()
    for shape in models().values():
        if {up_op(gated=shape.gated), "down"} <= shipped_ops:
            (row,) = audit_shape(shape, [one], [64], tables)
            assert row.estimate is not None, row.error
            assert row.estimate.timing.grade != "datasheet"


@pytest.mark.parametrize(("target", "dtype"), [(t, d) for t, (_, ds) in SAME_BINARIES.items() for d in sorted(ds)])
def test_a_target_that_borrows_facts_compiles_to_the_same(target: str, dtype: str) -> None:
    asked_there = request(KERNEL, "gate_up", TILE, dtype, target)
    here = compile_gpu(asked_there)
    assert isinstance(here, Compiled)
    twin: CompileResult | None = shipped.find(asked_there)
    if not isinstance(twin, Compiled) or twin.compiler != here.compiler:
        twin = compile_gpu(dataclasses.replace(asked_there, target=SAME_BINARIES[target][0]))
    assert isinstance(twin, Compiled)
    assert here.facts == twin.facts


def test_a_target_borrows_no_facts_of_other_types_and_ships_none() -> None:
    for target, (_, dtypes) in SAME_BINARIES.items():
        for dtype in set(KERNEL.dtypes) - dtypes:
            assert shipped.find(request(KERNEL, "gate_up", TILE, dtype, target)) is None
        assert not any(file.target == target for file in every_file())


def test_files_are_where_they_are_looked_for() -> None:
    assert {file.path for file in every_file()} >= set(FOLDER.glob("*/*/*"))
    assert len({file.path for file in every_file()}) == len(every_file())
