"""The hash that ties shipped facts to a kernel sees code, and nothing but code."""

from pathlib import Path

import pytest

from moe_codesign.compiler import source_hash as module
from moe_codesign.compiler.source_hash import code_of, source_hash

SOURCE = '''"""What this is."""

import os  # for its name


SIZE = 4
"""Of a thing."""


def name(a, b="#no comment"):
    """Says it.

    At length.
    """
    # The reason.
    text = f"{a!r:>{SIZE}} # {b} {os.name + 'x'}"
    return """kept
    as it is""" + text  # and so


class Empty:
    """Nothing in it."""
'''
CODE = '''import os
SIZE = 4
def name(a, b="#no comment"):
    text = f"{a!r:>{SIZE}} # {b} {os.name + 'x'}"
    return """kept
    as it is""" + text
class Empty:'''


def test_comments_docstrings_and_blank_lines_are_left_out() -> None:
    assert code_of(SOURCE.encode()) == CODE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# The reason.", "# A better reason, in other words."),
        ("    # The reason.\n", ""),
        ("At length.", "In brief: äöü."),
        ("\n\n\ndef", "\n\n\n\n\ndef"),
        ("SIZE = 4\n", "SIZE = 4   \n"),
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("import os  # for its name", "import os"),
        ('"""Of a thing."""', "'Of another thing.'"),
    ],
)
def test_what_compiles_to_the_same_has_the_same_hash(tmp_path: Path, old: str, new: str) -> None:
    assert _hash(tmp_path / "new.py", SOURCE.replace(old, new)) == _hash(tmp_path / "old.py", SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SIZE = 4", "SIZE = 8"),
        ("{b}", "{a}"),
        ("#no comment", "#another"),
        ("    as it is", "    as it was"),
        ("    return", "    return 0\n    return"),
    ],
)
def test_other_code_has_another_hash(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert _hash(tmp_path / "new.py", SOURCE.replace(old, new)) != _hash(tmp_path / "old.py", SOURCE)


def test_every_python_computes_the_same_hash(tmp_path: Path) -> None:
    """The tokens of an f-string are others since Python 3.12; the text is the same."""
    assert _hash(tmp_path / "one.py", SOURCE) == "60f60a3ec49b2414"


def test_the_analysis_and_the_order_of_the_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("A = 1\n")
    other.write_text("B = 1\n")
    before = source_hash((one, other))
    assert source_hash((other, one)) != before
    monkeypatch.setattr(module, "ANALYSIS", module.ANALYSIS + 1)
    module._hash.cache_clear()
    assert source_hash((one, other)) != before
    module._hash.cache_clear()


def test_text_that_is_no_python_is_hashed_as_it_is() -> None:
    assert code_of(b"def (\r\n# kept\n") == "def (\n# kept\n"


def test_a_column_after_wide_letters_is_found() -> None:
    assert code_of('x = "äöü€😀"  # ä\ny = 1; "ä€"; z = 2\n'.encode()) == 'x = "äöü€😀"\ny = 1; ; z = 2'


def _hash(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return source_hash((path,))
