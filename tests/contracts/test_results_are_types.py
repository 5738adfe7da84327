"""Failures and objectives are types: their text is read in one place or none."""

from tests.contracts.test_chips_are_types import lines_with


def test_an_objective_is_taken_apart_in_one_file() -> None:
    assert {line.partition(":")[0] for line in lines_with(r"rpartition\(\"\.\"\)")} == {"domain/metrics.py"}


def test_no_reason_is_read_back_from_its_text() -> None:
    assert lines_with(r"\bsplit\(\": ?\"\)\[0\]") == []
    assert lines_with(r"(reason|text)\.(startswith|split|partition)\(", "reports") == []
    assert lines_with(r"==? ?\"reference\"", "study") + lines_with(r"==? ?\"reference\"", "storage") == []
