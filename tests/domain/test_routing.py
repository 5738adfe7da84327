"""The five kinds of routing: what can be built, and that text and value are inverse."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.domain.routing import (
    DEFAULT_ROUTING,
    Balanced,
    GroupLimit,
    Histogram,
    PowerLaw,
    RecordedLayers,
    Routing,
    Uniform,
    Zipf,
    by_layer,
    histograms,
    is_routing,
    parse_layers,
    parse_routing,
)
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError

ALPHAS = st.floats(0, 100, exclude_min=True, exclude_max=True)
LIMITS = st.none() | st.integers(1, 999_999).flatmap(
    lambda groups: st.integers(1, groups).map(lambda kept: GroupLimit(groups, kept))
)
ROUTINGS: st.SearchStrategy[Routing] = st.one_of(
    st.builds(Balanced, LIMITS),
    st.just(Uniform()),
    st.builds(Zipf, ALPHAS),
    st.builds(PowerLaw, ALPHAS, LIMITS),
    st.lists(st.floats(0, 1e12), min_size=1, max_size=9)
    .filter(lambda weights: sum(weights) > 0)
    .map(lambda weights: Histogram(tuple(weights))),
)


@given(routing=ROUTINGS)
def test_text_and_value_are_inverse(routing: Routing) -> None:
    assert parse_routing(str(routing)) == routing
    assert str(parse_routing(str(routing))) == str(routing)
    assert is_routing(routing)
    assert not is_routing(str(routing))


@pytest.mark.parametrize(
    "text", ["balanced", "uniform", "zipf:1", "zipf:0.8", "power_law:1.01", "balanced/8/4", "power_law:1.2/8/8"]
)
def test_the_usual_texts_are_kept(text: str) -> None:
    assert str(parse_routing(text)) == text


LAYERS = [[0, 0, 0], [5, 1, 0], [2, 2, 2]]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[3, 1, 0]", {0: (3, 1, 0)}),
        ('{"0": 1000, "2": 10}', {0: (1000, 0, 10)}),
        ('{"2": 10, "0": 1000, "7": 0}', {0: (1000, 0, 10)}),
        (json.dumps(LAYERS), {1: (5, 1, 0), 2: (2, 2, 2)}),
        (json.dumps({"logical_count": LAYERS, "rank": 0}), {1: (5, 1, 0), 2: (2, 2, 2)}),
        (json.dumps({"logical_count": [LAYERS, LAYERS]}), {1: (10, 2, 0), 2: (4, 4, 4)}),
        ('[{"1": 4}, {"0": 1}]', {0: (0, 4), 1: (1,)}),
        ("[[1, 2]]", {0: (1, 2)}),
    ],
)
def test_recorded_loads_are_read_as_their_tools_write_them(
    text: str, weights: dict[int, tuple[float, ...]], tmp_path: Path
) -> None:
    (tmp_path / "loads.json").write_text("\ufeff" + text, encoding="utf-8")
    for source in (text, str(tmp_path / "loads.json")):
        assert {layer: one.weights for layer, one in histograms(source).items()} == weights
    is_sparse = text[:3] in ('{"0', '{"2', '[{"')
    for layer, own in weights.items():
        assert parse_routing(f"histogram:{tmp_path / 'loads.json'}#{layer}") == Histogram(own, is_sparse)
    if len(weights) > 1:
        with pytest.raises(UserError, match=rf"has {len(weights)} layers; name one, as histogram:.*#"):
            parse_routing(f"histogram:{text}")


def test_a_layer_without_rows_is_not_there_to_choose(tmp_path: Path) -> None:
    (tmp_path / "loads.json").write_text(json.dumps(LAYERS))
    with pytest.raises(UserError, match="layer: got 0; give one of 1, 2"):
        parse_routing(f"histogram:{tmp_path / 'loads.json'}#0")


def test_experts_that_an_object_leaves_out_have_no_rows() -> None:
    sparse = parse_routing('histogram:{"0": 3, "2": 1}')
    assert isinstance(sparse, Histogram)
    assert sparse.of_experts(5) == (3, 0, 1, 0, 0)
    assert parse_routing(str(sparse)) == sparse
    with pytest.raises(UserError, match="3 entries"):
        sparse.of_experts(2)
    with pytest.raises(UserError, match="3 entries"):
        Histogram((3, 0, 1)).of_experts(5)


def test_recorded_layers_are_read_back_from_their_text(tmp_path: Path) -> None:
    (tmp_path / "loads.json").write_text('[[0, 0, 0], {"0": 3, "2": 1}, [0, 0, 0], [1, 2, 4.5]]')
    layers = parse_layers(f"histogram:{tmp_path / 'loads.json'}")
    assert isinstance(layers, RecordedLayers)
    assert str(layers) == 'histogram:[[], {"0": 3, "2": 1}, [], [1, 2, 4.5]]'
    assert parse_layers(str(layers)) == layers
    assert by_layer(layers) == {1: Histogram((3, 0, 1), is_sparse=True), 3: Histogram((1, 2, 4.5))}
    assert parse_routing(f"{layers}#3") == Histogram((1, 2, 4.5)), "a layer of JSON is named as one of a file is"
    with pytest.raises(UserError, match="layer: got 2; give one of 1, 3"):
        parse_routing(f"{layers}#2")
    assert by_layer(parse_layers("zipf:1")) == {None: parse_routing("zipf:1")}
    with pytest.raises(UserError, match="two or more"):
        RecordedLayers(layers.layers[:1])


def test_a_histograms_text_holds_its_counts(tmp_path: Path) -> None:
    file = tmp_path / "h.json"
    file.write_text(json.dumps([3, 1, 0, 4.5]))
    routing = parse_routing(f"histogram:{file}")
    assert str(routing) == "histogram:[3, 1, 0, 4.5]"
    file.unlink()
    assert parse_routing(str(routing)) == routing


@pytest.mark.parametrize(
    "text",
    [
        "zipf",
        "zipf:x",
        "zipf:-1",
        "zipf:nan",
        "zipf:100",
        "zipf:1/8/4",
        "fair",
        "balanced:2",
        "uniform:",
        "histogram:/none",
        "histogram:[]",
        "histogram:[0, 0]",
        "histogram:[1, -1]",
        "histogram:[1, null]",
        'histogram:[1, "nan"]',
        "histogram:[1",
        "histogram:{}",
        'histogram:{"a": 1}',
        'histogram:{"0": "many"}',
        'histogram:{"99999999999": 1}',
        "histogram:[[1], 2]",
        "histogram:" + "[" * 100_000,
        "balanced/8",
        "balanced/8/4/2",
        "balanced/4/8",
        "balanced/0/0",
        "balanced/9999999/1",
        "uniform/8/4",
        "power_law:1/8/x",
    ],
)
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_routing(text)


def test_what_means_nothing_cannot_be_built() -> None:
    for alpha in (-3, 0, 100, float("nan"), float("inf"), True):
        for kind in (Zipf, PowerLaw):
            with pytest.raises(UserError, match="alpha"):
                kind(alpha)
    for weights in ((), (0.0,), (1.0, -1.0), (float("nan"),), (float("inf"),), ("1",)):
        with pytest.raises(UserError, match="histogram"):
            Histogram(weights)  # type: ignore[arg-type]
    for groups, kept in ((4, 8), (0, 0), (8, 0), (8.0, 4)):
        with pytest.raises(UserError, match="groups"):
            GroupLimit(groups, kept)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="GroupLimit"):
        Balanced(9)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Balanced(alpha=9)  # type: ignore[call-arg]


def test_a_workload_takes_a_routing_and_not_its_text() -> None:
    with pytest.raises(UserError, match="parse_routing"):
        Workload(name="w", num_tokens=1, routing="zipf:1")  # type: ignore[arg-type]
    assert Workload(name="w", num_tokens=1).routing == DEFAULT_ROUTING == Uniform()
