"""Which experts the tokens of a batch choose: five kinds of routing, and the text that names each."""

import math
import re
from dataclasses import dataclass
from typing import TypeGuard, get_args

from moe_codesign.domain.expert_loads import expert_loads
from moe_codesign.errors import UserError

_FIX = (
    "use balanced, uniform, zipf:ALPHA, power_law:ALPHA, histogram:FILE.json or histogram:[1, 2, ..] (one number for "
    "each expert)"
)
_LARGEST_ALPHA = 100
_UNDERSCORED = re.compile(r"^(power_law|zipf)_(?=[\d.])(.*)")
"""As aiconfigurator spells them: power_law_1.2."""


@dataclass(frozen=True)
class GroupLimit:
    """A router's limit to its best groups of experts: choices come from ``kept`` of ``groups`` groups of equal size.

    DeepSeek-V3 limits its tokens to 4 of 8 groups.

    Raises:
        UserError: fewer than one group is kept, or more than there are.
    """

    groups: int
    kept: int

    def __post_init__(self) -> None:
        for number in (self.groups, self.kept):
            if isinstance(number, bool) or not isinstance(number, int):
                raise UserError("routing groups", value=str(self), fix="give whole numbers, as in balanced/8/4")
        if not 0 < self.kept <= self.groups:
            raise UserError("routing groups", value=str(self), fix="keep 1 group or more, no more than there are")

    def __str__(self) -> str:
        return f"{self.groups}/{self.kept}"


@dataclass(frozen=True)
class Balanced:
    """Every expert gets the same number of rows, as nearly as whole numbers allow.

    ``limit`` reproduces the balanced choices that published measurements carry, not what a router does: the logits
    behind them distinguish chosen from not chosen and nothing else, so that among equals the first are taken and the
    counts are far from even. With ``balanced/8/4``, 256 experts and top-8, all tokens choose experts 0 to 3.
    """

    limit: GroupLimit | None = None

    def __post_init__(self) -> None:
        _check_limit(self.limit)

    @property
    def is_limited(self) -> bool:
        """Whether some groups of experts cannot be chosen."""
        return _leaves_out(self.limit)

    def __str__(self) -> str:
        return "balanced" + _suffix(self.limit)


@dataclass(frozen=True)
class Uniform:
    """Every token chooses k distinct experts at random, all equally likely."""

    def __str__(self) -> str:
        return "uniform"


