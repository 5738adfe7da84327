"""How many layers of a model hold experts, by whichever fields its config says it with."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from moe_codesign.domain.model_shape import MAX_LAYERS
from moe_codesign.errors import UserError
from moe_codesign.models.config_fields import Fields, NoExpertsError, Whole
from moe_codesign.models.families import Family

NUM_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_DENSE_FIRST = (
    "first_k_dense_replace",
    "first_k_dense_layers",
    "n_dense_first_layers",
    "num_dense_layers",
    "dense_mlp_idx",
)
"""Fields that hold how many layers at the bottom are dense."""
_INDICES = ("moe_layers", "moe_layers_enum", "moe_layer_indices", "moe_layer_list")
"""Fields that list the layers with experts by number."""
_MOE_WORDS = ("sparse", "moe", "hash_moe")
_KNOWN_WORDS = (*_MOE_WORDS, "dense")


class Said(NamedTuple):
    """Layers that hold experts, as one field or group of fields says."""

    layers: frozenset[int]
    key: str


def layers_with_experts(fields: Fields, family: Family) -> Whole:
    """How many layers hold experts, and the keys that say so.

    Lists that name the layers, and rules (the first K dense, every N-th) are both read. Where a config has both, they
    must name the same layers; a rule that says nothing (step 1, no dense layers) is passed over.

    Raises:
        UserError: a field cannot be read, two disagree, a field that the family needs is missing, or a field looks as
            if it chose layers and is not known.
    """
    if has_two_stacks(fields):
        return _encoder_decoder(fields, family)
    total = total_layers(fields, family)
    said = expert_layers(fields, family, total)
    return Whole(len(said.layers), ", ".join(filter(None, (total.key, said.key))))


def has_two_stacks(fields: Fields) -> bool:
    """Whether the model is an encoder with a decoder, each with experts (Switch Transformers, NLLB)."""
    return fields.has("encoder_sparse_step") or fields.has("num_sparse_encoder_layers")


def expert_layers(fields: Fields, family: Family, total: Whole) -> Said:
    """Which of ``total`` layers hold experts, by number from 0, and the keys that say so beside that of the total.

    Raises:
        UserError: as :func:`layers_with_experts`.
    """
    if family.every_layer:
        return Said(frozenset(range(total.value)), "")
    if family.layers and not any(name in fields.table and fields.table[name] is not None for name in family.layers):
        raise UserError(
            f"{fields.source}: nothing says which layers hold experts",
            fix="it needs one of " + ", ".join(fields.key(name) for name in family.layers),
        )
    lists = list(_lists(fields, total.value))
    if not lists:
        _check_known(fields)
    rules = list(_rules(fields, total.value))
    for one in lists[1:]:
        if one.layers != lists[0].layers:
            raise _differ(fields, lists[0], one)
    by_rule = frozenset(range(total.value)).intersection(*(rule.layers for rule in rules))
    ruled = Said(by_rule, " and ".join(rule.key for rule in rules))
    if lists and rules and by_rule != lists[0].layers:
        raise _differ(fields, lists[0], ruled)
    said = lists[0] if lists else ruled if rules else Said(by_rule, "")
    if not said.layers:
        raise NoExpertsError(
            f"{fields.source}: {said.key} leaves no layer with experts", fix="name a mixture of experts"
        )
    return said


def total_layers(fields: Fields, family: Family) -> Whole:
    """How many layers the model has, with experts or without.

    Raises:
        UserError: no field says it, or it is more than any model has, for all of which a list is made.
    """
    total = _total(fields, family)
    if total.value > MAX_LAYERS:
        raise UserError(f"{fields.source}: {total.key}", value=total.value, fix=f"give at most {MAX_LAYERS:,} layers")
    return total


def _total(fields: Fields, family: Family) -> Whole:
    if family.num_layers:
        return fields.need(family.num_layers)
    # Nemotron-H is as deep as its list of layers is long, and need not say so.
    for name in ("layers_block_type", "hybrid_override_pattern"):
        if fields.has(name) and not any(fields.has(key) for key in NUM_LAYERS):
            if not isinstance(fields.table[name], list | str):
                raise fields.error(name, "give an entry for each layer")
            return Whole(len(fields.table[name]), fields.key(name))
    return fields.need(NUM_LAYERS)


def _differ(fields: Fields, one: Said, other: Said) -> UserError:
    return UserError(
        f"{fields.source}: {one.key} names {len(one.layers)} layers with experts and {other.key} {len(other.layers)}"
        + ("" if len(one.layers) != len(other.layers) else ", but others"),
        fix="give one of them, or the same layers",
    )


def _lists(fields: Fields, total: int) -> Iterator[Said]:
    """What each field that lists layers one by one says."""
    for name in ("mlp_layer_types", "layers_block_type", "hybrid_override_pattern", "is_moe_layer", "moe_layer_freq"):
        value = fields.table.get(name)
        if isinstance(value, list if name != "hybrid_override_pattern" else str) and (
            said := _each(fields, name, value, total)
        ):
            yield said
    for name in _INDICES:
        if fields.has(name):
            yield Said(_indices(fields, name, total), fields.key(name))


def _each(fields: Fields, name: str, value: "list[object] | str", total: int) -> Said | None:
    """What a list with an entry for each layer says, or None where its words are not about experts."""
    if name == "layers_block_type" and not any(word in (*_MOE_WORDS, "mlp") for word in value):
        return None
    if len(value) != total:
        raise UserError(
            f"{fields.source}: {fields.key(name)} has {len(value)} entries for {total} layers",
            fix="give an entry for each layer",
        )
    if name == "mlp_layer_types" and (odd := [word for word in value if word not in _KNOWN_WORDS]):
        raise UserError(f"{fields.source}: {fields.key(name)}", value=odd[0], fix="use " + " or ".join(_KNOWN_WORDS))
    if name in ("is_moe_layer", "moe_layer_freq") and any(one not in (0, 1) for one in value):
        raise fields.error(name, "give 1 for a layer with experts and 0 for another")
    holds: Callable[[object], bool] = {
        "hybrid_override_pattern": lambda one: one == "E",
        "is_moe_layer": bool,
        "moe_layer_freq": bool,
    }.get(name, lambda one: one in _MOE_WORDS)
    return Said(frozenset(i for i, one in enumerate(value) if holds(one)), fields.key(name))


def _indices(fields: Fields, name: str, total: int) -> frozenset[int]:
    """Layers that a list of numbers, or a text of them with commas, names."""
    value = fields.table[name]
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        value = [int(part) if part.isascii() and part.isdigit() else part for part in parts]
    if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
        raise fields.error(name, "give the numbers of layers")
    if any(not 0 <= one < total for one in value):
        raise fields.error(name, f"give numbers of layers from 0 to {total - 1}")
    return frozenset(value)


def _rules(fields: Fields, total: int) -> Iterator[Said]:
    """What each field that holds a rule says, of those that say anything."""
    layers = range(total)
    for name in _DENSE_FIRST:
        if (dense := fields.whole(name)) and dense.value:
            yield Said(frozenset(layers[dense.value :]), dense.key)
    # The first of a step is layer 0, as DeepSeek counts, or the last of it, as Qwen, Llama and Arctic do.
    for name, shift in (
        ("moe_layer_freq", 0), ("moe_layer_frequency", 1), ("decoder_sparse_step", 1), ("interleave_moe_layer_step", 1),
    ):  # fmt: skip
        if isinstance(fields.table.get(name), list):
            continue
        if (step := fields.whole(name, least=1)) and step.value > 1:
            yield Said(frozenset(i for i in layers if (i + shift) % step.value == 0), step.key)
    if fields.table.get("mlp_only_layers"):
        yield Said(frozenset(layers) - _indices(fields, "mlp_only_layers", total), fields.key("mlp_only_layers"))
    if period := fields.whole("expert_layer_period", least=1):
        offset = fields.need(("expert_layer_offset",), least=0)
        if period.value > 1:
            holding = frozenset(i for i in layers if i % period.value == offset.value)
            yield Said(holding, f"{period.key}, {offset.key}")
    yield from _interval(fields, total)
    for name in ("moe_expert_interval", "route_every_n"):
        if (step := fields.whole(name, least=1)) and step.value > 1:
            raise fields.error(name, "only 1 is known here: which layers another number means is not")


def _interval(fields: Fields, total: int) -> Iterator[Said]:
    """ERNIE's rule: every ``moe_layer_interval``-th layer from ``moe_layer_start_index`` to ``moe_layer_end_index``."""
    start, interval = fields.whole("moe_layer_start_index"), fields.whole("moe_layer_interval", least=1)
    last, keys = total - 1, [one.key for one in (start, interval) if one]
    if fields.has("moe_layer_end_index"):
        end = fields.whole("moe_layer_end_index", least=-1)
        assert end is not None
        last = total - 1 if end.value == -1 else end.value
        keys.append(end.key)
    step, first = interval.value if interval else 1, start.value if start else 0
    holding = frozenset(i for i in range(total) if (i + 1) % step == 0 and first <= i <= last)
    if len(holding) < total:
        yield Said(holding, ", ".join(keys))


