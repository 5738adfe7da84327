"""What measured times say of a chip under a software stack: coefficients, a learned correction, an interval.

One TOML file per (chip, stack, dtype), beside it the arrays of the correction's trees. Files that
a user's `moe-codesign calibrate` wrote come before those that the project ships.
"""

import dataclasses
import functools
import itertools
import math
import os
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict

from moe_codesign.chips import Chip, chip_names, load_chip
from moe_codesign.cost import fused_moe
from moe_codesign.cost.conventions import Conventions, Mask, timed_terms
from moe_codesign.cost.fused_moe import Coefficients, Terms
from moe_codesign.cost.loads import Columns
from moe_codesign.cost.stacks import StackTiles, Tuned
from moe_codesign.cost.table import F64
from moe_codesign.cost.trees import SymmetricTrees
from moe_codesign.errors import UserError

SHIPPED = Path(__file__).parent / "calibrations"
_SIBLING_WIDENING, _TRANSFER_WIDENING = 1.5, 3.0
"""Factors on the interval of a donor of the same architecture, and of another: results/accuracy/README.md has what
they hold of chips whose rows are withheld."""
OUTSIDE_WIDENING = 2.0
"""On the logarithm of the interval of a problem outside of the range of the fit. Chosen: there are no rows to ask."""
TOKEN_BUCKETS = (128, 1024)
"""Intervals differ below, between and above: decode is bound by memory, prefill by compute."""
_CHUNK = 32768
"""Rows that a thread answers at a time: with fewer, threads wait for the interpreter between NumPy's calls."""
INPUTS = 27
"""Of the correction's trees; see :func:`features`."""
FORMAT: Literal[2] = 2


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Accuracy(_Table):
    """Absolute relative error on held-out shapes, in percent: mean, median, 90th percentile."""

    mape: float
    median: float
    p90: float
    physics_mape: float
    physics_median: float
    interval_coverage: float
    rows: int
    shapes: int


class CalibrationFile(_Table):
    """The TOML file. ``format`` changes with the coefficients and the inputs of the trees, which mean nothing to
    another version's."""

    format: Literal[2] = FORMAT
    chip: str
    stack: str
    dtype: str
    source: str
    version: str
    rows: int
    shapes: int
    left_out: dict[str, int]
    correction_share: float
    coefficients: dict[str, float]
    interval: tuple[float, float, float]
    fitted_range: dict[str, tuple[float, float]]
    tuned: tuple[str, ...] = ()
    """experts-width of a rank for which the measured stack had a tuned file that is not told; see conventions.py."""
    all_choices_here: dict[str, bool] = {}
    """By hidden-experts-topk; see conventions.py."""
    held_out: Accuracy | None = None


