import json
from pathlib import Path

import moe_codesign as mc
from moe_codesign.chips import load_chip
from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import ReadModel
from moe_codesign.models.default_dtype import default_dtype


def test_audit_says_what_it_cannot_do_and_goes_on() -> None:
    rows = mc.audit("DeepSeek-V3", ["trainium2", "cpu"], tokens=[1, 64], dtype="fp8")
    assert [row.chip for row in rows] == ["trainium2", "trainium2", "cpu", "cpu"]
    assert all(row.estimate is not None for row in rows[:2])
    assert all(row.error is not None and "fp8" in row.error.text for row in rows[2:])


def test_a_model_is_timed_in_its_own_type_where_every_chip_has_it() -> None:
    assert {row.dtype for row in mc.audit("gpt-oss-120b", ["trainium2"], tokens=[64])} == {"mxfp4"}
    # This host has no fp8: times of several chips are of one type.
    assert {row.dtype for row in mc.audit("DeepSeek-V3", ["trainium2", "cpu"], tokens=[64])} == {"bfloat16"}
    assert {row.dtype for row in mc.audit("DeepSeek-V3", ["trainium2"], tokens=[64])} == {"fp8_block"}
    asked = mc.audit("gpt-oss-120b", ["trainium2"], tokens=[64], dtype="torch.bfloat16")
    assert {row.dtype for row in asked} == {"bfloat16"}


def test_the_default_type_says_why() -> None:
    shape, chips = mc.find_model("Qwen3-30B-A3B"), [load_chip("trainium2")]
    for dtype, chosen, why in (
        ("mxfp4", "mxfp4", "the model's"),
        ("nvfp4", "bfloat16", "the model's nvfp4 is NVFP4 (a scale per 16 weights), which no kernel here has"),
        (None, "bfloat16", "the model names no data type that is known here"),
        ("int8", "bfloat16", "the model's int8 does not run on trainium2"),
    ):
        assert default_dtype(ReadModel(shape, dtype), chips) == (chosen, dtype, why)


def test_of_recorded_layers_the_slowest_is_shown_or_the_one_that_is_named(tmp_path: Path) -> None:
    shape = MoEShape(hidden_size=2048, moe_intermediate_size=512, num_experts=8, num_experts_per_tok=2)
    file = tmp_path / "loads.json"
    file.write_text(json.dumps([[0] * 8, [1, 0, 0, 0, 0, 0, 0, 1], [1] * 8]))

    def audited(routing: str) -> tuple[str, float, tuple[str, ...]]:
        (row,) = mc.audit(shape, ["trainium2"], tokens=[8], routing=f"histogram:{routing}")
        assert row.estimate is not None
        return row.routing, row.estimate.timing.latency_us, row.estimate.notes[1:]

    slow = audited(str([1] * 8))
    assert slow[2] == ()
    assert slow[1] > audited(f"{file}#1")[1]
    assert audited(str(file)) == (*slow[:2], ("the recorded loads are of 2 layers: layer 2 takes longest",))
    assert audited(f"{file}#2") == slow
