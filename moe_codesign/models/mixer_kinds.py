"""What mixes the tokens of each layer, by whichever fields a config says it with: which kind, not yet how large."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields


class Kind(NamedTuple):
    """What mixes the tokens of a layer.

    Args:
        word: ``full``, ``sliding``, ``chunked``, ``sparse`` (full attention with an index of blocks), ``linear``,
            ``mamba``, ``convolution``, ``compressed``, or ``none`` where nothing does.
        ratio: tokens of a compressed entry, of ``compressed``.
        shared_index: whether the layer uses an earlier layer's choice of tokens.
    """

    word: str
    ratio: int = 0
    shared_index: bool = False


class Kinds(NamedTuple):
    """The kind of each layer, and the keys that say so."""

    layers: tuple[Kind, ...]
    key: str


_WORDS = {
    **dict.fromkeys(("full_attention", "attention", "indexed_attention", "deepseek_sparse_attention"), Kind("full")),
    **dict.fromkeys(("sliding_attention", "sliding_window_attention"), Kind("sliding")),
    "chunked_attention": Kind("chunked"),
    "linear_attention": Kind("linear"),
    "mamba": Kind("mamba"),
    "conv": Kind("convolution"),
    "minimax_m3_sparse": Kind("sparse"),
    "moe": Kind("none"),
    "mlp": Kind("none"),
}
"""Words of lists with an entry for each layer. What an index does to ``indexed_attention`` its own fields say."""
_PATTERN = {"M": Kind("mamba"), "*": Kind("full"), "-": Kind("none"), "E": Kind("none")}
"""Letters of Nemotron-H's pattern."""
_COMPRESSED = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
"""DeepSeek-V4's words, and the tokens of an entry that its class gives them."""
_AFTER = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
_ALWAYS_WINDOW = ("mistral", "mixtral", "phimoe", "phi3", "starcoder2", "minimax", "ministral")
"""Families that apply ``sliding_window`` in every layer, where it is not null."""
_MAMBA_AS_LINEAR = ("granitemoehybrid", "nemotron_h")
"""Families whose Mamba-2 layers go by the name of linear attention in newer files."""
_NO_WINDOW = ("minimax_m2",)
"""Families that have the field and whose code does not use it."""


def kinds_of(fields: Fields, family: str, total: int) -> Kinds:
    """The kind of each of ``total`` layers.

    Raises:
        UserError: a list is of another length, has a word that is not known, or a window applies to layers that nothing
            names. It names the field and its value.
    """
    for read in (_from_pattern, _from_words, _from_numbers, _from_rule):
        if (found := read(fields, family, total)) is not None:
            if family.startswith(_MAMBA_AS_LINEAR):
                found = Kinds(tuple(Kind("mamba") if one.word == "linear" else one for one in found.layers), found.key)
            return _with_shared_indices(fields, found)
    return _with_shared_indices(fields, _all(fields, family, total))


def _entries(fields: Fields, name: str, total: int) -> "list[object] | None":
    """The entries of a list that has one for each layer; those of layers for multi-token prediction are cut off."""
    value = fields.table.get(name)
    if value is None or value == []:
        return None
    if not isinstance(value, list | str):
        raise fields.error(name, "give a list with an entry for each layer")
    nextn = fields.one_of(tuple(one for one in _AFTER if fields.has(one))[:1])
    if len(value) not in (total, total + (nextn.value if nextn else 0)):
        raise UserError(
            f"{fields.source}: {fields.key(name)} has {len(value)} entries for {total} layers",
            fix="give an entry for each layer",
        )
    return list(value)[:total]


def _from_pattern(fields: Fields, family: str, total: int) -> Kinds | None:
    for name, words in (("layers_block_type", _WORDS), ("hybrid_override_pattern", _PATTERN)):
        if (entries := _entries(fields, name, total)) is not None:
            return Kinds(tuple(_word(fields, name, words, one) for one in entries), fields.key(name))
    return None


def _word(fields: Fields, name: str, words: dict[str, Kind], word: object) -> Kind:
    if not isinstance(word, str) or word not in words:
        raise UserError(
            f"{fields.source}: {fields.key(name)} names a kind of layer that is not known here",
            value=word,
            fix="the whole model is read where each is one of " + ", ".join(words),
        )
    return words[word]


def _from_words(fields: Fields, family: str, total: int) -> Kinds | None:
    entries = _entries(fields, "layer_types", total)
    if family in ("deepseek_v4", "deepseek_ref"):
        return _compressed(fields, entries, total)
    if entries is None:
        return None
    return Kinds(tuple(_word(fields, "layer_types", _WORDS, one) for one in entries), fields.key("layer_types"))


