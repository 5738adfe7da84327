"""Prices and power that a space gives itself: read where results are read, never a reason to compute again."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

import moe_codesign as mc
from moe_codesign.chips import load_chip
from moe_codesign.errors import UserError
from moe_codesign.study import exact
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.runner import SearchResult
from moe_codesign.study.space import Space, load_space, stored_space
from tests.command import invoke
from tests.conftest import make_space, space_text

USD = ["decode.usd_per_mtok", "quality"]


def priced(usd: float | dict[str, Any] | None, **changes: Any) -> Space:
    defaults: dict[str, Any] = {"chips": ["trainium2"], "objectives": USD, "budget": {"trials": 6, "polish": 0}}
    price = {} if usd is None else {"price": {"trainium2": usd}}
    return make_space(**defaults | price | changes)


def test_a_chip_without_a_price_may_be_given_one() -> None:
    """Trainium2's file lists no price."""
    with pytest.raises(UserError, match=r"trainium2 has no price; give it in \[price\]"):
        priced(None)
    (chip,) = priced({"usd_per_hour": 3.5, "date": "2026-11", "source": "our contract"}).chips
    assert str(chip.price) == "3.5 $/h, the space's own, 2026-11"
    assert chip.price is not None
    assert chip.price.source == "our contract"
    (own,) = make_space(power={"trainium2": 900}, objectives=["decode.joules_per_token"]).chips
    assert own.all_in_w == 900


def test_the_rest_of_a_chip_is_what_its_file_says() -> None:
    (own,) = make_space(chips=["h100_sxm"], price={"h100_sxm": 1.5}).chips
    file = load_chip("h100_sxm")
    assert own != file
    assert own.as_filed() == file
    assert own.all_in_w == file.all_in_w
    assert file.price is not None
    assert file.price.usd_per_hour != 1.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"price": {"b200": 2.0}}, "price has 'b200', no chip of the space"),
        ({"power": {"trainum2": 2.0}}, "did you mean trainium2"),
        ({"price": {"trainium2": -1.0}}, "price.trainium2"),
        ({"price": {"trainium2": True}}, "price.trainium2"),
        ({"price": {"trainium2": {"usd_per_hour": 1.0, "date": "lately"}}}, "date"),
        ({"price": {"trainium2": {"date": "2026-01"}}}, "usd_per_hour is missing"),
        ({"power": {"trainium2": {"watt": 1.0}}}, "did you mean watts"),
    ],
)
def test_wrong_prices_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        make_space(**changes)
    assert says in str(error.value)


