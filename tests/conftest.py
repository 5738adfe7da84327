"""One artifact cache for the whole run, all its workers together: what one has compiled no other compiles again."""

import contextlib
import json
import os
import tempfile
import tomllib

os.environ["JAX_PLATFORMS"] = "cpu"
# Not the developer's own calibrations.
os.environ["MOE_CODESIGN_CALIBRATIONS"] = tempfile.mkdtemp()

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from moe_codesign.study.space import Space
from moe_codesign.tables import read_table
from tests.postgresql import NoServerError, fresh_database, server

# The same examples every time, and no failure for a machine that is busy.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with contextlib.ExitStack() as running:
        try:
            url = running.enter_context(server())
        except NoServerError as error:
            pytest.skip(str(error))
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    return fresh_database(postgresql_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'results.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


def space_text(
    *, chips: Sequence[str] = ("trainium2",), modes: Sequence[str] = ("nested",), min_quality_ratio: float | None = 1.0
) -> str:
    """A small space file."""
    constraint = "" if min_quality_ratio is None else f"min_quality_ratio = {min_quality_ratio}"
    return f"""
name = "test"
reference = "Qwen3-30B-A3B"
training_tokens = 36e12
chips = {json.dumps(list(chips))}
modes = {json.dumps(list(modes))}
sampler = "tpe"
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
[budget]
polish = 0
{SMALL_TILES}
"""


def make_space(**changes: Any) -> Space:
    """The small space with some keys changed; ``workload`` changes keys of its one workload."""
    data: dict[str, Any] = tomllib.loads(space_text())
    data["workloads"][0] |= changes.pop("workload", {})
    return read_table(Space, data | changes, "space")
