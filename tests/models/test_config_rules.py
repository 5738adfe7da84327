"""Nothing in a ``config.json`` is guessed: what cannot be read is an error that names it."""

from typing import Any

import pytest

from moe_codesign.errors import UserError
from moe_codesign.models.hf_config import read_model

PLAIN: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "num_hidden_layers": 61,
}  # fmt: skip


@pytest.mark.parametrize("field", ["hidden_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok"])
@pytest.mark.parametrize("value", [768.0, "768", -1, 0, True, [], [1, 2], ["768"], {"a": 1}])
def test_a_field_that_is_no_one_whole_number_is_named_with_its_value(field: str, value: object) -> None:
    with pytest.raises(UserError) as error:
        read_model({**PLAIN, field: value})
    if not (field == "num_experts" and value == 0):  # no expert is no mixture
        assert field in str(error.value)
        assert repr(value) in str(error.value)


@pytest.mark.parametrize("field", ["hidden_size", "moe_intermediate_size", "num_experts_per_tok", "num_hidden_layers"])
def test_null_is_named_where_a_number_is_needed(field: str) -> None:
    with pytest.raises(UserError, match=f"{field} is null"):
        read_model({**PLAIN, field: None})


@pytest.mark.parametrize("field", ["hidden_size", "moe_intermediate_size", "num_experts_per_tok", "num_hidden_layers"])
def test_an_absent_field_is_named(field: str) -> None:
    with pytest.raises(UserError, match=field):
        read_model({key: value for key, value in PLAIN.items() if key != field})


def test_a_list_of_equal_numbers_is_that_number() -> None:
    assert read_model({**PLAIN, "moe_intermediate_size": [768] * 48}).shape.moe_intermediate_size == 768


def test_the_dense_width_is_never_taken_for_the_experts() -> None:
    with pytest.raises(UserError, match="intermediate_size is not taken"):
        read_model({key: value for key, value in PLAIN.items() if key != "moe_intermediate_size"})


def test_how_text_is_generated_is_not_how_experts_are_chosen() -> None:
    config = {**{key: value for key, value in PLAIN.items() if key != "num_experts_per_tok"}, "top_k": 50}
    with pytest.raises(UserError, match="num_experts_per_tok"):
        read_model(config)


@pytest.mark.parametrize(
    ("change", "both"),
    [
        ({"n_routed_experts": 64}, ("num_experts is 128", "n_routed_experts is 64")),
        ({"moe_topk": 4}, ("num_experts_per_tok is 8", "moe_topk is 4")),
        ({"expert_ffn_hidden_size": 512}, ("moe_intermediate_size is 768", "expert_ffn_hidden_size is 512")),
        ({"num_layers": 24}, ("num_hidden_layers is 48", "num_layers is 24")),
        ({"d_model": 1024}, ("hidden_size is 2048", "d_model is 1024")),
        ({"moe_layers": [0, 1], "moe_layers_enum": "2,3"}, ("moe_layers names 2", "moe_layers_enum 2, but others")),
    ],
)
def test_two_fields_that_disagree_are_both_named(change: dict[str, Any], both: tuple[str, str]) -> None:
    with pytest.raises(UserError) as error:
        read_model({**PLAIN, **change})
    for said in both:
        assert said in str(error.value)


def test_two_fields_that_agree_are_read() -> None:
    assert read_model({**PLAIN, "num_local_experts": 128}).sources["num_experts"] == "num_experts"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_experts": 1}, "num_experts is 1"),
        ({"num_experts": None}, "num_experts is null"),
        ({"is_moe": False}, "is_moe is false"),
        ({"enable_moe_block": False}, "enable_moe_block is false"),
    ],
)
def test_what_is_no_mixture_is_said_to_be_none(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=rf"no mixture of experts \({why}\)"):
        read_model({**PLAIN, **change})


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (DEEPSEEK, 58),
        ({**DEEPSEEK, "moe_layer_freq": 2}, 29),  # layers 4, 6, .. 60
        ({**DEEPSEEK, "first_k_dense_replace": 0}, 61),
        ({**PLAIN, "decoder_sparse_step": 2, "mlp_only_layers": [1, 2]}, 23),  # 1, 3, .. 47, less 1
        ({**PLAIN, "moe_layer_freq": [0] + [1] * 47}, 47),
        ({**PLAIN, "num_hidden_layers": 61, "moe_layers_enum": ",".join(map(str, range(4, 60)))}, 56),
        ({**PLAIN, "is_moe_layer": [False] + [True] * 47, "first_last_k_dense_replace": 1}, 47),
        ({**PLAIN, "moe_layer_frequency": 2}, 24),
        ({**PLAIN, "expert_layer_period": 2, "expert_layer_offset": 1}, 24),
        ({**PLAIN, "moe_layer_start_index": 3, "moe_layer_end_index": 40, "moe_layer_interval": 2}, 19),
        ({**PLAIN, "interleave_moe_layer_step": 3}, 16),
        ({**PLAIN, "num_dense_layers": 2}, 46),
    ],
)  # fmt: skip
def test_layers_with_experts(config: dict[str, Any], layers: int) -> None:
    assert read_model(config).shape.num_layers == layers


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"moe_layers_enum": "4,five"}, "moe_layers_enum"),
        ({"moe_layers": [0, 48]}, "moe_layers"),
        ({"mlp_layer_types": ["sparse"] * 47}, "47 entries for 48 layers"),
        ({"mlp_layer_types": ["sparse"] * 47 + ["odd"]}, "mlp_layer_types: got 'odd'"),
        ({"moe_layer_freq": 0}, "moe_layer_freq"),
        ({"decoder_sparse_step": -1}, "decoder_sparse_step"),
        ({"moe_every_n_layers": 2}, "moe_every_n_layers"),
        ({"first_last_k_dense_replace": 1}, "first_last_k_dense_replace"),
        ({"num_dense_layers": 48}, "no layer with experts"),
        ({"expert_layer_period": 2}, "expert_layer_offset"),
    ],
)
def test_layers_that_are_not_plain_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read_model({**PLAIN, **change})