@dataclass(frozen=True)
class Prediction:
    """Columns of answers.

    ``parts_us``: where the time goes; ``note``: why it deserves less trust, if so; ``tiles``: what the stack launches.
    """

    latency_us: F64
    low_us: F64
    high_us: F64
    bound_us: F64
    limiter: list[str]
    parts_us: dict[str, F64]
    note: list[str]
    tiles: StackTiles

    @classmethod
    def joined(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """One after the other."""

        def join(name: str) -> F64:
            return np.concatenate([getattr(part, name) for part in parts])

        return cls(
            **{name: join(name) for name in ("latency_us", "low_us", "high_us", "bound_us")},
            limiter=list(itertools.chain.from_iterable(part.limiter for part in parts)),
            parts_us={name: np.concatenate([part.parts_us[name] for part in parts]) for name in parts[0].parts_us},
            note=list(itertools.chain.from_iterable(part.note for part in parts)),
            tiles=StackTiles.joined([part.tiles for part in parts]),
        )


@dataclass(frozen=True)
class Calibration:
    """Coefficients for a chip under a stack, and the correction's trees if they help.

    ``transferred_from``: the chip whose measurements these are, where the chip has none of its own.
    """

    file: CalibrationFile
    trees: SymmetricTrees | None = None
    transferred_from: str | None = None

    @functools.cached_property
    def coefficients(self) -> Coefficients:
        return Coefficients(**self.file.coefficients)

    @property
    def conventions(self) -> Conventions:
        """How it was timed. Tuned files are a chip's own, so they are not carried to another."""
        tuned = frozenset(self.file.tuned) if self.transferred_from is None else frozenset()
        return Conventions(self.file.all_choices_here, tuned)

    def physics_us(self, chip: Chip, columns: Columns, tuned: Tuned | None = None) -> tuple[F64, Columns, Terms]:
        """Time without the correction, the work that it is of, and its terms.

        ``tuned``: the stack's tuned tiles, see :func:`moe_codesign.cost.stacks.tuned_tiles`.
        """
        x, file = self.coefficients, self.file
        work, t = timed_terms(x, self.conventions, columns, chip, file.stack, file.dtype, tuned=tuned)
        return fused_moe.total_us(x, t), work, t

    def correction(self, work: Columns, t: Terms, physics_us: F64) -> F64:
        """Logarithm of what the physics of that work is to be multiplied with."""
        if self.trees is None or self.file.correction_share == 0:
            return np.zeros(len(work))
        return self.file.correction_share * self.trees.predict(features(work, t, physics_us))

    def predict(self, chip: Chip, columns: Columns, tuned: Tuned | None = None) -> Prediction:
        """Time of every problem with its 90 % interval; never below the physical bound."""
        parts = [columns.take(slice(first, first + _CHUNK)) for first in range(0, max(len(columns), 1), _CHUNK)]
        if len(parts) == 1:
            return self._predict(chip, columns, tuned)
        # NumPy leaves the interpreter to other threads while it counts.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return Prediction.joined(list(pool.map(lambda part: self._predict(chip, part, tuned), parts)))

    def _predict(self, chip: Chip, columns: Columns, tuned: Tuned | None) -> Prediction:
        physics, work, t = self.physics_us(chip, columns, tuned)
        bound = fused_moe.bound_us(columns, chip, self.file.dtype)
        latency = np.maximum(physics * np.exp(self.correction(work, t, physics)), bound)
        outside = self._outside(columns)
        parts = fused_moe.parts_us(self.coefficients, t)
        width = np.array(self.file.interval)[np.searchsorted(TOKEN_BUCKETS, columns.num_tokens)]
        width = width * np.where(np.any(list(outside.values()), axis=0), OUTSIDE_WIDENING, 1.0)
        if self.transferred_from is not None:
            sibling = _family(load_chip(self.transferred_from)) == _family(chip)
            width = width * (_SIBLING_WIDENING if sibling else _TRANSFER_WIDENING)
        return Prediction(
            latency_us=latency,
            low_us=np.maximum(latency * np.exp(-width), bound),
            high_us=latency * np.exp(width),
            bound_us=bound,
            limiter=fused_moe.limiters(self.coefficients, t, parts),
            # The correction is of the whole: each part bears its share.
            parts_us={name: values * latency / physics for name, values in parts.items()},
            note=self._notes(columns, outside, chip.vendor, tuned),
            tiles=fused_moe.stack_tiles(columns, self.file.stack, self.file.dtype, tuned),
        )

    def _notes(self, columns: Columns, outside: dict[str, Mask], vendor: str, tuned: Tuned | None) -> list[str]:
        found = self.conventions
        always = [f"coefficients of {self.transferred_from}, which has measurements"] if self.transferred_from else []
        if vendor != "nvidia":
            always.append("tiles by the stack's rule for CUDA")
        untold = found.has_tuned(columns) if tuned is None else np.zeros(len(columns), dtype=bool)
        flags = np.stack([untold, found.runs_all_choices(columns), *outside.values()])
        # Read as bits they number the kind of a row.
        kind = (1 << np.arange(len(flags))) @ flags
        kinds = np.flatnonzero(np.bincount(kind))
        texts = {}
        for number in kinds.tolist():
            is_untold, all_here, *beyond = (number >> bit & 1 for bit in range(len(flags)))
            notes = list(always)
            if is_untold:
                notes.append("timed with a tuned file that is not told, not at the rule's tile; give --tuned")
            if all_here:
                notes.append("timed with all choices of the rank's tokens run on it")
            if names := [name for name, is_beyond in zip(outside, beyond, strict=True) if is_beyond]:
                notes.append("outside of the measured range: " + ", ".join(names))
            texts[number] = "; ".join(notes)
        return [texts[number] for number in kind.tolist()]

    def _outside(self, columns: Columns) -> dict[str, Mask]:
        """By field, problems outside of the fitted range."""
        return {
            name: (getattr(columns, name) < low) | (getattr(columns, name) > high)
            for name, (low, high) in self.file.fitted_range.items()
        }


def features(columns: Columns, t: Terms, physics_us: F64) -> F64:
    """[rows, features] that the correction is learned from: sizes, loads, and where the physics has its steps."""
    c = columns

    def log(values: F64) -> F64:
        return np.asarray(np.log(np.maximum(values, 1e-9)))

    active = np.maximum(c.active, 1)
    rows = np.maximum(c.rows, 1)
    first, second = (g.matrix_us * g.steps * g.waves for g in t.gemms)
    memory = t.gemms[0].weight_us + t.gemms[1].weight_us
    row_blocks = t.blocks / np.maximum(np.ceil(c.up_width / t.tiles.block_n) + np.ceil(c.hidden / t.tiles.block_n), 1)
    return np.stack(
        [
            *(log(c.num_tokens), log(c.hidden), log(c.width), log(c.local_experts), log(c.experts), c.top_k),
            *(log(c.rows), log(c.active), log(c.rows / active), log(c.largest * active / rows), c.gated),
            log(row_blocks * t.tiles.block_m / rows),
            *(np.minimum(g.waves, 8) for g in t.gemms),
            *(np.minimum(g.steps, 64) for g in t.gemms),
            *(g.bands for g in t.gemms),
            log((first + second) / np.maximum(memory, 1e-9)),
            log(t.gemms[0].weight_bytes + t.gemms[1].weight_bytes),
            log(physics_us),
            log(1 + t.empty_blocks),
            log(1e-6 * c.rows * (c.up_width + c.width)),
            log(c.num_tokens * c.hidden),
            c.width % 128,
            np.gcd(c.width.astype(int), 128).astype(float),
            t.narrow,
        ]
    ).T


def own_folder() -> Path:
    """Where `moe-codesign calibrate` writes: MOE_CODESIGN_CALIBRATIONS, else the user's data folder."""
    chosen = os.environ.get("MOE_CODESIGN_CALIBRATIONS")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("moe-codesign")) / "calibrations"


