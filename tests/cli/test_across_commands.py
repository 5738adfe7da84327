"""The commands that compare chips: what they print, and that JSON says what the functions return."""

import json
from pathlib import Path

import pytest

import moe_codesign as mc
from tests.command import invoke

SPACE = """
name = "four shapes"
reference = "Qwen3-30B-A3B"
training_tokens = 36e12
chips = ["trainium2", "tpu_v6e"]
objectives = ["decode.latency_us"]
[shape]
moe_intermediate_size = [768, 1024]
num_experts = [96, 128]
[[workloads]]
name = "decode"
num_tokens = 64
ep = 4
[constraints]
min_quality_ratio = 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def printed(folder: Path, *arguments: str) -> str:
    done = invoke(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def test_lock_in(folder: Path) -> None:
    text = printed(folder, "lock-in", "space.toml")
    assert text.startswith(LOCK_IN)
    assert text.endswith("The gain is over Qwen3-30B-A3B with its best tiles on that chip: what the shape alone gains.")
    data = json.loads(printed(folder, "lock-in", "space.toml", "--json"))
    found = mc.lock_in(folder / "space.toml")
    assert data["best"]["tpu_v6e"]["value"] == found.best["tpu_v6e"].value
    assert data["best"]["tpu_v6e"]["pairs"] == [pair.to_dict() for pair in found.best["tpu_v6e"].pairs]
    assert [cell["over_own_best"]["ratio"] for cell in data["cells"]] == [
        cell.over_own_best.value for cell in found.cells if cell.over_own_best
    ]


def test_three_layers(folder: Path) -> None:
    arguments = ("three-layers", "space.toml", "--from", "trainium2", "--to", "tpu_v6e")
    assert THREE_LAYERS in printed(folder, *arguments)
    data = json.loads(printed(folder, *arguments, "--json"))
    found = mc.three_layers(folder / "space.toml", from_chip="trainium2", to_chip="tpu_v6e")
    assert data["together"]["ratio"] == found.together.value
    assert len(data["orders"]) == 6
    assert list(data["corners"]) == list(found.corners)


def test_robust(folder: Path) -> None:
    text = printed(folder, "robust", "space.toml", "--by", "weighted", "--weights", "tpu_v6e=3")
    assert "One shape for all costs 1.000 times a shape for each in the weighted mean: the least of 3 shapes" in text
    assert "tpu_v6e   │   0.75 │" in text
    data = json.loads(printed(folder, "robust", "space.toml", "--json"))
    assert data["price"] == mc.robust(folder / "space.toml").price


def test_sweet_spots(folder: Path) -> None:
    arguments = (
        "sweet-spots", "Qwen3-30B-A3B", "--chips", "tpu_v6e", "--low", "768", "--high", "832", "--tokens", "262144",
        "--ep", "4",
    )  # fmt: skip
    text = printed(folder, *arguments)
    assert "* 768" in text
    assert "tile and MXU (+5.9%)" in text
    assert "* sweet spots: 768; the step past each costs the share of the time" in text
    (data,) = json.loads(printed(folder, *arguments, "--json"))
    assert data["spots"] == [768]
    assert data["workload"]["routing"] == "uniform"
    split = printed(folder, "sweet-spots", "Qwen3-30B-A3B", "--chips", "trainium2", "--low", "10", "--high", "40",
                    "--step", "10", "--field", "num_experts", "--ep", "20")  # fmt: skip
    assert "No time (split) at 10, 30; the first: num_experts 10 is not a multiple of ep 20" in split


LOCK_IN = """\
four shapes, decode.latency_us: the best shape for a row's chip, run on a column's, over that one's own best
┏━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━┓
┃ best for  ┃         on trainium2 ┃           on tpu_v6e ┃
┡━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━┩
│ trainium2 │                 1.00 │ ~1.00 (0.78 .. 1.28) │
│ tpu_v6e   │ ~1.00 (0.74 .. 1.34) │                 1.00 │
└───────────┴──────────────────────┴──────────────────────┘
Costs are decode.latency_us, each chip with its own best tiles. In brackets is the interval of the ratio; ~ marks a \
ratio that is within error of 1.
trainium2: from the data sheet alone: no compiler for trainium2 here
"""
THREE_LAYERS = """\
│ product over together                      │ ~0.99 (0.67 .. 1.46) │
└────────────────────────────────────────────┴──────────────────────┘
Gains are costs before over costs after; costs are decode.latency_us, from 196 us to 195 us.
The product of the three alone is 0.8% less than the joint gain, which is within error of equal: the estimates neither \
show nor exclude that gains multiply. ~ marks what is within error of 1.
"""