@dataclass(frozen=True)
class Zipf:
    """Every token chooses k distinct experts at random; an expert's popularity is its rank to the power of ``-alpha``.

    Raises:
        UserError: alpha is not a number above 0 and below 100.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __str__(self) -> str:
        return f"zipf:{_number(self.alpha)}"


@dataclass(frozen=True)
class PowerLaw:
    """Loads drawn from the density x**-alpha: aiconfigurator's construction, which its measurements carry.

    ``limit`` is as for :class:`Balanced`.

    Raises:
        UserError: alpha is not a number above 0 and below 100.
    """

    alpha: float
    limit: GroupLimit | None = None

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        _check_limit(self.limit)

    @property
    def is_limited(self) -> bool:
        """Whether some groups of experts cannot be chosen."""
        return _leaves_out(self.limit)

    def __str__(self) -> str:
        return f"power_law:{_number(self.alpha)}" + _suffix(self.limit)


@dataclass(frozen=True)
class Histogram:
    """Loads in proportion to counts that were measured in a real model, one for each expert.

    Its text holds the counts themselves (``histogram:[3, 1, 0, 4]``), so that it means the same wherever it is read.

    Args:
        weights: the count of each expert.
        is_sparse: experts after the last one that is given have no rows; else there must be one count for each.

    Raises:
        UserError: no counts, a negative or infinite one, or all 0.
    """

    weights: tuple[float, ...]
    is_sparse: bool = False

    def __post_init__(self) -> None:
        good = all(_is_number(weight) and weight >= 0 for weight in self.weights)
        if not good or not 0 < sum(self.weights) < math.inf:
            raise UserError("routing histogram", value=self.weights, fix="give finite counts of 0 or more, not all 0")

    def __str__(self) -> str:
        if self.is_sparse:
            given = (f'"{i}": {_number(weight)}' for i, weight in enumerate(self.weights) if weight)
            return f"histogram:{{{', '.join(given)}}}"
        return f"histogram:[{', '.join(map(_number, self.weights))}]"

    def of_experts(self, num_experts: int) -> tuple[float, ...]:
        """One count for each expert.

        Raises:
            UserError: there are counts of more experts, or of fewer and not :attr:`is_sparse`.
        """
        lacking = num_experts - len(self.weights)
        if lacking < 0 or (lacking and not self.is_sparse):
            raise UserError(
                f"routing histogram has {len(self.weights)} entries",
                fix=f"give one for each of num_experts = {num_experts}",
            )
        return self.weights + (0.0,) * lacking


Routing = Balanced | Uniform | Zipf | PowerLaw | Histogram
"""Any of the five kinds. ``str`` and :func:`parse_routing` are inverse."""
DEFAULT_ROUTING: Routing = Uniform()
"""The routing of every command, table and space that names none."""
DEFAULT_ROUTING_TEXT = str(DEFAULT_ROUTING)


@dataclass(frozen=True)
class RecordedLayers:
    """Loads that were recorded in several layers of one model, by layer: each is the routing of that layer.

    A time for them is the time of the layer that takes longest. Their text holds the counts of every layer
    (``histogram:[[], [3, 1], [2, 2]]``; a layer without any stays empty).

    Raises:
        UserError: there are fewer than two layers.
    """

    layers: tuple[tuple[int, Histogram], ...]

    def __post_init__(self) -> None:
        if len(self.layers) < 2:
            raise UserError("recorded layers", value=len(self.layers), fix="give two or more, or a Histogram")

    def __str__(self) -> str:
        texts = {layer: str(loads).partition(":")[2] for layer, loads in self.layers}
        return f"histogram:[{', '.join(texts.get(layer, '[]') for layer in range(max(texts) + 1))}]"


def is_routing(value: object) -> TypeGuard[Routing]:
    """Whether the value is one of the five kinds, not its text."""
    return isinstance(value, get_args(Routing))


def parse_routing(text: str) -> Routing:
    """Read ``balanced``, ``uniform``, ``zipf:ALPHA``, ``power_law:ALPHA`` or ``histogram:`` with JSON or a JSON file.

    ``/GROUPS/KEPT`` may follow balanced and power_law, as in ``power_law:1.2/8/4``; ``power_law_1.2`` is read too.

    Raises:
        UserError: the kind is unknown, alpha or the groups make no sense, or the histogram cannot be read.
    """
    routing = parse_layers(text)
    if isinstance(routing, RecordedLayers):
        named = str(text)[:80]
        raise UserError(
            f"routing {named!r} has {len(routing.layers)} layers", fix=f"name one, as {named}#{routing.layers[0][0]}"
        )
    return routing


def parse_layers(text: str) -> Routing | RecordedLayers:
    """Read what :func:`parse_routing` reads, and also recorded loads of several layers.

    Raises:
        UserError: as there.
    """
    kind, colon, argument = str(text).partition(":")
    if kind == "histogram":
        layers = histograms(argument)
        return RecordedLayers(tuple(layers.items())) if len(layers) > 1 else next(iter(layers.values()))
    text = _UNDERSCORED.sub(r"\1:\2", str(text))
    plain, slash, limits = str(text).partition("/")
    limit = _parse_limit(text, limits) if slash else None
    kind, colon, argument = plain.partition(":")
    if limit is not None and kind not in ("balanced", "power_law"):
        raise UserError("routing", value=text, fix="limit balanced or power_law to groups, no other")
    if kind in ("zipf", "power_law"):
        try:
            alpha = float(argument)
        except ValueError:
            raise UserError("routing", value=text, fix=_FIX) from None
        return Zipf(alpha) if kind == "zipf" else PowerLaw(alpha, limit)
    if kind not in ("balanced", "uniform"):
        raise UserError("routing", value=text, fix=_FIX)
    if colon:
        raise UserError("routing", value=text, fix=f"{kind} takes no argument")
    return Balanced(limit) if kind == "balanced" else Uniform()


def histograms(source: str) -> dict[int, Histogram]:
    """The routing of each layer of recorded loads, by layer.

    Args:
        source: JSON or the path of a JSON file; see :func:`moe_codesign.domain.expert_loads.expert_loads`.

    Raises:
        UserError: it cannot be read, or has no rows at all.
    """
    layers = expert_loads(source)
    if not layers:
        raise UserError(f"routing histogram {source[:80]!r}", fix="give counts that are not all 0")
    return {layer: Histogram(loads.counts, loads.is_sparse) for layer, loads in layers.items()}


def by_layer(routing: Routing | RecordedLayers) -> dict[int | None, Routing]:
    """The routing of each recorded layer; the routing itself, by None, where it is one."""
    return dict(routing.layers) if isinstance(routing, RecordedLayers) else {None: routing}


def _parse_limit(text: str, limits: str) -> GroupLimit:
    numbers = limits.split("/")
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() and len(number) < 7 for number in numbers):
        raise UserError("routing", value=text, fix="give groups and how many are kept, as in balanced/8/4")
    groups, kept = map(int, numbers)
    return GroupLimit(groups, kept)


def _check_alpha(alpha: float) -> None:
    if not _is_number(alpha) or not 0 < alpha < _LARGEST_ALPHA:
        raise UserError("routing alpha", value=alpha, fix=f"give a number above 0 and below {_LARGEST_ALPHA}")


def _check_limit(limit: GroupLimit | None) -> None:
    if limit is not None and not isinstance(limit, GroupLimit):
        raise UserError("routing groups", value=limit, fix="give a GroupLimit, as GroupLimit(groups=8, kept=4)")


def _leaves_out(limit: GroupLimit | None) -> bool:
    return limit is not None and limit.kept < limit.groups


def _suffix(limit: GroupLimit | None) -> str:
    return "" if limit is None else f"/{limit}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
