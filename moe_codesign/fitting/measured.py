"""Measured times of whole fused MoE operations, from aiconfigurator-core or a table, and which rows are left out."""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_codesign.arrays import F64
from moe_codesign.chips import GpuChip
from moe_codesign.cost.stacks.columns import Columns, columns_and_failures
from moe_codesign.cost.stacks.physics import bound_us
from moe_codesign.domain.question import check_fused
from moe_codesign.errors import UserError
from moe_codesign.formats.aiconfigurator import aiconfigurator_rows, renamed
from moe_codesign.formats.headers import headers_of
from moe_codesign.formats.problem_rows import Row, measured_layer, missing, routing_text, text


@dataclass(frozen=True)
class Measured:
    """Times of one chip under one stack and type.

    ``shape_key`` [rows]: hidden-inter-experts-topk, by which splits are grouped. ``routing`` [rows]: in the words of
    `predict`. ``unnamed_routing`` [rows]: whether a row names no routing and was read as the default one. ``left_out``:
    rows by reason.
    """

    chip: GpuChip
    stack: str
    dtype: str
    columns: Columns
    latency_us: F64
    shape_key: npt.NDArray[np.str_]
    routing: npt.NDArray[np.str_]
    unnamed_routing: npt.NDArray[np.bool_]
    source: str
    version: str
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.latency_us)

    @property
    def shapes(self) -> int:
        return len(np.unique(self.shape_key))

    def take(self, index: np.ndarray) -> "Measured":
        """These rows."""
        return Measured(
            **{
                **self.__dict__,
                "columns": self.columns.take(index),
                "latency_us": self.latency_us[index],
                "shape_key": self.shape_key[index],
                "routing": self.routing[index],
                "unnamed_routing": self.unnamed_routing[index],
            }
        )


def from_aiconfigurator(chip: GpuChip, stack: str, dtype: str) -> Measured:
    """The rows of aiconfigurator-core for a chip, stack and type.

    Raises:
        UserError: the package is not installed, or has no such rows.
    """
    rows, version = aiconfigurator_rows(chip, stack, dtype)
    package = importlib.metadata.version("aiconfigurator-core")
    return _measured(
        chip, stack, dtype, map(renamed, rows), f"aiconfigurator-core {package}", version
    )  # fmt: skip


def from_rows(chip: GpuChip, stack: str, dtype: str, rows: Iterable[Row], source: str) -> Measured:
    """A user's own rows: the columns of `predict` and ``latency_us``; another chip's, stack's or type's are left out.

    Raises:
        UserError: no row is usable.
    """
    return _measured(chip, stack, dtype, rows, source, "")


def _measured(
    chip: GpuChip,
    stack: str,
    dtype: str,
    rows: Iterable[Row],
    source: str,
    version: str,
) -> Measured:
    left_out: Counter[str] = Counter()
    problems, latency, keys, routing, unnamed = [], [], [], [], []
    wanted = {"chip": chip.name, "stack": stack, "dtype": dtype, "op": "fused_moe"}
    for given in rows:
        try:
            row = headers_of(tuple(given)).renamed(given)
            if other := next((name for name, value in wanted.items() if _is_another(row, name, value)), None):
                left_out[f"another {other}"] += 1
                continue
            shape, work = measured_layer(row, dtype)
            check_fused(shape, work)
            time_us = float(given["latency_us"])
        except UserError as error:
            left_out[str(error)] += 1
            continue
        except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
            left_out[f"latency_us or another column is not a number ({type(error).__name__})"] += 1
            continue
        if not np.isfinite(time_us) or time_us <= 0:
            left_out["no time"] += 1
        else:
            problems.append((shape, work))
            latency.append(time_us)
            routing.append(routing_text(row))
            unnamed.append(missing(row.get("routing")))
            keys.append(
                f"{shape.hidden_size}-{shape.moe_intermediate_size}-{shape.num_experts}-{shape.num_experts_per_tok}"
            )
    columns, failed = columns_and_failures(problems)
    left_out.update(str(error) for error in failed.values())
    kept = [place for place in range(len(problems)) if place not in failed]
    times = np.array(latency)[kept]
    impossible = times < bound_us(columns, chip, dtype)
    if impossible.any():
        left_out["faster than the physical bound"] = int(impossible.sum())
    if impossible.all():
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.most_common(3)) or "it is empty"
        raise UserError(f"{source} has no usable row for {chip.name} {stack} {dtype}: {reasons}")
    names, routings, defaults = (np.array(label)[kept] for label in (keys, routing, unnamed))
    every = Measured(chip, stack, dtype, columns, times, names, routings, defaults, source, version, dict(left_out))
    return every.take(np.flatnonzero(~impossible))


def _is_another(row: Row, name: str, value: str) -> bool:
    said = text(row, name, value)
    # A chip file's path says nothing of its chip's name.
    return said != value and not (name == "chip" and said.endswith(".toml"))