def save(calibration: Calibration, folder: Path) -> Path:
    """Write the TOML file and the trees; returns the TOML's path."""
    file = calibration.file
    trees = calibration.trees if file.correction_share > 0 else None
    return write(folder / f"{file.chip}-{file.stack}-{file.dtype}.toml", file, trees)


def write(path: Path, file: BaseModel, trees: SymmetricTrees | None) -> Path:
    """Whole or not at all, and the trees first: a file that names them is never without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if trees is not None:
        _replace(path.with_suffix(".trees.npz"), trees.to_bytes())
    _replace(path, _toml(file.model_dump(exclude_none=True)).encode())
    return path


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _toml(table: dict[str, Any]) -> str:
    """Strings, numbers, lists and one level of tables; the standard library only reads TOML."""

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        if isinstance(item, str):
            return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(item, list | tuple):
            return "[" + ", ".join(map(value, item)) + "]"
        return repr(float(f"{item:.7g}")) if isinstance(item, float) else str(item)

    lines = [f"{key} = {value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for key, item in table.items():
        if isinstance(item, dict):
            lines += ["", f"[{key}]", *(f"{value(str(k)) if ' ' in k else k} = {value(v)}" for k, v in item.items())]
    return "\n".join(lines) + "\n"


def _load(path: Path) -> Calibration:
    return _read(path, path.stat().st_mtime_ns)


@functools.cache
def _read(path: Path, changed: int) -> Calibration:
    """The file as it was at that time: `calibrate` may write it anew in the same process."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table.get("format") != FORMAT:
            raise ValueError(f"of format {table.get('format', 1)}, this version reads {FORMAT}")
        file = CalibrationFile.model_validate(table)
        Coefficients(**file.coefficients)
        if file.correction_share == 0:
            return Calibration(file)
        trees = SymmetricTrees.from_bytes(path.with_suffix(".trees.npz").read_bytes())
        if trees.inputs > INPUTS:
            raise ValueError(f"its trees ask for {trees.inputs} inputs, of which there are {INPUTS}")
        return Calibration(file, trees)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        raise UserError(f"calibration {path}: {str(error).splitlines()[0]}", mend="calibrate again") from None


