"""Launch, verify and time a layer on a device that is here."""

from collections.abc import Sequence

from moe_codesign.answers.bench import BenchRow
from moe_codesign.chips import Chip, chip_names, load_chip
from moe_codesign.compiler.kernels import default_tiles, kernel_for
from moe_codesign.domain.dtype import DEFAULT_DTYPE, parse_dtype
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.routing import DEFAULT_ROUTING_TEXT, parse_routing
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.extras import require
from moe_codesign.funnel import Failed, Timed, implausible, race
from moe_codesign.measure import MeasuringProcess, device_for, missing_package
from moe_codesign.models import ReadModel, read_model_named
from moe_codesign.models.default_dtype import ChosenDtype, default_dtype
from moe_kernels.kernel import Kernel
from moe_kernels.tile import Value


def bench(
    model: str | MoEShape | ReadModel,
    *,
    device: str = "cpu",
    tokens: Sequence[int] = (8, 64),
    tiles: Sequence[dict[str, Value]] | None = None,
    dtype: str | None = None,
    routing: str = DEFAULT_ROUTING_TEXT,
    tp: int = 1,
    ep: int = 1,
    seed: int = 0,
    seconds: float = 1.0,
) -> list[BenchRow]:
    """Launch, verify and time a layer on a device that is here.

    Args:
        model: catalogue name, config.json, what :func:`moe_codesign.api.model.model` read, or a shape.
        device: ``cpu``, ``cuda``, ``tpu``, or a catalogue chip that this machine holds.
        tokens: batch sizes, over all ranks together.
        tiles: tiles to race, each for both GEMMs; default the kernel's.
        dtype: type of weights and activations; default as :func:`bench_dtype` says.
        routing, tp, ep: as in a workload; one rank is timed.
        seed: of the routing and of the operands.
        seconds: how long each pair of tiles is timed.

    Returns:
        For each batch size one row per pair of tiles.

    Raises:
        UserError: the device is not here or does not run the type, a tile has a wrong field, or the layer does not fit
            the host's memory.
    """
    read = ReadModel(model, DEFAULT_DTYPE) if isinstance(model, MoEShape) else model
    read = read_model_named(read) if isinstance(read, str) else read
    chosen = parse_routing(routing)
    chip = _chip_of(device)
    if package := missing_package(chip):
        require(package, f"measuring {chip.name}")
    platform = device_for(chip)
    if platform is None:
        raise UserError(f"no {chip.product} in this machine", fix="use --device cpu, or audit and predict")
    kernel = kernel_for(chip)
    dtype = _dtype_of(read, chip).name if dtype is None else parse_dtype(dtype)
    workloads = [
        Workload(name="bench", num_tokens=count, dtype=dtype, routing=chosen, tp=tp, ep=ep, seed=seed)
        for count in tokens
    ]
    rows = []
    with MeasuringProcess(platform) as process:
        for workload in workloads:
            work = rank_work(read.shape, workload)
            _check_memory(chip, work)
            pairs = _pairs(kernel, chip, work, tiles)
            for raced in race(process, chip, kernel, work, pairs, seed=seed, seconds=seconds):
                rows.append(_row(workload, chip, raced))
    return rows


def bench_dtype(model: ReadModel, device: str) -> ChosenDtype:
    """The type that :func:`bench` measures a model in where it is asked for none: its own, where the device runs it.

    Raises:
        UserError: the device is not of this machine.
    """
    return _dtype_of(model, _chip_of(device))


def _dtype_of(model: ReadModel, chip: Chip) -> ChosenDtype:
    return default_dtype(model, [chip], [kernel_for(chip)])


def _chip_of(device: str) -> Chip:
    if device not in ("cuda", "tpu"):
        return load_chip(device)
    for name in chip_names():
        if device_for(load_chip(name)) == device:
            return load_chip(name)
    raise UserError(
        f"no {device} device of the catalogue in this machine", fix="use --device cpu, or audit and predict"
    )


def _check_memory(chip: Chip, work: RankWork) -> None:
    needed = 12.0 * len(work.rows) * work.hidden_size * work.intermediate_size * (3 if work.gated else 2)
    if chip.is_host and needed > 0.6 * chip.memory.hbm_bytes:
        raise UserError(
            f"this layer needs about {needed / 1e9:.0f} GB on the host, float64 reference included",
            fix="use --ep or --tp to time one rank's share",
        )


def _pairs(kernel: Kernel, chip: Chip, work: RankWork, tiles: Sequence[dict[str, Value]] | None) -> list[TilePair]:
    default = default_tiles(kernel, work, chip.target)
    if not tiles:
        return [default]
    try:
        given = [kernel.tile_type.from_dict({**default.up.as_dict(), **tile}) for tile in tiles]
    except ValueError as error:
        raise UserError(f"tile: {error}") from None
    return [TilePair(tile, tile) for tile in given]


def _row(workload: Workload, chip: Chip, raced: Timed | Failed) -> BenchRow:
    if isinstance(raced, Failed):
        return BenchRow(
            num_tokens=workload.num_tokens,
            routing=str(workload.routing),
            dtype=workload.dtype,
            tiles=raced.tiles,
            device=chip.product,
            reason=raced.failure,
        )
    return BenchRow(
        num_tokens=workload.num_tokens,
        routing=str(workload.routing),
        dtype=workload.dtype,
        tiles=raced.tiles,
        timing=raced.timing,
        error=raced.measurement.error,
        checks=raced.measurement.checks,
        device=raced.measurement.device,
        software=raced.measurement.software,
        reason=implausible(raced.timing) if raced.timing.implausible else None,
    )
