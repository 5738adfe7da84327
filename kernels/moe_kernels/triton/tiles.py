"""Which tiles a call uses: those of a tuned table if it has the problem, else those of the default rule.

The default rule is a table, ``default_tiles.json``. For each family of targets, width of weights and GEMM it holds, by
rows per expert, the tile that loses least over the models of the catalogue according to the tool's cost model. A tuned
table holds measured winners for exact problems on one device.
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
below
a block size: if experts have 16 rows on average, half of them have more and cost a second block each. The table says
for each family which ranges its tiles were chosen for."""


def family(target: str | None) -> str:
    """The rule's name for a target's family: its chips have the same matrix instructions and as much shared memory."""
    sm = capability(target)
    if sm is not None:
        if sm in (86, 87, 89, 120, 121):
            return "ada"  # 100 KB of shared memory, no wide matrix instructions
        return "blackwell" if sm in (100, 101, 103) else "hopper" if sm == 90 else "ampere"
    return "cdna4" if target == "hip:gfx950" else "cdna3" if target else "ampere"


def width_class(dtype: str) -> str:
    """``16``, ``8`` or ``4``: data types whose weights have the same number of bits share their default tiles."""
    return str(min(FORMATS[dtype].weight_bits, 16))


def row_step(rows_per_expert: float, target: str | None) -> int:
    """The index of the rule's range that holds this many rows; the open range's is ``len(ROW_STEPS)``."""
    return bisect.bisect_left(_table()["row_steps"][family(target)], rows_per_expert)


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(_DEFAULTS.read_text(encoding="utf-8")))


def default_tile(problem: Problem, rows_per_expert: float, target: str | None) -> TritonTile:
    """The untuned tile for a problem whose active experts have this many rows on average."""
    return _default(problem, row_step(rows_per_expert, target), target)


@functools.cache
def _default(problem: Problem, step: int, target: str | None) -> TritonTile:
    op = "gate_up" if problem.op == "gate_up" else "down"
    tile = TritonTile.from_dict(_table()["tiles"][family(target)][width_class(problem.dtype)][op][step])
    # The rule is for sizes in general; this K may be too short to split, or its rows not a multiple of 16 bytes.
    shorter = replace(tile, split_k=1)
    for one in (tile, shorter, replace(shorter, tma=False)):
        if refusal(problem, one, target) is None:
            return one
    return TritonTile(block_m=16, block_n=64, block_k=32, num_warps=4, num_stages=3)


@dataclass(frozen=True)
class TunedTable:
    """Measured winners of one device.

    Args:
        device: the device's name in PyTorch.
        entries: tiles by number of tokens, for each problem ``(dtype, activation, num_experts, hidden_size,
            moe_intermediate_size)``.
    """

    device: str
    entries: dict[tuple[str, str, int, int, int], dict[int, Tiles]]

    @classmethod
    def from_file(cls, path: str | Path) -> "TunedTable":
        """Read the JSON that :meth:`to_json` writes.

        Raises:
            ValueError: the file is not a tuned table; the text says what is wrong with it.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
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
        """The table as JSON."""
        names = ("dtype", "activation", "num_experts", "hidden_size", "moe_intermediate_size")
        entries = [
            {**dict(zip(names, key, strict=True)), "tiles": {str(t): _pair(pair) for t, pair in sorted(by.items())}}
            for key, by in self.entries.items()
        ]
        return json.dumps({"device": self.device, "entries": entries}, indent=1)

    def find(self, key: tuple[str, str, int, int, int], num_tokens: int) -> Tiles | None:
        """The tiles of the nearest tuned number of tokens, or None if this problem is not in the table."""
        by_tokens = self.entries.get(key)
        return by_tokens[min(by_tokens, key=lambda tuned: abs(tuned - num_tokens))] if by_tokens else None


_in_use: dict[str, TunedTable] = {}


def use_tuned(table: TunedTable) -> None:
    """Let calls on the table's device take its tiles for the problems that it has. It replaces an earlier table."""
    _in_use[table.device] = table


def tuned_tiles(device: str, key: tuple[str, str, int, int, int], num_tokens: int) -> Tiles | None:
    """The tiles of the table in use on this device, or None."""
    table = _in_use.get(device)
    return table.find(key, num_tokens) if table else None


def _pair(tiles: Tiles) -> dict[str, dict[str, int | bool]]:
    return {"up": tiles[0].as_dict(), "down": tiles[1].as_dict()}
