"""What commands share: kinds of options, output for people and for machines, progress."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from moe_codesign.domain.dtype import DEFAULT_DTYPE, DTYPE_BYTES, parse_dtype
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT
from moe_codesign.storage import DEFAULT_STORAGE


class Numbers(click.ParamType[list[int]]):
    """Whole numbers with commas."""

    name = "n,n,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        try:
            numbers = [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"got {value!r}; give whole numbers with commas, such as 1,64,4096")
        if min(numbers) < 1:
            self.fail(f"got {value!r}; give numbers of at least 1")
        return numbers


class Names(click.ParamType[list[str]]):
    """Words with commas."""

    name = "a,b,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = value if isinstance(value, list) else [part.strip() for part in value.split(",") if part.strip()]
        if not names:
            self.fail(f"got {value!r}; give names with commas, such as h100_sxm,tpu_v6e")
        return names


class Fields(click.ParamType[dict[str, int | bool]]):
    """Tile fields."""

    name = "k=v,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int | bool]:
        if isinstance(value, dict):
            return value
        fields: dict[str, int | bool] = {}
        for part in value.split(","):
            key, _, number = part.partition("=")
            text = number.strip().lower()
            if text in ("true", "false"):
                fields[key.strip()] = text == "true"
            elif text.isascii() and text.isdigit():
                fields[key.strip()] = int(text)
            else:
                self.fail(f"got {part!r}; give name=whole number, true or false, such as block_m=64,tma=true")
        return fields


class Shares(click.ParamType[dict[str, float]]):
    """Numbers by name."""

    name = "name=number,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        shares: dict[str, float] = {}
        for part in value.split(","):
            key, _, number = part.partition("=")
            try:
                shares[key.strip()] = float(number)
            except ValueError:
                self.fail(f"got {part!r}; give NAME=NUMBER with commas, such as decode=3,prefill=1")
        return shares


class Dtype(click.ParamType[str]):
    """A data type in any usual spelling; its value is the one name that it has here."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return parse_dtype(str(value))


CHIPS = click.option(
    "--chips",
    type=Names(),
    required=True,
    help="Chips by catalogue name (`moe-codesign list chips`) or as .toml files.",
)
CHIP = click.option("--chip", required=True, help="A chip by catalogue name, or a .toml file.")
DTYPE = click.option(
    "--dtype",
    type=Dtype(),
    default=DEFAULT_DTYPE,
    show_default=True,
    help="Type of weights and activations: " + ", ".join(DTYPE_BYTES) + "; or as people write them (bf16, w4a16).",
)
DTYPE_OF_MODEL = click.option(
    "--dtype",
    type=Dtype(),
    show_default="the model's, where every chip runs it",
    help="Type of weights and activations: " + ", ".join(DTYPE_BYTES) + "; or as people write them (bf16, w4a16).",
)
ROUTING = click.option(
    "--routing",
    default=DEFAULT_ROUTING_TEXT,
    show_default=True,
    help="How tokens choose experts: balanced, uniform, zipf:ALPHA, power_law:ALPHA or histogram:FILE.json.",
)
TP = click.option(
    "--tp", type=click.IntRange(1), default=1, show_default=True, help="Tensor-parallel ranks that share every expert."
)
EP_HELP = "Expert-parallel ranks that share out the experts; the busiest rank is timed."
EP = click.option("--ep", type=click.IntRange(1), default=1, show_default=True, help=EP_HELP)
OBJECTIVE = click.option(
    "--objective",
    help="What is best: WORKLOAD.METRIC, or a METRIC with --shares (default: the space's first, or latency_us).",
)
SHARES = click.option(
    "--shares", type=Shares(), help="A mix of workloads: how many of the tokens each one serves, as decode=3,prefill=1."
)
REFERENCE = click.option(
    "--reference", help="Say quality too, as a ratio to this model's (catalogue name or config.json)."
)
TRAINING_TOKENS = click.option(
    "--training-tokens", type=float, help="With --reference: tokens that it, and every shape beside it, is trained on."
)
LAW = click.option("--law", help="With --reference: the scaling law to go by. [default: efficiency_leverage]")
STORAGE = click.option(
    "--storage", default=DEFAULT_STORAGE, show_default=True, help="Database URL, for SQLite or PostgreSQL."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of text.")
RECOMPILE = click.option(
    "--recompile", is_flag=True, help="Compile here also what the compiled facts that come with the package answer."
)
JOBS = click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="all cores", help="Compiler processes."
)


def emit(data: Any) -> None:
    """Print as JSON."""
    click.echo(json.dumps(data, indent=1, default=_plain))


def emit_typed(result: Any) -> None:
    """Print a result, or a list of results, as JSON: each field as its type says, so that a routing is its text."""
    from pydantic import TypeAdapter

    results = result if isinstance(result, list) else [result]
    data = [TypeAdapter(type(one)).dump_python(one, mode="json") for one in results]
    emit(data if isinstance(result, list) else data[0])


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def console(*, stderr: bool = False) -> Any:
    """Rich's console. Output that does not go to a terminal is 220 columns wide, so that no cell is cut off."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else 220, markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A maker of progress callbacks: a bar each on a terminal, a line now and then elsewhere (stderr)."""
    if not sys.stderr.isatty():
        yield _line_progress
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def make(label: str) -> Callable[[int, int], None]:
            def update(done: int, total: int) -> None:
                if label not in tasks:
                    tasks[label] = bars.add_task(label, total=total)
                bars.update(tasks[label], completed=done, total=total)

            return update

        yield make


def _line_progress(label: str) -> Callable[[int, int], None]:
    said = -1

    def update(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // max(total, 1)
        if tenth != said:
            said = tenth
            click.echo(f"{label}: {done}/{total}", err=True)

    return update