def test_chips_that_are_left_out_take_their_prices_with_them(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(space_text(chips=["trainium2", "b200"]) + "[price]\ntrainium2 = 2.5\nB200 = 4\n")
    for space in (file, load_space(file)):
        (chip,) = load_space(space, chips=["b200"]).chips
        assert chip.price is not None
        assert chip.price.usd_per_hour == 4
    file.write_text(space_text(chips=["trainium2", "b200"]) + "[price]\ntpu7x = 2.5\n")
    with pytest.raises(UserError, match="price has 'tpu7x', no chip of the space"):
        load_space(file, chips=["b200"])


def test_prices_make_no_other_study_and_are_kept_with_it() -> None:
    cheap, dear = priced(2.0), priced(4.0)
    assert cheap.identity() == dear.identity()
    stored = stored_space("s", dear.stored())
    assert (stored.price, stored.chips, stored.identity()) == (dear.price, dear.chips, dear.identity())
    assert json.loads(dear.identity())["chips"] == ["trainium2"]


def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that are evaluated from now on."""
    seen: list[Any] = []
    plain = Evaluator.evaluate

    def evaluate(self: Any, shape: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(shape)
        return plain(self, shape, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    return seen


def costs(result: SearchResult) -> list[float]:
    (chip,) = result.space.chips
    return [result.space.objectives[0].value(trial.pairs, chip) for trial in result.trials if trial.pairs]


def test_a_study_is_resumed_at_other_prices_without_computing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path / 'r.db'}"
    before = mc.search(priced(2.0), storage=storage, trials=6)
    seen = evaluated(monkeypatch)
    after = mc.search(priced(4.0), storage=storage, trials=6)
    assert seen == [], "nothing is evaluated again"
    assert [trial.outcome for trial in after.trials] == [trial.outcome for trial in before.trials]
    assert costs(after) == pytest.approx([2 * cost for cost in costs(before)])
    stored = mc.load_study("test", storage=storage)
    assert costs(stored) == costs(after), "a report shows the last prices"
    assert costs(mc.load_study("test", storage=storage)) == costs(after)
    more = mc.search(priced(8.0), storage=storage, trials=9)
    assert len(seen) == 3
    # What the sampler compares is all of one scale, and says which.
    own = optuna.load_study(study_name="test/trainium2/nested", storage=storage)
    assert own.user_attrs["usd_per_hour"] == 2.0
    assert own.user_attrs.get("watts") == load_chip("trainium2").all_in_w
    told = {trial.number: trial.values[0] for trial in own.trials}
    by_number = {trial.number: trial for trial in more.trials if trial.pairs}
    (at_first,) = priced(2.0).chips
    for number, trial in by_number.items():
        assert told[number] == pytest.approx(more.space.objectives[0].value(trial.pairs, at_first))


def test_an_enumerated_frontier_is_the_same_at_any_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"sqlite:///{tmp_path / 'r.db'}"
    changes = {"sampler": "exact", "shape": {"moe_intermediate_size": [704, 768, 896], "num_experts": [96, 128, 160]}}
    before = mc.search(priced(2.0, **changes), storage=storage)
    fresh = mc.search(priced(4.0, **changes), storage=f"sqlite:///{tmp_path / 'other.db'}")
    monkeypatch.setattr(exact, "time_points", lambda *_: pytest.fail("it was enumerated before"))
    after = mc.search(priced(4.0, **changes), storage=storage)
    assert after.trials == before.trials == fresh.trials


def test_outputs_say_that_a_price_is_the_space_s_own(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        space_text().replace('"decode.latency_us"', '"decode.usd_per_mtok", "decode.joules_per_token"')
        + '[price]\ntrainium2 = { usd_per_hour = 3.5, date = "2026-11", source = "our contract" }\n'
        + "[power]\ntrainium2 = 900\n"
    )
    price = "costs on trainium2 are by 3.5 $/h, the space's own, 2026-11 (our contract)"
    power = "joules on trainium2 are by 900 W, the space's own"
    command = ("search", "s.toml", "--trials", "4", "--storage", "sqlite:///r.db", "--out", "out")
    text = invoke(*command, cwd=tmp_path).stdout
    assert price in text
    assert power in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert price.replace("'", "&#39;") in page
    assert power.replace("'", "&#39;") in page
    data = json.loads(invoke(*command, "--json", cwd=tmp_path).stdout)
    assert price in data["notes"]
    assert power in data["notes"]
    row = data["all_pairs"][0]
    assert row["price"] == {"usd_per_hour": 3.5, "kind": "space", "date": "2026-11", "source": "our contract"}
    across = invoke("lock-in", "s.toml", "--objective", "decode.usd_per_mtok", cwd=tmp_path).stdout
    assert price in across
    assert power not in across


def test_costs_across_chips_are_by_the_space_s_prices() -> None:
    shape = {"moe_intermediate_size": [704, 768], "num_experts": [96, 128]}
    space = {"chips": ["trainium2", "h100_sxm"], "shape": shape, "objectives": ["decode.usd_per_mtok"], "tiles": {}}
    plain, doubled = (
        mc.three_layers(
            make_space(**space, price={"trainium2": usd, "h100_sxm": 2.0}), from_chip="trainium2", to_chip="h100_sxm"
        )
        for usd in (2.0, 4.0)
    )
    assert doubled.together.value == pytest.approx(2 * plain.together.value)
    assert doubled.together.log_half == pytest.approx(plain.together.log_half), "a price has no error"
    assert doubled.money[0] == "costs on trainium2 are by 4 $/h, the space's own"
