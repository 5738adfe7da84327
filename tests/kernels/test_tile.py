import pytest

from moe_kernels.kernel import Problem
from moe_kernels.registry import kernels
from moe_kernels.tile import PallasTile, TritonTile


@pytest.mark.parametrize("value", [0, -16, 1.5, "16", True])
def test_a_tile_is_whole_and_positive(value: object) -> None:
    with pytest.raises(ValueError, match="tile_m"):
        PallasTile(tile_m=value, tile_k=128, tile_n=128)  # type: ignore[arg-type]


def test_from_dict_names_the_field() -> None:
    with pytest.raises(ValueError, match="unknown tile field 'tile_x'"):
        PallasTile.from_dict({"tile_m": 16, "tile_k": 128, "tile_n": 128, "tile_x": 1})
    with pytest.raises(ValueError, match="'num_warps' is missing"):
        TritonTile.from_dict({"block_m": 16, "block_n": 64, "block_k": 64, "num_stages": 3})


@pytest.mark.parametrize("value", [1, "true", None])
def test_a_switch_is_true_or_false(value: object) -> None:
    with pytest.raises(ValueError, match="tma"):
        TritonTile(block_m=16, block_n=64, block_k=64, num_warps=4, num_stages=3, tma=value)  # type: ignore[arg-type]


def refusal(dtype: str = "bfloat16", target: str = "cuda:90", op: str = "down", **fields: object) -> str:
    known = {name: fields.pop(name) for name in ("k", "n", "group") if name in fields}
    tile = {"block_m": 64, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3} | fields
    kernel = kernels()[0]["triton.grouped_gemm"]
    problem = Problem(op=op, dtype=dtype, **known)  # type: ignore[arg-type]
    return kernel.refuses(problem, TritonTile(**tile), target) or ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"op": "gate_up", "block_m": 128, "block_n": 256}, "registers"),
        ({"block_m": 48}, "power of two"),
        ({"block_m": 8}, "below the 16"),
        ({"block_k": 16, "dtype": "fp8"}, "below the 32"),
        ({"num_warps": 32}, "over 16"),
        ({"dtype": "fp7"}, "unknown"),
        ({"dtype": "fp8", "target": "cuda:80"}, "8.9"),
        ({"dtype": "fp8_block", "target": "hip:gfx90a"}, "CDNA 3"),
        ({"dtype": "fp8_block", "block_k": 256}, "128-block"),
        ({"target": "cuda:75"}, "older than Ampere"),
        ({"dtype": "int4", "k": 2880}, "multiple of the group of 128"),
        ({"dtype": "mxfp4", "k": 2872}, "multiple of 32"),
        ({"tma": True, "target": "cuda:80"}, "tensor memory accelerator"),
        ({"tma": True, "target": "hip:gfx942"}, "tensor memory accelerator"),
        ({"tma": True, "k": 2884}, "16 bytes"),
        ({"split_k": 8, "k": 256}, "exceeds the 4 steps"),
    ],
)
def test_refusals_have_reasons(case: dict[str, object], words: str) -> None:
    assert words in refusal(**case)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"block_m": 8, "swap_ab": True},
        {"dtype": "fp8", "target": "cuda:89"},
        {"dtype": "fp8", "target": "hip:gfx942"},
        {"dtype": "int4", "k": 2880, "group": 64},
        {"tma": True, "k": 2880, "target": "cuda:100"},
        {"split_k": 8, "k": 512},
        {"dtype": "int4", "block_k": 128, "group": 64, "k": 64},
        {"op": "gate_up", "block_m": 128, "block_n": 256, "target": "hip:gfx942"},
    ],
)
def test_what_runs_is_not_refused(case: dict[str, object]) -> None:
    assert not refusal(**case)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"maxnreg": 100}, "multiple of 8"),
        ({"maxnreg": 16}, "multiple of 8"),
        ({"maxnreg": 128, "target": "hip:gfx942"}, "no such cap"),
    ],
)
def test_caps_on_registers_have_reasons(fields: dict[str, object], words: str) -> None:
    assert words in refusal(**fields)  # type: ignore[arg-type]
    assert not refusal(maxnreg=128)


def pallas_refusal(dtype: str = "bfloat16", target: str | None = "v6e:2x2", **fields: int) -> str:
    sizes = {name: fields.pop(name) for name in ("k", "n") if name in fields}
    tile = PallasTile.from_dict({"tile_m": 16, "tile_k": 32768, "tile_n": 128, **fields})
    kernel = kernels()[0]["pallas.grouped_matmul"]
    return kernel.refuses(Problem(op="down", dtype=dtype, **sizes), tile, target) or ""


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"tile_k": 100}, "multiple of 128"),
        ({"tile_n": 64}, "multiple of 128"),
        ({"tile_m": 24}, "multiple of 16"),
        ({"bucket_m": 8}, "multiple of 16"),
        ({"dtype": "fp8"}, "fp8"),
        ({"weight_buffers": 1}, "2 or more"),
        ({"cores": 2}, "one core"),
        ({"k": 2884}, "multiple of 8"),
        ({"n": 100}, "multiple of 8"),
        ({"tile_m": 1024, "tile_n": 512, "k": 14336, "target": "v5p:2x2x1"}, "VMEM"),
        ({"tile_m": 640, "tile_n": 1024, "k": 7168}, "program: about"),
        ({"tile_m": 512, "tile_k": 4096, "tile_n": 1024, "k": 14336}, "program: about"),
    ],
)
def test_the_tpu_kernel_has_reasons_too(case: dict[str, object], words: str) -> None:
    assert words in pallas_refusal(**case)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [{}, {"cores": 2, "target": "v5p:2x2x1"}, {"k": 2880, "n": 704}, {"target": None}])
def test_what_a_tpu_runs_is_not_refused(case: dict[str, object]) -> None:
    assert not pallas_refusal(**case)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1", None])
@pytest.mark.parametrize("rows", [1.0, 30.0, 500.0, 9000.0])
def test_default_tiles_fit_every_catalogue_shape(target: str | None, rows: float) -> None:
    kernel = kernels()[0]["pallas.grouped_matmul"]
    for k, n in ((2048, 768), (7168, 2048), (4096, 14336), (14336, 4096), (2880, 2880), (6144, 32768), (32768, 6144)):
        problem = Problem(op="gate_up", dtype="bfloat16", k=k, n=n)
        assert kernel.refuses(problem, kernel.default_tile(problem, rows, target), target) is None


@pytest.mark.parametrize("tile_m", [16, 128, 130, 640, 1152])
def test_stretches_add_up_to_every_visit_that_is_not_full(tile_m: int) -> None:
    tile = PallasTile(tile_m=tile_m, tile_k=128, tile_n=128)
    sums = {sum(c for c in tile.stretches if number & c) for number in range(tile.buckets)}
    assert sums == set(range(tile.buckets))
    assert sum(tile.stretches) < 2 * tile.buckets
