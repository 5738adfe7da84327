"""Which tiles a call uses: a tuned table's where it has an entry, else the default rule's.

The default rule is a table, ``default_tiles.json``: for each family of targets, width of weights and GEMM
the tile that loses least over the catalogue's models by the tool's cost model (``benchmarks/default_tiles.py`` writes
it), by rows per expert. A tuned table holds measured winners for exact problems on one device.
"""

import bisect
import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_kernels.kernel import Problem
from moe_kernels.tile import TritonTile
from moe_kernels.triton.formats import FORMATS, capability
from moe_kernels.triton.support import refusal

Tiles = tuple[TritonTile, TritonTile]
_DEFAULTS = Path(__file__).with_name("default_tiles.json")
ROW_STEPS = (4, 12, 24, 48, 96, 512)
"""Upper ends of the ranges of mean rows per expert that tiles are chosen for; the last range is open. They end well
before a block size: of experts that have 16 rows on average half have more, and cost a second block each. A family
whose tiles were chosen for other ranges says so in the table."""


def family(target: str | None) -> str:
    """The rule's word for a target: chips of one family share their matrix instructions and shared memory."""
    sm = capability(target)
    if sm is not None:
        if sm in (86, 87, 89, 120, 121):
            return "ada"  # 100 KB of shared memory, no wide matrix instructions
        return "blackwell" if sm in (100, 101, 103) else "hopper" if sm == 90 else "ampere"
    return "cdna4" if target == "hip:gfx950" else "cdna3" if target else "ampere"


def width_class(dtype: str) -> str:
    """``16``, ``8`` or ``4``: types whose weights have as many bits share their default tiles."""
    return str(min(FORMATS[dtype].weight_bits, 16))


def row_step(rows_per_expert: float, target: str | None) -> int:
    """The rule's range that holds this many rows: an index, ``len(ROW_STEPS)`` for the open one."""
    return bisect.bisect_left(_table()["row_steps"][family(target)], rows_per_expert)


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(_DEFAULTS.read_text()))


def default_tile(problem: Problem, rows_per_expert: float, target: str | None) -> TritonTile:
    """The untuned tile for a problem whose active experts have this many rows on average."""
    return _default(problem, row_step(rows_per_expert, target), target)


@functools.cache
def _default(problem: Problem, step: int, target: str | None) -> TritonTile:
    op = "gate_up" if problem.op == "gate_up" else "down"
    tile = TritonTile.from_dict(_table()["tiles"][family(target)][width_class(problem.dtype)][op][step])
    # The rule is for sizes in general; this one may be too short to split, or its rows no multiple of 16 bytes.
    shorter = replace(tile, split_k=1)
    for one in (tile, shorter, replace(shorter, tma=False)):
        if refusal(problem, one, target) is None:
            return one
    return TritonTile(block_m=16, block_n=64, block_k=32, num_warps=4, num_stages=3)


@dataclass(frozen=True)
class TunedTable:
    """Measured winners of one device.

    Args:
        device: the device's name as PyTorch tells it.
        entries: ``(dtype, activation, experts, hidden_size, moe_intermediate_size)`` to tiles by number of tokens.
    """

    device: str
    entries: dict[tuple[str, str, int, int, int], dict[int, Tiles]]

    @classmethod
    def from_file(cls, path: str | Path) -> "TunedTable":
        """Read the JSON that :meth:`to_json` writes.

        Raises:
            ValueError: the file is no tuned table; says what is wrong with it.
        """
        try:
            data = json.loads(Path(path).read_text())
            entries: dict[tuple[str, str, int, int, int], dict[int, Tiles]] = {}
            for one in data["entries"]:
                key = (
                    str(one["dtype"]), str(one["activation"]), int(one["num_experts"]), int(one["hidden_size"]),
                    int(one["moe_intermediate_size"]),
                )  # fmt: skip
                entries[key] = {
                    int(tokens): (TritonTile.from_dict(pair["up"]), TritonTile.from_dict(pair["down"]))
                    for tokens, pair in one["tiles"].items()
                }
                if not entries[key]:
                    raise ValueError(f"entry {key} has no tiles")
            return cls(str(data["device"]), entries)
        except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"tuned table {path}: {type(error).__name__} {error}") from None

    def to_json(self) -> str:
        """The file's text."""
        names = ("dtype", "activation", "num_experts", "hidden_size", "moe_intermediate_size")
        entries = [
            {**dict(zip(names, key, strict=True)), "tiles": {str(t): _pair(pair) for t, pair in sorted(by.items())}}
            for key, by in self.entries.items()
        ]
        return json.dumps({"device": self.device, "entries": entries}, indent=1)

    def find(self, key: tuple[str, str, int, int, int], num_tokens: int) -> Tiles | None:
        """The tiles of the nearest tuned number of tokens, or None where this problem is not in the table."""
        by_tokens = self.entries.get(key)
        return by_tokens[min(by_tokens, key=lambda tuned: abs(tuned - num_tokens))] if by_tokens else None


_in_use: dict[str, TunedTable] = {}


def use_tuned(table: TunedTable) -> None:
    """From now on calls on the table's device take its tiles where it has the problem; replaces an earlier table."""
    _in_use[table.device] = table


def tuned_tiles(device: str, key: tuple[str, str, int, int, int], num_tokens: int) -> Tiles | None:
    """The tiles of the table in use on this device, or None."""
    table = _in_use.get(device)
    return table.find(key, num_tokens) if table else None


def _pair(tiles: Tiles) -> dict[str, dict[str, int | bool]]:
    return {"up": tiles[0].as_dict(), "down": tiles[1].as_dict()}