_STACKS = {"encoder": ("encoder_layers", "num_layers"), "decoder": ("decoder_layers", "num_decoder_layers")}
"""Fields of the number of layers of each stack of a model that has two: NLLB's and Switch's."""


def _encoder_decoder(fields: Fields, family: Family) -> Whole:
    """Layers of both stacks of Switch Transformers and NLLB."""
    count, keys = 0, []
    for stack, names in _STACKS.items():
        total = fields.need(names)
        keys.append(total.key)
        if step := fields.whole(f"{stack}_sparse_step"):
            every = step.value
            keys.append(step.key)
        else:
            sparse = fields.need((f"num_sparse_{stack}_layers",), least=0)
            every = total.value // sparse.value if sparse.value else 0
            keys.append(sparse.key)
        if family.chosen == 1:  # Switch: the second layer of each step
            count += sum(every == 1 or i % every == 1 for i in range(total.value)) if every else 0
        else:
            count += total.value // every if every else 0
    if not count:
        raise UserError(
            f"{fields.source}: {', '.join(keys)} leave no layer with experts", fix="name a mixture of experts"
        )
    return Whole(count, ", ".join(keys))


_LAYER_WORD = r"(layer|freq|step|interval|every|pattern|enum|idx|indices|offset|start|end|replace)"
_MOE_WORD = r"(moe|sparse|expert|dense)"
_LOOKS = re.compile(rf"{_MOE_WORD}.*{_LAYER_WORD}|{_LAYER_WORD}.*{_MOE_WORD}")
_KNOWN = frozenset((
    *_DENSE_FIRST, *_INDICES, "mlp_layer_types", "is_moe_layer", "moe_layer_freq", "moe_layer_frequency",
    "decoder_sparse_step", "interleave_moe_layer_step", "expert_layer_period", "expert_layer_offset",
    "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval", "moe_expert_interval", "encoder_sparse_step",
    "num_sparse_encoder_layers", "num_sparse_decoder_layers",
))  # fmt: skip
_EVERY = re.compile(r"freq|step|interval|every")
_OTHER = re.compile(
    r"^mtp_|^num_nextn|dropout|norm|bias|loss|coef|scal|eps|gate|router|attn|attention|pad_end|recompute|sliding|window"
)


def _check_known(fields: Fields) -> None:
    """Raise UserError for a field that looks as if it chose layers, is not known here, and says something."""
    for name, value in fields.table.items():
        if name in _KNOWN or not _LOOKS.search(name) or _OTHER.search(name):
            continue
        says_nothing = value in ([], 0, None) or isinstance(value, bool | str) or (value == 1 and _EVERY.search(name))
        if not says_nothing:
            raise fields.error(name, "it may say which layers hold experts, and its meaning is not known here")
