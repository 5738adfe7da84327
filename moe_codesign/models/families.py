"""What the names of a config's fields do not say: habits of single families of models.

A family is found by its ``model_type``, or by the first of its ``architectures``. A family that is not listed is read
by its fields alone; it must then name the width of its experts (``moe_intermediate_size``), since ``intermediate_size``
is the width of dense layers in most models.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """How a family's config is to be read.

    Args:
        width: fields that hold the width of its experts, beside those that every family may have.
        chosen: experts that each token visits, where the architecture fixes it.
        implicit_shared: shared experts of a routed expert's width that no field speaks of.
        only_shared: the one number of shared experts that the architecture is known to build.
        shared_total: whether the field of the shared width holds that of all shared experts together.
        gated: whether experts have a gate.
        layers: fields that say which layers hold experts, of which the file must have one; else it counts too many.
        every_layer: whether all layers hold experts, whatever fields of other families the file has.
        num_layers: fields that hold the number of layers, where only these do.
        skipped: choices of its router that lead to no expert, beside the routed experts.
        note: what a reader of its numbers should know beside; empty where there is nothing.
        refused: why it cannot be read as one shape; empty where it can.
    """

    width: tuple[str, ...] = ()
    chosen: int | None = None
    implicit_shared: int = 0
    only_shared: int | None = None
    shared_total: bool | None = None
    gated: bool = True
    layers: tuple[str, ...] = ()
    every_layer: bool = False
    num_layers: tuple[str, ...] = ()
    skipped: int = 0
    note: str = ""
    refused: str = ""


_INTERMEDIATE = ("intermediate_size",)
_FIRST_DENSE = ("first_k_dense_replace", "mlp_layer_types")
_PLAIN = Family(width=_INTERMEDIATE)
_DENSE_FIRST = Family(layers=_FIRST_DENSE)
_NEMOTRON = Family(
    gated=False, shared_total=True, layers=("layers_block_type", "hybrid_override_pattern", "layer_types")
)
FAMILIES: dict[str, Family] = {
    # From modeling_X.py of transformers 5.24; from the model's own code where it is not there.
    **dict.fromkeys(
        (
            "mixtral", "gpt_oss", "minimax", "minimax_m1", "minimax_text_01", "minimax_m2", "minimax_m3_vl_text",
            "olmoe", "flex_olmo", "phimoe", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared",
            "jamba", "cohere2_moe", "aria_text", "aria_moe_lm", "openai_privacy_filter", "grok_1", "git",
            "arctic", "xverse", "dbrx",
        ),
        _PLAIN,
    ),
    **dict.fromkeys(
        (
            "deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm4_moe", "glm4v_moe_text",
            "glm_moe_dsa", "dots1", "sarvam_mla", "sarvam_moe", "mistral4", "axk1", "axk2", "bailing_hybrid",
            "bailing_moe", "bailing_moe_v2", "deepseek_ocr2_text", "unlimited_ocr_text", "hy_v3", "hy_v4",
            "hy_v4_vl_text", "glm5_next_text", "mistral_large4_text", "kimi_linear", "glm4_moe_lite",
        ),
        _DENSE_FIRST,
    ),
    "dots3_note_text": Family(layers=_FIRST_DENSE, shared_total=False),
    "deepseek_v4": Family(only_shared=1),
    "afmoe": Family(layers=("num_dense_layers",)),
    "lfm2_moe": Family(layers=("num_dense_layers",)),
    "beam": Family(layers=("mlp_layer_types",)),
    "laguna": Family(layers=("mlp_layer_types",)),
    "exaone_moe": Family(layers=("mlp_layer_types", "first_k_dense_replace", "is_moe_layer")),
    "mimo_v2_flash": Family(layers=("mlp_layer_types", "moe_layer_freq")),
    "flint": Family(layers=("mlp_only_layers",)),
    "step3p5": Family(layers=("mlp_layer_types", "moe_layers_enum")),
    "step3p7_text": Family(layers=("mlp_layer_types", "moe_layers_enum")),
    "step3_text": Family(layers=("moe_layers_enum",)),
    "ernie4_5_moe": Family(layers=("moe_layer_start_index",)),
    "qwen3_omni_moe_talker_text": Family(every_layer=True),
    "nemotron_h": _NEMOTRON,
    "nemotron_h_puzzle": _NEMOTRON,
    "llama4": Family(width=_INTERMEDIATE, implicit_shared=1, layers=("moe_layers", "interleave_moe_layer_step")),
    "llama4_text": Family(width=_INTERMEDIATE, implicit_shared=1, layers=("moe_layers", "interleave_moe_layer_step")),
    "hunyuan_v1_moe": Family(width=_INTERMEDIATE, implicit_shared=1),
    "hunyuan": Family(width=_INTERMEDIATE, implicit_shared=0),
    # A dense layer stands beside the experts of each OpenMoE layer that has them, and Skywork chooses two in its code.
    "openmoe": Family(width=_INTERMEDIATE, implicit_shared=1, layers=("moe_layer_interval",)),
    "skywork": Family(width=_INTERMEDIATE, chosen=2),
    "longcat_flash": Family(num_layers=("num_layers",)),
    "jetmoe": Family(width=_INTERMEDIATE, note="its attention has experts too, which are not part of this shape"),
    "inkling2_loop_text": Family(
        note="layers from loop_layer_index_start to loop_layer_index_end run loop_num_passes times for each token; "
        "num_layers counts them once"
    ),
    "zaya": Family(skipped=1),
    "switch_transformers": Family(width=("d_ff",), chosen=1, gated=False),
    "nllb_moe": Family(width=("encoder_ffn_dim", "decoder_ffn_dim"), chosen=2, gated=False),
    "doge": Family(refused="its experts are single neurons that product keys find, no matrices of their own"),
    "vitpose_backbone": Family(refused="its experts are chosen by data set, not by a router"),
}  # fmt: skip
_UNKNOWN = Family()


def family_of(table: Mapping[str, Any]) -> Family:
    """The family of a config's table; one that is not listed is read by its fields alone."""
    return FAMILIES.get(family_name(table), _UNKNOWN)


def family_name(table: Mapping[str, Any]) -> str:
    """The name that a family is listed under; empty where the table names neither type nor architecture."""
    architectures = table.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    for name in (table.get("model_type"), first):
        if isinstance(name, str) and (known := _BY_KEY.get(_key(name))) is not None:
            return known
    named = table.get("model_type") or first
    return named if isinstance(named, str) else ""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_ARCHITECTURES = {
    "Grok1ModelForCausalLM": "grok_1",
    "OpenMoeForCausalLM": "openmoe",
    "SkyworkMoeForCausalLM": "skywork",
}
_BY_KEY = {_key(name): name for name in FAMILIES} | {_key(name): known for name, known in _ARCHITECTURES.items()}
