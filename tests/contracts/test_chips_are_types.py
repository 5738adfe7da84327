"""A chip's kind is its class and its numbers are there: nothing invents one, and nothing compares its backend."""

import re
from pathlib import Path

import moe_codesign

PACKAGE = Path(moe_codesign.__file__).parent
SCHEMA = Path("chips/schema.py")


def lines_with(pattern: str, folder: str = "") -> list[str]:
    return [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        if path.relative_to(PACKAGE) != SCHEMA
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_no_backend_is_compared_outside_of_the_schema() -> None:
    assert lines_with(r"\.backend\s*(==|!=|in\b|not in\b)") == []


def test_no_number_stands_in_for_one_that_a_chip_file_lacks() -> None:
    assert lines_with(r"\bor (\d+\.\d|\d+e\d|\d+[),\]])", "cost") == []
    assert lines_with(r"\b(chip|core|memory)\.\w+ or [\d\"']") == []
    assert lines_with(r"assert \w*(chip|core|memory)\.\w+ is not None") == []
