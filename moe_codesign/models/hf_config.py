"""Hugging Face ``config.json`` to MoEShape, for every family in use.

A family is known by which field names it uses, so a new model of a known family needs no change here.
"""

import json
from pathlib import Path
from typing import Any

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError

_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k", "top_k")
_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size")
_HIDDEN = ("hidden_size", "d_model", "n_embd")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
_SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
_EVERY = ("moe_layer_freq", "interleave_moe_layer_step", "decoder_sparse_step", "expert_layer_period")
_LATENT = ("moe_latent_size", "routed_expert_hidden_size")
_UNGATED_ACTIVATIONS = ("relu2", "relu")
# Llama-4 has one shared expert per layer and no field that says so (modeling_llama4.py, Llama4TextMoe).
_IMPLICIT_SHARED = {"llama4": 1, "llama4_text": 1}


def read_config(path: Path) -> MoEShape:
    """The MoE shape of a model's ``config.json`` (the file, or the folder that holds it).

    Raises:
        UserError: no such file, not JSON, not an MoE, or a field missing; names the fields looked for.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})", fix="give a Hugging Face config.json") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object", fix="give a Hugging Face config.json")
    return shape_from_config(config, source=str(path))


def shape_from_config(config: dict[str, Any], *, source: str = "config") -> MoEShape:
    """The MoE shape in a parsed ``config.json``.

    Latent experts (``moe_latent_size``) take their inner width as hidden_size: that is what the expert
    GEMMs see. Shared experts of another width count as how many routed widths they make, rounded up.

    Raises:
        UserError: not an MoE, or a field missing.
    """
    name = str(config.get("_name_or_path") or config.get("model_type") or Path(source).parent.name or "config")
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, dict) else dict(config)
    inner = merged.get("ffn_config")
    if isinstance(inner, dict):  # DBRX
        merged |= inner
    experts = _first(merged, _EXPERTS)
    if experts is None or experts < 2:
        raise UserError(f"{source} describes no mixture of experts", fix="it needs one of " + ", ".join(_EXPERTS))
    hidden = _first(merged, _LATENT) or _need(merged, _HIDDEN, source)
    width = _need(merged, _WIDTH, source)
    shared = _first(merged, _SHARED_COUNT)
    shared_width = _first(merged, _SHARED_WIDTH)
    if shared_width:
        shared = -(-shared_width * (1 if shared is None else shared) // width)
    elif shared is None:
        shared = _IMPLICIT_SHARED.get(str(merged.get("model_type")), 0)
    return MoEShape(
        name=name,
        hidden_size=hidden,
        moe_intermediate_size=width,
        num_experts=experts,
        num_experts_per_tok=_need(merged, _TOP_K, source),
        n_shared_experts=shared,
        num_layers=_moe_layers(merged, _need(merged, _LAYERS, source)),
        gated=_activation(merged) not in _UNGATED_ACTIVATIONS or "ffn_config" in merged,
    )


def _activation(config: dict[str, Any]) -> str:
    return str(config.get("mlp_hidden_act") or config.get("hidden_act") or config.get("hidden_activation") or "silu")


def _moe_layers(config: dict[str, Any], layers: int) -> int:
    """Layers that hold experts: all but the dense ones that the config names."""
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):  # Nemotron-H: one letter a layer, E for experts
        return pattern.count("E") or layers
    if isinstance(config.get("moe_layers"), list) and config["moe_layers"]:
        return len(config["moe_layers"])
    frequency = config.get("moe_layer_freq")
    dense_first = _first(config, ("first_k_dense_replace", "moe_layer_start_index")) or 0
    if isinstance(frequency, list):
        return sum(bool(f) for f in frequency) or layers
    step = _first(config, _EVERY) or 1
    listed_dense = config.get("mlp_only_layers")
    dense = len(listed_dense) if isinstance(listed_dense, list) else 0
    return max(1, (layers - dense_first) // step - dense)


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, list) and value and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _need(config: dict[str, Any], names: tuple[str, ...], source: str) -> int:
    value = _first(config, names)
    if value is None:
        raise UserError(f"{source} lacks a field", fix="it needs one of " + ", ".join(names))
    return value
