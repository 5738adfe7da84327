"""Space files: what may vary, under which workloads, on which chips, for which objectives."""

import functools
import importlib.resources
import json
from collections.abc import Collection, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveInt,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)

from moe_codesign.chips import Chip, chip_named
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.domain.metrics import Objective
from moe_codesign.domain.trial import SampledMode
from moe_codesign.errors import UserError
from moe_codesign.files import parse_json, parse_toml, read_toml
from moe_codesign.models import read_model_named
from moe_codesign.models.default_dtype import ChosenDtype, default_dtype
from moe_codesign.quality import DEFAULT_LAW, LAWS, Equal
from moe_codesign.study.ablation_rows import AblationRows
from moe_codesign.study.chip_fields import AnyChip, ChipName, chip_of
from moe_codesign.study.constraints import Constraints
from moe_codesign.study.sizes import Choice, Held, choice_values
from moe_codesign.study.space_tables import Budget, OwnPrice, OwnWatts, Recommend, TypedWorkload, WorkloadTable
from moe_codesign.tables import Label, Name, Table, did_you_mean, read_table
from moe_kernels.tile import Value

SHAPE_FIELDS = (
    "hidden_size",
    "moe_intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "moe_latent_size",
    "num_layers",
)
_MAY_BE_0 = ("n_shared_experts", "moe_latent_size")


OWN_LAW = "ablations"
"""The law of a space whose quality is that of the user's own runs alone."""
Sampler = Literal["auto", "exact", "tpe", "nsga2", "nsga3", "gp", "qmc", "random"]
"""What chooses the shapes of a search."""
_MOST_LISTED = 200
"""Chips, workloads or objectives of a space."""


def spaces_folder() -> Traversable:
    """The space files that come with the project: inside an installed package, or at the top of a checkout."""
    installed = importlib.resources.files("moe_codesign") / "search_spaces"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "search_spaces"


def _objective(value: object) -> Objective:
    if isinstance(value, Objective):
        return value
    if not isinstance(value, str):
        raise ValueError("give a text: METRIC or WORKLOAD.METRIC")
    return Objective.parse(value)


def _law(value: str) -> str:
    if value not in (*LAWS, OWN_LAW):
        raise ValueError(f"there is no such scaling law{did_you_mean(value, (*LAWS, OWN_LAW))}")
    return value


AnyObjective = Annotated[Objective, PlainValidator(_objective, json_schema_input_type=str), PlainSerializer(str)]


