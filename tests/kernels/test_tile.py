import pytest

from moe_kernels.kernel import kernels
from moe_kernels.tile import PallasTile, TritonTile


def test_every_kernel_is_found() -> None:
    found, missing = kernels()
    assert set(found) == {"triton.grouped_gemm", "pallas.grouped_matmul"}
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


def test_refusals_have_reasons() -> None:
    found, _ = kernels()
    triton, pallas = found["triton.grouped_gemm"], found["pallas.grouped_matmul"]
    huge = TritonTile(block_m=128, block_n=256, block_k=64, num_warps=4, num_stages=3)
    assert "registers" in (triton.refuses("gate_up", huge, "bfloat16") or "")
    assert "power of two" in (
        triton.refuses("down", TritonTile(block_m=48, block_n=64, block_k=64, num_warps=4, num_stages=3), "bfloat16")
        or ""
    )
    assert "128" in (pallas.refuses("down", PallasTile(tile_m=16, tile_k=100, tile_n=128), "bfloat16") or "")
    assert "fp8" in (triton.refuses("down", huge, "fp8") or "")
