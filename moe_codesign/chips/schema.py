"""What a chip file holds: one class for each kind of chip, which demands every number that the kind's models read.

The file's ``backend`` says which class it is: ``triton`` a GPU, ``pallas`` a TPU, ``none`` a chip that only its
datasheet speaks for. Every number has a source, and every price a date.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, PrivateAttr, field_validator, model_validator

from moe_codesign.chips.link import Link
from moe_codesign.errors import UserError
from moe_codesign.tables import Label, Name, Table

_RATE_OF = {"fp8_block": "fp8", "mxfp4": "bfloat16", "int4": "bfloat16"}
"""Data types that run at another one's rate: 4-bit weights are widened to 16 bits."""


MemoryKind = Literal["hbm", "gddr", "lpddr", "ddr", "sram"]


class Memory(Table):
    """The memory that holds a model's weights, of the whole chip.

    Args:
        kind: `hbm`, `gddr`, `lpddr`, `ddr`, or `sram`: memory on the die, of which a model needs that of many chips.
        hbm_bytes_per_s: bytes per second at peak, whichever kind it is.
        hbm_bytes: bytes that a model can be put in.
    """

    kind: MemoryKind = "hbm"
    hbm_bytes_per_s: PositiveFloat
    hbm_bytes: PositiveFloat


class GpuMemory(Memory):
    """A GPU's memory and caches.

    Args:
        l2_bytes: the L2 of the whole chip.
        l2_bytes_per_s: what all cores together read from it.
        l3_bytes: a cache behind the L2, on chips that have one (AMD's Infinity Cache).
        hbm_efficiency: share of the peak bandwidth that a streaming read reaches.
        hbm_latency_ns: of one load that no cache holds.
    """

    l2_bytes: PositiveFloat
    l2_bytes_per_s: PositiveFloat
    l3_bytes: PositiveFloat | None = None
    hbm_efficiency: Annotated[float, Field(gt=0, le=1)]
    hbm_latency_ns: PositiveFloat

    @property
    def last_level_bytes(self) -> float:
        """Bytes of the cache that is nearest to memory."""
        return self.l2_bytes if self.l3_bytes is None else self.l3_bytes


class HostMemory(Memory):
    """The host's memory, and its last-level cache: 0 bytes where the operating system does not say."""

    kind: MemoryKind = "ddr"
    cache_bytes: NonNegativeFloat


class GpuCore(Table):
    """One streaming multiprocessor (NVIDIA) or compute unit (AMD).

    Args:
        count: cores of the chip.
        clock_hz: cycles per second at which the peaks hold.
        shared_bytes: shared memory (LDS) of a core.
        shared_bytes_per_block: the most of it that one block may have.
        registers: registers of 4 bytes of a core.
        max_threads: threads that are resident at once.
        max_blocks: blocks that are resident at once.
        schedulers: units that issue one instruction per cycle each.
        warp_size: threads of a warp or wavefront.
    """

    count: PositiveInt
    clock_hz: PositiveFloat
    shared_bytes: PositiveInt
    shared_bytes_per_block: PositiveInt
    registers: PositiveInt
    max_threads: PositiveInt
    max_blocks: PositiveInt
    schedulers: PositiveInt
    warp_size: PositiveInt


class TpuCore(Table):
    """One TensorCore.

    Args:
        count: cores of the chip.
        clock_hz: cycles per second at which the peaks hold.
        vmem_bytes: vector memory of a core.
        mxu_count: matrix units of a core.
        mxu_dim: rows and columns of each.
        profile_cycles_per_ns: the compiler's static cycles in a nanosecond, fitted to published times.
        devices_per_chip: devices that JAX sees a chip as.
    """

    count: PositiveInt
    clock_hz: PositiveFloat
    vmem_bytes: PositiveInt
    mxu_count: PositiveInt
    mxu_dim: PositiveInt
    profile_cycles_per_ns: PositiveFloat
    devices_per_chip: PositiveInt

    @property
    def matrix_side(self) -> float:
        """Rows and columns that a matrix unit holds; it pads what is smaller."""
        return float(self.mxu_dim)

    @property
    def products_per_cycle(self) -> float:
        """Multiply-adds of the core's matrix units in bfloat16, when they are full.

        A unit takes one row per cycle; one of 256 rows takes two, without which the chip files' peaks are not reached.
        """
        return self.mxu_count * self.matrix_side**2 * (2 if self.mxu_dim == 256 else 1)


