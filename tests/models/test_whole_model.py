"""The reader of whole models: every type against what its code builds, and the rules of single fields.

``whole_built.jsonl`` holds configs and the weights that ``transformers`` built of them; the script
``benchmarks/models/whole_models.py`` writes it.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moe_codesign.domain.attention import GroupedQueryAttention, SparseIndex
from moe_codesign.domain.latent_attention import LatentAttention
from moe_codesign.domain.model_shape import DenseMlp
from moe_codesign.domain.recurrence import KimiDeltaAttention, Mamba2
from moe_codesign.errors import UserError
from moe_codesign.models.catalogue import WHOLE
from moe_codesign.models.whole_model import read_whole_model

LINES = Path(__file__).with_name("whole_built.jsonl").read_text(encoding="utf-8").splitlines()
BUILT: dict[str, dict[str, Any]] = {one["type"]: one for one in map(json.loads, LINES)}
MORE_WEIGHTS_THAN_CHECKPOINTS = ("longcat_flash",)
"""``transformers`` builds a matrix for each zero expert, too."""
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_key_value_heads": 8, "num_hidden_layers": 32, "num_local_experts": 8, "num_experts_per_tok": 2,
    "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 32000,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3", "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432,
    "kv_lora_rank": 512, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
    "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "v_head_dim": 128,
    "vocab_size": 129280,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
NVFP4_GROUP = {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}


def attention_of(config: dict[str, Any]) -> Any:
    """What mixes tokens in the first group of layers."""
    return read_whole_model(config).groups[0].attention


@pytest.mark.parametrize("name", [name for name in BUILT if name not in MORE_WEIGHTS_THAN_CHECKPOINTS])
def test_what_is_read_has_the_weights_that_are_built(name: str) -> None:
    one = BUILT[name]
    found = read_whole_model(one["config"]).parameters()
    assert found.total - found.head == pytest.approx(one["truth"]["total"], rel=2e-3)
    assert found.attention == pytest.approx(one["truth"]["attention"], rel=2e-3)


def test_enough_types_are_read() -> None:
    assert len(BUILT) >= 80


def test_the_layers_of_deepseek_v3() -> None:
    found = read_whole_model(DEEPSEEK)
    mla = LatentAttention(
        num_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    )
    assert [(one.count, one.attention, one.dense, one.experts) for one in found.groups] == [
        (3, mla, DenseMlp(intermediate_size=18432), False),
        (58, mla, None, True),
    ]
    assert found.num_nextn_layers == 1
    assert found.sources["attention.kv_lora_rank"] == "kv_lora_rank"
    assert found.sources["dense.intermediate_size"] == "intermediate_size"
    types = found.types
    assert (types.experts, types.attention, types.dense, types.shared) == ("fp8_block",) * 4
    assert (types.head, types.rest, types.kv_cache) == ("bfloat16",) * 3
    assert found.sources["types.kv_cache"] == "no field: as what is not quantised"


def test_a_head_is_a_part_of_the_width_where_no_field_says_otherwise() -> None:
    assert attention_of(MIXTRAL) == GroupedQueryAttention(num_heads=32, num_kv_heads=8, head_dim=128)
    found = read_whole_model(MIXTRAL)
    assert found.sources["attention.head_dim"] == "no field: hidden_size / num_attention_heads"


def test_a_window_of_every_layer() -> None:
    assert attention_of({**MIXTRAL, "sliding_window": 4096}).window == 4096


def test_a_sparse_index_whose_choice_some_layers_share() -> None:
    config = {
        **DEEPSEEK, "model_type": "glm_moe_dsa", "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048,
        "indexer_types": ["full", "shared"] * 30 + ["full"],
    }  # fmt: skip
    groups = read_whole_model(config).groups
    indices = {one.attention.index for one in groups if isinstance(one.attention, LatentAttention)}
    assert indices == {
        SparseIndex(num_heads=32, head_dim=128, topk=2048),
        SparseIndex(num_heads=32, head_dim=128, topk=2048, shared=True),
    }
    assert sum(one.count for one in groups) == 61


def test_kimi_counts_its_layers_from_one() -> None:
    config = {
        **DEEPSEEK, "model_type": "kimi_linear", "num_hidden_layers": 4, "first_k_dense_replace": 1,
        "linear_attn_config": {
            "kda_layers": [1, 2, 3], "full_attn_layers": [4], "num_heads": 32, "head_dim": 128,
            "short_conv_kernel_size": 4,
        },
    }  # fmt: skip
    kda = KimiDeltaAttention(num_heads=32, head_dim=128, conv_kernel=4)
    groups = read_whole_model(config).groups
    assert [(one.count, one.attention == kda, one.experts) for one in groups] == [
        (1, True, False), (2, True, True), (1, False, True)
    ]  # fmt: skip


def test_nemotron_has_layers_of_one_part_each() -> None:
    config = {
        "model_type": "nemotron_h", "hybrid_override_pattern": "MEM*E-", "hidden_size": 2688, "num_hidden_layers": 6,
        "conv_kernel": 4, "head_dim": 128, "intermediate_size": 1856, "mamba_head_dim": 64, "mamba_num_heads": 64,
        "moe_intermediate_size": 1856, "n_groups": 8, "n_routed_experts": 128, "num_attention_heads": 32,
        "num_experts_per_tok": 6, "num_key_value_heads": 2, "ssm_state_size": 128, "vocab_size": 131072,
        "mamba_ssm_cache_dtype": "float16",
    }  # fmt: skip
    found = read_whole_model(config)
    mamba = Mamba2(num_heads=64, head_dim=64, state_size=128, n_groups=8, conv_kernel=4)
    gqa = GroupedQueryAttention(num_heads=32, num_kv_heads=2, head_dim=128)
    assert [(one.count, one.attention, one.dense, one.experts) for one in found.groups] == [
        (2, mamba, None, False),
        (2, None, None, True),
        (1, gqa, None, False),
        (1, None, DenseMlp(intermediate_size=1856, gated=False), False),
    ]
    assert found.types.state == "float16"
    assert found.types.experts == "bfloat16"
    assert found.sources["types.experts"] == "no field: bfloat16"


def test_a_nemotron_without_experts_is_dense_whatever_its_class_has_for_them() -> None:
    config = BUILT["nemotron_h (dense)"]["config"]
    assert config["n_routed_experts"] == 8
    assert read_whole_model(config).moe is None


@pytest.mark.parametrize(
    ("quantization", "types"),
    [
        # gpt-oss: the experts alone
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, ("mxfp4", *("bfloat16",) * 4)),
        # MiniMax-M2: all but what parts of names say
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["gate", "lm_head"]},
         (*("fp8_block",) * 4, "bfloat16")),
        # Kimi-K2.5: regular expressions, and a group of 32
        ({"quant_method": "compressed-tensors",
          "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*",
                     "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
          "config_groups": {"group_0": {"targets": ["Linear"],
                                        "weights": {"num_bits": 4, "type": "int", "group_size": 32}}}},
         ("int4", *("bfloat16",) * 4)),
        # NVFP4 with attention by pattern, a cache in fp8
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "config_groups": {"group_0": NVFP4_GROUP},
          "ignore": ["lm_head", *(f"language_model.model.layers.{i}.self_attn*" for i in range(61))],
          "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
         ("nvfp4", "bfloat16", "nvfp4", "nvfp4", "fp8")),
        # groups that name their modules
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4, "type": "float",
                                                                             "group_size": 16}},
                            "b": {"targets": ["re:.*self_attn.*"],
                                  "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                                  "input_activations": {"num_bits": 8, "type": "float"}}}},
         ("nvfp4", "fp8", "bfloat16", "nvfp4", "bfloat16")),
        # experts made anew of a checkpoint in blocks of fp8
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "moe_quant_algo": "NVFP4",
          "quantized_layers": {"layers.3.ffn.experts": {"quant_algo": "NVFP4"}}},
         ("nvfp4", "fp8_block", "fp8_block", "fp8_block", "bfloat16")),
    ],
)  # fmt: skip
def test_parts_have_types_of_their_own(quantization: dict[str, Any], types: tuple[str, ...]) -> None:
    found = read_whole_model({**DEEPSEEK, "quantization_config": quantization}).types
    assert (found.experts, found.attention, found.dense, found.shared, found.kv_cache) == types
    assert found.head == "bfloat16"
    assert found.int4_group == (32 if found.experts == "int4" else found.int4_group)


def test_a_part_that_is_quantised_in_part_has_the_type_of_most_of_it() -> None:
    left_out = [f"model.layers.{i}.self_attn.{name}" for i in range(61) for name in ("q_a_proj", "q_b_proj")]
    quantization = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": left_out}
    found = read_whole_model({**DEEPSEEK, "quantization_config": quantization})
    assert found.types.attention == "nvfp4"
    assert "74% of the weights of attention are quantised; the part is taken as nvfp4" in found.notes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "brand_new"}, "attention of brand_new is of a form that is not known here"),
        ({"engram_layer_ids": [1, 14]}, r"attention of a form that is not known here: engram_layer_ids = \[1, 14\]"),
        ({"lightning_heads": 4}, "lightning_heads = 4"),
        ({"vocab_size": None}, "vocab_size is null"),
        ({"v_head_dim": None}, "v_head_dim is null"),
        ({"num_attention_heads": "many"}, "num_attention_heads: got 'many'"),
        ({"layer_types": ["full_attention"] * 60}, "layer_types has 60 entries for 61 layers"),
        ({"layer_types": ["full_attention"] * 60 + ["fnet"]}, "kind of layer that is not known here: got 'fnet'"),
        ({"sliding_window": 128}, "which layers have the window is not known here"),
        (
            {"quantization_config": {"quant_method": "novel"}},
            "quant_method is .novel. in a form that is not known here",
        ),
        ({"quantization_config": {"quant_method": "fp8", "kv_cache_dtype": "odd"}}, "kv_cache_dtype: got 'odd'"),
        ({"torch_dtype": "complex64"}, "torch_dtype: got 'complex64'"),
        ({"torch_dtype": 16}, "torch_dtype: got 16"),
        ({"layer_types": 7}, "layer_types: got 7; give a list"),
        ({"mamba_ssm_dtype": "odd"}, "mamba_ssm_dtype: got 'odd'"),
        ({"quantization_config": {"quant_method": "fp8", "ignore": "all"}}, "ignore: got 'all'; give a list"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: got 1000000000; give at most 10,000 layers"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: got 1"),
    ],
)
def test_what_is_not_known_is_one_error_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        read_whole_model({**DEEPSEEK, **changes})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["Kimi-K2.5", "Qwen3.5-397B", "Nemotron-3-Nano"])
def test_whatever_stands_in_a_field_is_read_or_one_plain_error(name: str) -> None:
    config = json.loads((WHOLE / f"{name}.json").read_text(encoding="utf-8"))["config"]
    for path in _paths(config):
        for value in (None, -1, 1.5, True, "x", [], ["x"], [1, 2], {}, {"a": 1}, 10**9, 10**30, float("nan")):
            with contextlib.suppress(UserError):
                read_whole_model(_put(config, path, value))


def _paths(table: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _put(table: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {**table, path[0]: value if len(path) == 1 else _put(table[path[0]], path[1:], value)}


def test_mistrals_own_files() -> None:
    config = {
        "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
        "vocab_size": 32000, "moe": {"num_experts_per_tok": 2, "num_experts": 8},
    }  # fmt: skip
    found = read_whole_model(config)
    assert found.parameters() == read_whole_model(MIXTRAL).parameters()
    assert found.groups == read_whole_model(MIXTRAL).groups
    dense = read_whole_model({key: value for key, value in config.items() if key != "moe"})
    assert dense.groups[0].dense == DenseMlp(intermediate_size=14336)
    assert dense.groups[0].attention == attention_of(MIXTRAL)


def test_a_class_with_a_width_of_its_own_needs_the_field() -> None:
    config = dict(BUILT["gpt_oss"]["config"])
    del config["head_dim"]
    with pytest.raises(UserError, match="gpt_oss needs head_dim"):
        read_whole_model(config)


def test_a_dense_model_that_is_not_known_is_not_guessed() -> None:
    config = {**BUILT["llama (dense)"]["config"], "model_type": "opt"}
    with pytest.raises(UserError, match="the dense model opt is of a form that is not known here"):
        read_whole_model(config)
