"""Launch, verify and time a layer on a device that is here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_codesign.chips import Chip, chip_names, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.estimate import default_tiles
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.measure import Failure, LayerJob, Measurement, MeasuringProcess, device_for
from moe_codesign.models import find_model
from moe_kernels.kernel import Kernel
from moe_kernels.tile import Value


@dataclass(frozen=True)
class BenchRow:
    """One measured tile pair, or why there is no time."""

    num_tokens: int
    tiles: TilePair
    timing: Timing | None
    error: float | None
    checks: int
    device: str
    software: str
    reason: str = ""


def bench_layer(
    shape: MoEShape,
    chip: str,
    workloads: Sequence[Workload],
    *,
    tiles: Sequence[dict[str, Value]] | None = None,
    seconds: float = 1.0,
) -> list[BenchRow]:
    """One rank's layer at each workload.

    Args:
        shape: of the layer.
        chip: ``cpu``, ``cuda``, ``tpu``, or a catalogue chip that this machine holds.
        workloads: what is timed, in order.
        tiles: tiles to race, each for both GEMMs; default the kernel's.
        seconds: of timing per tile.

    Raises:
        UserError: the device is not here, the model does not fit the host.
    """
    found = _device_chip(chip)
    platform_name = device_for(found)
    if platform_name is None:
        raise UserError(f"no {found.product} in this machine", fix="use --device cpu, or audit and predict")
    kernel = kernel_for(found)
    rows: list[BenchRow] = []
    with MeasuringProcess(platform_name) as device:
        for workload in workloads:
            rows += _bench_one(device, found, kernel, rank_work(shape, workload), workload, tiles, seconds)
    return rows


def _device_chip(name: str) -> Chip:
    if name not in ("cuda", "tpu"):
        return load_chip(name)
    for known in chip_names():
        if device_for(load_chip(known)) == name:
            return load_chip(known)
    raise UserError(f"no {name} device of the catalogue in this machine", fix="use --device cpu, or audit and predict")


def _bench_one(
    device: MeasuringProcess,
    chip: Chip,
    kernel: Kernel,
    work: RankWork,
    workload: Workload,
    tiles: Sequence[dict[str, Value]] | None,
    seconds: float,
) -> Iterator[BenchRow]:
    default = default_tiles(kernel, work, chip.target)
    candidates = [default]
    if tiles:
        try:
            one = [kernel.tile_type.from_dict({**default[0].as_dict(), **tile}) for tile in tiles]
        except ValueError as error:
            raise UserError(f"tile: {error}") from None
        candidates = [TilePair(tile, tile) for tile in one]
    needed = 12.0 * len(work.rows) * work.hidden_size * work.intermediate_size * (3 if work.gated else 2)
    if chip.is_host and needed > 0.6 * chip.memory.hbm_bytes:
        raise UserError(
            f"this layer needs about {needed / 1e9:.0f} GB on the host, float64 reference included",
            fix="use --ep or --tp to time one rank's share",
        )
    job = LayerJob.of(work, candidates, seed=workload.seed, budget_s=seconds)
    bound = layer_bound(chip, work)
    for pair, outcome in zip(candidates, device.measure(job), strict=True):
        if isinstance(outcome, Failure):
            yield BenchRow(workload.num_tokens, pair, None, None, 0, chip.product, "", outcome.reason)
        elif isinstance(outcome, Measurement):
            timing = outcome.timing(bound.us, bound.kind)
            reason = "implausible: faster than the physical bound" if timing.implausible else ""
            yield BenchRow(
                workload.num_tokens,
                pair,
                timing,
                outcome.error,
                outcome.checks,
                outcome.device,
                outcome.software,
                reason,
            )


def bench(
    model: str | MoEShape,
    *,
    chip: str = "cpu",
    tokens: Sequence[int] = (8, 64),
    tiles: Sequence[dict[str, Value]] | None = None,
    routing: str = DEFAULT_ROUTING_TEXT,
    tp: int = 1,
    ep: int = 1,
    seed: int = 0,
    seconds: float = 1.0,
) -> list[BenchRow]:
    """Launch, verify and time a layer on a device that is here.

    Args:
        model: catalogue name, config.json or shape.
        chip: ``cpu``, ``cuda``, ``tpu``, or a catalogue chip that this machine holds.
        tokens: batch sizes.
        tiles: tiles to race, each for both GEMMs; default the kernel's.
        routing, tp, ep: as in a workload; one rank is timed.
        seconds: of timing per tile.

    Raises:
        UserError: the device is not here, the model does not fit the host.
    """
    shape = model if isinstance(model, MoEShape) else find_model(model)
    workloads = [
        Workload(name="bench", num_tokens=count, routing=parse_routing(routing), tp=tp, ep=ep, seed=seed)
        for count in tokens
    ]
    return bench_layer(shape, chip, workloads, tiles=tiles, seconds=seconds)
