import json
from pathlib import Path
from typing import Any

import pytest

import moe_codesign as mc
import moe_codesign.models
from moe_codesign.errors import UserError
from moe_codesign.models import find_model, models
from moe_codesign.models.catalogue import read_models
from moe_codesign.models.hf_config import shape_from_config

# Field names and values as the families publish them; (H, I, E, k, shared, layers, gated) expected.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "mixtral": (
        {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_local_experts": 8,
         "num_experts_per_tok": 2, "num_hidden_layers": 32, "hidden_act": "silu"},
        (4096, 14336, 8, 2, 0, 32, True),
    ),
    "qwen3_moe": (
        {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
         "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "decoder_sparse_step": 1,
         "mlp_only_layers": []},
        (2048, 768, 128, 8, 0, 48, True),
    ),
    "gpt_oss": (
        {"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 128,
         "num_experts_per_tok": 4, "experts_per_token": 4, "num_hidden_layers": 36, "hidden_act": "silu"},
        (2880, 2880, 128, 4, 0, 36, True),
    ),
    "dbrx": (
        {"model_type": "dbrx", "d_model": 6144, "n_layers": 40,
         "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4,
                        "ffn_act_fn": {"name": "silu"}}},
        (6144, 10752, 16, 4, 0, 40, True),
    ),
    "deepseek_v3": (
        {"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
         "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
         "moe_layer_freq": 1, "num_hidden_layers": 61},
        (7168, 2048, 256, 8, 1, 58, True),
    ),
    "qwen2_moe": (
        {"model_type": "qwen2_moe", "hidden_size": 3584, "moe_intermediate_size": 2560, "num_experts": 64,
         "num_experts_per_tok": 8, "shared_expert_intermediate_size": 20480, "num_hidden_layers": 28},
        (3584, 2560, 64, 8, 8, 28, True),
    ),
    "longcat": (
        {"hidden_size": 6144, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512, "moe_topk": 12,
         "num_layers": 28},
        (6144, 2048, 512, 12, 0, 28, True),
    ),
    "llama4": (
        {"model_type": "llama4", "text_config": {
            "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "num_local_experts": 128,
            "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "num_hidden_layers": 48}},
        (5120, 8192, 128, 1, 1, 24, True),
    ),
    "gemma": (
        {"text_config": {"hidden_size": 2816, "moe_intermediate_size": 704, "num_experts": 128, "top_k_experts": 8,
                         "num_hidden_layers": 30, "hidden_activation": "gelu_pytorch_tanh"}},
        (2816, 704, 128, 8, 0, 30, True),
    ),
    "nemotron_h": (
        {"model_type": "nemotron_h", "hidden_size": 2688, "moe_intermediate_size": 1856, "n_routed_experts": 128,
         "num_experts_per_tok": 6, "n_shared_experts": 1, "num_hidden_layers": 4, "mlp_hidden_act": "relu2",
         "hybrid_override_pattern": "MEM*E"},
        (2688, 1856, 128, 6, 1, 2, False),
    ),
    "latent": (
        {"hidden_size": 4096, "moe_latent_size": 1024, "moe_intermediate_size": 2688, "n_routed_experts": 512,
         "num_experts_per_tok": 22, "num_hidden_layers": 10},
        (1024, 2688, 512, 22, 0, 10, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_config_of_every_family(family: str) -> None:
    config, expected = FAMILIES[family]
    shape = shape_from_config(config)
    assert (
        shape.hidden_size,
        shape.moe_intermediate_size,
        shape.num_experts,
        shape.num_experts_per_tok,
        shape.n_shared_experts,
        shape.num_layers,
        shape.gated,
    ) == expected


def test_a_dense_model_is_reported() -> None:
    with pytest.raises(UserError, match="no mixture of experts"):
        shape_from_config({"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match="num_experts_per_tok"):
        shape_from_config({"hidden_size": 64, "intermediate_size": 64, "num_experts": 8, "num_hidden_layers": 1})


def test_catalogue_and_names() -> None:
    assert all(shape.name == name for name, shape in models().items())
    assert find_model("deepseek_v3").moe_intermediate_size == 2048
    with pytest.raises(UserError, match="Qwen3-30B-A3B"):
        find_model("Qwen3-30B")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FAMILIES["mixtral"][0]))
    assert find_model(str(tmp_path / "config.json")).num_experts == 8
    assert find_model(str(tmp_path)).num_experts == 8
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        find_model(str(tmp_path / "broken.json"))


def test_a_new_model_is_one_row_or_one_config_and_is_audited(tmp_path: Path) -> None:
    catalogue = Path(moe_codesign.models.__file__).with_name("catalogue.csv").read_text()
    (tmp_path / "catalogue.csv").write_text(f"{catalogue.rstrip()}\nMine-8x1B,1024,512,8,2,0,12,1,made up\n")
    found = read_models(tmp_path / "catalogue.csv")
    assert set(found) == {*models(), "Mine-8x1B"}
    config = {"hidden_size": 1024, "intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12, "model_type": "mixtral"}))
    by_row = mc.audit(found["Mine-8x1B"], ["trainium2"], tokens=[64])[0].estimate
    by_config = mc.audit(str(tmp_path / "config.json"), ["trainium2"], tokens=[64])[0].estimate
    assert by_row is not None
    assert by_row == by_config
