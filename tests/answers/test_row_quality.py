"""Quality beside time: columns of ``predict``, and what ``audit`` says once."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moe_codesign as mc
from moe_codesign.answers.quality_asked import QualityAsked
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.formats.columns import QUALITY_OUTPUT
from moe_codesign.quality import LAWS, beside
from tests.command import invoke

REFERENCE: dict[str, Any] = {"reference": "Qwen3-30B-A3B", "training_tokens": 36e12}
OPTIONS = ("--reference", "Qwen3-30B-A3B", "--training-tokens", "36e12")


def row(**changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8}
    return {"chip": "trainium2", **sizes, "num_tokens": 64} | changes


def test_a_table_without_a_reference_has_no_columns_of_quality() -> None:
    (answered,) = mc.predict([row()])
    assert not set(QUALITY_OUTPUT) & set(answered)


def test_rows_have_their_quality_beside_their_time() -> None:
    same, finer, shallow = mc.predict(
        [row(), row(moe_intermediate_size=384, num_experts=256, num_experts_per_tok=16), row(num_layers=24)],
        **REFERENCE,
    )
    assert same["quality_ratio"] == same["low_quality_ratio"] == same["high_quality_ratio"] == 1.0
    assert finer["quality_ratio"] == 1.0562
    by_law = json.loads(finer["quality_by_law"])
    assert list(by_law) == ["efficiency_leverage", "abnar", "zhao"]
    assert (finer["low_quality_ratio"], finer["high_quality_ratio"]) == (min(by_law.values()), max(by_law.values()))
    assert shallow["quality_ratio"] == pytest.approx(0.5, abs=0.01), "half of the layers, about half of the size"
    assert all(one["latency_us"] > 0 and one["quality_note"] == "" for one in (same, finer, shallow))


def test_a_row_without_a_quality_says_why() -> None:
    wide, bad, gemm = mc.predict(
        [
            row(moe_intermediate_size=4096, num_experts=8, num_experts_per_tok=2),
            row(hidden_size="wide"),
            {"chip": "trainium2", "op": "grouped_gemm", "m": 64, "k": 64, "n": 64, "groups": 4},
        ],
        **REFERENCE,
    )
    assert "granularity G = 2 H / I 1 is 2 times below the 2 of its experiments" in wide["quality_note"]
    assert bad["quality_ratio"] is None
    assert bad["quality_note"] == bad["error"]
    assert gemm["quality_ratio"] is None
    assert gemm["latency_us"] > 0
    assert gemm["quality_note"] == "op grouped_gemm has no layer whose quality could be judged"


def test_a_row_without_the_reference_s_shared_experts_says_so() -> None:
    sizes = {"hidden_size": 7168, "moe_intermediate_size": 2048, "num_experts": 256, "num_experts_per_tok": 8}
    bare, whole = mc.predict(
        [row(**sizes), row(**sizes, n_shared_experts=1)], reference="DeepSeek-V3", training_tokens=14.8e12
    )
    assert bare["quality_note"] == "the row has no shared experts, and DeepSeek-V3 has 1"
    assert bare["quality_ratio"] < whole["quality_ratio"] == 1.0


@given(st.integers(64, 4096), st.integers(8, 512), st.integers(1, 8), st.sampled_from(["efficiency_leverage", "abnar"]))
def test_what_holds_for_every_quality(width: int, experts: int, top_k: int, law: str) -> None:
    judge = QualityAsked("Qwen3-30B-A3B", 36e12, law).judge()
    shape = MoEShape(
        hidden_size=2048, moe_intermediate_size=width, num_experts=experts, num_experts_per_tok=top_k, num_layers=48
    )
    (alone,) = beside(judge, [shape])
    assert alone == beside(judge, [judge.reference, shape])[1], "of many shapes each is judged as it is alone"
    assert (alone.ratio is None) == bool(alone.unusable)
    assert set(alone.by_law) <= set(LAWS)
    if alone.ratio is not None:
        assert alone.low is not None
        assert alone.high is not None
        assert 0 < alone.low <= alone.ratio <= alone.high


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"training_tokens": 1e12}, "quality is a ratio to a reference"),
        ({"reference": "Qwen3-30B-A3B"}, "depends on how many tokens it is trained on"),
        ({"reference": "Qwen3-30B-A3B", "training_tokens": -1.0}, "training_tokens"),
        ({**REFERENCE, "law": "kaplan"}, "use one of efficiency_leverage"),
        ({**REFERENCE, "law": "clark"}, "has no say on Qwen3-30B-A3B"),
        ({"reference": "Qwen9", "training_tokens": 1e12}, "Qwen9"),
    ],
)
def test_what_is_missing_for_a_quality_is_said(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        mc.predict([row()], **asked)
    with pytest.raises(UserError, match=says):
        mc.audit("Qwen3-30B-A3B", ["trainium2"], tokens=[64], **asked)


def test_a_table_of_several_parts_says_what_holds_for_all_of_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tmp_path / "problems.csv"
    lines = [",".join(map(str, row(num_tokens=tokens).values())) for tokens in range(1, 8)]
    problems.write_text("\n".join([",".join(row()), *lines]) + "\n")
    monkeypatch.setattr("moe_codesign.answers.problem_table.PART", 3)
    out = tmp_path / "times.csv"
    done = invoke("predict", str(problems), "--out", str(out), *OPTIONS, "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[1:]
    assert len(said) == 3
    assert said[0].startswith("Quality by the law efficiency_leverage (Tian et al., arXiv 2507.17702)")
    assert said[1] == "Other laws that apply to Qwen3-30B-A3B: abnar, zhao."
    assert said[2] == "A row without num_layers is judged as a model of 48 layers, its reference's."
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [one["quality_ratio"] for one in rows] == ["1.0"] * 7
    again = invoke("predict", str(out), "--out", str(tmp_path / "again.csv"), cwd=tmp_path)
    assert "7 of 7 rows answered" in again.stdout, "an answered table may be asked again, its quality is no column"


def test_audit_says_the_quality_once(tmp_path: Path) -> None:
    command = ("audit", "Qwen3-30B-A3B", "--chips", "trainium2,tpu_v5p", "--tokens", "1,64")
    other = ("--reference", "gpt-oss-120b", "--training-tokens", "20e12")
    text = invoke(*command, *other, cwd=tmp_path).stdout
    assert text.count("quality:") == 1
    assert AUDIT in text
    rows = json.loads(invoke(*command, *other, "--json", cwd=tmp_path).stdout)
    assert {one["quality"]["ratio"] for one in rows} == {rows[0]["quality"]["ratio"]}
    assert rows[0]["quality"]["by_law"]["abnar"] == pytest.approx(0.363, abs=0.001)
    plain = invoke(*command, cwd=tmp_path).stdout
    assert "quality: not judged, as it is a ratio to another model on as many training tokens" in plain
    assert mc.audit("Qwen3-30B-A3B", ["trainium2"], tokens=[1])[0].quality is None


AUDIT = """\
quality: 0.548 of gpt-oss-120b's by efficiency_leverage; 0.363 to 0.548 over all laws that have a say (others: abnar \
0.363, zhao 0.388)
Quality by the law efficiency_leverage (Tian et al., arXiv 2507.17702): size that the reference would need for the \
same loss, at equal training tokens; it is carried on far beyond its experiments: gpt-oss-120b's training compute C \
1.92e+23 is 639 times above the 3e+20 of its experiments.
Other laws that apply to gpt-oss-120b: abnar, zhao.
"""
