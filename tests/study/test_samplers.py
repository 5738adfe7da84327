"""What a search tries next: never a point twice, never one that arithmetic rules out, the reference first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from moe_codesign import extras
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.trial import Trial
from moe_codesign.errors import UserError
from moe_codesign.models import find_model
from moe_codesign.study import samplers
from moe_codesign.study.evaluate import Evaluator, Judged
from moe_codesign.study.open_points import OpenPoints
from moe_codesign.study.points import nearest_number, neighbours, number_of, point_count, points, shape_of
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.samplers import TileChoices
from moe_codesign.study.space import Space
from tests.conftest import make_space

QWEN = find_model("Qwen3-30B-A3B")
SAMPLERS = ["tpe", "nsga2", "nsga3", "gp", "qmc", "random"]
FEW = {"moe_intermediate_size": [640, 768, 896], "num_experts": [64, 128], "num_experts_per_tok": [8, 10]}


def searched(folder: Path, trials: int, study: str = "a", **changes: Any) -> SearchResult:
    return mc.search(make_space(**changes), trials=trials, storage=f"sqlite:///{folder / 's.db'}", study=study)


def keys(trials: Sequence[Trial]) -> set[tuple[tuple[str, Any], ...]]:
    return {tuple(sorted(trial.params.items())) for trial in trials}


@pytest.fixture
def models_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few trials come before a sampler models them."""
    monkeypatch.setattr(samplers, "_STARTUP_TRIALS", 2)
    monkeypatch.setattr(samplers, "_MOST_FIRST", 3)


@pytest.mark.usefixtures("models_early")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_trial_is_new_and_feasible_and_a_search_goes_on_as_it_would_have(sampler: str, tmp_path: Path) -> None:
    in_two = searched(tmp_path, 6, "a", sampler=sampler)
    in_two = searched(tmp_path, 10, "a", sampler=sampler)
    at_once = searched(tmp_path, 10, "b", sampler=sampler)
    assert in_two.trials == at_once.trials
    assert len(keys(at_once.trials)) == 10
    assert all(trial.pairs for trial in at_once.trials)


@pytest.mark.usefixtures("models_early")
def test_samplers_differ(tmp_path: Path) -> None:
    found = [keys(searched(tmp_path, 10, name, sampler=name).trials) for name in ("tpe", "qmc", "random")]
    assert found[0] != found[1] != found[2] != found[0]


def test_a_search_starts_with_the_reference_its_neighbours_and_known_models(tmp_path: Path) -> None:
    axes = {
        "moe_intermediate_size": [512, 768, 1024, 2048],
        "num_experts": [128, 256],
        "num_experts_per_tok": [6, 8, 10],
    }
    shapes = [trial.pairs[0].shape for trial in searched(tmp_path, 7, shape=axes, constraints={}).trials]
    first = [(s.moe_intermediate_size, s.num_experts, s.num_experts_per_tok) for s in shapes]
    assert first[0] == (768, 128, 8)
    assert set(first[1:6]) == {(512, 128, 8), (1024, 128, 8), (768, 256, 8), (768, 128, 6), (768, 128, 10)}
    assert first[6] in {(2048, 256, 8), (512, 256, 8), (1024, 256, 8), (512, 128, 10)}


def test_a_reference_outside_the_space_is_replaced_by_the_nearest_shape() -> None:
    space = make_space(shape={"num_experts": [64, 96, 200], "num_experts_per_tok": {"low": 2, "high": 6}})
    _, (values, _) = next(points(space, QWEN, [nearest_number(space, QWEN)]))
    assert values == {"num_experts": 96, "num_experts_per_tok": 6}


