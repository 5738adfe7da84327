"""The tables inside of a space file: workloads, the budget, how to recommend, and prices and power of its own."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from moe_codesign.chips.schema import PRICE_DATE, OwnPower, Price
from moe_codesign.domain.routing import DEFAULT_ROUTING, by_layer
from moe_codesign.domain.workload import LARGEST_BATCH, DtypeText, LayersText, Workload
from moe_codesign.study.chip_fields import ChipName
from moe_codesign.tables import Label, Table

MOST_TRIALS = 1_000_000
MOST_POINTS = 10_000_000
"""Of a space that is enumerated: some hours."""
BatchSize = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]


class WorkloadTable(Table):
    """One workload: a batch, how its tokens choose experts, and how the layer is split over chips.

    Args:
        name: what objectives and reports call it.
        num_tokens: tokens of the batch, over all ranks together.
        dtype: data type of weights and activations; without the key the reference's own where every chip of the space
            has it, else bfloat16.
        routing: how tokens choose experts: uniform, balanced, zipf:ALPHA, power_law:ALPHA or histogram:FILE.json; of
            loads that were recorded in several layers the layer that takes longest counts, or FILE.json#LAYER.
        tp: tensor-parallel ranks that share every expert.
        ep: expert-parallel ranks that share out the experts; the busiest rank is timed.
        chips: the chips that it is for, by name or file; it replaces a workload of the same name there. Without the key
            it is for all chips.
    """

    name: Label
    num_tokens: BatchSize
    dtype: DtypeText | None = None
    routing: LayersText = DEFAULT_ROUTING
    tp: BatchSize = 1
    ep: BatchSize = 1
    chips: list[ChipName] | None = None


class TypedWorkload(WorkloadTable):
    """A workload whose data type is known: its own, or the reference model's."""

    dtype: DtypeText

    def by_layer(self, seed: int | None) -> dict[int | None, Workload]:
        """The workload of each layer whose loads were recorded; the one workload, by None, of another routing.

        Args:
            seed: of the draw of a random routing; None asks for what is to be expected of it.
        """
        return {
            layer: Workload(
                name=self.name,
                num_tokens=self.num_tokens,
                dtype=self.dtype,
                routing=routing,
                tp=self.tp,
                ep=self.ep,
                seed=seed,
            )
            for layer, routing in by_layer(self.routing).items()
        }


class Budget(Table):
    """How many trials there are, and how they are shared out.

    Args:
        trials: trials over all chips and modes.
        weights: each chip's share of the trials, by name or file; a chip that is not named has 1.
        measure_top: tile pairs that are measured for each shape, where the chip is in this machine.
        measure_seconds: seconds that each measurement of a tile pair takes.
        exact_up_to: shapes up to which a space is enumerated where ``sampler`` is auto; some 20,000 take a minute.
        polish: neighbours of the frontier that are judged at most, and timed, on each chip that was sampled and is
            estimated: one step in one field, or in two, until the frontier stops moving. They are beside ``trials``. 0
            for none.
    """

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 200
    weights: dict[ChipName, Annotated[float, Field(gt=0)]] = {}
    measure_top: PositiveInt = 2
    measure_seconds: float = Field(default=0.5, gt=0, le=3600)
    exact_up_to: Annotated[int, Field(ge=0, le=MOST_POINTS)] = 30_000
    polish: Annotated[int, Field(ge=0, le=MOST_POINTS)] = 10_000


class Recommend(Table):
    """How one pair of a chip's frontier is chosen.

    Args:
        weights: what each objective counts for, by its name in ``objectives``: { "decode.latency_us" = 3 }. An
            objective that is not named counts 1; ``quality`` counts 0 where ``constraints.min_quality_ratio`` holds it.
    """

    weights: dict[str, Annotated[float, Field(ge=0)]] = {}


class PriceTable(Table):
    """What a chip costs, instead of what its file lists.

    Args:
        usd_per_hour: US dollars of an hour of one chip.
        date: month or day of the price, as 2026-07 or 2026-07-31.
        source: where it is from, as "our contract".
    """

    usd_per_hour: PositiveFloat
    date: Annotated[str, Field(pattern=PRICE_DATE)] | None = None
    source: Label | None = None

    def price(self) -> Price:
        """It as a chip has it."""
        return Price(self.usd_per_hour, "space", self.date, self.source)


class PowerTable(Table):
    """What a chip draws, instead of what its file lists.

    Args:
        watts: of one chip, with its share of the server and of cooling.
        source: where it is from, as "measured in our racks".
    """

    watts: PositiveFloat
    source: Label | None = None

    def power(self) -> OwnPower:
        """It as a chip has it."""
        return OwnPower(self.watts, self.source)


def _number_as(key: str) -> BeforeValidator:
    """A number stands for a table of that one key."""

    def read(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {key: value} if is_number else value

    return BeforeValidator(read)


OwnPrice = Annotated[PriceTable, _number_as("usd_per_hour")]
OwnWatts = Annotated[PowerTable, _number_as("watts")]
