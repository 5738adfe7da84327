"""Hugging Face ``config.json``, and Mistral's ``params.json``, to a model's shape and data type."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.files import read_json
from moe_codesign.models.config_fields import Fields, NoExpertsError, Whole, disagreement
from moe_codesign.models.families import FAMILIES, Family, family_name, family_of
from moe_codesign.models.layers import layers_with_experts
from moe_codesign.models.quantization import dtype_of
from moe_codesign.models.read_model import ReadModel, notes_on

_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "num_routed_experts")
_CHOSEN = (
    "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "num_selected_experts", "top_k_experts",
    "moe_topk", "moe_top_k", "moe_k", "router_topk",
)  # fmt: skip
_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_hidden_dim")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_SHARED_COUNT = (
    "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts", "n_shared_expert",
)  # fmt: skip
_SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "shared_experts_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
_SWITCHES = ("is_moe", "enable_moe_block", "use_moe")
_LATENT = ("moe_latent_size", "moe_hidden_size", "routed_expert_hidden_size")
_BESIDE = "hf_quant_config.json"
_ZERO = ("zero_expert_num",)
SIDE = ("vision", "visual", "audio", "talker", "image", "speech", "video", "mtp", "draft", "code2wav")
"""Words in the name of a table that belongs to no text model."""


def read_config(path: Path) -> ReadModel:
    """The model of a ``config.json`` or ``params.json`` (the file, or the folder that holds one).

    Raises:
        NoExpertsError: it describes no mixture of experts.
        UserError: no such file, not JSON, or a field that is missing or cannot be read.
    """
    config, source = load_config(path)
    return read_model(config, source=source)


def load_config(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON object of a ``config.json`` or ``params.json``, and the file it was read from.

    What ``hf_quant_config.json`` beside it says of quantization is taken in where the file itself says nothing.

    Raises:
        UserError: no such file, or no JSON object.
    """
    if path.is_dir():
        found = [path / name for name in ("config.json", "params.json") if (path / name).is_file()]
        path = found[0] if found else path / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object", fix="give a Hugging Face config.json")
    beside = path.with_name(_BESIDE)
    if path.name == "config.json" and "quantization_config" not in config and beside.is_file():
        # ModelOpt's older files keep the quantization apart.
        apart = read_json(beside)
        if isinstance(apart, dict):
            config = {**config, _BESIDE: apart.get("quantization")}
    return config, str(path)


def read_model(config: dict[str, Any], *, source: str = "config.json") -> ReadModel:
    """The model of a parsed ``config.json``.

    Args:
        config: the JSON object.
        source: the file, as messages name it.

    Raises:
        UserError: no mixture of experts; a field that is missing, is no single whole number, or disagrees with another;
            or an architecture that is no plain mixture of experts. It names the field and its value.
    """
    top = Fields(config, source)
    if is_mistral(config):
        return _read_mistral(top)
    main, others = _text_models(top)
    notes = [f"{', '.join(others)} have experts too, which are not part of this shape"] if others else []
    found = [_read(fields, name_of(top, fields), _around(top, fields), notes) for fields in main]
    if any(dataclasses.replace(one.shape, name="") != dataclasses.replace(found[0].shape, name="") for one in found):
        raise UserError(
            f"{source}: {len(main)} tables have experts: " + ", ".join(one.path or "the top" for one in main),
            fix="give a file with one of them",
        )
    return found[0]


def is_mistral(config: Mapping[str, Any]) -> bool:
    """Whether a config is Mistral's own ``params.json`` of a mixture of experts."""
    return isinstance(config.get("moe"), dict) and "dim" in config


def text_table(top: Fields) -> list[Fields]:
    """The table of the text model that has experts, and those around it, the innermost first.

    Raises:
        NoExpertsError: no table has experts.
    """
    main = _text_models(top)[0][0]
    return [main, *_around(top, main)[1:]]


def name_of(top: Fields, fields: Fields) -> str:
    """The model's name, as its file says it, or the type or the folder that it stands in."""
    named = top.table.get("_name_or_path")
    if not named:
        folder = Path(top.source).resolve().parent.name if Path(top.source).is_file() else ""
        named = fields.table.get("model_type") or top.table.get("model_type") or folder
    return str(named or "config")


def _around(top: Fields, fields: Fields) -> list[Fields]:
    """The table and those around it, the innermost first."""
    chain = [top]
    for key in fields.path.split(".") if fields.path else ():
        inner = chain[-1].inner(key)
        assert inner is not None
        chain.append(inner)
    return chain[::-1]


