"""A pair: a shape and the tiles that run it, on a chip, under a workload, with its time and quality."""

from dataclasses import asdict, dataclass
from typing import Any

from moe_codesign.chips import Chip
from moe_codesign.domain.routing import parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_kernels.tile import Value


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One candidate under one workload.

    Args:
        mode: ``joint``, ``nested`` or ``reference``.
        trial: Optuna's trial number within its chip and mode.
        tiles: (GEMM 1, GEMM 2), empty at grade ``datasheet``.
        tile_labels: how tables print them.
        quality_ratio: dense-equivalent compute over the reference model's; 1 is equal quality.
        outside: what of the shape lies outside the scaling law's range.
    """

    chip: str
    mode: str
    trial: int
    shape: MoEShape
    workload: Workload
    kernel: str | None
    tiles: tuple[dict[str, Value], ...]
    tile_labels: tuple[str, ...]
    timing: Timing
    quality_ratio: float
    outside: tuple[str, ...] = ()

    def metrics(self, chip: Chip) -> dict[str, float]:
        """Every metric an objective can name, of the model's MoE layers alone (no attention, no network)."""
        seconds = self.timing.latency_us * 1e-6 * self.shape.num_layers
        tokens_per_s = self.workload.num_tokens / seconds
        found = {
            "latency_us": self.timing.latency_us,
            "tokens_per_s_per_chip": tokens_per_s / self.workload.chips,
            "tokens_per_s_per_user": 1.0 / seconds,
            "quality": self.quality_ratio,
        }
        if chip.price is not None:
            found["usd_per_mtok"] = chip.price.usd_per_hour * self.workload.chips / (tokens_per_s * 3600 / 1e6)
        if chip.power.all_in_kw is not None:
            found["joules_per_token"] = chip.power.all_in_kw * 1e3 * self.workload.chips / tokens_per_s
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        data = asdict(self)
        data["workload"]["routing"] = str(self.workload.routing)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Pair":
        workload = dict(data["workload"])
        workload["routing"] = parse_routing(workload["routing"])
        timing = dict(data["timing"])
        timing["samples_us"] = tuple(timing["samples_us"])
        return cls(
            **{
                **data,
                "shape": MoEShape(**data["shape"]),
                "workload": Workload(**workload),
                "timing": Timing(**timing),
                "tiles": tuple(data["tiles"]),
                "tile_labels": tuple(data["tile_labels"]),
                "outside": tuple(data["outside"]),
            }
        )
