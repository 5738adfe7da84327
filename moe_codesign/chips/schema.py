"""What a chip file holds. Every number needs a source."""

from typing import Any, Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from moe_codesign.tables import Table

_RATE_OF = {"fp8_block": "fp8", "mxfp4": "bfloat16", "int4": "bfloat16"}


class Memory(Table):
    """Off-chip memory and the last-level cache of the whole chip."""

    hbm_bytes_per_s: PositiveFloat
    hbm_bytes: PositiveFloat
    l2_bytes: PositiveFloat | None = None
    l2_bytes_per_s: PositiveFloat | None = None
    l3_bytes: PositiveFloat | None = None
    hbm_efficiency: float = 1.0
    hbm_latency_ns: PositiveFloat | None = None


class Core(Table):
    """One SM, compute unit, TensorCore, NeuronCore or CPU core."""

    count: PositiveInt
    clock_hz: PositiveFloat | None = None
    shared_bytes: PositiveInt | None = None
    shared_bytes_per_block: PositiveInt | None = None
    registers: PositiveInt | None = None
    max_threads: PositiveInt | None = None
    max_blocks: PositiveInt | None = None
    schedulers: PositiveInt | None = None
    warp_size: PositiveInt | None = None
    vmem_bytes: PositiveInt | None = None
    mxu_count: PositiveInt | None = None
    mxu_dim: PositiveInt | None = None
    profile_cycles_per_ns: PositiveFloat | None = None
    devices_per_chip: PositiveInt = 1

    @property
    def matrix_side(self) -> float:
        """Rows and columns that a TPU's matrix unit holds; it pads what is smaller."""
        return float(self.mxu_dim or 128)

    @property
    def products_per_cycle(self) -> float:
        """Multiply-adds of a TPU core's matrix units in bfloat16, when they are full.

        A unit takes a row a cycle, of 256 two: that is what the chip files' peaks need.
        """
        return (self.mxu_count or 1) * self.matrix_side**2 * (2 if self.matrix_side == 256 else 1)


class Power(Table):
    """Of the chip alone, and with its share of server and cooling."""

    tdp_w: PositiveFloat | None = None
    all_in_kw: PositiveFloat | None = None


class Chip(Table):
    """One accelerator (or this host), with peaks in dense FLOP/s and bytes/s of the whole chip."""

    name: str
    product: str
    device_name: str | None = None
    """As the serving stacks' tuned files call it."""
    vendor: str
    backend: Literal["triton", "pallas", "none"]
    target: str | None = None
    peak_flops_per_s: dict[str, PositiveFloat]
    memory: Memory
    core: Core
    power: Power = Power()
    price_usd_per_hour: dict[str, PositiveFloat] = {}
    sources: dict[str, str]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for leaf in _numeric_leaves(self.model_dump(exclude={"sources"}, exclude_unset=True)):
            if not any(leaf == key or leaf.startswith(key + ".") for key in self.sources):
                raise ValueError(f"{leaf} has no source; add it to [sources]")
        if self.backend == "triton":
            needed = {
                "memory": ("l2_bytes", "l2_bytes_per_s", "hbm_latency_ns"),
                "core": ("clock_hz", "shared_bytes", "shared_bytes_per_block", "max_threads", "max_blocks"),
            }
        elif self.target is not None:
            needed = {"core": ("vmem_bytes", "profile_cycles_per_ns")}
        else:
            needed = {}
        for table, fields in needed.items():
            for field in fields:
                if getattr(getattr(self, table), field) is None:
                    raise ValueError(f"{table}.{field} is missing; backend {self.backend!r} needs it")
        return self

    @property
    def compiles(self) -> bool:
        """Whether a compiler for this chip runs here without the chip."""
        return self.backend != "none" and self.target is not None

    @property
    def is_host(self) -> bool:
        return self.name == "cpu"

    def peak(self, dtype: str) -> float | None:
        """Dense FLOP/s for ``dtype``, 4-bit weights at the rate of 16 bits. None: the chip has no such type."""
        return self.peak_flops_per_s.get(_RATE_OF.get(dtype, dtype))

    def usd_per_hour(self) -> float | None:
        """The lowest listed price of one chip-hour."""
        return min(self.price_usd_per_hour.values(), default=None)


def _numeric_leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    leaves = []
    for key, value in table.items():
        if isinstance(value, dict):
            leaves += _numeric_leaves(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            leaves.append(prefix + key)
    return leaves
