"""Packages that only some work needs: one table says how to install them, and one function whether they are there."""

import re
import tomllib
from pathlib import Path

import pytest

from moe_codesign import extras
from moe_codesign.compiler import availability
from moe_codesign.compiler.kernels import why_missing
from moe_codesign.errors import UserError
from moe_kernels.registry import MissingKernelError

ROOT = Path(__file__).parents[1]


def test_every_package_of_an_extra_is_in_the_table() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = {name: needs for name, needs in project["optional-dependencies"].items() if name != "dev"}
    for extra, needs in given.items():
        for one in needs:
            package = re.split(r"[\[><=; ]", one)[0].replace("-", "_")
            if package != "moe_codesign":
                assert extras.EXTRA_OF[package] == extra
    assert set(extras.EXTRA_OF.values()) == set(given)


def test_what_is_missing_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda package: False)
    with pytest.raises(UserError, match=r'a fit needs catboost, .*; pip install "moe-codesign\[calibrate\]"$'):
        extras.require("catboost", "a fit")
    monkeypatch.setattr(availability, "is_installed", lambda package: package != "libtpu")
    assert availability.missing_package("triton") is None
    with pytest.raises(UserError, match=r'libtpu is not installed; pip install "moe-codesign\[tpu\]"$'):
        availability.require_compiler("v6e:2x2", "a kernel")


def test_a_kernel_that_cannot_be_imported_names_the_extra_or_the_module() -> None:
    assert why_missing(MissingKernelError("no triton", name="triton.language")).endswith('"moe-codesign[gpu]"')
    assert why_missing(MissingKernelError("no such file", name="moe_kernels.nowhere")) == "no such file"


def test_nothing_else_asks_whether_a_package_is_installed() -> None:
    # Where a package or a user's file lies is another question.
    places = {"moe_codesign/extras.py", "moe_codesign/formats/aiconfigurator.py", "moe_codesign/compiler/function.py"}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("moe_codesign", "kernels")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"find_spec\(|moe-codesign\[", path.read_text(encoding="utf-8"))
    }
    assert found == places