class HostCore(Table):
    """One core of the host's processor."""

    count: PositiveInt
    clock_hz: PositiveFloat


class DatasheetCore(Table):
    """One core of a chip without a compiler here; the roofline reads nothing of it.

    Args:
        count: cores of the chip.
        clock_hz: cycles per second.
    """

    count: PositiveInt
    clock_hz: PositiveFloat | None = None


class Power(Table):
    """What a chip draws.

    Args:
        tdp_w: watts of the chip alone, at most.
        all_in_kw: kilowatts with its share of server, network and cooling.
    """

    tdp_w: PositiveFloat | None = None
    all_in_kw: PositiveFloat | None = None


PriceKind = Literal["on_demand", "rental_3y", "own"]
PRICE_KINDS: tuple[PriceKind, ...] = get_args(PriceKind)
"""What a price is of: an hour on demand, an hour of a rental of three years, or an hour of owning the chip.
Costs are by the first of these that a chip file lists."""


PRICE_DATE = r"^\d{4}-\d{2}(-\d{2})?$"
"""Month or day of a price, as 2026-07 or 2026-07-31."""
Date = Annotated[str, Field(pattern=PRICE_DATE)]


class Price(NamedTuple):
    """One price of a chip-hour: USD, what it is the price of, when it was listed, and where.

    A price of the kind ``space`` is one that a space file gives itself; it need not say when and where.
    """

    usd_per_hour: float
    kind: PriceKind | Literal["space"]
    date: str | None
    source: str | None

    def __str__(self) -> str:
        kind = ", the space's own" if self.kind == "space" else f" {self.kind}"
        return f"{self.usd_per_hour:g} $/h{kind}" + (f", {self.date}" if self.date else "")


class OwnPower(NamedTuple):
    """Power that a space file gives itself: watts of one chip with its share of server and cooling, and from where."""

    watts: float
    source: str | None


Confidence = Literal["vendor", "second_hand"]
SECOND_HAND_DOUBT = 2.0
"""By what a second-hand number may be off, either way. A figure that is passed on is mostly off by this very factor:
the peak of sparse matrices for that of dense ones, two dies for one, both directions of a wire for one. Claims about
the chips that are so marked differ by up to 1.5 (4-bit peak of Rubin: 33 to 50 PFLOP/s)."""


