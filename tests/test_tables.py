"""Errors of strict tables."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator, Field, Tag, model_validator

from moe_codesign.errors import UserError
from moe_codesign.tables import Table, did_you_mean, read_table


class Span(Table):
    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> "Span":
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}; swap them")
        return self


class Circle(Table):
    radius: float


class Square(Table):
    side: float


def _kind(data: Any) -> str | None:
    return next((tag for key, tag in (("radius", "circle"), ("side", "square")) if key in data), None)


class File(Table):
    name: str = ""
    colour: Literal["red", "green"] = "red"
    width: int | Span = 1
    limits: dict[str, Span | Literal[False]] = {}
    shapes: list[
        Annotated[
            Annotated[Circle, Tag("circle")] | Annotated[Square, Tag("square")],
            Discriminator(_kind, custom_error_type="kind", custom_error_message="give radius or side"),
        ]
    ] = []
    best: Span | None = None
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"nam": "x"}, "nam is unknown; did you mean name?"),
        ({"zzz": 1}, "zzz is unknown; use one of name, colour, width, limits, shapes, best, weights"),
        ({"colour": "rod"}, "colour = 'rod': Input should be 'red' or 'green'"),
        ({"best": {"low": 1}}, "best.high is missing; add it"),
        ({"best": {"low": 1, "high": 2, "hihg": 3}}, "best.hihg is unknown; did you mean high?"),
        ({"best": {"low": 2, "high": 1}}, "best: low = 2 is above high = 1; swap them"),
        ({"width": {"low": 2, "high": 1, "setp": 1}}, "width.setp is unknown; use one of low, high"),
        ({"limits": {"a": {"low": 1, "hihg": 3}}}, "limits.a.hihg is unknown; did you mean high?"),
        ({"shapes": [{"radius": 1}, {"side": 1, "sid": 2}]}, "shapes.1.sid is unknown; did you mean side?"),
        ({"shapes": [{"sid": 2}]}, "shapes.0: give radius or side"),
        ({"shapes": {"side": 2}}, "shapes is one table; write [[shapes]]"),
        ({"weights": {"a": -1}}, "weights.a = -1: Input should be greater than 0"),
        ({"name": [0] * 100}, "name: Input should be a valid string"),
    ],
)
def test_an_error_names_the_key_as_it_is_written_the_value_and_the_fix(data: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        read_table(File, data, "file.toml")
    assert str(error.value).startswith("file.toml: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Circle(radius=1).radius = 2


def test_an_unknown_word_names_the_nearest_or_all() -> None:
    assert did_you_mean("registerz", ["cycles", "registers"]) == "; did you mean registers?"
    assert did_you_mean("zzz", ["cycles", "registers"]) == "; use one of cycles, registers"
