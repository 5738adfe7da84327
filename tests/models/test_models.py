import json
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
import moe_codesign.models
from moe_codesign.errors import UserError
from moe_codesign.models import find_model, models
from moe_codesign.models.catalogue import read_catalogue

QWEN: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}  # fmt: skip


def test_catalogue_and_names() -> None:
    assert all(shape.name == name for name, shape in models().items())
    assert find_model("deepseek_v3").moe_intermediate_size == 2048
    with pytest.raises(UserError, match="Qwen3-30B-A3B"):
        find_model("Qwen3-30B")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    assert find_model(str(tmp_path / "config.json")).num_experts == 128
    assert find_model(str(tmp_path)).num_experts == 128
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        find_model(str(tmp_path / "broken.json"))


def test_a_new_model_is_one_row_or_one_config_and_is_audited(tmp_path: Path) -> None:
    catalogue = Path(moe_codesign.models.__file__).with_name("catalogue.csv").read_text()
    (tmp_path / "catalogue.csv").write_text(f"{catalogue.rstrip()}\nMine-8x1B,1024,512,8,2,0,12,1,,,bfloat16,made up\n")
    found = read_catalogue(tmp_path / "catalogue.csv")
    assert set(found) == {*models(), "Mine-8x1B"}
    config = {"hidden_size": 1024, "intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12, "model_type": "mixtral"}))
    by_row = mc.audit(found["Mine-8x1B"], ["trainium2"], tokens=[64])[0].estimate
    by_config = mc.audit(str(tmp_path / "config.json"), ["trainium2"], tokens=[64])[0].estimate
    assert by_row is not None
    assert by_row == by_config


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen3-30B-A3B", "Qwen3-30B-A3B"),
        ("qwen3_30b_a3b", "Qwen3-30B-A3B"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B"),
        ("deepseek-ai/DeepSeek-V3-0324", "DeepSeek-V3"),
        ("deepseek-ai/DeepSeek-V3.2", "DeepSeek-V3.2"),
        ("moonshotai/Kimi-K2-Instruct", "Kimi-K2"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Nemotron-3-Nano"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "Llama-4-Scout"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mixtral-8x7B"),
        ("databricks/dbrx-instruct", "DBRX"),
    ],
)
def test_a_model_by_the_name_that_people_have_for_it(text: str, name: str) -> None:
    assert find_model(text).name == name


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen3-Coder-480B-FP8", "Qwen3", "DeepSeek-V3-Pruned", "", "x" * 9999, "moonshotai/Kimi-K2.9"]
)
def test_another_model_is_not_taken_for_one_of_the_catalogue(text: str) -> None:
    with pytest.raises(UserError, match="model"):
        find_model(text)


def test_quantization_that_is_kept_beside_the_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**QWEN, "torch_dtype": "bfloat16"}))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    found = mc.model(str(tmp_path))
    assert found.dtype == "nvfp4"
    assert found.sources["dtype"] == "hf_quant_config.json.quant_algo"


def test_mistrals_folder_is_read_without_a_config(tmp_path: Path) -> None:
    moe = {"num_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "params.json").write_text(json.dumps({"dim": 4096, "n_layers": 32, "hidden_dim": 14336, "moe": moe}))
    assert mc.model(str(tmp_path)).shape.num_layers == 32
