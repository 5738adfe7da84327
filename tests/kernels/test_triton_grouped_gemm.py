"""Numerics of the Triton kernel against float64, in Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moe_kernels.reference import BF16_TOLERANCE

SMALL = {"block_m": 16, "block_n": 32, "block_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 1}
LARGE = {"block_m": 32, "block_n": 64, "block_k": 64, "num_warps": 4, "num_stages": 3, "group_m": 4}
BASE: dict[str, Any] = {"H": 64, "I": 64, "T": 12, "sizes": [4, 8, 2], "gated": True, "seed": 0}
CASES: dict[str, dict[str, Any]] = {
    "even sizes": {},
    "odd depth and width": {"H": 176, "I": 112},
    "empty experts": {"sizes": [0, 12, 0, 5, 0]},
    "one expert gets all": {"sizes": [0, 0, 12, 0]},
    "one token": {"T": 1, "sizes": [1, 0, 1, 1]},
    "more rows than a tile": {"T": 70, "sizes": [70, 3, 33, 16]},
    "no rows at all": {"sizes": [0, 0]},
    "not gated": {"gated": False, "H": 80, "I": 96},
    "width below a tile": {"I": 16, "H": 48},
    "other seed": {"seed": 7, "sizes": [5, 5, 5, 5]},
}
FAULTS = ("scale", "tail", "expert")


@pytest.fixture(scope="module")
def errors() -> dict[str, float | None]:
    named = {
        f"{name}, {label}": {**BASE, **case, "tile_up": up, "tile_down": down}
        for name, case in CASES.items()
        for label, up, down in (("small tiles", SMALL, SMALL), ("mixed tiles", LARGE, SMALL))
    }
    named |= {f: {**BASE, "tile_up": SMALL, "tile_down": LARGE, "fault": f} for f in FAULTS}
    script = Path(__file__).parent / "interpreted.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(list(named.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(named, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("tiles", ["small tiles", "mixed tiles"])
@pytest.mark.parametrize("case", CASES)
def test_matches_float64(errors: dict[str, float | None], case: str, tiles: str) -> None:
    error = errors[f"{case}, {tiles}"]
    assert error is not None
    assert error <= BF16_TOLERANCE


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tolerance_catches_a_planted_fault(errors: dict[str, float | None], fault: str) -> None:
    error = errors[fault]
    assert error is None or error > BF16_TOLERANCE
