"""Which tiles a Triton call takes: the default rule, and tuned tables that override it."""

import itertools
import json
from pathlib import Path

import pytest

from moe_kernels.kernel import Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import SERVED, missing_on
from moe_kernels.triton.support import refusal
from moe_kernels.triton.tiles import TunedTable, default_tile, row_step, tuned_tiles, use_tuned

TARGETS = ("cuda:80", "cuda:89", "cuda:90", "cuda:100", "cuda:120", "hip:gfx942", "hip:gfx950", None)
KEY = ("bfloat16", "swiglu", 8, 4096, 14336)
SMALL = TritonTile(block_m=16, block_n=64, block_k=64, num_warps=4, num_stages=3)
LARGE = TritonTile(block_m=128, block_n=128, block_k=64, num_warps=8, num_stages=3, tma=True)


@pytest.mark.parametrize("target", TARGETS)
def test_the_default_tile_runs_every_problem(target: str | None) -> None:
    sizes = (704, 1408, 2880, 7168, 100, 33, 32)
    for dtype, op, k, rows in itertools.product(SERVED, ("gate_up", "up", "down"), sizes, (1, 10, 40, 1e5)):
        if missing_on(dtype, target) or (dtype in ("mxfp4", "int4") and k % 32):
            continue
        problem = Problem(op=op, dtype=dtype, k=k, n=512, group=32)  # type: ignore[arg-type]
        assert refusal(problem, default_tile(problem, rows, target), target) is None


def test_more_rows_take_taller_tiles() -> None:
    problem = Problem(op="down", dtype="bfloat16", k=4096, n=4096)
    heights = [default_tile(problem, rows, "cuda:90").block_m for rows in (1, 16, 64, 1000)]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    assert [row_step(rows, "cuda:90") for rows in (0.5, 4, 5, 512, 513)] == [0, 0, 1, 5, 6]
    # Hopper's ranges end before a block of 16 rows is full; a family whose tiles are older keeps its own.
    assert [row_step(16, target) for target in ("cuda:90", "cuda:80")] == [2, 1]


def test_a_tuned_table_survives_its_file_and_answers_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(TunedTable("A GPU", {KEY: {1: (SMALL, SMALL), 4096: (LARGE, SMALL)}}).to_json())
    table = TunedTable.from_file(path)
    assert table.find(KEY, 3) == (SMALL, SMALL)
    assert table.find(KEY, 3000) == (LARGE, SMALL)
    assert table.find(("fp8", *KEY[1:]), 3) is None
    use_tuned(table)
    assert tuned_tiles("A GPU", KEY, 5000) == (LARGE, SMALL)
    assert tuned_tiles("Another GPU", KEY, 5000) is None


NAMES = ("dtype", "activation", "num_experts", "hidden_size", "moe_intermediate_size")
BROKEN = dict(zip(NAMES, KEY, strict=True)) | {"tiles": {"1": {"up": SMALL.as_dict() | {"block_m": 0}, "down": {}}}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[]", "TypeError"),
        ("{}", "entries"),
        (json.dumps({"device": "x", "entries": [{"dtype": "bfloat16"}]}), "activation"),
        (json.dumps({"device": "x", "entries": [BROKEN]}), "block_m"),
    ],
)
def test_a_broken_table_is_reported_with_its_file(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"tuned.json.*{words}"):
        TunedTable.from_file(path)
    with pytest.raises(ValueError, match=r"none\.json"):
        TunedTable.from_file(tmp_path / "none.json")
