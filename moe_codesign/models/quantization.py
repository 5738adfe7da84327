"""The data type of a model's experts, as its config says it."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moe_codesign.domain.dtype import name_of_dtype
from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields

QUANTIZATION_TABLES = ("quantization_config", "compression_config", "hf_quant_config.json", "quantization")
"""Names of the table that says how a model is quantised."""
_MX_GROUP = 32


class ReadDtype(NamedTuple):
    """A type, the key that it came from, and what of the config could not be read."""

    name: str | None
    key: str | None
    note: str = ""


def dtype_of(fields: list[Fields]) -> ReadDtype:
    """The type of the experts' weights, and of what they are multiplied with.

    Args:
        fields: tables that may say it, the innermost first.

    Returns:
        One of :data:`moe_codesign.domain.dtype.DTYPE_BYTES` or ``OTHER_DTYPES``, or None where the config says nothing
        that is known.
    """
    for one in fields:
        for name in QUANTIZATION_TABLES:
            if (inner := one.inner(name)) is not None:
                return _quantized(inner, one)
    for one in fields:
        if isinstance(text := one.table.get("expert_dtype"), str):
            return _named(text, one.key("expert_dtype"))
    for one in fields:
        for name in ("dtype", "torch_dtype"):
            if isinstance(text := one.table.get(name), str) and text != "auto":
                return _named(text, one.key(name))
    return ReadDtype(None, None, "it names no data type")


def _named(text: str, key: str) -> ReadDtype:
    name = name_of_dtype(text)
    return ReadDtype(name, key, "" if name else f"{key} is {text!r}, a data type that is not known here")


def _quantized(table: Fields, around: Fields) -> ReadDtype:
    """What a quantization table says of the experts."""
    algorithms = _algorithms(table)
    if algorithms is not None:
        name = ALGORITHMS.get(algorithms.name or "")
        return ReadDtype(name, algorithms.key, "" if name else _unknown(algorithms.key, algorithms.name))
    for one in (table, around):
        if isinstance(text := one.table.get("expert_dtype"), str):
            key = one.key("expert_dtype")
            if text == "fp4":  # DeepSeek-V4: e2m1 with a power of two for each 32 weights, which is MXFP4
                return ReadDtype("mxfp4", key)
            if text != "fp8":
                return _named(text, key)
    if isinstance(text := table.table.get("qformat_weight"), str):  # Mistral's params.json
        return _named(text, table.key("qformat_weight"))
    key, method = _method(table)
    if left_out := _experts_left_out(table):
        return ReadDtype(None, key, f"{left_out} names experts, so that their data type is not plain")
    reader = _METHODS.get(method)
    found = reader(table.table) if reader is not None else None
    return ReadDtype(found, key, "" if found else _unknown(key, method))


def _method(table: Fields) -> tuple[str, str]:
    """The key of the method of a quantization table, and the method, as :data:`_METHODS` names it."""
    named = table.has("quant_method") or not table.has("quant_algo")
    key = table.key("quant_method" if named else "quant_algo")
    return key, str(table.table.get("quant_method") or "modelopt").lower().replace("_", "-")


def type_of_linear_layers(table: Fields) -> str | None:
    """The type that a quantization table gives to linear layers, or None where it leaves them as they were.

    Args:
        table: of a method that is the same for all linear layers that it does not leave out.

    Raises:
        UserError: its form is not known here, or groups of layers differ.
    """
    key, method = _method(table)
    if method == "mxfp4" and not table.has("config_groups"):  # gpt-oss: the experts alone
        return None
    if isinstance(text := table.table.get("qformat_weight"), str):  # Mistral's params.json
        found = name_of_dtype(text)
    else:
        reader = _METHODS.get(method)
        found = reader(table.table) if reader is not None else None
    if found is None:
        raise UserError(f"{table.source}: {_unknown(key, method)}".replace("of the experts", "of linear layers"))
    return found


def _unknown(key: str | None, value: str | None) -> str:
    return f"{key} is {value!r} in a form that is not known here, so that the data type of the experts is not read"


def _algorithms(table: Fields) -> ReadDtype | None:
    """ModelOpt's algorithm of the experts, where a table names it apart from that of other layers."""
    if isinstance(text := table.table.get("moe_quant_algo"), str):
        return ReadDtype(text, table.key("moe_quant_algo"))
    layers = table.table.get("quantized_layers")
    if not isinstance(layers, dict):
        return None
    found = {
        str(layer.get("quant_algo"))
        for name, layer in layers.items()
        if _EXPERTS.search(name) and isinstance(layer, dict)
    }
    return ReadDtype(" and ".join(sorted(found)), table.key("quantized_layers")) if found else None


