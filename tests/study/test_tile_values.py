"""Tiles of a space that no kernel takes are refused in one line; what some tile or another chip takes is not."""

from typing import Any

import pytest

from moe_codesign.errors import UserError
from moe_codesign.study.space import load_space, space_names
from moe_codesign.study.tile_values import check_tiles
from moe_kernels.kernel import Op
from tests.conftest import make_space

OPS: tuple[Op, ...] = ("gate_up", "down")


def check(chip: str, tiles: dict[str, Any], **workload: str) -> None:
    space = make_space(chips=[chip], tiles=tiles, workload=workload)
    check_tiles(space, space.chips[0], OPS)


@pytest.mark.parametrize(
    ("chip", "tiles", "says"),
    [
        ("h100_sxm", {"block_m": [16, 7]}, "block_m: got 7; triton.grouped_gemm refuses it"),
        ("h100_sxm", {"tma": [1]}, "tma = 1 is not true or false"),
        ("h100_sxm", {"num_warps": [True]}, "num_warps: got True"),
        ("h100_sxm", {"maxnreg": [10]}, "multiple of 8 from 24 to 248"),
        ("mi300x", {"tma": [True]}, "no tensor memory accelerator (Hopper and later have); use tma=false); use false"),
        ("tpu_v6e", {"tile_n": [100]}, "not a multiple of 128, the lane count); use 128, 256"),
        ("cpu", {"tile_m": [7]}, "pallas.host_matmul refuses it"),
        ("h100_sxm", {"block_m": [16], "block_n": [4096], "num_warps": [1]}, "refuses every tile for h100_sxm"),
    ],
)
def test_what_no_tile_can_be_is_one_line(chip: str, tiles: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        check(chip, {chip: tiles})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("chip", "tiles"),
    [
        ("mi300x", {"tma": [True, False]}),  # another chip's path beside its own
        ("h100_sxm", {"block_m": [8], "swap_ab": [True]}),  # so few rows only where they are swapped
        ("trainium2", {"anything": [7]}),  # a chip without kernels
        ("h100_sxm", {}),
    ],
)
def test_what_some_tile_can_be_is_searched(chip: str, tiles: dict[str, Any]) -> None:
    check(chip, {chip: tiles} if tiles else {})


def test_a_data_type_that_the_chip_lacks_is_not_the_tiles_fault() -> None:
    check("a100_sxm", {"triton": {"block_m": [16]}}, dtype="fp8")


@pytest.mark.parametrize("name", space_names())
def test_the_shipped_spaces_stand(name: str) -> None:
    space = load_space(name)
    for chip in space.chips:
        check_tiles(space, chip, OPS)
