"""The data type of each part of a model, as its config says it: what is quantised, and what stays as it was."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moe_codesign.domain.dtype import DTYPE_BYTES, name_of_dtype
from moe_codesign.domain.model_shape import PartTypes
from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields
from moe_codesign.models.quantization import (
    ALGORITHMS,
    QUANTIZATION_TABLES,
    ReadDtype,
    type_of_group,
    type_of_linear_layers,
)

_LEFT_OUT = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude")
_USUAL = "bfloat16"


class Module(NamedTuple):
    """A matrix as checkpoints name it.

    Args:
        part: of :class:`~moe_codesign.domain.model_shape.PartTypes`.
        names: its path from ``layers.N`` on, by each name that modelling code gives it.
        parameters: its weights.
    """

    part: str
    names: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class ReadTypes:
    """Types of parts, the key of each, and what is not plain about them."""

    types: PartTypes
    sources: dict[str, str]
    notes: tuple[str, ...]


def read_types(around: list[Fields], experts: ReadDtype | None, modules: Sequence[Module]) -> ReadTypes:
    """The type of each part.

    A part of which some matrices are quantised and others are not has the type of most of its weights, and a note says
    so. The cache is of the plain type unless the file names another; states of recurrences are float32 likewise.

    Args:
        around: tables that may say it, the innermost first.
        experts: type of the routed experts, as it was read; None for a dense model.
        modules: the model's matrices, without routed experts.

    Raises:
        UserError: a type that is not known here.
    """
    plain, plain_key = _plain(around)
    table, holder = next(
        ((inner, one) for one in around for name in QUANTIZATION_TABLES if (inner := one.inner(name)) is not None),
        (None, None),
    )
    sources: dict[str, str] = {"rest": plain_key}
    found = dict.fromkeys(("shared", "dense", "attention", "head"), plain)
    sources |= dict.fromkeys(found, plain_key)
    notes: list[str] = []
    group = 128
    if table is not None and holder is not None:
        for part, name, share in _quantized(table, modules, plain):
            found[part], sources[part] = name, table.path
            if 0.01 < share < 0.99:
                notes.append(f"{share:.0%} of the weights of {part} are quantised; the part is taken as {name}")
        group = _group(table) or group
    if experts is not None:
        if experts.name is None and experts.key is not None:
            raise UserError(f"{around[0].source}: the data type of the experts is not known here ({experts.note})")
        found["experts"], sources["experts"] = experts.name or plain, experts.key or plain_key
    else:
        found["experts"] = found["dense"]
    found["kv_cache"], sources["kv_cache"] = _cache(around, table, plain)
    found["state"], sources["state"] = _state(around)
    index, sources["index_cache"] = _index(around, found["kv_cache"])
    return ReadTypes(
        PartTypes(**found, rest=plain, index_cache=index, int4_group=group),
        {f"types.{part}": key for part, key in sources.items()},
        tuple(notes),
    )


def _plain(around: list[Fields]) -> tuple[str, str]:
    """The type of what is not quantised."""
    for one in around:
        for name in ("dtype", "torch_dtype"):
            text = one.table.get(name)
            if text is not None and not isinstance(text, str):
                raise one.error(name, "that data type is not known here")
            if text is not None and text != "auto":
                if (known := name_of_dtype(text)) is None:
                    raise one.error(name, "that data type is not known here")
                if known in ("bfloat16", "float16", "float32"):
                    return known, one.key(name)
    return _USUAL, f"no field: {_USUAL}"


def _quantized(table: Fields, modules: Sequence[Module], plain: str) -> Iterator[tuple[str, str, float]]:
    """Parts that are quantised at least in part: the type of most of the part, and the share that is quantised."""
    rules = _rules(table)
    for part in dict.fromkeys(one.part for one in modules):
        by_type: dict[str, int] = {}
        for one in modules:
            if one.part == part:
                name = next((known for rule in rules if (known := rule.type_of(one)) is not None), plain)
                by_type[name] = by_type.get(name, 0) + one.parameters
        whole = sum(by_type.values())
        if not whole or set(by_type) == {plain}:
            continue
        yield part, max(by_type, key=lambda name: by_type[name]), 1 - by_type.get(plain, 0) / whole


@dataclass(frozen=True)
class _Rule:
    """Modules that a quantization turns into one type.

    Args:
        dtype: that type.
        modules: which; None for all linear layers but the head.
        but: those of them that stay as they were.
    """

    dtype: str
    modules: "_Names | None"
    but: "_Names"

    def type_of(self, module: Module) -> str | None:
        """The type, where the module is one of them."""
        taken = module.part != "head" if self.modules is None else self.modules.hold(module.names)
        return self.dtype if taken and not self.but.hold(module.names) else None


def _rules(table: Fields) -> list[_Rule]:
    """What a quantization table does to which modules; the first that takes a module counts.

    Raises:
        UserError: its form is not known here.
    """
    for name in _LEFT_OUT:
        if table.has(name) and not isinstance(table.table[name], list):
            raise table.error(name, "give a list of modules")
    but = _Names.of(one for name in _LEFT_OUT for one in (table.table.get(name) or []))
    layers, groups = table.table.get("quantized_layers"), table.table.get("config_groups")
    if isinstance(layers, dict):  # ModelOpt names each layer that it quantised and how
        nothing = _Names.of(())
        by_type: dict[str, list[str]] = {}
        for name, one in layers.items():
            algorithm = ALGORITHMS.get(str(one.get("quant_algo"))) if isinstance(one, dict) else None
            if algorithm is not None:
                by_type.setdefault(algorithm, []).append(name)
        rules = [_Rule(dtype, _Names.of(names), nothing) for dtype, names in by_type.items()]
        if table.has("weight_block_size"):  # its experts alone were made anew of a checkpoint in blocks of fp8
            rules.append(_Rule("fp8_block", None, nothing))
        return rules
    if isinstance(groups, dict) and any(_targets(group) != ["Linear"] for group in groups.values()):
        found = []
        for group in groups.values():
            if (dtype := type_of_group(group) if isinstance(group, dict) else None) is None:
                raise table.error("config_groups", "it has a group of a form that is not known here")
            targets = _targets(group)
            found.append(_Rule(dtype, None if "Linear" in targets else _Names.of(targets), but))
        return sorted(found, key=lambda rule: rule.modules is None)
    dtype = type_of_linear_layers(table)
    return [] if dtype is None else [_Rule(dtype, None, but)]


def _targets(group: object) -> list[str]:
    targets = group.get("targets") if isinstance(group, dict) else None
    return [one for one in targets if isinstance(one, str)] if isinstance(targets, list) else ["Linear"]


def _short(name: str) -> str:
    """A path without what stands before ``layers.``, which differs between releases of one model."""
    return (
        name[at:] if (at := name.find("layers.")) > 0 else name.removeprefix("model.").removeprefix("language_model.")
    )


@dataclass(frozen=True)
class _Names:
    """Modules by name: whole paths, parts of paths, patterns with ``*``, and regular expressions after ``re:``."""

    exact: frozenset[str]
    patterns: re.Pattern[str] | None

    @classmethod
    def of(cls, listed: Iterable[object]) -> "_Names":
        """As a quantization table lists them.

        Raises:
            UserError: a regular expression that cannot be read.
        """
        texts = [one for one in listed if isinstance(one, str)]
        patterns = [one for one in texts if one.startswith("re:") or set(one) & set("*?[")]
        written = [
            rf"(?:model\.)?(?:{one[3:]})" if one.startswith("re:") else rf"(?:.*\.)?{fnmatch.translate(_short(one))}"
            for one in patterns
        ]
        try:
            compiled = re.compile("|".join(f"(?:{one})" for one in written)) if written else None
        except re.error as error:
            raise UserError(f"a quantization names modules by a pattern that cannot be read ({error})") from error
        return cls(frozenset(_short(one) for one in texts if one not in patterns), compiled)

    def hold(self, names: tuple[str, ...]) -> bool:
        """Whether a module is among them by any of its names: itself, or what it stands in."""
        return any(self._holds(name) for name in names)

    def _holds(self, name: str) -> bool:
        parts = name.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if any(one in self.exact for one in (*above, *parts)):
            return True
        return self.patterns is not None and any(
            self.patterns.match(one) or self.patterns.match(f"model.{one}") for one in above
        )


def _group(table: Fields) -> int | None:
    """Weights that share a scale, of 4-bit integers."""
    groups = table.table.get("config_groups")
    weights = (
        [one.get("weights") for one in groups.values() if isinstance(one, dict)] if isinstance(groups, dict) else []
    )
    places = [table.table, *(one for one in weights if isinstance(one, dict))]
    for place in places:
        for name in ("group_size", "q_group_size"):
            value = place.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _cache(around: list[Fields], table: Fields | None, plain: str) -> tuple[str, str]:
    """The type of cached keys and values."""
    if table is not None:
        for name in ("kv_cache_quant_algo", "kv_cache_dtype"):
            text = table.table.get(name)
            if isinstance(text, str) and text not in ("auto", "none", "None"):
                known = ALGORITHMS.get(text.upper()) or name_of_dtype(text)
                if known is None or (known not in DTYPE_BYTES and known != "nvfp4"):
                    raise table.error(name, "that data type of a cache is not known here")
                return known, table.key(name)
        if (scheme := table.inner("kv_cache_scheme")) is not None:
            known = {("float", 8): "fp8", ("float", 4): "nvfp4", ("int", 8): "int8"}.get(
                (str(scheme.table.get("type")), scheme.table.get("num_bits") or 0)
            )
            if known is None:
                raise table.error("kv_cache_scheme", "that data type of a cache is not known here")
            return known, table.key("kv_cache_scheme")
    return (plain if plain != "float32" else _USUAL), "no field: as what is not quantised"


def _state(around: list[Fields]) -> tuple[str, str]:
    for one in around:
        for name in ("mamba_ssm_cache_dtype", "mamba_ssm_dtype"):
            if one.has(name):
                text = one.table[name]
                if not isinstance(text, str) or (known := name_of_dtype(text)) is None:
                    raise one.error(name, "that data type of a state is not known here")
                return known, one.key(name)
    return "float32", "no field: float32"


def _index(around: list[Fields], cache: str) -> tuple[str, str]:
    """The type of an index's keys: fp8 in DeepSeek's form, and that of the cache in MiniMax-M3's."""
    if any(one.has("index_topk") for one in around):
        return "fp8", "the architecture"
    return cache, "as the cache"