class Space(Table):
    """A validated space file.

    Args:
        name: the name of the study, unless ``--study`` gives another.
        reference: the model that quality and gains are counted from: a catalogue name or a config.json. Fields that
            ``shape`` does not name are the reference's.
        training_tokens: tokens that every shape is trained on, for the scaling law.
        law: the scaling law that quality is taken from: efficiency_leverage, krajewski, ludziejewski, abnar, zhao,
            clark, or ablations, where your own runs alone decide.
        ablations: a .csv, .jsonl or .parquet file of your own training runs, with columns loss, training_tokens and
            fields of the shape. They correct the law, or are it.
        equal: what qualities are compared at: training_tokens, or training_compute, where a shape that costs more FLOPs
            a token is trained on fewer tokens.
        price: US dollars of a chip-hour by chip, instead of what its file lists, as [price].
        power: watts of a chip by chip, instead of what its file lists, as [power].
        chips: chips by catalogue name or as .toml files.
        sampler: what chooses shapes on chips that are estimated. auto enumerates every shape of a space of up to
            ``budget.exact_up_to`` points, so that the frontier is exact, and samples larger ones with tpe; exact
            enumerates whatever the size; tpe, nsga2, nsga3, gp, qmc and random sample whatever the size. Chips that are
            in this machine are measured, and sampled always, with tpe where none of these is named.
        modes: how shapes are sampled. With ``joint`` the sampler proposes shape and tiles; with ``nested`` it proposes
            the shape, and all tiles are ranked. Without the key nested where times are estimated, joint where they are
            measured.
        objectives: what to optimise: ``quality``, or WORKLOAD.METRIC with a metric of latency_us, usd_per_mtok,
            joules_per_token, tokens_per_s_per_chip and tokens_per_s_per_user.
        seed: random seed of what samplers propose and of what is measured; estimates are means over draws of a routing.
        shape: fields of the shape: hidden_size, moe_intermediate_size, num_experts, num_experts_per_tok,
            n_shared_experts, moe_latent_size (0 for none) and num_layers. A number fixes a field; a list, or a span
            with low, high and step, searches it. num_layers is a number, or "total_params" or "active_params": the
            depth with which a shape comes nearest to the reference in these.
        tiles: tables that narrow the tiles, by backend (triton, pallas) or chip; each names tile fields and their
            values.
        workloads: the workloads, as [[workloads]].
        constraints: what a pair must meet, as [constraints].
        budget: how many trials there are, as [budget].
        recommend: how one pair of each chip is recommended, as [recommend].
    """

    name: Name
    reference: Label
    training_tokens: float = Field(gt=0, le=1e18)
    law: Annotated[str, AfterValidator(_law)] = DEFAULT_LAW
    ablations: AblationRows | None = None
    equal: Equal = "training_tokens"
    price: dict[ChipName, OwnPrice] = {}
    power: dict[ChipName, OwnWatts] = {}
    chips: Annotated[list[AnyChip], Field(min_length=1, max_length=_MOST_LISTED)]
    sampler: Sampler = "auto"
    modes: Annotated[list[SampledMode], Field(min_length=1)] | None = None
    objectives: Annotated[list[AnyObjective], Field(min_length=1, max_length=_MOST_LISTED)]
    seed: int = Field(default=0, ge=0)
    shape: dict[str, Choice | Held]
    tiles: dict[
        ChipName, dict[str, Annotated[list[StrictBool | PositiveInt], Field(min_length=1, max_length=1000)]]
    ] = {}
    workloads: Annotated[list[WorkloadTable], Field(min_length=1, max_length=_MOST_LISTED)]
    constraints: Constraints = Constraints()
    budget: Budget = Budget()
    recommend: Recommend = Recommend()

    @field_validator("chips", mode="after")
    @classmethod
    def _with_own(cls, chips: list[Chip], info: ValidationInfo) -> list[Chip]:
        """The chips at the space's own prices and power."""
        prices, powers = info.data.get("price", {}), info.data.get("power", {})
        return [
            chip.at(
                prices[chip.name].price() if chip.name in prices else None,
                powers[chip.name].power() if chip.name in powers else None,
            )
            for chip in chips
        ]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in self.shape:
            if field not in SHAPE_FIELDS:
                raise ValueError(f"shape.{field} is unknown{did_you_mean(field, SHAPE_FIELDS)}")
            choice = self.shape[field]
            if isinstance(choice, str):
                if field != "num_layers":
                    raise ValueError(f"shape.{field} is {choice!r}; only num_layers follows from other fields")
                continue
            values = choice_values(choice)
            if values[0] < 1 and field not in _MAY_BE_0:
                raise ValueError(f"shape.{field} has {values[0]}; give values of at least 1")
            if field == "num_layers" and len(values) > 1:
                # Times are one layer's, quality is the whole model's: depth would be quality for nothing.
                raise ValueError(
                    "shape.num_layers cannot vary by itself, as times are of one layer; give one number, or "
                    "'total_params' or 'active_params', which it then follows"
                )
        if self.held and (of_a_layer := [str(one) for one in self.objectives if one.metric.name == "latency_us"]):
            raise ValueError(
                f"objectives has '{of_a_layer[0]}', the time of one layer, and shape.num_layers = {self.held!r} makes "
                "models of unlike depth; use tokens_per_s_per_user, tokens_per_s_per_chip or a cost, which count every "
                "layer"
            )
        if self.law == OWN_LAW and self.ablations is None:
            raise ValueError(f"law = {OWN_LAW!r} needs runs; give ablations = FILE, or another law")
        objectives = [str(objective) for objective in self.objectives]
        for name in self.recommend.weights:
            if name not in objectives:
                raise ValueError(f"recommend.weights has {name!r}, no objective{did_you_mean(name, objectives)}")
        if self.recommend.weights and not any(self.weights()):
            raise ValueError("recommend.weights leaves no objective that counts; give one a weight above 0")
        names = [chip.name for chip in self.chips]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"chips has {twice[0]!r} twice; name each once, and give files names of their own")
        for key, table in (("price", self.price), ("power", self.power)):
            for name in table:
                if name not in names:
                    raise ValueError(f"{key} has {name!r}, no chip of the space{did_you_mean(name, names)}")
        if self.modes is not None and len(set(self.modes)) < len(self.modes):
            raise ValueError(f"modes = {self.modes} names one twice; name each once")
        for chip in self.chips:
            workloads = [w.name for w in self._tables_on(chip)]
            if not workloads:
                raise ValueError(f"no workload is for chip {chip.name!r}; add one without `chips`, or name it there")
            for objective in self.objectives:
                if objective.workload is not None and objective.workload not in workloads:
                    raise ValueError(
                        f"objectives has '{objective}': write WORKLOAD.{objective.metric.name} with a workload of "
                        f"{chip.name} ({', '.join(workloads)})"
                    )
                if missing := objective.metric.missing(chip):
                    raise ValueError(
                        f"objectives has '{objective}': {chip.name} has no {missing}; give it in [{missing}], or drop "
                        "the objective or the chip"
                    )
        return self

    @functools.cached_property
    def default_dtype(self) -> ChosenDtype:
        """The data type of workloads that name none.

        Raises:
            UserError: the reference model is unknown, or the host's kernel cannot be loaded.
        """
        launched = [kernel_for(chip) for chip in self.chips if chip.is_host]
        return default_dtype(read_model_named(self.reference), self.chips, launched)

    def dtype_notes(self) -> tuple[str, ...]:
        """One line where workloads have a data type that nobody asked for and nobody would expect."""
        if (names := [w.name for w in self.workloads if w.dtype is None]) and not self.default_dtype.is_plain:
            return (f"{', '.join(dict.fromkeys(names))}: in {self.default_dtype.text}",)
        return ()

    def workloads_on(self, chip: Chip) -> list[TypedWorkload]:
        """The chip's workloads: its own, else those for all; each with its data type.

        Raises:
            UserError: a data type is left to the reference model, which is unknown.
        """
        return [
            TypedWorkload.model_construct(**{**dict(table), "dtype": table.dtype or self.default_dtype.name})
            for table in self._tables_on(chip)
        ]

    def _tables_on(self, chip: Chip) -> list[WorkloadTable]:
        own = {w.name: w for w in self.workloads if w.chips is None}
        own |= {w.name: w for w in self.workloads if w.chips is not None and chip.name in w.chips}
        return list(own.values())

    def tile_space(self, chip: Chip) -> dict[str, tuple[Value, ...]]:
        """Tile values for a chip: under its name, else under its backend's; empty where all are searched."""
        return {k: tuple(v) for k, v in (self.tiles.get(chip.name) or self.tiles.get(chip.backend) or {}).items()}

    @property
    def choices(self) -> dict[str, Choice]:
        """What each named field of the shape may be; without a depth that follows from the others."""
        return {field: choice for field, choice in self.shape.items() if not isinstance(choice, str)}

    @functools.cached_property
    def varied(self) -> dict[str, list[int]]:
        """Every value of each field that varies, the least first; a field with one value is left out."""
        values = {field: sorted(set(choice_values(choice))) for field, choice in self.choices.items()}
        return {field: found for field, found in values.items() if len(found) > 1}

    @property
    def held(self) -> Held | None:
        """What the depth keeps as the reference has it, where it follows from the other fields."""
        depth = self.shape.get("num_layers")
        return depth if isinstance(depth, str) else None

    def modes_on(self, *, measured: bool) -> list[SampledMode]:
        """How shapes are sampled on a chip.

        All tiles of a shape are ranked by estimates in a millisecond, so that proposing tiles would waste trials; where
        each pair is measured they cannot be ranked.
        """
        return self.modes if self.modes is not None else ["joint" if measured else "nested"]

    def maximised(self) -> list[bool]:
        """Whether more is better, for each objective."""
        return [objective.metric.maximise for objective in self.objectives]

    def weights(self) -> list[float]:
        """What each objective counts for in a recommendation; see :class:`Recommend`."""
        held = self.constraints.min_quality_ratio is not None and any(o.workload for o in self.objectives)
        plain = [0.0 if held and objective.workload is None else 1.0 for objective in self.objectives]
        return [
            self.recommend.weights.get(str(objective), one)
            for objective, one in zip(self.objectives, plain, strict=True)
        ]

    def identity(self) -> str:
        """What makes two studies the same, as JSON text: the space without what may change from run to run.

        That is the number of trials, and its own prices and power: no time depends on them, and on one chip they put
        pairs in no other order.
        """
        return json.dumps(self._stored(without=("price", "power")), sort_keys=True)

    def stored(self) -> str:
        """The space as a study keeps it, as JSON text that :func:`stored_space` reads back; without its trials."""
        return json.dumps(self._stored(), sort_keys=True)

    def _stored(self, without: Sequence[str] = ()) -> dict[str, Any]:
        data = self.model_dump(mode="json", exclude=set(without))
        data["budget"].pop("trials")
        for workload in data["workloads"]:
            workload["dtype"] = workload["dtype"] or self.default_dtype.name
        return data

    def allot(self, trials: int, measured: Collection[str] = ()) -> dict[tuple[str, SampledMode], int]:
        """Trials per (chip, mode), in proportion to the weights, summing to ``trials`` exactly.

        Args:
            trials: over all chips and modes.
            measured: names of the chips that are measured here.
        """
        # Sainte-Lague, a seat at a time: asking for more trials never takes one away.
        counts: dict[tuple[str, SampledMode], int] = {
            (chip.name, mode): 0 for chip in self.chips for mode in self.modes_on(measured=chip.name in measured)
        }
        for _ in range(trials):
            neediest = max(counts, key=lambda key: self.budget.weights.get(key[0], 1.0) / (2 * counts[key] + 1))
            counts[neediest] += 1
        return counts


