"""An artifact is facts or a reason; nothing else can be built or read."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from moe_codesign.compiler.artifact import Artifact, Compiled, JaxFacts, KernelProgram, Refused, from_json, to_json
from tests.compiler.facts import GPU, PROGRAM, TPU


@pytest.mark.parametrize(
    "artifact",
    [
        Compiled(facts=GPU, compiler="triton 3.7.1", compile_s=2.5),
        Compiled(facts=TPU, compiler="libtpu 0.0.52"),
        Compiled(
            facts=JaxFacts(kernels=(KernelProgram("a", None, PROGRAM), KernelProgram("b", 5, PROGRAM))),
            compiler="libtpu 0.0.52",
            note="no static cycles",
            sources={"/a.py": "00"},
        ),
        Refused(kind="failed", reason="ValueError: no", compiler="triton 3.7.1", compile_s=1.0),
    ],
)
def test_an_artifact_survives_json(artifact: Artifact) -> None:
    text = to_json(artifact)
    assert from_json(text) == artifact
    assert b"\n" not in text


def test_counts_come_most_frequent_first_whatever_their_order_was() -> None:
    assert list(GPU.instructions.items()) == [("IADD3", 9), ("HGMMA", 4), ("LDGSTS", 4)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Compiled, {"compiler": "triton"}),
        (Compiled, {"compiler": "triton", "facts": None}),
        (Refused, {"kind": "failed"}),
        (Refused, {"kind": "failed", "reason": ""}),
        (Refused, {"kind": "ok", "reason": "none"}),
        (Refused, {"kind": "timeout", "reason": "no result within 5 s"}),
    ],
)
def test_a_result_without_what_it_stands_for_cannot_be_built(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**values)


@pytest.mark.parametrize(
    "text",
    [
        b'{"status": "ok"}',
        b'{"kind": "timeout", "reason": "no result within 5 s"}',
        b'{"facts": {}, "compiler": "triton"}',
        b'{"kind": "failed", "reason": "no", "extra": 1}',
    ],
)
def test_what_is_no_whole_artifact_is_not_read(text: bytes) -> None:
    with pytest.raises(ValidationError):
        from_json(text)


@pytest.mark.parametrize(("field", "value"), [("registers", -1), ("registers", 1.5), ("instructions", {"A": -1})])
def test_facts_are_counts(field: str, value: object) -> None:
    values = {name: getattr(GPU, name) for name in GPU.__dataclass_fields__} | {field: value}
    with pytest.raises(ValidationError):
        type(GPU)(**values)


def test_cycles_are_numbers() -> None:
    values = {name: getattr(TPU, name) for name in TPU.__dataclass_fields__} | {"fixed_cycles": math.nan}
    with pytest.raises(ValidationError):
        type(TPU)(**values)