@pytest.mark.parametrize("modes", [["nested"], ["joint"]])
def test_a_search_ends_when_all_was_tried(modes: list[str], tmp_path: Path) -> None:
    tiles = {
        "triton": {
            "block_m": [64], "block_n": [128], "block_k": [64], "num_warps": [4], "num_stages": [3], "group_m": [1],
            "split_k": [1], "persistent": [False], "tma": [False], "swap_ab": [False, True],
        }
    }  # fmt: skip
    axes = FEW if modes == ["nested"] else {"num_experts_per_tok": [8, 10]}
    changes: dict[str, Any] = {"chips": ["h100_sxm"], "modes": modes, "shape": axes, "tiles": tiles}
    result = searched(tmp_path, 40, **changes)
    if modes == ["nested"]:
        total = sum(failure is None for failure in open_points(make_space(**changes)).failures(range(12)))
    else:
        total = 2 * 2 * 2  # shapes, tiles of GEMM 1, of GEMM 2
    assert len(result.trials) == len(keys(result.trials)) == total < 40
    what = "shapes" if modes == ["nested"] else "pairs of a shape and tiles"
    (note,) = result.notes
    assert note == f"h100_sxm, {modes[0]}: all {what} that meet the constraints were tried, after {total} trials"
    again = searched(tmp_path, 40, **changes)
    assert (again.trials, again.notes) == (result.trials, result.notes)


def test_a_space_that_is_ruled_out_ends_at_once(tmp_path: Path) -> None:
    result = searched(tmp_path, 50, constraints={"min_quality_ratio": 9.0}, budget={"polish": 100})
    assert result.trials == []
    assert result.polishes == {}, "there is no frontier"
    (note,) = result.notes
    assert note.startswith("trainium2: all 576 shapes of the space are ruled out: ")
    assert note.endswith("quality; nothing was timed")


def open_points(space: Space, uses: int = 1) -> OpenPoints:
    evaluator = Evaluator(space, space.chips[0], QWEN, Tables(), None)
    return OpenPoints(space, QWEN, lambda some: evaluator.judged(some).failures, uses)


def test_the_nearest_open_point_is_near_and_open() -> None:
    space = make_space()
    left = open_points(space)
    total = point_count(space)
    feasible = {number for number, failure in enumerate(left.failures(range(total))) if failure is None}
    assert 0 < len(feasible) < total
    for number in range(0, total, 7):
        found = left.nearest(number)
        assert found in feasible
        near = feasible & {number, *neighbours(space, number), *neighbours(space, number, 2)}
        assert not near or found in near
    order = []
    while (found := left.nearest(0)) is not None:
        order.append(found)
        left.used[found] += 1
    assert set(order) == feasible, "every point is found before it ends"
    assert len(order) == len(feasible)
    assert not left.any_left()


def test_open_points_answer_alike_whatever_was_asked_before() -> None:
    space = make_space()
    asked, fresh = open_points(space), open_points(space)
    for number in (5, 300, 411):
        found = asked.nearest(number)
        assert found is not None
        asked.used[found] += 1
    fresh.used.update(asked.used)
    assert [asked.nearest(n) for n in range(0, 576, 50)] == [fresh.nearest(n) for n in range(0, 576, 50)]


def test_points_of_a_space_far_too_large_to_look_at_are_found() -> None:
    axes = {
        field: {"low": 64, "high": 65536, "step": 64}
        for field in ("hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok")
    }
    space = make_space(shape=axes, constraints={})
    assert point_count(space) == 1024**4
    found = open_points(space).nearest(nearest_number(space, QWEN))
    assert found is not None


@pytest.mark.parametrize(("sampler", "package"), [("gp", "torch"), ("qmc", "scipy")])
def test_a_sampler_says_which_package_it_lacks(
    sampler: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda name: name != package)
    with pytest.raises(UserError, match=rf"sampler = '{sampler}' needs {package}, which is not installed.*pip install"):
        searched(tmp_path, 2, sampler=sampler)


def test_modes_are_nested_where_times_are_estimated_and_joint_where_they_are_measured() -> None:
    space = make_space(chips=["cpu", "trainium2"], modes=None)
    assert space.allot(4, {"cpu"}) == {("cpu", "joint"): 2, ("trainium2", "nested"): 2}
    assert space.allot(4) == {("cpu", "nested"): 2, ("trainium2", "nested"): 2}
    named = make_space(chips=["cpu", "trainium2"], modes=["nested"])
    assert named.allot(4, {"cpu"}) == {("cpu", "nested"): 2, ("trainium2", "nested"): 2}


