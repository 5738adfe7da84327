"""Which fields mattered: planted, and of searches as they are stored and printed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.answers.importances import importances_on
from moe_codesign.chips import load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.models import find_model
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.exact import time_all
from moe_codesign.study.importances import FEWEST, importances, importances_of_points
from moe_codesign.study.points import points
from tests.command import invoke
from tests.conftest import make_space, space_text

SHAPE = {
    "moe_intermediate_size": {"low": 256, "high": 1024, "step": 128},
    "num_experts": [64, 96, 128],
    "num_experts_per_tok": {"low": 4, "high": 8},
}
GRID = [
    {"moe_intermediate_size": width, "num_experts": experts, "num_experts_per_tok": k}
    for width in range(256, 1025, 128)
    for experts in (64, 96, 128)
    for k in range(4, 9)
]


@given(st.sampled_from(sorted(SHAPE)), st.booleans())
def test_the_field_that_an_objective_is_made_of_is_the_one_that_mattered(field: str, up: bool) -> None:
    space = make_space(shape=SHAPE, objectives=["decode.tokens_per_s_per_user" if up else "decode.latency_us"])
    values = np.array([[float(point[field])] for point in GRID])
    (shares,) = importances(space, GRID, values).values()
    assert next(iter(shares)) == field
    assert shares[field] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


def test_more_is_better_where_the_objective_says_so() -> None:
    """Of a value that is high at the largest width alone, only the maximised objective depends on the width."""
    space = make_space(shape=SHAPE, objectives=["decode.latency_us", "quality"])
    values = np.array([[point["num_experts"], float(point["moe_intermediate_size"] == 1024)] for point in GRID])
    found = importances(space, GRID, values)
    assert next(iter(found["decode.latency_us"])) == "num_experts"
    assert next(iter(found["quality"])) == "moe_intermediate_size"


def test_what_says_nothing_is_left_out() -> None:
    space = make_space(shape=SHAPE)
    values = np.array([[float(i), 1.0] for i in range(len(GRID))])
    assert list(importances(space, GRID, values)) == ["decode.latency_us"]
    few = FEWEST - 1
    assert importances(space, GRID[:few], values[:few]) == {}
    assert importances(space, [], np.empty((0, 2))) == {}


def test_of_an_enumerated_space_all_feasible_shapes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_codesign.study.exact.MOST_KEPT", 20)
    space = make_space(shape=SHAPE, sampler="exact", constraints={})
    mc.search(space, storage=f"sqlite:///{tmp_path / 'r.db'}")
    result = mc.load_study("test", storage=f"sqlite:///{tmp_path / 'r.db'}")
    assert len(result.trials) < len(GRID), "fewer are kept than took part"
    chip, reference = load_chip("trainium2"), find_model(space.reference)
    every = time_all(Evaluator(space, chip, reference, Tables(), None))
    params = [params for _, (params, _) in points(space, reference, every.numbers)]
    assert len(params) == len(GRID)
    assert importances_on(result, chip) == importances(space, params, every.values)
    page = mc.report(result, out=tmp_path / "r.html").read_text()
    assert f"All {len(GRID)} shapes of the space, {len(GRID)} feasible; the frontier is exact" in page
    assert "trials" not in page.split("<h2", 2)[1].split("</p>")[0]
    monkeypatch.setattr("moe_codesign.study.importances.MOST", 53)
    some = importances_of_points(Evaluator(space, chip, reference, Tables(), None), every.numbers, every.values)
    assert some == importances(space, params[::2], every.values[::2])


def test_a_search_says_which_fields_mattered_wherever_it_is_shown(tmp_path: Path) -> None:
    text = space_text(min_quality_ratio=None)
    (tmp_path / "s.toml").write_text(text)
    command = ("search", "s.toml", "--trials", "50", "--storage", "sqlite:///r.db", "--out", "out")
    shown = invoke(*command, cwd=tmp_path).stdout
    (line,) = [one for one in shown.splitlines() if "which fields mattered" in one]
    assert line.startswith("trainium2: which fields mattered (PED-ANOVA, for the best tenth): decode.latency_us: ")
    data: dict[str, Any] = json.loads(
        invoke("report", "test", "--storage", "sqlite:///r.db", "--json", cwd=tmp_path).stdout
    )
    shares = data["importances"]["trainium2"]
    assert set(shares) == {"decode.latency_us", "quality"}
    page = (tmp_path / "out" / "report.html").read_text()
    for objective, of_fields in shares.items():
        assert set(of_fields) == {"moe_intermediate_size", "num_experts", "num_experts_per_tok"}
        best, share = next(iter(of_fields.items()))
        assert f"{objective}: {best} {share:.0%}" in line
        assert f"<li>{objective}: {best} {share:.0%}" in page


def test_tiles_that_were_proposed_count_too() -> None:
    """As in ``joint`` mode, where some have fields of tiles that others lack."""
    space = make_space(shape=SHAPE, objectives=["decode.latency_us"])
    tiled: list[dict[str, Any]] = [point | {"decode.up.block_m": (16, 64)[i % 2]} for i, point in enumerate(GRID)]
    tiled = [point | ({"decode.up.tma": True} if i % 3 else {}) for i, point in enumerate(tiled)]
    (shares,) = importances(space, tiled, np.array([[float(point["decode.up.block_m"])] for point in tiled])).values()
    assert next(iter(shares)) == "decode.up.block_m"
    assert set(shares) == {*SHAPE, "decode.up.block_m", "decode.up.tma"}
