"""Space files: what may vary, under which workloads, on which chips, for which objectives."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, StrictBool, model_validator

from moe_codesign.chips import chip_names
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.metrics import MAXIMISED, METRICS
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_routing
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.tables import Table, did_you_mean, read_table
from moe_kernels.tile import Value

SHAPE_FIELDS = (
    "hidden_size",
    "moe_intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "num_layers",
)
_FOLDER = Path(__file__).parents[2] / "search_spaces"


class Span(Table):
    """Whole numbers from ``low`` to ``high``, every ``step``."""

    low: Annotated[int, Field(ge=0)]
    high: Annotated[int, Field(ge=0)]
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}; swap them")
        return self

    def values(self) -> list[int]:
        return list(range(self.low, self.high + 1, self.step))


Choice = Annotated[int, Field(ge=0)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | Span


def choice_values(choice: Choice) -> list[int]:
    """Every value that a choice allows."""
    if isinstance(choice, Span):
        return choice.values()
    return [choice] if isinstance(choice, int) else list(choice)


class WorkloadTable(Table):
    """One workload; with ``chips`` it holds for those alone and replaces one of the same name there."""

    name: str
    num_tokens: PositiveInt
    dtype: str = "bfloat16"
    routing: str = DEFAULT_ROUTING_TEXT
    tp: PositiveInt = 1
    ep: PositiveInt = 1
    chips: list[str] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"dtype = {self.dtype!r} is unknown; use one of {', '.join(DTYPE_BYTES)}")
        parse_routing(self.routing)
        return self

    def workload(self, seed: int) -> Workload:
        return Workload(
            name=self.name,
            num_tokens=self.num_tokens,
            dtype=self.dtype,
            routing=parse_routing(self.routing),
            tp=self.tp,
            ep=self.ep,
            seed=seed,
        )


class Constraints(Table):
    """What a reported pair must meet."""

    min_quality_ratio: float | None = Field(default=None, gt=0)
    memory_fraction: float = Field(default=0.9, gt=0, le=1)


class Budget(Table):
    """Trials over all chips and modes; ``weights`` share them out (default 1 a chip)."""

    trials: PositiveInt = 200
    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    measure_top: PositiveInt = 2
    measure_seconds: float = Field(default=0.5, gt=0)


class Space(Table):
    """A validated space file."""

    name: str
    reference: str
    training_tokens: float = Field(gt=0)
    chips: Annotated[list[str], Field(min_length=1)]
    modes: Annotated[list[Literal["joint", "nested"]], Field(min_length=1)] = ["joint", "nested"]
    objectives: Annotated[list[str], Field(min_length=1)]
    seed: int = Field(default=0, ge=0)
    shape: dict[str, Choice]
    tiles: dict[str, dict[str, Annotated[list[StrictBool | PositiveInt], Field(min_length=1)]]] = {}
    workloads: Annotated[list[WorkloadTable], Field(min_length=1)]
    constraints: Constraints = Constraints()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in self.shape:
            if field not in SHAPE_FIELDS:
                raise ValueError(f"shape.{field} is unknown{did_you_mean(field, SHAPE_FIELDS)}")
            values = choice_values(self.shape[field])
            if min(values) < 1 and field != "n_shared_experts":
                raise ValueError(f"shape.{field} has {min(values)}; give values of at least 1")
            if field == "num_layers" and len(values) > 1:
                # Times are one layer's, quality is the whole model's: depth would be quality for nothing.
                raise ValueError("shape.num_layers cannot vary, as times are of one layer; give one number")
        for name, given in (("chips", self.chips), ("modes", self.modes)):
            if len(set(given)) < len(given):
                raise ValueError(f"{name} = {given} names one twice; name each once")
        known_chips = chip_names()
        for chip in self.chips:
            if chip not in known_chips and not chip.endswith(".toml"):
                raise ValueError(f"chips has {chip!r}, which is unknown{did_you_mean(chip, known_chips)}")
            names = [w.name for w in self.workloads_on(chip)]
            if not names:
                raise ValueError(f"no workload is for chip {chip!r}; add one without `chips`, or name it there")
            for objective in self.objectives:
                workload, _, metric = objective.rpartition(".")
                if metric not in METRICS:
                    raise ValueError(f"objectives has {objective!r}: unknown metric{did_you_mean(metric, METRICS)}")
                if metric == "quality":
                    if workload:
                        raise ValueError(f"objectives has {objective!r}: quality belongs to no workload; write quality")
                elif workload not in names:
                    raise ValueError(
                        f"objectives has {objective!r}: write WORKLOAD.{metric} with a workload of {chip}"
                        f" ({', '.join(names)})"
                    )
        return self

    def workloads_on(self, chip: str) -> list[WorkloadTable]:
        """The chip's workloads: its own, else those for all."""
        own = {w.name: w for w in self.workloads if w.chips is None}
        own |= {w.name: w for w in self.workloads if w.chips is not None and chip in w.chips}
        return list(own.values())

    def tile_space(self, chip: str, backend: str) -> dict[str, tuple[Value, ...]]:
        """Tile values for a chip: under its name, else under its backend's."""
        return {k: tuple(v) for k, v in (self.tiles.get(chip) or self.tiles.get(backend) or {}).items()}

    def maximised(self) -> list[bool]:
        return [objective.rpartition(".")[2] in MAXIMISED for objective in self.objectives]

    def allot(self, trials: int) -> dict[tuple[str, str], int]:
        """Trials per (chip, mode), in proportion to the weights, summing to ``trials`` exactly."""
        # Sainte-Lague, a seat at a time: asking for more trials never takes one away.
        counts: dict[tuple[str, str], int] = {(chip, mode): 0 for chip in self.chips for mode in self.modes}
        for _ in range(trials):
            neediest = max(counts, key=lambda key: self.budget.weights.get(key[0], 1.0) / (2 * counts[key] + 1))
            counts[neediest] += 1
        return counts


def load_space(path: str | Path, *, chips: list[str] | None = None) -> Space:
    """Read a space file; a bare name is looked up in ``search_spaces/``.

    Raises:
        UserError: unreadable, or wrong: names the key, the value and the mend.
    """
    file = Path(path)
    if not file.is_file() and (_FOLDER / f"{file.stem}.toml").is_file() and file.parent == Path():
        file = _FOLDER / f"{file.stem}.toml"
    if not file.is_file():
        raise UserError("space file", value=str(path), fix="see `moe-codesign list spaces`")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    return parse_space(text, source=file.name, chips=chips)


def parse_space(text: str, *, source: str = "space", chips: list[str] | None = None) -> Space:
    """Validate a space file's text; ``chips`` replaces its own list. Raises as :func:`load_space`."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is not TOML: {error}") from None
    if chips is not None:
        data["chips"] = chips
    return read_table(Space, data, source)


def space_names() -> dict[str, Path]:
    """The space files that come with the project."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}