def test_a_family_with_dense_layers_must_say_which() -> None:
    config = {key: value for key, value in DEEPSEEK.items() if key != "first_k_dense_replace"}
    with pytest.raises(UserError, match="first_k_dense_replace"):
        read_model(config)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({}, 0),
        ({"shared_expert_intermediate_size": 1536}, 2),
        ({"shared_intermediate_size": 0}, 0),
        ({"num_shared_experts": 2, "moe_shared_expert_intermediate_size": 1536}, 2),
        ({"num_shared_experts": 2, "moe_shared_expert_intermediate_size": 768}, 2),
        ({"n_shared_experts": None}, 0),
    ],
)
def test_shared_experts_in_widths_of_a_routed_one(change: dict[str, Any], shared: int) -> None:
    assert read_model({**PLAIN, **change}).shape.n_shared_experts == shared


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shared_expert_intermediate_size": 1000}, "shared_expert_intermediate_size 1000 is 1.3 times the 768"),
        ({"num_shared_experts": 2, "moe_shared_expert_intermediate_size": 2304}, "num_shared_experts is 2"),
    ],
)
def test_shared_experts_of_another_width_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read_model({**PLAIN, **change})


@pytest.mark.parametrize("path", ["thinker_config.text_config", "llm_config", "language_config", "text_config"])
def test_a_text_model_inside_another_is_found_and_its_keys_say_where(path: str) -> None:
    config: dict[str, Any] = PLAIN
    for key in reversed(path.split(".")):
        config = {key: config}
    found = read_model({"model_type": "outer", "vision_config": {"hidden_size": 1152}, **config})
    assert found.shape.num_experts == 128
    assert found.sources["num_experts"] == f"{path}.num_experts"


def test_other_tables_with_experts_are_said_or_named() -> None:
    talker = {**PLAIN, "num_experts": 64}
    found = read_model({"thinker_config": {"text_config": PLAIN}, "talker_config": {"text_config": talker}})
    assert found.shape.num_experts == 128
    assert "talker_config.text_config have experts too" in found.notes[0]
    with pytest.raises(UserError, match="llm_config, text_config"):
        read_model({"llm_config": PLAIN, "text_config": talker})


@pytest.mark.parametrize("field", ["moe_hidden_size", "moe_latent_size", "routed_expert_hidden_size"])
def test_latent_experts(field: str) -> None:
    found = read_model({**PLAIN, field: 1024})
    assert (found.shape.moe_latent_size, found.shape.hidden_size) == (1024, 2048)
    assert "latent width of 1024" in found.notes[0]
    assert found.sources["moe_latent_size"] == field


def test_zero_experts_are_counted_and_said() -> None:
    config = {
        "model_type": "longcat_flash", "hidden_size": 6144, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512,
        "moe_topk": 12, "num_layers": 28, "zero_expert_num": 256,
    }  # fmt: skip
    found = read_model(config)
    assert (found.shape.num_experts, found.shape.zero_expert_num, found.shape.num_layers) == (512, 256, 28)
    assert "256 of the router's 768 choices" in found.notes[0]
    assert "8 reach an expert" in found.notes[0]


