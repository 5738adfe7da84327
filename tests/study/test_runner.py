"""The search end to end on real parts."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from rich.console import Console

import moe_codesign as mc
from moe_codesign.answers.frontier_rows import json_rows, report_rows
from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.measure import presence
from moe_codesign.models import find_model
from moe_codesign.reports.terminal.search import print_search
from moe_codesign.storage.database import Database
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.samplers import suggest_shape
from tests.command import invoke
from tests.conftest import make_space, space_text
from tests.study.test_space import chip_file


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 's.db'}"


def names(url: str) -> list[str]:
    with Database(url) as database:
        return [study["name"] for study in Studies(database).every()]


def rewrite(url: str, identity: str) -> None:
    with Database(url) as database, database.engine.begin() as connection:
        connection.execute(sa.text("update moe_codesign_studies set identity = :identity"), {"identity": identity})


def failures(result: SearchResult) -> list[Failure]:
    return [trial.failure for trial in result.trials if trial.failure]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_quality_constraint_stops_the_run_to_small_experts(url: str, seed: int) -> None:
    def best(study: str, constraints: dict[str, float]) -> SearchResult:
        return mc.search(make_space(constraints=constraints), trials=120, storage=url, study=study, seed=seed)

    free, held = best("free", {}), best("held", {"min_quality_ratio": 1.0})

    def fastest(result: SearchResult) -> MoEShape:
        return min(report_rows(result), key=lambda row: row.pair.timing.latency_us).pair.shape

    reference = find_model("Qwen3-30B-A3B")
    assert fastest(free).moe_intermediate_size <= reference.moe_intermediate_size / 3, "the fastest experts are tiny"
    assert fastest(free).layer_params < 0.5 * fastest(held).layer_params
    assert all(row.pair.quality_ratio >= 1.0 for row in report_rows(held))
    assert any(row.pair.quality_ratio < 1.0 for row in report_rows(free))
    assert failures(held) == [], "no trial is spent on what arithmetic rules out"


def test_joint_and_nested_on_compiled_chips(url: str) -> None:
    # Few shapes, so that both modes meet the same ones.
    shape = {"moe_intermediate_size": [768, 1024], "num_experts": 128, "num_experts_per_tok": 8}
    space = make_space(chips=["h100_sxm", "tpu_v6e"], modes=["joint", "nested"], shape=shape, constraints={})
    result = mc.search(space, trials=40, jobs=2, storage=url)
    rows = report_rows(result)
    assert {row.mode for row in rows} == {"joint", "nested"}
    assert {row.pair.timing.grade for row in rows} == {"modelled", "simulated"}
    assert set(result.reference) == {"h100_sxm", "tpu_v6e"}
    for row in rows:
        assert row.gain is not None
        assert 0 < row.share_of_peak <= 1
        assert row.pair.tiles is not None
    for chip in ("h100_sxm", "tpu_v6e"):
        assert any(row.on_frontier for row in rows if row.pair.chip == chip)
    times: dict[tuple[str, MoEShape], dict[str, set[float]]] = {}
    for row in rows:
        of_shape = times.setdefault((row.pair.chip, row.pair.shape), {"joint": set(), "nested": set()})
        of_shape[row.mode].add(row.pair.timing.latency_us)
    met = [of_shape for of_shape in times.values() if all(of_shape.values())]
    assert len(met) == 4, "both shapes in both modes on both chips"
    for of_shape in met:
        (nested,) = of_shape["nested"]
        assert nested <= min(of_shape["joint"]) * (1 + 1e-9), "all tiles ranked can be no worse than some tile"


@pytest.mark.parametrize("mode", ["joint", "nested"])
def test_a_space_that_narrows_the_tiles_means_those_alone(url: str, mode: str) -> None:
    tiles = make_space().tiles["triton"]
    result = mc.search(
        make_space(chips=["h100_sxm"], modes=[mode], constraints={}), trials=12, jobs=2, storage=url, study=mode
    )
    rows = report_rows(result)
    assert rows
    for row in rows:
        assert row.pair.tiles is not None
        for tile in row.pair.tiles:
            assert all(tile.as_dict()[field] in values for field, values in tiles.items()), tile
    (reference,) = result.reference["h100_sxm"]
    assert any(
        tile.as_dict()[field] not in values for tile in reference.tiles or () for field, values in tiles.items()
    ), "the reference keeps its default tile"


def test_the_host_is_measured(url: str) -> None:
    space = make_space(
        chips=["cpu"],
        shape={"moe_intermediate_size": 128, "num_experts": 64, "num_experts_per_tok": {"low": 1, "high": 16}},
        workload={"ep": 16},
        constraints={},
        budget={"measure_seconds": 0.05},
    )
    result = mc.search(space, trials=2, storage=url)
    rows = report_rows(result)
    assert rows, failures(result)
    for row in rows:
        assert row.pair.timing.grade == "measured"
        assert len(row.pair.timing.samples_us) >= 5
        assert not row.pair.timing.implausible


def test_what_the_compiler_refused_is_a_stored_result(url: str) -> None:
    tiles = {**make_space().tiles["triton"], "block_m": [128], "block_n": [256], "num_warps": [4]}
    space = make_space(chips=["h100_sxm"], modes=["joint"], constraints={}, tiles={"triton": tiles})
    result = mc.search(space, trials=6, jobs=2, storage=url)
    assert len(result.trials) == 6
    refused = [failure for failure in failures(result) if failure.kind is FailureKind.COMPILER]
    assert any("registers" in failure.text or "shared memory" in failure.text for failure in refused)
    assert all(trial.params for trial in result.trials)


def test_a_study_goes_on_and_repeats(url: str) -> None:
    space = make_space()
    mc.search(space, trials=7, storage=url, study="a")
    in_two = mc.search(space, trials=20, storage=url, study="a")
    at_once = mc.search(space, trials=20, storage=url, study="b")
    assert [t.number for t in in_two.trials] == list(range(20))
    assert in_two.trials == at_once.trials
    assert in_two.reference == at_once.reference
    assert len(mc.search(space, trials=5, storage=url, study="a").trials) == 20, "fewer trials asked: nothing lost"
    assert len(optuna.load_study(study_name="a/trainium2/nested", storage=url).trials) == 20


def test_a_stored_study_reads_back_as_it_ran(url: str) -> None:
    ran = mc.search(make_space(), trials=6, storage=url, study="a")
    assert mc.load_study("a", storage=url) == dataclasses.replace(ran, space=mc.load_study("a", storage=url).space)
    assert mc.load_study("a", storage=url).space.identity() == ran.space.identity()


def test_json_pairs_are_the_frontier_and_all_pairs_are_all(url: str) -> None:
    result = mc.search(make_space(constraints={}), trials=12, storage=url, study="a")
    rows = json_rows(result)
    assert 0 < len(rows["pairs"]) < len(rows["all_pairs"])
    assert all(row["on_frontier"] for row in rows["pairs"])
    assert [row for row in rows["all_pairs"] if row["on_frontier"]] == rows["pairs"]
    assert len(rows["all_pairs"]) == sum(len(trial.pairs) for trial in result.trials)


def test_the_runner_and_the_report_value_objectives_alike(url: str) -> None:
    objectives = ["decode.tokens_per_s_per_user", "quality", "decode.tokens_per_s_per_chip"]
    result = mc.search(make_space(objectives=objectives, constraints={}), trials=6, storage=url, study="a")
    learned = {
        trial.number: trial.values for trial in optuna.load_study(study_name="a/trainium2/nested", storage=url).trials
    }
    answered = [trial for trial in result.trials if trial.pairs]
    assert answered
    for trial in answered:
        chip = load_chip("trainium2")
        assert learned[trial.number] == [o.value(trial.pairs, chip) for o in result.space.objectives]


def test_another_space_under_the_same_name_is_refused(url: str) -> None:
    mc.search(make_space(), trials=2, storage=url, study="a")
    with pytest.raises(UserError, match="another space"):
        mc.search(make_space(constraints={}), trials=2, storage=url, study="a")


def test_a_study_from_before_a_key_of_spaces_goes_on(url: str) -> None:
    mc.search(make_space(), trials=2, storage=url, study="a")
    older = json.loads(make_space().identity())
    del older["constraints"]["memory_fraction"]
    rewrite(url, json.dumps(older))
    assert len(mc.search(make_space(), trials=4, storage=url, study="a").trials) == 4
    with pytest.raises(UserError, match="another space"):
        mc.search(make_space(constraints={"memory_fraction": 0.5}), trials=4, storage=url, study="a")


def test_a_study_with_a_key_that_this_version_does_not_know_is_one_line(url: str) -> None:
    mc.search(make_space(), trials=2, storage=url, study="a")
    rewrite(url, json.dumps({**json.loads(make_space().identity()), "colour": 1}))
    with pytest.raises(UserError, match=r"study 'a'.*colour is unknown"):
        mc.search(make_space(), trials=4, storage=url, study="a")
    with pytest.raises(UserError, match=r"study 'a'.*colour is unknown"):
        mc.load_study("a", storage=url)


def test_two_chip_files_of_one_name_do_not_share_a_study(url: str, tmp_path: Path) -> None:
    first = chip_file(tmp_path / "first.toml", "mine")
    second = chip_file(tmp_path / "second.toml", "mine", old="hbm_bytes_per_s = ", new="hbm_bytes_per_s = 1")
    mc.search(make_space(chips=[str(first)]), trials=2, storage=url, study="a")
    with pytest.raises(UserError, match="another chip file"):
        mc.search(make_space(chips=[str(second)]), trials=2, storage=url, study="a")


def test_a_running_study_is_locked(url: str) -> None:
    with Database(url) as database, database.lock("a"), pytest.raises(UserError, match="another process"):
        mc.search(make_space(), trials=2, storage=url, study="a")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": ["decode.usd_per_mtok"]}, "no price"),
        ({"chips": ["h100_sxm"], "tiles": {"triton": {"blok_m": [64]}}}, "blok_m"),
        (
            {"chips": ["h100_sxm"], "tiles": {"triton": {"block_m": [7]}}},
            r"tiles for h100_sxm have block_m: got 7; triton.grouped_gemm refuses it \(block_m = 7 is not a power of "
            r"two\); use 8, 16, 32, 64, 128$",
        ),
        ({"reference": "Qwen3-30B"}, "did you mean Qwen3-30B-A3B"),
    ],
)
def test_a_refused_search_has_not_made_its_study(url: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        mc.search(make_space(**changes), trials=2, storage=url, study="a")
    assert names(url) == []
    assert len(mc.search(make_space(), trials=2, storage=url, study="a").trials) == 2, "the corrected space runs"


def test_a_search_whose_tiles_cannot_be_compiled_has_not_made_its_study(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("triton is not installed")

    monkeypatch.setattr(Tables, "prepare", refuse)
    with pytest.raises(UserError, match="not installed"):
        mc.search(make_space(), trials=2, storage=url, study="a")
    assert names(url) == []


def test_a_search_says_which_package_a_measurement_lacks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "is_installed", lambda package: package != "jax")
    space = make_space(chips=["cpu", "trainium2"], constraints={})
    result = mc.search(space, trials=2, storage=url)
    says = 'times of cpu are estimates: measuring needs jax, which is not installed; pip install "moe-codesign[tpu]"'
    assert result.notes == (says,)
    file = io.StringIO()
    print_search(Console(file=file, width=120, markup=False), result)
    assert says in file.getvalue().splitlines()
    (tmp_path / "space.toml").write_text(space_text(chips=["cpu"], min_quality_ratio=None))
    done = invoke("search", "space.toml", "--trials", "1", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["notes"][0] == says


def test_a_search_whose_chips_are_not_here_says_nothing_of_packages(url: str) -> None:
    assert mc.search(make_space(), trials=1, storage=url).notes == ()


def test_of_recorded_layers_a_pair_is_of_the_slowest(url: str, tmp_path: Path) -> None:
    few, even = [1] + [0] * 62 + [1], [1] * 64
    (tmp_path / "loads.json").write_text(json.dumps({"logical_count": [few, even]}))
    shape = {"moe_intermediate_size": [512, 640, 768, 896], "num_experts": 64, "num_experts_per_tok": 2}

    def searched(routing: str) -> SearchResult:
        changes = {"routing": f"histogram:{routing}", "ep": 1}
        space = make_space(workload=changes, shape=shape, constraints={}, objectives=["decode.latency_us"])
        return mc.search(space, trials=3, storage=url, study=f"of-{len(names(url))}")

    def times(result: SearchResult) -> list[float]:
        return [pair.timing.latency_us for trial in result.trials for pair in trial.pairs]

    slow, every, named = searched(str(even)), searched(f"{tmp_path}/loads.json"), searched(f"{tmp_path}/loads.json#0")
    assert times(every) == times(slow)
    assert max(times(named)) < min(times(slow))
    for pair in (pair for trial in every.trials for pair in trial.pairs):
        assert pair.notes[-1] == "the recorded loads are of 2 layers: layer 1 takes longest"
        assert pair.workload.routing == parse_routing(f"histogram:{even}")
    assert "layer" not in "".join(json_rows(named)["notes"])
    again = mc.search(every.space, trials=4, storage=url, study="of-1")
    assert len(again.trials) == 4, "the space is stored with the counts of every layer"
    assert mc.load_study("of-1", storage=url).space.identity() == every.space.identity()


def test_where_the_chip_is_here_the_slowest_recorded_layer_alone_is_measured(url: str) -> None:
    loads = f"histogram:[{[1] + [0] * 62 + [1]}, {[1] * 64}]"
    space = make_space(
        chips=["cpu"], workload={"routing": loads, "ep": 16, "num_tokens": 8}, constraints={},
        shape={"hidden_size": 256, "moe_intermediate_size": 128, "num_experts": 64, "num_experts_per_tok": 2},
        budget={"measure_top": 1, "measure_seconds": 0.01},
    )  # fmt: skip
    (trial,) = mc.search(space, trials=1, storage=url).trials
    assert [pair.timing.grade for pair in trial.pairs] == ["measured"]
    assert trial.pairs[0].notes == ("the recorded loads are of 2 layers: layer 0 takes longest",), "one rank has it all"


def test_a_workload_without_a_type_has_the_reference_models(url: str) -> None:
    shape = {"moe_intermediate_size": 2880, "num_experts": 128, "num_experts_per_tok": 4}

    def searched(study: str, **changes: Any) -> SearchResult:
        space = make_space(reference="gpt-oss-120b", shape=shape, constraints={}, **changes)
        return mc.search(space, trials=1, storage=url, study=study)

    def dtypes(result: SearchResult) -> set[str]:
        return {
            pair.workload.dtype for trial in result.trials for pair in (*trial.pairs, *result.reference["trainium2"])
        }

    own, asked = searched("own"), searched("asked", workload={"dtype": "bf16"})
    assert (dtypes(own), own.notes) == ({"mxfp4"}, ("decode: in mxfp4 (the model's)",))
    assert (dtypes(asked), asked.notes) == ({"bfloat16"}, ())
    assert mc.load_study("own", storage=url).space.workloads[0].dtype == "mxfp4", "whatever the model's file says later"
    held = make_space(reference="gpt-oss-120b", chips=["trainium2", "cpu"])
    assert held.dtype_notes() == ("decode: in bfloat16 (pallas.host_matmul does not take the model's mxfp4)",)


def test_a_histogram_of_another_length_rules_out_trials_not_the_search(url: str, tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text(json.dumps([1] * 64))
    space = make_space(workload={"routing": f"histogram:{tmp_path}/h.json", "ep": 1}, constraints={})
    result = mc.search(space, trials=12, storage=url)
    assert len(result.trials) == 12
    assert any("64 entries" in failure.text for failure in failures(result))
    assert {failure.kind for failure in failures(result)} <= {
        FailureKind.UNSUPPORTED,
        FailureKind.SHAPE,
        FailureKind.MEMORY,
    }
    assert any(trial.pairs for trial in result.trials)


@pytest.mark.parametrize("limited", [False, True])
def test_a_chip_file_of_ones_own_can_be_searched(url: str, tmp_path: Path, limited: bool) -> None:
    file = str(chip_file(tmp_path / "mine.toml", "mine"))
    space = make_space(chips=[file], workload={"chips": [file]} if limited else {})
    result = mc.search(space, trials=8, storage=url, out=tmp_path / "out")
    assert {row.pair.chip for row in report_rows(result)} == {"mine"}
    assert all(trial.pairs or trial.failure for trial in result.trials)


def test_sizes_that_are_no_layer_are_a_failure_not_an_exception() -> None:
    space = make_space(shape={"num_experts": 64, "num_experts_per_tok": 65})
    study = optuna.create_study()
    found = suggest_shape(study.ask(), space, find_model(space.reference))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.SHAPE


@pytest.mark.parametrize(
    ("changes", "shape", "kind"),
    [
        ({}, {"moe_intermediate_size": 64}, FailureKind.QUALITY),
        ({"constraints": {}}, {"num_experts": 126}, FailureKind.SPLIT),
        ({"constraints": {}, "workload": {"ep": 1}}, {"moe_intermediate_size": 8192}, FailureKind.MEMORY),
    ],
)
def test_constraints_say_which_they_are(changes: dict[str, Any], shape: dict[str, Any], kind: FailureKind) -> None:
    space = make_space(**changes)
    reference = find_model(space.reference)
    evaluator = Evaluator(space, space.chips[0], reference, Tables(), None)
    assert evaluator.judged([reference]).failures == [None]
    failure = evaluator.judged([dataclasses.replace(reference, **shape)]).failures[0]
    assert failure is not None
    assert failure.kind is kind
    assert failure.violation > 0
