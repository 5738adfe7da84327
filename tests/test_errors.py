"""What an error says, in one line."""

import pytest

from moe_codesign.errors import UserError, first_line


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  one\ntwo"), "one"),
        (ValueError(), "ValueError()"),
        (ValueError("x" * 1000), "x" * 300),
        (BrokenError(), "it has no readable text"),
    ],
)
def test_the_first_line_of_any_exception(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_user_error_names_what_the_value_and_the_fix() -> None:
    assert str(UserError("no such chip", value="x", fix="use y")) == "no such chip: got 'x'; use y"
