import pytest

from moe_kernels.kernel import Problem, kernels
from moe_kernels.tile import PallasTile, TritonTile


def test_every_kernel_is_found() -> None:
    found, missing = kernels()
    assert set(found) == {"triton.grouped_gemm", "pallas.grouped_matmul", "pallas.blocked_matmul"}
    assert not missing


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


def test_the_pallas_kernel_has_reasons_too() -> None:
    pallas = kernels()[0]["pallas.grouped_matmul"]
    tile = PallasTile(tile_m=16, tile_k=100, tile_n=128)
    assert "128" in (pallas.refuses(Problem(op="down", dtype="bfloat16"), tile, None) or "")
    assert "fp8" in (pallas.refuses(Problem(op="down", dtype="fp8"), tile, None) or "")
