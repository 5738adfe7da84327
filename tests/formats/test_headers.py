"""Headers of problem tables: spellings that are read, words that only look like a column, and cells that disagree."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import INPUT, OUTPUT
from moe_codesign.formats.headers import headers_of, unused
from moe_codesign.formats.spellings import LOOKALIKES, SPELLINGS

ROW = {
    "chip": "h100_sxm", "hidden_size": 4096, "moe_intermediate_size": 1536, "num_experts": 128,
    "num_experts_per_tok": 8, "num_tokens": 4096,
}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "column", "value"),
    [
        ("tp_size", "tp", 8),
        ("moe_tp_size", "tp", 4),
        ("TP", "tp", 8),
        ("tensor-parallel-size", "tp", 8),
        ("ep_size", "ep", 8),
        ("moe ep size", "ep", 8),
        (" dtype", "dtype", "fp8_block"),
        ("Dtype", "dtype", "fp8_block"),
        ("data_type", "dtype", "fp8_block"),
        ("distribution", "routing", "power_law_1.2"),
        ("framework", "stack", "vllm"),
    ],
)
def test_another_spelling_of_a_column_gives_the_same_time(header: str, column: str, value: object) -> None:
    stack = {} if column == "stack" else {"stack": "vllm"}
    plain, named, spelled = mc.predict([ROW | stack, ROW | stack | {column: value}, ROW | stack | {header: value}])
    assert spelled["error"] == named["error"] == ""
    assert spelled["latency_us"] == named["latency_us"] != plain["latency_us"]
    assert spelled["warning"] == named["warning"]
    assert spelled[header] == value


def test_every_column_and_spelling_is_read_and_no_lookalike() -> None:
    assert headers_of(INPUT).read == {name: name for name in INPUT}
    assert not SPELLINGS.keys() & LOOKALIKES.keys()
    assert set(SPELLINGS.values()) | set(LOOKALIKES.values()) <= set(INPUT)
    assert headers_of(tuple(LOOKALIKES)).read == {}
    assert len(headers_of(tuple(LOOKALIKES)).warnings) == len(LOOKALIKES)


@pytest.mark.parametrize(
    ("header", "column"),
    [("num_token", "num_tokens"), ("n_shared_exprts", "n_shared_experts"),
     ("intermediate_size", "moe_intermediate_size"),
     ("E", "num_experts"), ("stak", "stack"), ("tpp", "tp"), ("batch_size", "num_tokens")],
)  # fmt: skip
def test_a_near_miss_is_a_warning_in_every_row(header: str, column: str) -> None:
    rows = mc.predict([ROW | {"chip": "trainium2", header: 1}, {header: 2}])
    for row in rows:
        assert f"column {header!r} is not read; {column} is" in row["warning"]
    assert rows[0]["latency_us"] > 0


@pytest.mark.parametrize("header", ["note", "comment", "model_name", "run_id", "owner", "x", *OUTPUT, "parts_us"])
def test_free_columns_and_the_answers_of_before_are_no_warning(header: str) -> None:
    assert headers_of((header,)).warnings == ()


@given(st.lists(st.text(string.ascii_letters + " _-", min_size=1), unique=True), st.sampled_from(INPUT))
def test_case_and_blanks_do_not_matter(others: list[str], column: str) -> None:
    for spelled in (column.upper(), f" {column} ", column.replace("_", "-"), column.replace("_", " ").title()):
        read = headers_of((*others, spelled)).read
        assert read[spelled] == column


def test_two_columns_that_mean_the_same_agree_or_are_refused() -> None:
    headers = headers_of(("tp", "moe_tp_size"))
    assert headers.renamed({"tp": "4", "moe_tp_size": 4}) == {"tp": 4}
    assert headers.renamed({"tp": "", "moe_tp_size": 4}) == {"tp": 4}
    with pytest.raises(UserError, match="columns tp = 1 and moe_tp_size = 4 both mean tp; keep one of them"):
        headers.renamed({"tp": 1, "moe_tp_size": 4})
    good, bad = mc.predict([ROW | {"chip": "trainium2"}, ROW | {"chip": "trainium2", "tp": 1, "tp_size": 2}])
    assert good["error"] == ""
    assert bad["error"].startswith("columns tp = 1")


def test_columns_of_the_other_op_are_a_warning() -> None:
    assert unused({"op": "fused_moe", "n": 768, "tp": 2}) == ("op fused_moe does not read n",)
    assert unused({"op": "grouped_gemm", "n": 768, "tp": 2, "ep": 1, "num_experts": 8}) == (
        "op grouped_gemm does not read num_experts, tp",
    )
    assert unused({"op": "nonsense", "n": 1}) == ()