_EXPERTS = re.compile(r"(?<!shared_)(?<!shared)experts")


def _experts_left_out(table: Fields) -> str | None:
    """The key of a list of modules that stay as they were, where it names routed experts."""
    for name in ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude"):
        value = table.table.get(name)
        if isinstance(value, list) and any(isinstance(one, str) and _EXPERTS.search(one) for one in value):
            return table.key(name)
    return None


def _fp8(table: Mapping[str, Any]) -> str | None:
    return "fp8_block" if table.get("weight_block_size") else "fp8"


def _by_bits(table: Mapping[str, Any]) -> str | None:
    return {4: "int4", 8: "int8_weight_only"}.get(_whole(table.get("bits", table.get("w_bit"))))


def _groups(table: Mapping[str, Any]) -> str | None:
    """compressed-tensors and ModelOpt: groups of layers, with their weights and what enters them."""
    groups = table.get("config_groups")
    if not isinstance(groups, dict):
        return None
    found = [group for group in groups.values() if isinstance(group, dict)]
    of_experts = [
        group for group in found if any(_EXPERTS.search(str(target)) for target in group.get("targets") or ())
    ]
    names = {type_of_group(group) for group in of_experts or found}
    return names.pop() if len(names) == 1 else None


def type_of_group(group: Mapping[str, Any]) -> str | None:
    """The type of a group of layers of compressed-tensors or ModelOpt, or None where its form is not known here."""
    weights, entering = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, dict):
        return None
    kind, bits = str(weights.get("type")), _whole(weights.get("num_bits"))
    if (kind, bits) == ("float", 4):
        return "mxfp4" if weights.get("group_size") == _MX_GROUP else "nvfp4"
    if not isinstance(entering, dict):
        return {("int", 4): "int4", ("int", 8): "int8_weight_only", ("float", 8): "fp8_weight_only"}.get((kind, bits))
    if _whole(entering.get("num_bits")) != bits:
        return "w4a8" if bits == 4 else None
    if (kind, bits) == ("float", 8):
        return "fp8_block" if weights.get("strategy") == "block" else "fp8"
    return "int8" if (kind, bits) == ("int", 8) else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PB_WO": "fp8_block",
    "NVFP4": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "W4A16_AWQ": "int4",
    "W4A8_AWQ": "w4a8",
    "MXFP4": "mxfp4",
    "MXFP8": "mxfp8",
}
"""ModelOpt's names."""


def _modelopt(table: Mapping[str, Any]) -> str | None:
    return ALGORITHMS.get(str(table.get("quant_algo")).upper()) or _groups(table)


def _quark(table: Mapping[str, Any]) -> str | None:
    whole = table.get("global_quant_config")
    weight = whole.get("weight") if isinstance(whole, dict) else None
    if not isinstance(weight, dict):
        return None
    if weight.get("dtype") == "fp4":
        return "mxfp4" if weight.get("group_size") == _MX_GROUP else "nvfp4"
    return "fp8" if str(weight.get("dtype")).startswith("fp8") else None


def _bitsandbytes(table: Mapping[str, Any]) -> str | None:
    return "nf4" if table.get("load_in_4bit") else "int8" if table.get("load_in_8bit") else None


def _always(name: str) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda _: name


_METHODS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "fp8": _fp8,
    "fbgemm-fp8": _always("fp8"),
    "mxfp4": _always("mxfp4"),
    "nvfp4": _always("nvfp4"),
    "mxfp8": _always("mxfp8"),
    "awq": _by_bits,
    "gptq": _by_bits,
    "auto-round": _by_bits,
    "compressed-tensors": _groups,
    "modelopt": _modelopt,
    "modelopt-fp4": _modelopt,
    "quark": _quark,
    "bitsandbytes": _bitsandbytes,
}
"""What each ``quant_method`` means, from the rest of its table."""