@pytest.mark.parametrize(
    ("said", "dtype", "key"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16", "torch_dtype"),
        ({"dtype": "float16"}, "float16", "dtype"),
        ({"torch_dtype": "float32"}, "float32", "torch_dtype"),
        ({"expert_dtype": "fp4", "quantization_config": {"quant_method": "fp8"}}, "mxfp4", "expert_dtype"),
        *(
            ({"torch_dtype": "bfloat16", "quantization_config": table}, dtype, key)
            for table, dtype, key in (
                ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block",
                 "quantization_config.quant_method"),
                ({"quant_method": "fp8"}, "fp8", "quantization_config.quant_method"),
                ({"quant_method": "mxfp4"}, "mxfp4", "quantization_config.quant_method"),
                ({"quant_method": "awq", "bits": 4}, "int4", "quantization_config.quant_method"),
                ({"quant_method": "gptq", "bits": 4}, "int4", "quantization_config.quant_method"),
                ({"quant_method": "gptq", "bits": 8}, "int8_weight_only", "quantization_config.quant_method"),
                ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "quantization_config.quant_method"),
                ({"quant_algo": "FP8"}, "fp8", "quantization_config.quant_algo"),
                ({"quant_algo": "MIXED_PRECISION", "moe_quant_algo": "NVFP4"}, "nvfp4",
                 "quantization_config.moe_quant_algo"),
                ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4", "quantization_config.quant_method"),
            )
        ),
    ],
)  # fmt: skip
def test_the_type_of_the_experts(said: dict[str, Any], dtype: str, key: str) -> None:
    found = read_model({**PLAIN, **said})
    assert (found.dtype, found.sources["dtype"]) == (dtype, key)


def groups(weights: dict[str, Any], entering: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": entering}
    return {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}}


@pytest.mark.parametrize(
    ("weights", "entering", "dtype"),
    [
        ({"type": "int", "num_bits": 4, "group_size": 32}, None, "int4"),
        ({"type": "int", "num_bits": 8}, {"type": "int", "num_bits": 8}, "int8"),
        ({"type": "float", "num_bits": 8, "strategy": "channel"}, {"type": "float", "num_bits": 8}, "fp8"),
        ({"type": "float", "num_bits": 8, "strategy": "block"}, {"type": "float", "num_bits": 8}, "fp8_block"),
        ({"type": "float", "num_bits": 4, "group_size": 16}, {"type": "float", "num_bits": 4}, "nvfp4"),
        ({"type": "float", "num_bits": 4, "group_size": 32}, None, "mxfp4"),
        ({"type": "int", "num_bits": 4}, {"type": "int", "num_bits": 8}, "w4a8"),
    ],
)
def test_compressed_tensors(weights: dict[str, Any], entering: dict[str, Any] | None, dtype: str) -> None:
    assert read_model({**PLAIN, **groups(weights, entering)}).dtype == dtype


@pytest.mark.parametrize(
    "table",
    [
        {"quant_method": "new_method"},
        {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.experts"]},
        {"quant_method": "compressed-tensors"},
    ],
)
def test_a_type_that_is_not_plain_is_said_and_not_guessed(table: dict[str, Any]) -> None:
    found = read_model({**PLAIN, "torch_dtype": "bfloat16", "quantization_config": table})
    assert found.dtype is None
    assert "quantization_config" in found.notes[0]


def test_experts_in_a_table_of_their_own_are_named_with_it() -> None:
    inner = {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4, "model_type": ""}
    found = read_model({"model_type": "dbrx", "d_model": 6144, "n_layers": 40, "ffn_config": inner})
    assert found.sources["num_experts"] == "ffn_config.moe_num_experts"
    assert found.sources["moe_intermediate_size"] == "ffn_config.ffn_hidden_size"
    assert found.sources["hidden_size"] == "d_model"


def test_mistrals_own_file() -> None:
    found = read_model(
        {"dim": 4096, "n_layers": 32, "hidden_dim": 14336, "moe": {"num_experts": 8, "num_experts_per_tok": 2}}
    )
    assert found.shape.label() == "H4096 I14336 E8 k2"
    assert (found.shape.num_layers, found.sources["num_experts"]) == (32, "moe.num_experts")


def test_mistrals_own_quantization() -> None:
    moe = {"num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 4096, "first_k_dense_replace": 3}
    table = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    found = read_model({"dim": 7168, "n_layers": 61, "hidden_dim": 16384, "moe": moe, "quantization": table})
    assert (found.dtype, found.sources["dtype"]) == ("fp8", "quantization.qformat_weight")
    assert found.shape.num_layers == 58
    assert found.sources["num_layers"] == "n_layers, moe.first_k_dense_replace"


def test_what_a_shape_leaves_out_is_noted() -> None:
    config = {
        "model_type": "jetmoe", "hidden_size": 2048, "intermediate_size": 5632, "num_local_experts": 8,
        "num_experts_per_tok": 2, "num_hidden_layers": 24, "torch_dtype": "bfloat16",
    }  # fmt: skip
    assert read_model(config).notes == ("its attention has experts too, which are not part of this shape",)
