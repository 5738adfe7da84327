"""A config to the shape of the whole model: its layers of each kind, embedding, head, and the type of each part.

The same files are read as for the MoE shape, and nothing is guessed here either: a field that is missing, a list of
another length, or attention of a form that is not known is an error that names it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from moe_codesign.domain.model_shape import Attention, DenseMlp, LayerGroup, ModelShape
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields, NoExpertsError
from moe_codesign.models.families import family_name, family_of
from moe_codesign.models.hf_config import SIDE, is_mistral, name_of, read_model, text_table
from moe_codesign.models.layers import expert_layers, has_two_stacks, total_layers
from moe_codesign.models.mixer_kinds import Kind, check_attention_known, kinds_of
from moe_codesign.models.mixer_sizes import MixerReader
from moe_codesign.models.part_types import Module, read_types
from moe_codesign.models.quantization import dtype_of

MOE_FAMILIES = (
    "afmoe", "aria_moe_lm", "aria_text", "axk1", "bailing_moe", "bailing_moe_v2", "cohere2_moe", "dbrx", "deepseek",
    "deepseek_ocr2_text", "deepseek_ref", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "dots1",
    "ernie4_5_moe", "exaone_moe", "flex_olmo", "flint", "gemma4_text", "glm4_moe", "glm4_moe_lite",
    "glm4v_moe_text", "glm5_next_text", "glm_moe_dsa", "gpt_oss", "granitemoe", "granitemoe_swa",
    "granitemoehybrid", "granitemoeshared", "grok_1", "hunyuan", "hunyuan_v1_moe", "hy_v3", "jamba", "kimi_k2",
    "kimi_linear", "kolibri1", "lara_mini", "lfm2_moe", "llama4_text", "longcat_flash", "mellum", "mimo_v2_flash",
    "minimax", "minimax_m1", "minimax_m2", "minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text", "minimax_text_01",
    "mistral4", "mixtral", "nemotron_h", "olmoe", "phimoe", "qwen2_moe", "qwen3_5_moe_text", "qwen3_moe",
    "qwen3_next", "qwen3_omni_moe_text", "qwen3_vl_moe_text", "sarvam_mla", "sarvam_moe", "solar_open", "step3p5",
    "step3p7", "step3p7_text",
)  # fmt: skip
"""Types of models with experts whose attention is known: what is read was held against what their code builds, or
against the parameters that were published of them. Others can have parts that no field speaks of."""
DENSE_FAMILIES = (
    "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "granite", "llama",
    "ministral3", "mistral", "nemotron_h", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_5_text",
    "qwen3_vl_text", "seed_oss", "smollm3",
)  # fmt: skip
"""Types of dense models that are read: what their fields do not say is known, and is as of most models."""
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_DENSE_WIDTH = (
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "ffn_hidden_size",
    "intermediate_size",
    "hidden_dim",
)
"""Fields of the width of dense parts; the first that a file has counts."""
_NEXTN = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "mtp_num_layers", "num_mtp_modules")
_TIED = ("tie_word_embeddings", "tied_embeddings")
_TIED_BY_CLASS = ("gemma", "ernie4_5", "lfm2", "cohere2", "smollm3")
"""Beginnings of families whose class ties the head to the embedding where no field says otherwise."""
_PER_LAYER = "per_layer_config"
_OWN = "fields of this layer"
_DENSE_BESIDE = ("gemma4",)
"""Beginnings of families whose layers with experts have a dense part beside them."""
_ALIASES = {
    "kv_a_proj": ("kv_a_proj_with_mqa",),
    "gate_proj": ("q_proj", "g_proj"),
    "qkv_proj": ("q_proj",),
    "in_proj_qkv": ("in_proj_qkvz",),
    "in_proj_ba": ("in_proj_b",),
    "index_q_proj": ("indexer.wq_b", "indexer.q_b_proj"),
    "index_k_proj": ("indexer.wk",),
    "index_weights_proj": ("indexer.weights_proj",),
}
"""Names by which checkpoints call a projection, beside our own."""
_MIXERS = ("self_attn", "linear_attn", "mixer", "attn")
_SHARED = (
    "mlp.shared_experts", "mlp.shared_expert", "mixer.shared_experts", "feed_forward.shared_expert",
    "block_sparse_moe.shared_experts", "mlp.shared_mlp",
)  # fmt: skip
_DENSE = ("mlp", "mixer", "feed_forward")


class Layer(NamedTuple):
    """One layer: its attention, its dense part, and whether it has experts."""

    attention: Attention | None
    dense: DenseMlp | None
    experts: bool


def read_whole_model(config: dict[str, Any], *, source: str = "config.json") -> ModelShape:
    """The whole model of a parsed ``config.json`` or ``params.json``.

    Args:
        config: the JSON object.
        source: the file, as messages name it.

    Raises:
        UserError: what it says cannot be read as a whole model; it names the field and its value.
    """
    top = Fields(config, source)
    moe = None
    notes: list[str] = []
    try:
        read = read_model(config, source=source)
        moe, notes = read.shape, list(read.notes)
        around = [top.with_inner("moe")] if is_mistral(config) else text_table(top)
    except NoExpertsError:
        around = _dense_table(top)
    fields = around[0]
    known = MOE_FAMILIES if moe is not None else DENSE_FAMILIES
    names = [family_name(one.table) for one in around]
    if "dim" in config and "n_layers" in config:  # Mistral's params.json, which names no type
        names = ["mixtral" if moe is not None else "mistral"]
    name = next((one for one in names if one in known), None)
    if name is None:
        what = "attention of" if moe is not None else "the dense model"
        raise UserError(
            f"{source}: {what} {names[0] or 'a file without model_type'} is of a form that is not known here",
            fix="the MoE shape alone can be read" if moe is not None else "known are " + ", ".join(known),
        )
    if has_two_stacks(fields):
        raise UserError(f"{source}: {name} has an encoder and a decoder; only decoders are read as whole models")
    hidden = fields.need(_HIDDEN)
    vocab = next((one.need(("vocab_size",)) for one in around if one.has("vocab_size")), None)
    vocab = fields.need(("vocab_size",)) if vocab is None else vocab
    sources = {"hidden_size": hidden.key, "vocab_size": vocab.key}
    layers = _layers(fields, name, moe, hidden.value, sources)
    tied, sources["tied_embeddings"] = _tied(around, name)
    nextn = _nextn(around)
    if nextn:
        counted = (
            "layer for multi-token prediction is" if nextn == 1 else f"{nextn} layers for multi-token prediction are"
        )
        notes.append(f"its {counted} not counted")
    types = read_types(
        around, dtype_of(around) if moe else None, list(_modules(layers, moe, hidden.value, vocab.value))
    )
    found = ModelShape(
        name=moe.name if moe else name_of(top, fields),
        hidden_size=hidden.value,
        vocab_size=vocab.value,
        groups=_groups(layers),
        moe=moe,
        tied_embeddings=tied,
        types=types.types,
        num_nextn_layers=nextn,
        sources=sources | types.sources,
        notes=(*notes, *types.notes),
    )
    return replace(found, sources={key: value for key, value in found.sources.items() if key not in _unused(found)})


def _unused(model: ModelShape) -> set[str]:
    """Keys of types of parts that the model does not have."""
    held = model.parameters().by_part()
    mixers = [group.attention for group in model.groups if group.attention is not None]
    used = {
        **{part: count > 0 for part, count in held.items() if part != "head"},
        "kv_cache": any(one.cached_values(1) for one in mixers),
        "index_cache": any(one.index_values_per_token for one in mixers),
        "state": any(one.state_values for one in mixers),
    }
    return {f"types.{part}" for part, is_used in used.items() if not is_used}


def _dense_table(top: Fields) -> list[Fields]:
    """The table of a dense text model, and those around it, the innermost first.

    Raises:
        UserError: no table describes one, or several do.
    """
    tables = [[top], *([inner, top] for name in top.table if (inner := top.inner(name)) is not None)]
    found = [
        around
        for around in tables
        if any(around[0].has(one) for one in _HIDDEN)
        and any(around[0].has(one) for one in ("num_hidden_layers", "n_layers", "layers_block_type"))
        and not any(word in around[0].path.lower() for word in SIDE)
    ]
    if len(found) != 1:
        what = "describes no text model" if not found else "describes several text models"
        raise UserError(f"{top.source} {what}", fix="it needs hidden_size and num_hidden_layers once")
    return found[0]


def _layers(fields: Fields, name: str, moe: MoEShape | None, hidden: int, sources: dict[str, str]) -> list[Layer]:
    """Every layer of the model, in its order."""
    family = family_of(fields.table)
    total = total_layers(fields, family)
    kinds = kinds_of(fields, name, total.value)
    having = expert_layers(fields, family, total).layers if moe is not None else frozenset[int]()
    shapes: list[Attention | None] = []
    read = {_PER_LAYER}
    built: dict[tuple[Kind, str], Attention | None] = {}
    sources |= {"num_layers": total.key, "attention": kinds.key}
    for i, kind in enumerate(kinds.layers):
        mine = _of_layer(fields, i)
        if (kind, known := str(mine.table.get(_OWN, ""))) not in built:
            reader = MixerReader(mine, name, hidden)
            built[kind, known] = reader.build(kind)
            sources |= reader.sources
            read |= reader.read
        shapes.append(built[kind, known])
    check_attention_known(fields, frozenset(read))
    if name == "longcat_flash":  # two attentions and two dense parts to each layer with experts
        both = _dense(fields, moe, sources)
        return [Layer(one, both, experts) for one in shapes for experts in (True, False)]
    plain = [i not in having and (not name.startswith("nemotron_h") or shapes[i] is None) for i in range(total.value)]
    beside = name.startswith(_DENSE_BESIDE)
    dense = _dense(fields, moe, sources) if any(plain) or beside else None
    return [Layer(one, dense if plain[i] or beside else None, i in having) for i, one in enumerate(shapes)]


def _of_layer(fields: Fields, layer: int) -> Fields:
    """The fields of one layer, where single layers have fields of their own; ``_OWN`` then holds which."""
    table = fields.inner(_PER_LAYER)
    own = (
        next(
            (one for name in table.table if name.isdigit() and int(name) == layer and (one := table.inner(name))), None
        )
        if table
        else None
    )
    if own is None:
        return fields
    return Fields({**fields.table, **own.table, _OWN: own.table}, fields.source, own.path)


def _dense(fields: Fields, moe: MoEShape | None, sources: dict[str, str]) -> DenseMlp:
    """The dense part of layers that have one."""
    named = next((one for one in _DENSE_WIDTH if fields.has(one)), "intermediate_size")
    width = fields.need((named,))
    sources["dense.intermediate_size"] = width.key
    gated = moe.gated if moe is not None else family_of(fields.table).gated
    return DenseMlp(intermediate_size=width.value, gated=gated)


def _groups(layers: Sequence[Layer]) -> tuple[LayerGroup, ...]:
    """Equal layers together, by the first of each."""
    return tuple(
        LayerGroup(
            count=sum(other == one for other in layers), attention=one.attention, dense=one.dense, experts=one.experts
        )
        for one in dict.fromkeys(layers)
    )


def _tied(around: list[Fields], name: str) -> tuple[bool, str]:
    for one in around:
        for key in _TIED:
            if (flag := one.flag(key)) is not None:
                return flag, one.key(key)
    return name.startswith(_TIED_BY_CLASS), "the architecture"


def _nextn(around: list[Fields]) -> int:
    """Layers for multi-token prediction, by the first field that names them."""
    for one in around:
        for key in _NEXTN:
            if one.has(key) and one.flag("use_mtp") is not False:
                found = one.whole(key)
                return found.value if found else 0
    return 0


def _modules(layers: Sequence[Layer], moe: MoEShape | None, hidden: int, vocab: int) -> Iterator[Module]:
    """Every matrix but those of routed experts and routers, as checkpoints name them."""
    yield Module("head", ("lm_head", "output"), hidden * vocab)
    for i, layer in enumerate(layers):
        for one in layer.attention.projections(hidden) if layer.attention else ():
            names = (one.name, *_ALIASES.get(one.name, ()))
            yield Module(
                "attention", tuple(f"layers.{i}.{mixer}.{name}" for mixer in _MIXERS for name in names), one.parameters
            )
        for part, holders, weights in (
            ("dense", _DENSE, layer.dense.parameters(hidden) if layer.dense else 0),
            ("shared", _SHARED, moe.shared_params if moe and layer.experts else 0),
        ):
            for name in ("gate_proj", "up_proj", "down_proj") if weights else ():
                yield Module(part, tuple(f"layers.{i}.{holder}.{name}" for holder in holders), weights // 3)
