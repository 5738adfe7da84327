import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moe_codesign.chips
from moe_codesign.chips import load_chip
from moe_codesign.errors import UserError
from moe_codesign.study.space import load_space, parse_space, space_names, stored_space
from tests.conftest import make_space, space_text


def chip_file(path: Path, name: str, *, old: str = "", new: str = "") -> Path:
    """A copy of trainium2's file under another name."""
    text = (Path(moe_codesign.chips.__file__).parent / "trainium2.toml").read_text()
    assert old in text
    path.write_text(text.replace('name = "trainium2"', f'name = "{name}"').replace(old, new))
    return path


@pytest.mark.parametrize("name", space_names())
def test_the_spaces_that_come_with_the_project_are_valid(name: str) -> None:
    assert load_space(name).name == name


def test_there_are_spaces() -> None:
    assert "quickstart" in space_names()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training_tokens": -1}, "training_tokens = -1"),
        ({"chips": ["h100_smx"]}, "did you mean h100_sxm"),
        ({"chips": ["nowhere.toml"]}, "nowhere.toml"),
        ({"chips": [3]}, "unknown chip"),
        ({"shape": {"width": 4}}, "shape.width is unknown"),
        ({"shape": {"num_experts": {"low": 1536, "high": 128}}}, "low = 1536 is above high = 128"),
        ({"shape": {"num_experts": {"low": 0, "high": 8}}}, "at least 1"),
        ({"shape": {"num_layers": [24, 48]}}, "num_layers cannot vary"),
        ({"objectives": ["prefill.latency_us"]}, "write WORKLOAD.latency_us"),
        ({"objectives": ["decode.latency"]}, "did you mean latency_us"),
        ({"objectives": ["latency_us"]}, "write WORKLOAD.latency_us"),
        ({"objectives": ["decode.quality"]}, "write quality"),
        ({"objectives": ["decode.usd_per_mtok"]}, "trainium2 has no price"),
        ({"objectives": [1]}, "WORKLOAD.METRIC"),
        ({"workload": {"num_tokens": 0}}, "num_tokens = 0"),
        ({"workload": {"tokens": 64}}, "did you mean num_tokens"),
        ({"workload": {"routing": "zipf"}}, "zipf:ALPHA"),
        ({"workload": {"chips": ["b200"]}}, "no workload is for chip 'trainium2'"),
        ({"constraints": {"min_quality": 1.0}}, "did you mean min_quality_ratio"),
        ({"chips": ["trainium2", "trainium2"]}, "twice"),
        ({"modes": ["all"]}, "joint"),
        ({"modes": ["joint", "joint"]}, "twice"),
    ],
)
def test_messages_name_key_value_and_fix(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        make_space(**changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_space_are_refused() -> None:
    with pytest.raises(UserError, match="not TOML"):
        parse_space("name = ")
    with pytest.raises(UserError, match="reference is missing"):
        parse_space(space_text().replace('reference = "Qwen3-30B-A3B"', ""))
    with pytest.raises(UserError, match="list spaces"):
        load_space("nowhere")


@given(trials=st.integers(1, 500), weight=st.floats(0.01, 3))
def test_trials_are_shared_out_exactly(trials: int, weight: float) -> None:
    chips = ["trainium2", "h100_sxm", "b200"]
    space = make_space(chips=chips, modes=["joint", "nested"], budget={"weights": {"b200": weight}})
    shares = space.allot(trials)
    fewer = space.allot(max(trials - 1, 1))
    assert all(shares[key] >= fewer[key] for key in shares), "asking for more takes none away"
    assert sum(shares.values()) == trials
    assert set(shares) == {(chip, mode) for chip in chips for mode in ("joint", "nested")}


def test_a_workload_for_some_chips_replaces_the_one_for_all() -> None:
    workloads = [{"name": "decode", "num_tokens": 64}, {"name": "decode", "num_tokens": 8, "chips": ["trainium2"]}]
    space = make_space(workloads=workloads)
    assert [w.num_tokens for w in space.workloads_on(load_chip("trainium2"))] == [8]
    assert [w.num_tokens for w in space.workloads_on(load_chip("b200"))] == [64]


def test_chips_and_seed_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(space_text())
    for space in (tmp_path / "s.toml", make_space()):
        changed = load_space(space, chips=["b200"], seed=3)
        assert [chip.name for chip in changed.chips] == ["b200"]
        assert changed.seed == 3
    assert make_space().maximised() == [False, True]


def test_a_space_keeps_chips_by_their_names_wherever_it_names_a_file(tmp_path: Path) -> None:
    file = str(chip_file(tmp_path / "a.toml", "mine"))
    space = make_space(
        chips=[file],
        workloads=[{"name": "decode", "num_tokens": 8, "chips": [file]}],
        budget={"weights": {file: 0.5}},
        tiles={file: {"tile_m": [16]}},
    )
    (chip,) = space.chips
    assert chip.name == "mine"
    assert [w.num_tokens for w in space.workloads_on(chip)] == [8]
    assert space.budget.weights == {"mine": 0.5}
    assert space.tile_space(chip) == {"tile_m": (16,)}


def test_two_chips_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [str(chip_file(tmp_path / name, "mine")) for name in ("a.toml", "b.toml")]
    with pytest.raises(UserError, match="'mine' twice"):
        make_space(chips=files)
    with pytest.raises(UserError, match="'trainium2' twice"):
        make_space(chips=["trainium2", str(chip_file(tmp_path / "c.toml", "trainium2"))])


def test_identity_is_the_space_without_its_trials_and_can_be_read_back(tmp_path: Path) -> None:
    file = chip_file(tmp_path / "a.toml", "mine")
    space = make_space(chips=["trainium2", str(file)], objectives=["decode.latency_us"])
    file.unlink()
    stored = stored_space("s", space.identity())
    assert stored.chips == space.chips, "the chip's file is not needed again"
    assert stored.identity() == space.identity()
    assert (space.workloads[0].dtype, stored.workloads[0].dtype) == (None, "bfloat16"), "nor is the model's"
    assert space.identity() == load_space(space).identity()
    more = make_space(budget={"trials": 500, "polish": 0})
    assert make_space().identity() == more.identity()
    assert make_space(seed=1).identity() != make_space().identity()
    assert json.loads(make_space().identity())["chips"] == ["trainium2"], "of the catalogue: by name"


def test_a_changed_chip_file_makes_another_space(tmp_path: Path) -> None:
    same, other = tmp_path / "same.toml", tmp_path / "other.toml"
    chip_file(same, "mine")
    chip_file(other, "mine", old="hbm_bytes_per_s = ", new="hbm_bytes_per_s = 1")
    assert make_space(chips=[str(same)]).identity() != make_space(chips=[str(other)]).identity()


def test_a_stored_space_that_cannot_be_read_is_one_line() -> None:
    data = json.loads(make_space().identity())
    with pytest.raises(UserError, match=r"study 's'.*colour is unknown"):
        stored_space("s", json.dumps({**data, "colour": 1}))


def test_chips_and_types_may_be_spelt_as_people_do() -> None:
    space = make_space(
        chips=["NVIDIA_H100_80GB_HBM3"],
        workloads=[{"name": "decode", "num_tokens": 8, "dtype": "BF16", "chips": ["H100"]}],
        budget={"weights": {"H100 SXM": 0.5}},
    )
    assert [chip.name for chip in space.chips] == ["h100_sxm"]
    assert [(w.dtype, w.chips) for w in space.workloads] == [("bfloat16", ["h100_sxm"])]
    assert space.budget.weights == {"h100_sxm": 0.5}
    with pytest.raises(UserError, match="no kernel here has"):
        make_space(workloads=[{"name": "decode", "num_tokens": 8, "dtype": "nvfp4"}])