class _Chip(Table):
    """What every chip has.

    Args:
        name: what commands and results call it.
        product: its maker's name for it.
        vendor: its maker.
        backend: what kind of chip it is: `triton` (a GPU that Triton compiles for), `pallas` (a TPU) or `none` (known
            from its data sheet alone).
        target: of the compiler: `cuda:90`, `hip:gfx942`, `v6e:2x2`.
        confidence: whose numbers they are: `vendor`, the maker's own; or `second_hand`, which others report or which
            are disputed. On such a chip every interval is twice as wide on either side, and the bound half as high.
        peak_flops_per_s: dense FLOP/s of the whole chip by data type.
        memory: where a model's weights lie.
        core: what the chip has many of.
        link: how it reaches other chips.
        power: what it draws.
        price_usd_per_hour: dollars for an hour of one chip by kind: on_demand, rental_3y, own.
        price_date: month or day on which each price was listed, by the same kinds; one date for all of them may stand
            alone.
        sources: where each number is from, by its key or by that of its table. `link` there says why a chip without
            [link] has none.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Data types whose peak the models of this kind of chip read whatever the problem's type."""
    kind: ClassVar[str]
    """What a message calls such a chip."""
    compiles: ClassVar[bool] = False
    """Whether the chip's own compiler runs here without the chip."""
    is_host: ClassVar[bool] = False
    grade: ClassVar[Literal["measured", "simulated", "modelled", "datasheet"]]
    """Grade of its times where the chip itself is not at hand."""

    name: Name
    product: Label
    vendor: Label
    backend: str
    confidence: Confidence = "vendor"
    peak_flops_per_s: dict[str, PositiveFloat]
    memory: Memory
    link: Link | None = None
    power: Power = Power()
    price_usd_per_hour: dict[PriceKind, PositiveFloat] = {}
    price_date: dict[PriceKind, Date] = {}
    sources: dict[str, Annotated[str, Field(min_length=1)]]
    _own_price: Price | None = PrivateAttr(default=None)
    _own_power: OwnPower | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _one_date(cls, data: Any) -> Any:
        """One date for all prices, as one for each."""
        if isinstance(data, dict) and isinstance(date := data.get("price_date"), str):
            return {**data, "price_date": dict.fromkeys(data.get("price_usd_per_hour", ()), date)}
        return data

    @field_validator("peak_flops_per_s")
    @classmethod
    def _has_peaks(cls, peaks: dict[str, float]) -> dict[str, float]:
        for dtype in cls.needs:
            if dtype not in peaks:
                raise ValueError(f"the models of a {cls.kind} need a peak for {dtype}")
        if not peaks:
            raise ValueError("give the peak of at least one data type")
        return peaks

    @model_validator(mode="after")
    def _check(self) -> Self:
        for leaf in _numeric_leaves(self.model_dump(exclude={"sources"}, exclude_unset=True)):
            if not any(leaf == key or leaf.startswith(key + ".") for key in self.sources):
                raise ValueError(f"{leaf} has no source; add it to [sources]")
        for kind in PRICE_KINDS:
            if kind in self.price_usd_per_hour and kind not in self.price_date:
                raise ValueError(f"price_date.{kind} is missing; say when that price was listed, as in 2026-07")
            if kind in self.price_date and kind not in self.price_usd_per_hour:
                raise ValueError(f"price_date.{kind} is the date of no price; leave it out")
        return self

    def __hash__(self) -> int:
        """Chips are keys of caches by all that they are: two of one name that differ are not equal."""
        return hash((type(self), self.name))

    @classmethod
    def of(cls, chip: "Chip") -> Self:
        """The chip as one of this kind.

        Raises:
            UserError: it is of another kind.
        """
        if not isinstance(chip, cls):
            raise UserError(f"chip {chip.name} is a {chip.kind}, not a {cls.kind}", fix=f"name a {cls.kind}")
        return chip

    def runs(self, backend: str) -> bool:
        """Whether kernels of that backend run on the chip."""
        return self.backend == backend

    def has(self, dtype: str) -> bool:
        """Whether the chip has matrix units for ``dtype``."""
        return _RATE_OF.get(dtype, dtype) in self.peak_flops_per_s

    def peak(self, dtype: str) -> float:
        """Dense FLOP/s for ``dtype``, 4-bit weights at the rate of 16 bits.

        Raises:
            UserError: the chip has no matrix units for it, or its data sheet does not say.
        """
        found = self.peak_flops_per_s.get(_RATE_OF.get(dtype, dtype))
        if found is None:
            # What its maker does not say of a chip, it may have all the same.
            what = f"no peak of {self.name} for {dtype} is known" if self.grade == "datasheet" else None
            known = ", ".join(self.peak_flops_per_s)
            raise UserError(what or f"{self.name} has no {dtype} matrix units", fix=f"use one of {known}")
        return found

    @property
    def prices(self) -> dict[PriceKind, Price]:
        """Every price of one chip-hour that is listed, by kind, in the order of PRICE_KINDS."""
        return {kind: self._price(kind) for kind in PRICE_KINDS if kind in self.price_usd_per_hour}

    @property
    def price(self) -> Price | None:
        """The price of one chip-hour that costs are by: one that a space gives, else the first of PRICE_KINDS that is
        listed; None without any."""
        if self._own_price is not None:
            return self._own_price
        return next((self._price(kind) for kind in PRICE_KINDS if kind in self.price_usd_per_hour), None)

    def _price(self, kind: PriceKind) -> Price:
        source = self.sources.get(f"price_usd_per_hour.{kind}") or self.sources["price_usd_per_hour"]
        return Price(self.price_usd_per_hour[kind], kind, self.price_date[kind], source)

    @property
    def doubt(self) -> float:
        """By what factor the chip's numbers may be off, either way; 1 where they are its maker's own."""
        return SECOND_HAND_DOUBT if self.confidence == "second_hand" else 1.0

    def chips_that_hold(self, data_bytes: float) -> int:
        """The fewest such chips whose memory holds so many bytes, at least one: a model over SRAM takes hundreds."""
        return max(math.ceil(data_bytes / self.memory.hbm_bytes), 1)

    def linked(self) -> Link:
        """How it reaches the other chips that a layer or a model is split over.

        Raises:
            UserError: its file does not say, so that nothing can be split over several of them.
        """
        if self.link is None:
            why = self.sources.get("link", "its file has no [link]")
            raise UserError(f"a split over several {self.name} cannot be timed: {why}", fix="ask for one chip")
        return self.link

    @property
    def own_power(self) -> OwnPower | None:
        """The power that a space gives; None where it is the file's."""
        return self._own_power

    @property
    def all_in_w(self) -> float | None:
        """Watts of one chip with its share of server and cooling, which energy is by; None where nobody says."""
        if self._own_power is not None:
            return self._own_power.watts
        return None if self.power.all_in_kw is None else self.power.all_in_kw * 1e3

    def at(self, price: Price | None, power: OwnPower | None) -> Self:
        """The chip at another price and power; None for what its file says."""
        chip = self.model_copy()
        chip._own_price, chip._own_power = price, power
        return chip

    def as_filed(self) -> Self:
        """The chip at what its file says."""
        return self.at(None, None)


