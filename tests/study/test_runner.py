"""The search end to end on real parts."""

from pathlib import Path

import optuna
import pytest

import moe_codesign as mc
from moe_codesign.answers.frontier_rows import report_rows
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.space import parse_space
from tests.conftest import make_space, space_text


def run(tmp_path: Path, **options: str) -> SearchResult:
    trials = int(options.pop("trials", "24"))
    return mc.search(make_space(**options), trials=trials, jobs=2, storage=f"sqlite:///{tmp_path / 's.db'}")


@pytest.mark.parametrize("seed", [0, 1])
def test_quality_constraint_stops_the_run_to_small_experts(tmp_path: Path, seed: int) -> None:
    def best(constraint: str) -> SearchResult:
        space = make_space(chips='"trainium2"', constraint=constraint)
        url = f"sqlite:///{tmp_path / 's.db'}"
        return mc.search(space, trials=120, storage=url, study=f"{constraint}{seed}", seed=seed)

    free, held = best(""), best("min_quality_ratio = 1.0")

    def fastest(result: SearchResult) -> MoEShape:
        return min(report_rows(result), key=lambda row: row.pair.timing.latency_us).pair.shape

    reference = find_model("Qwen3-30B-A3B")
    assert fastest(free).moe_intermediate_size <= reference.moe_intermediate_size / 3, "the fastest experts are tiny"
    assert fastest(free).layer_params < 0.5 * fastest(held).layer_params
    assert all(row.pair.quality_ratio >= 1.0 for row in report_rows(held))
    assert any(row.pair.quality_ratio < 1.0 for row in report_rows(free))
    assert any(t.reason.startswith("quality") for t in held.trials)


def test_joint_and_nested_on_a_compiled_chip(tmp_path: Path) -> None:
    result = run(tmp_path, chips='"h100_sxm", "tpu_v6e"', modes='"joint", "nested"', trials="60")
    rows = report_rows(result)
    assert {row.pair.mode for row in rows} == {"joint", "nested"}
    assert {row.pair.timing.grade for row in rows} == {"modelled", "simulated"}
    assert {pair.chip for pair in result.reference} == {"h100_sxm", "tpu_v6e"}
    for row in rows:
        assert row.gain is not None
        assert 0 < row.share_of_peak <= 1
        assert len(row.pair.tiles) == 2
    for chip in ("h100_sxm", "tpu_v6e"):
        assert any(row.on_frontier for row in rows if row.pair.chip == chip)
    same = {}
    for row in rows:
        pair = row.pair
        same.setdefault((pair.chip, pair.shape), {})[pair.mode] = pair.timing.latency_us
    for times in same.values():
        if len(times) == 2:
            assert times["nested"] <= times["joint"] * (1 + 1e-9), "all tiles ranked can be no worse than some tile"


def test_the_host_is_measured(tmp_path: Path) -> None:
    text = (
        space_text(chips='"cpu"', constraint="").replace("high = 1536", "high = 128").replace("[64, 128, 256]", "[64]")
    )
    space = parse_space(text.replace("ep = 4", "ep = 16\ntp = 1") + "\n[budget]\nmeasure_seconds = 0.05\n")
    result = mc.search(space, trials=2, storage=f"sqlite:///{tmp_path / 's.db'}")
    rows = report_rows(result)
    assert rows, [t.reason for t in result.trials]
    for row in rows:
        assert row.pair.timing.grade == "measured"
        assert len(row.pair.timing.samples_us) >= 5
        assert not row.pair.timing.implausible


def test_what_the_compiler_refused_is_a_stored_result(tmp_path: Path) -> None:
    space = make_space(chips='"h100_sxm"', modes='"joint"', constraint="")
    tiles = {**space.tiles, "triton": {**space.tiles["triton"], "block_m": [128], "block_n": [256], "num_warps": [4]}}
    result = mc.search(
        space.model_copy(update={"tiles": tiles}), trials=6, jobs=2, storage=f"sqlite:///{tmp_path / 's.db'}"
    )
    assert len(result.trials) == 6
    assert any("registers" in t.reason or "shared memory" in t.reason for t in result.trials)
    assert all(t.params for t in result.trials)


def test_a_study_goes_on_and_repeats(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    space = make_space(chips='"trainium2"')
    mc.search(space, trials=7, storage=url, study="a")
    in_two = mc.search(space, trials=20, storage=url, study="a")
    at_once = mc.search(space, trials=20, storage=url, study="b")
    assert [t.number for t in in_two.trials] == list(range(20))
    assert [t.params for t in in_two.trials] == [t.params for t in at_once.trials]
    assert len(mc.search(space, trials=5, storage=url, study="a").trials) == 20, "fewer trials asked: nothing lost"
    assert len(optuna.load_study(study_name="a/trainium2/nested", storage=url).trials) == 20


def test_another_space_under_the_same_name_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    mc.search(make_space(chips='"trainium2"'), trials=2, storage=url, study="a")
    with pytest.raises(UserError, match="another space"):
        mc.search(make_space(chips='"trainium2"', constraint=""), trials=2, storage=url, study="a")


def test_a_running_study_is_locked(tmp_path: Path) -> None:
    from moe_codesign.storage.studies import Store

    url = f"sqlite:///{tmp_path / 's.db'}"
    with Store(url).lock("a"), pytest.raises(UserError, match="another process"):
        mc.search(make_space(chips='"trainium2"'), trials=2, storage=url, study="a")


def test_what_a_chip_cannot_answer_is_told_before_any_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    space = make_space(chips='"trainium2"')
    priced = space.model_copy(update={"objectives": ["decode.usd_per_mtok"]})
    with pytest.raises(UserError, match="no price"):
        mc.search(priced, trials=2, storage=url, study="a")
    odd = make_space(chips='"h100_sxm"').model_copy(update={"tiles": {"triton": {"blok_m": [64]}}})
    with pytest.raises(UserError, match="blok_m"):
        mc.search(odd, trials=2, storage=url, study="b")


def test_a_histogram_of_another_length_rules_out_trials_not_the_search(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text(str([1] * 64))
    text = space_text(chips='"trainium2"', constraint="").replace("ep = 4", f'routing = "histogram:{tmp_path}/h.json"')
    result = mc.search(parse_space(text), trials=12, storage=f"sqlite:///{tmp_path / 's.db'}")
    assert len(result.trials) == 12
    assert any("64 entries" in t.reason for t in result.trials)
    assert any(t.feasible for t in result.trials)


def test_a_chip_file_of_ones_own_can_be_searched(tmp_path: Path) -> None:
    import moe_codesign.chips

    text = (Path(moe_codesign.chips.__file__).parent / "trainium2.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('name = "trainium2"', 'name = "mine"'))
    space = parse_space(space_text(chips=f'"{tmp_path / "mine.toml"}"'))
    result = mc.search(space, trials=8, storage=f"sqlite:///{tmp_path / 's.db'}", out=tmp_path / "out")
    assert {row.pair.chip for row in report_rows(result)} == {"mine"}