def _compressed(fields: Fields, entries: "list[object] | None", total: int) -> Kinds:
    ratios = _entries(fields, "compress_ratios", total)
    if ratios is not None:
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in ratios):
            raise fields.error("compress_ratios", "give a whole number for each layer")
        layers = tuple(Kind("compressed", ratio=one) for one in ratios if isinstance(one, int))
        return Kinds(layers, fields.key("compress_ratios"))
    if entries is None:
        raise UserError(f"{fields.source} lacks a field", fix="it needs compress_ratios or layer_types")
    rates = fields.inner("compress_rates")
    ratio = dict(_COMPRESSED) | {name: rates.need((name,)).value for name in _COMPRESSED if rates and rates.has(name)}
    known = {name: Kind("compressed", ratio=ratio[name]) for name in _COMPRESSED}
    keys = [fields.key("layer_types"), *([rates.path] if rates else [])]
    return Kinds(tuple(_word(fields, "layer_types", known, one) for one in entries), ", ".join(keys))


def _from_numbers(fields: Fields, family: str, total: int) -> Kinds | None:
    """Lists of 0 and 1: MiniMax-01's of linear attention, MiMo's of windows, Llama-4's of positions, MiniMax-M3's."""
    sparse = fields.inner("sparse_attention_config")
    if sparse is not None and sparse.flag("use_sparse_attention") is False:
        return None
    for table, name, zero, one in (
        (fields, "attn_type_list", "linear", "full"),
        (fields, "hybrid_layer_pattern", "full", "sliding"),
        (sparse, "sparse_attention_freq", "full", "sparse"),
    ):
        if table is None or (entries := _entries_of(table, name, total, fields)) is None:
            continue
        if any(entry not in (0, 1) for entry in entries):
            raise table.error(name, "give 0 or 1 for each layer")
        return Kinds(tuple(Kind(one if entry else zero) for entry in entries), table.key(name))
    return None


def _entries_of(table: Fields, name: str, total: int, around: Fields) -> "list[object] | None":
    if table is around:
        return _entries(table, name, total)
    value = table.table.get(name)
    if isinstance(value, list) and len(value) != total:
        raise UserError(f"{table.source}: {table.key(name)} has {len(value)} entries for {total} layers")
    return value if isinstance(value, list) else None


def _from_rule(fields: Fields, family: str, total: int) -> Kinds | None:
    layers = range(total)
    if family in ("llama4", "llama4_text"):
        if not fields.has("attention_chunk_size"):
            return None
        listed = _entries(fields, "no_rope_layers", total)
        rope = [bool(one) for one in listed] if listed else [bool((i + 1) % 4) for i in layers]
        key = fields.key("no_rope_layers") if listed else "the architecture"
        return Kinds(tuple(Kind("chunked" if one else "full") for one in rope), key)
    if (linear := fields.inner("linear_attn_config")) is not None and linear.has("kda_layers"):
        return _kda(linear, total)
    if period := fields.whole("attn_layer_period", least=1):
        offset = fields.need(("attn_layer_offset",), least=0)
        full = [i % period.value == offset.value for i in layers]
        return Kinds(tuple(Kind("full" if one else "mamba") for one in full), f"{period.key}, {offset.key}")
    if interval := fields.whole("full_attention_interval", least=1):
        full = [(i + 1) % interval.value == 0 for i in layers]
        return Kinds(tuple(Kind("full" if one else "linear") for one in full), interval.key)
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        if every := fields.whole(name, least=1):
            full = [(i + 1) % every.value == 0 for i in layers]
            return Kinds(tuple(Kind("full" if one else "sliding") for one in full), every.key)
    return None


_KDA_LISTS = ("kda_layers", "full_attn_layers")


def _kda(linear: Fields, total: int) -> Kinds:
    """Kimi-Linear's two lists, which count layers from 1 and name each once."""
    kda, full = ([*value] if isinstance(value := linear.table.get(name), list) else [value] for name in _KDA_LISTS)
    key = f"{linear.key('kda_layers')}, {linear.key('full_attn_layers')}"
    if any(not isinstance(one, int) for one in (*kda, *full)) or sorted((*kda, *full)) != list(range(1, total + 1)):
        raise UserError(f"{linear.source}: {key} do not name each of {total} layers once, from 1", fix="name each once")
    return Kinds(tuple(Kind("linear" if i in kda else "full") for i in range(1, total + 1)), key)


