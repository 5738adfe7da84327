"""Whole models that ship, against what is published of them, and the files that they are read from."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
from moe_codesign.errors import UserError
from moe_codesign.models import NoExpertsError, catalogue, whole_catalogue
from moe_codesign.models.catalogue import WHOLE, whole_names
from moe_codesign.models.whole_catalogue import needed_fields, write_whole
from moe_codesign.models.whole_model import read_whole_model

PUBLISHED: dict[str, tuple[float, float | None]] = {
    # Billions of parameters, all and used by a token, as the models' reports and cards say them. Those that count a
    # part that is not here (layers for multi-token prediction, images) differ by it.
    "DeepSeek-V2": (236, 21),
    "DeepSeek-V2-Lite": (15.7, 2.4),
    "DeepSeek-V3": (671, 37),
    "DeepSeek-R1": (671, 37),
    "DeepSeek-V3.2": (671, 37),
    "DeepSeek-V4-Flash": (284, 13),
    "Kimi-K2": (1027, 32),
    "Kimi-K2.5": (1027, 32),
    "Kimi-Linear-48B-A3B": (49, 3),
    "Qwen3-30B-A3B": (30.5, 3.3),
    "Qwen3-235B-A22B": (235, 22),
    "Qwen3-Coder-480B": (480, 35),
    "Qwen3-Next-80B-A3B": (80, None),
    "Qwen3.5-35B": (35, 3),
    "Qwen3.5-122B": (122, 10),
    "Qwen3.5-397B": (397, 17),
    "Mixtral-8x7B": (46.7, 12.9),
    "Mixtral-8x22B": (141, 39),
    "gpt-oss-20b": (20.9, 3.6),
    "gpt-oss-120b": (116.8, 5.1),
    "Llama-4-Maverick": (400, 17),
    "GLM-4.5": (355, 32),
    "GLM-4.5-Air": (106, 12),
    "GLM-5": (744, 40),
    "MiniMax-M2": (230, 10),
    "MiniMax-M2.5": (230, 10),
    "Nemotron-3-Nano": (31.6, 3.2),
    "Nemotron-3-Super": (120.6, 12.7),
    "Nemotron-3-Ultra": (550, 55),
    "Gemma-4-26B": (25.2, 3.8),
    "MiMo-V2-Flash": (309, 15),
    "LongCat-Flash": (560, 27),
    "Hunyuan-A13B": (80, 13),
    "OLMoE-1B-7B": (6.9, 1.3),
    "Phi-3.5-MoE": (41.9, 6.6),
    "DBRX": (132, 36),
    "Grok-1": (314, None),
    "Ling-mini-2.0": (16.26, 1.4),
    "Ling-flash-2.0": (103, 6.1),
    "Step-3.7-Flash": (196, 11),
    "Llama-3.1-8B": (8.03, None),
    "Llama-3.1-70B": (70.6, None),
    "Llama-3.1-405B": (405.9, None),
    "Qwen3-8B": (8.2, None),
    "Qwen3-32B": (32.8, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name: str) -> None:
    total, active = PUBLISHED[name]
    found = mc.model_shape(name)
    assert found.parameters().total / 1e9 == pytest.approx(total, rel=0.01)
    if active is not None:  # some count the embedding's table, others do not; some cut off
        used = found.active_parameters().total / 1e9
        assert used * 0.93 - 0.1 <= active <= (used + found.parameters().embedding / 1e9) * 1.04 + 0.1


def test_every_model_of_the_catalogue_is_there_whole() -> None:
    assert set(catalogue()) <= set(whole_names())


@pytest.mark.parametrize("name", whole_names())
def test_the_experts_are_those_of_the_catalogue(name: str) -> None:
    found = mc.model_shape(name)
    assert found.name == name
    if name in catalogue():
        assert found.moe == catalogue()[name].shape
        assert found.types.experts == catalogue()[name].dtype
    elif found.moe is not None:  # another checkpoint of it, of another type
        base = catalogue()[re.sub(r"(\.1)?-(FP8|NVFP4)$", "", name)]
        assert found.moe == replace(base.shape, name=name)
        read = mc.model(name)
        assert (read.shape, read.dtype) == (found.moe, found.types.experts)
        assert read.dtype in ("fp8", "fp8_block", "nvfp4")


@pytest.mark.parametrize("name", whole_names())
def test_each_file_names_its_source_and_holds_what_is_read(name: str) -> None:
    held = json.loads((WHOLE / f"{name}.json").read_text(encoding="utf-8"))
    assert re.search(r"github\.com/\S+|aisimulate 0\.13\.0|transformers 5\.24\.0|tests of mlxcel", held["source"])
    assert needed_fields(held["config"]) == held["config"]


def test_names_are_taken_as_people_write_them() -> None:
    assert mc.model_shape("meta-llama/Llama-3.1-70B-Instruct").name == "Llama-3.1-70B"
    assert mc.model_shape("meta-llama/Meta-Llama-3.1-70B").name == "Llama-3.1-70B"
    assert mc.model_shape("deepseek-ai/DeepSeek-R1-0528").name == "DeepSeek-R1"


def test_a_checkpoint_of_another_type_has_a_name_of_its_own() -> None:
    assert mc.model_shape("nvidia/Llama-3.1-70B-Instruct-FP8").name == "Llama-3.1-70B-FP8"
    assert mc.model("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8").dtype == "fp8_block"
    with pytest.raises(UserError, match="did you mean"):
        mc.model_shape("gpt-oss-120b-INT4")


def test_a_model_without_experts_is_no_mixture() -> None:
    with pytest.raises(NoExpertsError, match="has no experts"):
        mc.model("Llama-3.1-70B")


def test_a_name_that_is_nowhere_has_near_ones() -> None:
    with pytest.raises(UserError, match=r"did you mean .*Llama-3\.1-70B"):
        mc.model_shape("Llama-3.1-7B")


def test_experts_alone_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_catalogue, "whole_names", lambda: ("Llama-3.1-70B",))
    found = mc.model("DBRX")
    assert found.whole is None
    assert "give its config.json" in found.no_whole


def test_what_ships_is_what_the_file_is_read_as(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        **json.loads((WHOLE / "gpt-oss-20b.json").read_text(encoding="utf-8"))["config"],
        "rope_theta": 150000, "pad_token_id": 199999, "quantization_config": {
            "quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"],
        },
    }  # fmt: skip
    path = write_whole(config, name="a model", source="somewhere", folder=tmp_path)
    held = json.loads(path.read_text(encoding="utf-8"))
    assert held["source"] == "somewhere"
    assert "rope_theta" not in held["config"]
    assert held["config"]["quantization_config"] == {"quant_method": "mxfp4"}
    assert read_whole_model(held["config"]).to_dict() == read_whole_model(config).to_dict()


def test_bytes_of_published_checkpoints() -> None:
    """Sizes of the files on Hugging Face: 65 GB for gpt-oss-120b, 595 GB for Kimi-K2.5, of which 1 GB is its vision."""
    assert sum(mc.model_shape("gpt-oss-120b").weight_bytes().values()) / 1e9 == pytest.approx(65.2, rel=0.01)
    assert sum(mc.model_shape("Kimi-K2.5").weight_bytes().values()) / 1e9 == pytest.approx(594, rel=0.01)


def test_caches_of_a_token() -> None:
    assert mc.model_shape("DeepSeek-V3").kv_bytes_per_token() == 61 * 576 * 2
    assert mc.model_shape("Llama-3.1-70B").kv_bytes_per_token() == 80 * 8 * 2 * 128 * 2
    windowed = mc.model_shape("gpt-oss-120b")
    assert windowed.kv_bytes_per_token() == 18 * 8 * 2 * 64 * 2
    assert windowed.kv_bytes(1000) == 18 * 8 * 2 * 64 * 2 * (1000 + 128)