def _text_models(top: Fields) -> tuple[list[Fields], list[str]]:
    """The tables that may describe the text model's experts, and the paths of others that have experts too.

    Raises:
        UserError: no table has experts.
    """
    holders = list(_holders(top, 0))
    main = [one for one in holders if not any(word in one.path.lower() for word in SIDE)]
    if not holders:
        why = "; ".join(_denials(top, 0))
        raise NoExpertsError(
            f"{top.source} describes no mixture of experts" + (f" ({why})" if why else ""),
            fix="it needs one of " + ", ".join(_EXPERTS),
        )
    return main or holders, [one.path for one in holders if main and one not in main]


def _holders(fields: Fields, depth: int) -> Iterator[Fields]:
    """Every table, from the outside, that speaks of experts."""
    speaks = [name for name in _EXPERTS if fields.has(name)]
    if speaks and not _is_one(fields, speaks):
        yield fields
    for name, value in fields.table.items():
        if isinstance(value, dict) and depth < 4 and name not in ("per_layer_config", "quantization_config"):
            inner = fields.inner(name)
            assert inner is not None
            if name == "ffn_config" and any(inner.has(one) for one in _EXPERTS):  # DBRX keeps its experts apart
                yield fields.with_inner(name)
            else:
                yield from _holders(inner, depth + 1)


def _denials(fields: Fields, depth: int) -> Iterator[str]:
    """Fields by which a table that names experts says that it has no mixture of them."""
    for name in (*_EXPERTS, *_SWITCHES):
        value = fields.table.get(name, "")
        if value in (None, False) or (name in _EXPERTS and value in (0, 1)):
            yield f"{fields.key(name)} is {'null' if value is None else str(value).lower()}"
    for name, value in fields.table.items():
        if isinstance(value, dict) and depth < 4 and (inner := fields.inner(name)) is not None:
            yield from _denials(inner, depth + 1)


def _is_one(fields: Fields, names: list[str]) -> bool:
    """Whether the table says that it has no mixture: ``is_moe`` and its like false, or one expert."""
    if any(fields.flag(name) is False for name in _SWITCHES):
        return True
    return all(fields.table[name] in (0, 1) and not isinstance(fields.table[name], bool) for name in names)


def _read(fields: Fields, name: str, around: list[Fields], notes: list[str]) -> ReadModel:
    family = family_of(fields.table)
    family = family if family_name(fields.table) in FAMILIES or len(around) < 2 else family_of(around[1].table)
    if family.refused:
        raise UserError(f"{fields.source}: {family_name(fields.table)} is no plain mixture: {family.refused}")
    hidden = fields.need(_HIDDEN)
    experts = fields.need(_EXPERTS, least=2)
    chosen = Whole(family.chosen, "the architecture") if family.chosen else fields.need(_CHOSEN)
    width = _width(fields, family)
    shared = _shared(fields, family, width)
    layers = layers_with_experts(fields, family)
    latent = fields.one_of(_LATENT, least=1)
    zero = _zero(fields, family)
    gated = _gated(fields, family)
    _check_layers_are_alike(fields)
    dtype = dtype_of(around)
    sources = {
        "hidden_size": hidden.key,
        "moe_intermediate_size": width.key,
        "num_experts": experts.key,
        "num_experts_per_tok": chosen.key,
        "n_shared_experts": shared.key,
        "num_layers": layers.key,
        "gated": gated[1],
        **({"moe_latent_size": latent.key} if latent else {}),
        **({"zero_expert_num": zero.key} if zero.value else {}),
        **({"dtype": dtype.key} if dtype.key else {}),
    }
    shape = MoEShape(
        name=name,
        hidden_size=hidden.value,
        moe_intermediate_size=width.value,
        num_experts=experts.value,
        num_experts_per_tok=chosen.value,
        n_shared_experts=shared.value,
        num_layers=layers.value,
        gated=gated[0],
        moe_latent_size=latent.value if latent and latent.value != hidden.value else None,
        zero_expert_num=zero.value,
    )
    said = (*notes, *notes_on(shape), *filter(None, (dtype.note, family.note)))
    return ReadModel(shape, dtype.name, sources, said)


def _width(fields: Fields, family: Family) -> Whole:
    """The width of a routed expert; ``intermediate_size`` is taken only of families whose experts have it."""
    if found := fields.one_of(_WIDTH, least=1):
        return found
    for name in _WIDTH:
        if name in fields.table and name not in family.width:
            raise UserError(f"{fields.source}: {fields.key(name)} is null", fix="give one whole number")
    names = family.width
    if fields.has("dense_intermediate_size"):  # Inkling: the dense layers' width has a field of its own
        names = ("intermediate_size",)
    if fields.has("ffn_hidden_size"):
        names = (*names, "ffn_hidden_size")
    if names and (found := fields.one_of(names, least=1)):
        return found
    near = " (intermediate_size is not taken: in most models it is the width of dense layers)"
    kind = family_name(fields.table) or "a model without model_type"
    raise UserError(
        f"{fields.source}: {kind} has no field for the width of an expert"
        + (near if fields.has("intermediate_size") else ""),
        fix="it needs " + " or ".join(_WIDTH),
    )