def _all(fields: Fields, family: str, total: int) -> Kinds:
    """Every layer alike: full attention, or a window where the family's code applies one."""
    window = fields.has("sliding_window") and fields.table["sliding_window"] != 0
    if window and fields.flag("use_sliding_window") is not False and family not in _NO_WINDOW:
        if family in _ALWAYS_WINDOW and fields.flag("use_sliding_window") is None:
            return Kinds((Kind("sliding"),) * total, fields.key("sliding_window"))
        if fields.flag("use_sliding_window") or not family.startswith(("qwen2", "qwen3")):  # off by default in those
            raise fields.error("sliding_window", "which layers have the window is not known here; name layer_types")
    return Kinds((Kind("full"),) * total, "no field of other kinds of attention")


def _with_shared_indices(fields: Fields, kinds: Kinds) -> Kinds:
    """GLM-5.2 and later: layers that use the choice of tokens of an earlier one."""
    shared = list(_shared(fields, len(kinds.layers)))
    if not any(shared):
        return kinds
    named = [name for name in ("indexer_types", "index_topk_pattern", "index_topk_freq") if fields.has(name)]
    layers = tuple(
        one._replace(shared_index=flag and one.word == "full") for one, flag in zip(kinds.layers, shared, strict=True)
    )
    return Kinds(layers, ", ".join((kinds.key, fields.key(named[0]))))


def _shared(fields: Fields, total: int) -> Iterator[bool]:
    for name in ("indexer_types", "index_topk_pattern"):
        if (entries := _entries(fields, name, total)) is not None:
            words = {"full": False, "F": False, "shared": True, "S": True}
            if odd := [one for one in entries if not isinstance(one, str) or one not in words]:
                raise UserError(f"{fields.source}: {fields.key(name)}", value=odd[0], fix="use full or shared")
            yield from (words[str(one)] for one in entries)
            return
    every, offset = fields.whole("index_topk_freq", least=1), fields.whole("index_skip_topk_offset")
    if every is None or every.value == 1:
        yield from (False for _ in range(total))
        return
    first = 2 if offset is None else offset.value
    yield from (max(i - first + 1, 0) % every.value != 0 for i in range(total))


_LOOKS = re.compile(
    r"attn|attention|window|linear_|mamba|ssm|conv|index|sparse|compress|lora|latent|head_dim|_heads|qk_|kv_|_kv|delta"
    r"|recur|rwkv|engram|shared_layers|loop|no_op|block_config|per_layer|lightning|retention|gating|^use_cla$"
)
_HARMLESS = re.compile(
    r"bias|dropout|_token_index|ignore_index|norm|_act$|_eps$|rope|theta|dtype|scale|softcap|cross_attention|kernels$"
    r"|output_attentions|bidirectional|attn_implementation|reward_heads|_beta$|_factor$|value_residual|interleave"
    r"|index_share_for_mtp|lower_bound|_alpha$|z_loss|chunk_size$|sink|expand$|dt_|initializer|pretraining"
    r"|max_window_layers|moe_|_moe|expert|mlp_only|decoder_sparse|vocab|mtp|ssm_cache|use_cache|cache_implementation"
    r"|_compression_method|multiplier|temperature|_scalar$|^num_key_value_heads$|^num_attention_heads$|res_block|grad|layer_index|flash|cache_config"
)

_OF_KINDS = frozenset((
    "layers_block_type", "hybrid_override_pattern", "layer_types", "attn_type_list", "hybrid_layer_pattern",
    "no_rope_layers", "attn_layer_period", "attn_layer_offset", "full_attention_interval", "sliding_window_pattern",
    "_sliding_window_pattern", "use_sliding_window", "global_attn_every_n_layers",
    "prefix_dense_sliding_window_pattern",
))  # fmt: skip
"""Fields that say which layers are of which kind; where a file has several, the first that is read counts."""


def check_attention_known(fields: Fields, read: frozenset[str]) -> None:
    """Raise an error for a field that looks as if it shaped attention and that was not read.

    Args:
        fields: the text model's table.
        read: names of fields that were read or do not matter to the kinds that the model has.

    Raises:
        UserError: it names the fields.
    """
    odd = [
        name
        for name, value in fields.table.items()
        if name not in read
        and name not in _OF_KINDS
        and _LOOKS.search(name)
        and not _HARMLESS.search(name)
        and not (value in (None, False, 0, [], {}) or isinstance(value, str))
    ]
    if odd:
        raise UserError(
            f"{fields.source}: attention of a form that is not known here: "
            + ", ".join(f"{fields.key(name)} = {fields.table[name]!r}"[:80] for name in odd[:4]),
            fix="the MoE shape alone can be read",
        )
