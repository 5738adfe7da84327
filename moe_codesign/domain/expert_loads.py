"""Recorded loads of experts, as the tools that record them write JSON.

A list of counts is one layer's; a list of lists is [layers][experts] (EPLB, vLLM); an object from expert to count
leaves out experts without rows; ``{"logical_count": ...}`` is SGLang's, [layers][experts] or [steps][layers][experts].
"""

import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_codesign.errors import UserError, first_line
from moe_codesign.files import read_file

_MOST_EXPERTS = 2**20
_FIX = (
    "give JSON: a list of one count for each expert, an object from expert to count, a list of such lists for each "
    'layer, or {"logical_count": [[..]]}'
)


@dataclass(frozen=True)
class Loads:
    """Counts of one layer.

    Args:
        counts: of each expert.
        is_sparse: experts after the last are not given because they have no rows.
    """

    counts: tuple[float, ...]
    is_sparse: bool = False


def expert_loads(source: str) -> Mapping[int, Loads]:
    """Loads by layer; one that has no rows at all (a dense one) is left out.

    Args:
        source: JSON, or the path of a JSON file. ``#N`` behind either takes layer N alone.

    Raises:
        UserError: it cannot be read, is no record of loads, or lacks that layer.
    """
    named, mark, layer = source.rpartition("#")
    if not mark or not (layer.isascii() and layer.isdigit()):
        return _every_layer(source)
    every = _every_layer(named)
    if int(layer) not in every:
        raise UserError(
            f"routing histogram {named[:80]}: layer", value=int(layer), fix=f"give one of {_ranges(sorted(every))}"
        )
    return {int(layer): every[int(layer)]}


def _every_layer(source: str) -> Mapping[int, Loads]:
    return _layers(source, source) if source.lstrip()[:1] in ("[", "{") else _of_file(source)


def _of_file(path: str) -> Mapping[int, Loads]:
    try:
        stat = Path(path).stat()
        return _read_once(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError) as error:
        raise UserError(f"routing histogram {path[:80]!r} cannot be read ({first_line(error)})", fix=_FIX) from None


@functools.lru_cache(maxsize=64)
def _read_once(path: str, modified_ns: int, size: int) -> Mapping[int, Loads]:
    """A file's loads; many rows of a table name the same one. The last two arguments tell its versions apart."""
    return _layers(read_file(Path(path)).decode("utf-8-sig"), path)


def _layers(content: str, source: str) -> dict[int, Loads]:
    try:
        layers = _every(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"routing histogram {source[:80]!r} cannot be read ({first_line(error)})", fix=_FIX) from None
    return layers if len(layers) == 1 else {i: one for i, one in layers.items() if any(one.counts)}


def _every(value: Any) -> dict[int, Loads]:
    if isinstance(value, dict) and "logical_count" in value:
        return _every(_summed(value["logical_count"]))
    if isinstance(value, dict):
        return {0: _sparse(value)}
    if not isinstance(value, list) or not value:
        raise ValueError("neither a list nor an object of counts")
    if isinstance(value[0], list | dict):
        return {i: _sparse(one) if isinstance(one, dict) else Loads(_numbers(one)) for i, one in enumerate(value)}
    return {0: Loads(_numbers(value))}


def _summed(value: Any) -> Any:
    """SGLang's counts [steps][layers][experts] over all steps; others as they are."""
    if not (isinstance(value, list) and value and isinstance(value[0], list)):
        return value
    if not (value[0] and isinstance(value[0][0], list)):
        return value
    layers = [[_numbers(layer) for layer in step] for step in value]
    return [[sum(counts) for counts in zip(*steps, strict=True)] for steps in zip(*layers, strict=True)]


def _sparse(value: dict[str, Any]) -> Loads:
    if not value or not all(key.isdigit() and int(key) < _MOST_EXPERTS for key in value):
        raise ValueError("an object whose names are not numbers of experts")
    counts = dict(zip(map(int, value), _numbers(list(value.values())), strict=True))
    last = max((expert for expert, count in counts.items() if count), default=0)
    return Loads(tuple(counts.get(expert, 0.0) for expert in range(last + 1)), is_sparse=True)


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise ValueError("counts that are not numbers")
    return tuple(map(float, values))


def _ranges(layers: list[int]) -> str:
    """Whole numbers in words: 3 to 61."""
    gaps = any(after - before > 1 for before, after in itertools.pairwise(layers))
    return ", ".join(map(str, layers)) if gaps or len(layers) < 3 else f"{layers[0]} to {layers[-1]}"