def every(*, shipped_only: bool = False) -> dict[tuple[str, str, str], Path]:
    """Files by (chip, stack, dtype), a user's own before the shipped ones."""
    found = {}
    for folder in (SHIPPED,) if shipped_only else (SHIPPED, own_folder()):
        for path in sorted(folder.glob("*-*-*.toml")):
            chip, stack, dtype = path.stem.rsplit("-", 2)
            found[chip, stack, dtype] = path
    return found


def find(chip: Chip, stack: str, dtype: str, *, without: str | None = None, shipped_only: bool = False) -> Calibration:
    """The calibration of the chip under the stack, or that of the most similar chip which has one.

    Args:
        chip: where. stack: ``vllm`` or ``sglang``. dtype: of the layer; float16 without its own takes bfloat16's.
        without: a chip to leave out, for asking what is known without its rows.
        shipped_only: leave out a user's own files.

    Raises:
        UserError: no chip has a calibration for that stack and dtype.
    """
    paths = {
        key: path for key, path in every(shipped_only=shipped_only).items() if key[1] == stack and key[0] != without
    }
    if (chip.name, stack, dtype) in paths:
        return _load(paths[chip.name, stack, dtype])
    wanted = "bfloat16" if dtype == "float16" else dtype
    if (chip.name, stack, wanted) in paths:
        return _load(paths[chip.name, stack, wanted])
    donors = {name: path for (name, _, of), path in paths.items() if of == wanted and name in chip_names()}
    if not donors:
        known = sorted({key[1:] for key in every()})
        raise UserError(
            f"no calibration for stack {stack} and dtype {dtype}",
            mend="use one of " + ", ".join(f"{s} {d}" for s, d in known) + ", or run `moe-codesign calibrate`",
        )
    donor = min(donors, key=lambda name: distance(chip, load_chip(name)))
    return dataclasses.replace(_load(donors[donor]), transferred_from=donor)


def _family(chip: Chip) -> str:
    """Of the architecture: cuda:100 and cuda:103 are one, so is what begins with gfx94; cuda:80 and cuda:89 are two."""
    target = chip.target or ""
    return target[:-1] if target.startswith(("cuda:1", "hip:")) else target


def distance(chip: Chip, other: Chip) -> float:
    """Between chips: one architecture first, then FLOPs a byte and peak."""

    def numbers(one: Chip) -> tuple[float, float]:
        peak = one.peak("bfloat16") or 1.0
        return math.log(peak / one.memory.hbm_bytes_per_s), math.log(peak)

    mine, theirs = numbers(chip), numbers(other)
    return 10.0 * (_family(chip) != _family(other)) + abs(mine[0] - theirs[0]) + 0.5 * abs(mine[1] - theirs[1])