def _shared(fields: Fields, family: Family, width: Whole) -> Whole:
    """Shared experts, in widths of a routed expert.

    Raises:
        UserError: their width is no multiple of a routed expert's, or it is not plain whose width a field holds.
    """
    count, own = fields.one_of(_SHARED_COUNT), fields.one_of(_SHARED_WIDTH)
    if count is not None and family.only_shared not in (None, count.value):
        only = f"{family_name(fields.table)} is known to build {family.only_shared} alone"
        raise fields.error(count.key.split(".")[-1], only)
    if own is None and fields.table.get("residual_moe") is True:  # Grok-2: a dense layer beside the experts
        own = fields.need(("intermediate_size",))
        own = Whole(own.value, f"{fields.key('residual_moe')}, {own.key}")
    if own is None and fields.table.get("use_residual") is True:  # Arctic: likewise, as wide as a token
        own = Whole(fields.need(_HIDDEN).value, f"{fields.key('use_residual')}, {fields.need(_HIDDEN).key}")
    if own is None or own.value == 0:
        if count is not None:
            return count
        implicit = family.implicit_shared
        return Whole(implicit, own.key if own else "the architecture" if implicit else "no field of shared experts")
    if count is not None and count.value == 0:
        return count
    total = own.value
    if count is not None and count.value > 1:
        together = family.shared_total
        if together is None and own.value not in (width.value, width.value * count.value):
            raise UserError(
                f"{fields.source}: {count.key} is {count.value} and {own.key} is {own.value}",
                fix="whether that is the width of one or of all shared experts is not known here; give one of them",
            )
        if together is None:
            together = own.value != width.value
        total = own.value if together else own.value * count.value
    if total % width.value:
        raise UserError(
            f"{fields.source}: {own.key} {total} is {total / width.value:.3g} times the {width.value} of {width.key}",
            fix="a shape holds whole shared experts of a routed expert's width",
        )
    return Whole(total // width.value, ", ".join(one.key for one in (count, own) if one))


def _zero(fields: Fields, family: Family) -> Whole:
    if family.skipped:
        return Whole(family.skipped, "the architecture")
    return fields.one_of(_ZERO) or Whole(0, "")


def _gated(fields: Fields, family: Family) -> tuple[bool, str]:
    """Whether experts have a gate, and what says so: the family, or an activation that no gated layer has."""
    if not family.gated:
        return False, "the architecture"
    if family_name(fields.table) in FAMILIES:
        return True, "the architecture"
    for name in ("mlp_hidden_act", "hidden_act", "hidden_activation"):
        if isinstance(text := fields.table.get(name), str):
            return text != "relu2", fields.key(name)
    return True, "no field of an activation"


def _check_layers_are_alike(fields: Fields) -> None:
    """Raise UserError where single layers have experts of their own."""
    own = fields.inner("per_layer_config")
    if own is None:
        return
    speaks = (*_EXPERTS, *_CHOSEN, *_WIDTH, *_SHARED_COUNT, *_SHARED_WIDTH, *_LATENT)
    for layer in own.table:
        if (one := own.inner(layer)) is not None and (named := [name for name in speaks if one.has(name)]):
            raise one.error(named[0], "this layer's experts are not those of the others, and a shape holds one kind")


def _read_mistral(top: Fields) -> ReadModel:
    """Mistral's own ``params.json``."""
    moe = top.inner("moe")
    assert moe is not None
    merged = top.with_inner("moe")
    hidden, layers = top.need(("dim",)), top.need(("n_layers",))
    experts, chosen = moe.need(("num_experts",), least=2), moe.need(("num_experts_per_tok",))
    width = moe.one_of(("expert_hidden_dim",), least=1) or top.need(("hidden_dim",))
    shared = moe.one_of(("num_shared_experts",)) or Whole(0, "no field of shared experts")
    counted = layers_with_experts(merged, Family())
    if (other := top.whole("num_hidden_layers")) and other.value != layers.value:
        raise disagreement(top.source, layers, other)
    dtype = dtype_of([top])
    shape = MoEShape(
        name=name_of(top, top),
        hidden_size=hidden.value,
        moe_intermediate_size=width.value,
        num_experts=experts.value,
        num_experts_per_tok=chosen.value,
        n_shared_experts=shared.value,
        num_layers=counted.value,
    )
    sources = {
        "hidden_size": hidden.key,
        "moe_intermediate_size": width.key,
        "num_experts": experts.key,
        "num_experts_per_tok": chosen.key,
        "n_shared_experts": shared.key,
        "num_layers": counted.key,
        "gated": "the architecture",
        **({"dtype": dtype.key} if dtype.key else {}),
    }
    return ReadModel(shape, dtype.name, sources, (dtype.note,) if dtype.note else ())