def load_space(space: str | Path | Space, *, chips: Sequence[str] | None = None, seed: int | None = None) -> Space:
    """Read a space file, or change a space.

    Args:
        space: a file, the name of one that comes with the project, or a Space.
        chips: names or files of chips, instead of the space's.
        seed: instead of the space's.

    Raises:
        UserError: unreadable, or wrong: names the key, the value and the fix.
    """
    if isinstance(space, Space):
        data, source = {name: getattr(space, name) for name in Space.model_fields}, space.name
    else:
        data, source = _read(space)
    if chips is not None:
        data |= _without_others(data, chips) | {"chips": list(chips)}
    if seed is not None:
        data["seed"] = seed
    return read_table(Space, data, source)


def _without_others(data: dict[str, Any], chips: Sequence[str]) -> dict[str, Any]:
    """Prices and power without those of a space's chips that others stand in for; a wrong name stays and is found."""

    def names(some: object) -> set[str]:
        return {chip_of(one).name for one in some} if isinstance(some, list) else set()

    try:
        gone = names(data.get("chips")) - names(list(chips))
    except ValueError:  # a chip that does not exist is named by whoever reads the whole
        return {}
    return {
        key: {name: value for name, value in table.items() if (chip_named(name) or name) not in gone}
        for key in ("price", "power")
        if isinstance(table := data.get(key), dict)
    }


def parse_space(text: str, *, source: str = "space") -> Space:
    """Validate a space file's text. Raises as :func:`load_space`."""
    return read_table(Space, parse_toml(text.encode(), source), source)


def stored_space(study: str, identity: str) -> Space:
    """The space of a stored study, from what :meth:`Space.stored` gave.

    Raises:
        UserError: this version cannot read it.
    """
    source = f"the space of study {study!r}"
    return read_table(Space, parse_json(identity, source), f"{source} cannot be read by this version")


def space_names() -> list[str]:
    """Names of the space files that come with the project."""
    return sorted(Path(file.name).stem for file in spaces_folder().iterdir() if file.name.endswith(".toml"))


def _read(space: str | Path) -> tuple[dict[str, Any], str]:
    file: Traversable = Path(space)
    if not file.is_file() and Path(space).parent == Path() and Path(space).stem in space_names():
        file = spaces_folder() / f"{Path(space).stem}.toml"
    if not file.is_file():
        raise UserError("space file", value=str(space), fix="see `moe-codesign list spaces`")
    if isinstance(file, Path):
        return read_toml(file), file.name
    return parse_toml(file.read_bytes(), file.name), file.name