def test_every_choice_of_tiles_is_counted_and_has_the_names_of_proposals() -> None:
    space = make_space(chips=["h100_sxm"])
    evaluator = Evaluator(space, space.chips[0], QWEN, Tables(), None)
    assert evaluator.kernel is not None
    tiles = TileChoices(evaluator.kernel, evaluator.tile_space, ["decode"])
    every = list(tiles.every())
    assert len(every) == len({tuple(sorted(one.items())) for one in every}) == tiles.count() == 64


@pytest.mark.parametrize("held", ["total_params", "active_params"])
def test_depth_follows_the_parameters(held: str) -> None:
    objectives = ["decode.tokens_per_s_per_user", "quality"]
    space = make_space(shape={"moe_intermediate_size": [384, 768, 1536], "num_layers": held}, objectives=objectives)
    shapes = [shape for _, (_, shape) in points(space, QWEN, range(3))]
    layers = [shape.num_layers for shape in shapes if isinstance(shape, MoEShape)]
    assert layers == [96 if held == "total_params" else 95, 48, 24]
    for shape in shapes:
        assert isinstance(shape, MoEShape)
        assert getattr(shape, held) == pytest.approx(getattr(QWEN, held), rel=0.02)


def test_a_depth_that_follows_needs_objectives_that_count_layers() -> None:
    with pytest.raises(UserError, match="the time of one layer"):
        make_space(shape={"num_experts": [64, 128], "num_layers": "total_params"})
    with pytest.raises(UserError, match="only num_layers follows"):
        make_space(shape={"num_experts": "total_params"})


def test_shared_experts_and_latent_widths_are_searched(tmp_path: Path) -> None:
    axes = {"n_shared_experts": [0, 1], "moe_latent_size": [0, 1024], "num_experts_per_tok": [8, 10]}
    result = searched(tmp_path, 20, shape=axes, constraints={})
    shapes = [trial.pairs[0].shape for trial in result.trials]
    assert {(s.n_shared_experts, s.moe_latent_size, s.num_experts_per_tok) for s in shapes} == {
        (shared, latent, active) for shared in (0, 1) for latent in (None, 1024) for active in (8, 10)
    }
    enumerated = searched(tmp_path, 1, "b", sampler="exact", shape=axes, constraints={})
    times = {trial.pairs[0].shape: trial.pairs[0].timing.latency_us for trial in enumerated.trials}
    assert times == {trial.pairs[0].shape: trial.pairs[0].timing.latency_us for trial in result.trials}


def test_numbers_of_points_and_their_values_are_inverse() -> None:
    space = make_space()
    for number, (values, _) in points(space, QWEN, [0, 17, 575]):
        assert number_of(space, values) == number
    assert number_of(space, {"num_experts": 64}) is None
    assert number_of(space, {"moe_intermediate_size": 130, "num_experts": 64, "num_experts_per_tok": 1}) is None
    refused = shape_of(space, QWEN, {"num_experts": 64, "num_experts_per_tok": 65})
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.SHAPE


def test_a_shape_that_cannot_be_judged_is_its_trials_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Evaluator.judged

    def fails(self: Evaluator, shapes: Sequence[MoEShape]) -> Judged:
        if any(shape.num_experts_per_tok == 10 for shape in shapes):
            raise OverflowError("too much")
        return judged(self, shapes)

    monkeypatch.setattr(Evaluator, "judged", fails)
    result = searched(tmp_path, 12, shape=FEW, constraints={})
    assert len(result.trials) == 12
    for trial in result.trials:
        failed = trial.params["num_experts_per_tok"] == 10
        assert str(trial.failure) == ("error: OverflowError: too much" if failed else "None")
