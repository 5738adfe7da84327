"""The default rule names tiles that exist, for every range of rows."""

import pytest

from moe_codesign.chips import load_chip
from moe_codesign.compiler import ArtifactCache
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.fitting import default_tiles
from moe_codesign.models import find_model
from moe_kernels.kernel import Problem
from moe_kernels.triton.tiles import ROW_STEPS


@pytest.mark.slow
def test_a_tile_is_chosen_for_every_range_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_tiles, "RANKS", (8,))
    monkeypatch.setattr(default_tiles, "models", lambda: {"one": find_model("Qwen3-30B-A3B")})
    chip = load_chip("h100_sxm")
    kernel, said = kernel_for(chip), list[str]()
    tiles = default_tiles.best_tiles(chip, "bfloat16", "down", ArtifactCache(), jobs=2, said=said.append)
    assert len(tiles) == len(default_tiles.ROWS) == len(said) == len(ROW_STEPS) + 1
    problem = Problem(op="down", dtype="bfloat16")
    assert all(kernel.refuses(problem, tile, chip.target) is None for tile in tiles)
    heights = [int(tile.as_dict()["block_m"]) for tile in tiles]
    assert heights[0] <= 32 < 64 <= heights[-1], "few rows take low tiles, many rows tall ones"
