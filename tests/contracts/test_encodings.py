"""Text files are read and written as UTF-8 wherever the program runs: Windows has another default."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("moe_codesign", "kernels", "benchmarks", "docs")


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that open, read or write a text file in the machine's own encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        texts = [one.value for one in (*node.args, *given.values()) if isinstance(one, ast.Constant)]
        module = ast.unparse(node.func).split(".")[0]
        opens = name == "open" and module not in ("os", "tarfile", "lzma", "zipfile")
        binary = any(isinstance(text, str) and "b" in text and set(text) <= set("rwabx+") for text in texts)
        if (name in ("read_text", "write_text") or (opens and not binary)) and "encoding" not in given:
            yield node.lineno


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_text_file_has_its_encoding(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / folder).rglob("*.py")
        for line in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("path.read_text()", [1]),
        ("path.write_text(text)", [1]),
        ("open(path)", [1]),
        ("path.open('w', newline='')", [1]),
        ("gzip.open(path, 'rt')", [1]),
        ("path.open('rb')", []),
        ("open(path, mode='wb')", []),
        ("path.read_text(encoding='utf-8')", []),
        ("os.open(path, flags)", []),
    ],
)
def test_what_is_a_call_without_encoding(source: str, lines: list[int]) -> None:
    assert list(without_encoding(source)) == lines
