import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_codesign.errors import UserError
from moe_codesign.study.space import load_space, parse_space, space_names
from tests.conftest import make_space, space_text

TEXT = space_text(chips='"trainium2"')


@pytest.mark.parametrize("name", space_names())
def test_the_spaces_that_come_with_the_project_are_valid(name: str) -> None:
    assert load_space(name).name == name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "test"', "name = ", "not TOML"),
        ('reference = "Qwen3-30B-A3B"', "", "reference is missing"),
        ("training_tokens = 36e12", "training_tokens = -1", "training_tokens = -1"),
        ('"trainium2"', '"h100"', "did you mean h100_sxm"),
        ("[shape]", "[shape]\nwidth = 4", "shape.width is unknown"),
        ("low = 128, high = 1536", "low = 1536, high = 128", "low = 1536 is above high = 128"),
        ('"decode.latency_us"', '"prefill.latency_us"', "write WORKLOAD.latency_us"),
        ('"decode.latency_us"', '"decode.latency"', "did you mean latency_us"),
        ("num_tokens = 64", "num_tokens = 0", "num_tokens = 0"),
        ("num_tokens = 64", "tokens = 64", "did you mean num_tokens"),
        ("ep = 4", 'routing = "zipf"', "zipf:ALPHA"),
        ("min_quality_ratio = 1.0", "min_quality = 1.0", "did you mean min_quality_ratio"),
        ('chips = ["trainium2"]', 'chips = ["trainium2", "trainium2"]', "twice"),
        ("low = 128, high", "low = 0, high", "at least 1"),
        ("[shape]", "[shape]\nnum_layers = [24, 48]", "num_layers cannot vary"),
        ('modes = ["nested"]', 'modes = ["all"]', "joint"),
    ],
)
def test_messages_name_key_value_and_mend(old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(UserError) as error:
        parse_space(TEXT.replace(old, new))
    assert says in str(error.value)
    assert "\n" not in str(error.value) or "TOML" in says


@given(trials=st.integers(1, 500), weight=st.floats(0.01, 3))
def test_trials_are_shared_out_exactly(trials: int, weight: float) -> None:
    text = space_text(chips='"trainium2", "h100_sxm", "cpu"', modes='"joint", "nested"')
    space = parse_space(text + f"[budget.weights]\ncpu = {weight}\n")
    shares = space.allot(trials)
    fewer = space.allot(max(trials - 1, 1))
    assert all(shares[key] >= fewer[key] for key in shares), "asking for more takes none away"
    assert sum(shares.values()) == trials
    assert set(shares) == {(c, m) for c in space.chips for m in space.modes}


def test_a_workload_for_some_chips_replaces_the_one_for_all() -> None:
    text = TEXT + '[[workloads]]\nname = "decode"\nnum_tokens = 8\nchips = ["trainium2"]\n'
    assert [w.num_tokens for w in parse_space(text).workloads_on("trainium2")] == [8]
    assert [w.num_tokens for w in parse_space(text).workloads_on("b200")] == [64]


def test_chips_can_be_replaced() -> None:
    assert parse_space(TEXT, chips=["b200"]).chips == ["b200"]
    assert make_space(chips='"trainium2"').maximised() == [False, True]