class GpuChip(_Chip):
    """A GPU that Triton compiles for.

    Args:
        device_names: as the serving stacks' tuned files call it; where drivers differ, the usual name first.
        target: of the compiler: ``cuda:SM`` or ``hip:GFX``.
    """

    kind = "GPU"
    grade = "modelled"
    compiles = True
    needs = ("bfloat16",)

    vendor: Literal["nvidia", "amd"]
    backend: Literal["triton"]
    device_names: tuple[str, ...] = ()
    target: Annotated[str, Field(pattern=r"^(cuda:\d+|hip:gfx\w+)$")]
    memory: GpuMemory
    core: GpuCore


class TpuChip(_Chip):
    """A TPU that libtpu compiles Pallas kernels for; ``target`` is its topology, as ``v6e:2x2``."""

    kind = "TPU"
    grade = "simulated"
    compiles = True
    needs = ("bfloat16",)

    backend: Literal["pallas"]
    target: Annotated[str, Field(pattern=r"^\w+:\d+(x\d+)*$")]
    memory: Memory
    core: TpuCore


class HostChip(_Chip):
    """This machine's processor, on which Pallas kernels run through XLA. It is detected, never read from a file."""

    kind = "host"
    grade = "measured"
    is_host = True
    needs = ("bfloat16",)

    backend: Literal["pallas"] = "pallas"
    target: None = None
    memory: HostMemory
    core: HostCore


class DatasheetChip(_Chip):
    """A chip that no compiler here compiles for: its times are a roofline."""

    kind = "chip known from its datasheet"
    grade = "datasheet"

    backend: Literal["none"]
    target: None = None
    memory: Memory
    core: DatasheetCore


Chip = GpuChip | TpuChip | HostChip | DatasheetChip
CompiledChip = GpuChip | TpuChip
"""A chip whose own compiler runs here without the chip."""

CLASS_OF: dict[str, type[GpuChip] | type[TpuChip] | type[DatasheetChip]] = {
    "triton": GpuChip,
    "pallas": TpuChip,
    "none": DatasheetChip,
}
"""The kind of chip that a file describes, by its ``backend``."""


def _numeric_leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    leaves = []
    for key, value in table.items():
        if isinstance(value, dict):
            leaves += _numeric_leaves(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            leaves.append(prefix + key)
    return leaves
