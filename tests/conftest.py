"""One artifact cache for the whole run, all its workers together: what one has compiled no other compiles again."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Not the developer's own calibrations.
os.environ["MOE_CODESIGN_CALIBRATIONS"] = tempfile.mkdtemp()

from pathlib import Path

import pytest

from moe_codesign.study.space import Space, parse_space

SMALL_TILES = """
[tiles.triton]
block_m = [16, 64]
block_n = [128]
block_k = [64]
num_warps = [4]
num_stages = [3]
group_m = [1, 8]
split_k = [1]
persistent = [false]
tma = [false]
swap_ab = [false, true]
[tiles.pallas]
tile_m = [16, 128]
tile_k = [512]
tile_n = [256]
[tiles.cpu]
tile_m = [16]
tile_k = [128]
tile_n = [128]
"""


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["MOE_CODESIGN_CACHE"] = str(folder)
    return folder


def space_text(*, chips: str, constraint: str = "min_quality_ratio = 1.0", modes: str = '"nested"') -> str:
    return f"""
name = "test"
reference = "Qwen3-30B-A3B"
training_tokens = 36e12
chips = [{chips}]
modes = [{modes}]
objectives = ["decode.latency_us", "quality"]
[shape]
moe_intermediate_size = {{ low = 128, high = 1536, step = 128 }}
num_experts = [64, 128, 256]
num_experts_per_tok = {{ low = 1, high = 16 }}
[[workloads]]
name = "decode"
num_tokens = 64
ep = 4
[constraints]
{constraint}
{SMALL_TILES}
"""


def make_space(**options: str) -> Space:
    return parse_space(space_text(**options))
