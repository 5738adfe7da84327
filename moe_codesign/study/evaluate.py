"""One candidate: constraints first, then a time per workload, then its pairs."""

from collections.abc import Sequence

from moe_codesign.chips import Chip, DatasheetChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.bound import layer_bound
from moe_codesign.cost.estimate import Estimate, NoTileError, default_tiles, estimate_layer
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.grouped_gemm import layer_gemms
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.measure import Failure, LayerJob, Measurement, MeasuringProcess
from moe_codesign.models import find_model
from moe_codesign.quality import Quality, quality
from moe_codesign.study.space import Space
from moe_kernels.kernel import Kernel
from moe_kernels.tile import BlockedTile, TileConfig


class InfeasibleError(Exception):
    """A candidate that breaks a constraint; says which. ``violation`` is above 0 and grows with the breach."""

    def __init__(self, reason: str, violation: float = 1.0) -> None:
        super().__init__(reason)
        self.violation = violation


class Evaluator:
    """Evaluates shapes and tiles of one space on one chip: measured where it is here, estimated where not."""

    def __init__(self, space: Space, chip: Chip, tables: Tables, bench: MeasuringProcess | None) -> None:
        self.space, self.chip, self.tables, self.bench = space, chip, tables, bench
        self.reference = find_model(space.reference)
        self.workloads = [w.workload(space.seed) for w in space.workloads_on(chip.name)]
        self.kernel: Kernel | None = kernel_for(chip) if not isinstance(chip, DatasheetChip) else None
        self.tile_space = space.tile_space(chip.name, chip.backend)
        self._reference_quality = self.quality(self.reference)

    def quality(self, shape: MoEShape) -> Quality:
        return quality(shape, self.space.training_tokens)

    def quality_ratio(self, shape: MoEShape) -> float:
        return self.quality(shape).ratio(self._reference_quality)

    def check(self, shape: MoEShape) -> None:
        """Raise InfeasibleError where the shape breaks a constraint of the space, or cannot be split."""
        limits = self.space.constraints
        ratio = self.quality_ratio(shape)
        if limits.min_quality_ratio is not None and ratio < limits.min_quality_ratio:
            raise InfeasibleError(
                f"quality: {ratio:.3f} of the reference, below {limits.min_quality_ratio:g}",
                limits.min_quality_ratio - ratio,
            )
        for workload in self.workloads:
            if reason := workload.misfit(shape):
                raise InfeasibleError(f"split: {reason}")
            used = _weight_bytes_per_chip(shape, workload)
            allowed = limits.memory_fraction * self.chip.memory.hbm_bytes
            if used > allowed and not self.chip.is_host:  # the host holds one layer, not the model
                raise InfeasibleError(
                    f"memory: {used / 1e9:.1f} GB of weights per chip, {allowed / 1e9:.1f} GB allowed",
                    used / allowed - 1.0,
                )

    def pairs(self, shape: MoEShape, tiles: dict[str, TilePair] | None, *, mode: str, trial: int) -> list[Pair]:
        """One pair per workload.

        Args:
            shape: the candidate.
            tiles: per workload name (GEMM 1, GEMM 2) for the joint mode; None ranks all tiles and keeps the best.
            mode, trial: what the pairs are filed under.

        Raises:
            InfeasibleError: a tile was refused, or a measurement failed.
        """
        found = []
        for workload in self.workloads:
            wanted = tiles[workload.name] if tiles else None
            try:
                work = rank_work(shape, workload)
                timing, kernel, chosen = self._time(work, wanted, trial)
            except NoTileError as error:
                raise InfeasibleError(f"compiler: {error}") from None
            except UserError as error:
                raise InfeasibleError(f"unsupported: {error}") from None
            found.append(self._pair(shape, workload, timing, kernel, chosen, mode, trial))
        return found

    def reference_pairs(self) -> list[Pair]:
        """The reference model with the tile that an untuned user gets: what gains are counted from."""
        found = []
        for workload in self.workloads:
            try:
                work = rank_work(self.reference, workload)
                wanted = default_tiles(self.kernel, work, self.chip.target) if self.kernel else None
                timing, kernel, chosen = self._time(work, wanted, 0)
            except (NoTileError, InfeasibleError, UserError):
                continue
            found.append(self._pair(self.reference, workload, timing, kernel, chosen, "reference", 0))
        return found

    def _pair(
        self,
        shape: MoEShape,
        workload: Workload,
        timing: Timing,
        kernel: str | None,
        tiles: Sequence[TileConfig],
        mode: str,
        trial: int,
    ) -> Pair:
        own = self.quality(shape)
        return Pair(
            chip=self.chip.name,
            mode=mode,
            trial=trial,
            shape=shape,
            workload=workload,
            kernel=kernel,
            tiles=tuple(t.as_dict() for t in tiles),
            tile_labels=tuple(t.label() for t in tiles),
            timing=timing,
            quality_ratio=own.ratio(self._reference_quality),
            outside=own.outside,
        )

    def _time(
        self, work: RankWork, wanted: TilePair | None, seed: int
    ) -> tuple[Timing, str | None, tuple[TileConfig, ...]]:
        if self.bench is not None and self.kernel is not None:
            return self._measure(work, wanted, seed)
        estimate: Estimate = estimate_layer(self.tables, self.chip, work, tiles=wanted, space=self.tile_space)
        return estimate.timing, estimate.kernel, estimate.tiles

    def _measure(
        self, work: RankWork, wanted: TilePair | None, seed: int
    ) -> tuple[Timing, str | None, tuple[TileConfig, ...]]:
        assert self.bench is not None
        assert self.kernel is not None
        candidates = [wanted] if wanted else self._promising(work)
        for tiles in candidates:
            for op, tile in zip(layer_gemms(work), tiles, strict=True):
                if reason := self.kernel.refuses(op.problem, tile, self.chip.target):
                    raise InfeasibleError(f"kernel: {reason}")
        job = LayerJob.of(work, candidates, seed=seed, budget_s=self.space.budget.measure_seconds)
        bound = layer_bound(self.chip, work)
        timed: list[tuple[Timing, TilePair]] = []
        reasons = []
        for tiles, outcome in zip(candidates, self.bench.measure(job), strict=True):
            if isinstance(outcome, Failure):
                reasons.append(f"{tiles[0].label()}: {outcome.reason}")
                continue
            assert isinstance(outcome, Measurement)
            timing = outcome.timing(bound.us, bound.kind)
            if timing.implausible:
                reasons.append(f"implausible: {timing.latency_us:.1f} us is below the bound {bound.us:.1f} us")
                continue
            timed.append((timing, tiles))
        if not timed:
            raise InfeasibleError("measurement: " + "; ".join(reasons)[:500])
        timing, chosen = min(timed, key=lambda item: item[0].latency_us)
        return timing, self.kernel.name, chosen

    def _promising(self, work: RankWork) -> list[TilePair]:
        """The few tile pairs worth measuring: the best by the model, or on the host by grid steps."""
        assert self.kernel is not None
        top = self.space.budget.measure_top
        if self.chip.is_host:
            orders = [
                sorted(self.kernel.tiles(self.tile_space), key=lambda t, g=gemm: _host_cost(t, g.rows, g.k, g.n))  # type: ignore[misc]
                for gemm in layer_gemms(work)
            ]
            return [TilePair(a, b) for a, b in zip(orders[0][:top], orders[1][:top], strict=True)]
        best = estimate_layer(self.tables, self.chip, work, space=self.tile_space).tiles
        return list(dict.fromkeys([TilePair(best[0], best[1]), default_tiles(self.kernel, work, self.chip.target)]))[
            :top
        ]


def _weight_bytes_per_chip(shape: MoEShape, workload: Workload) -> float:
    """Routed experts are split over all chips; shared ones are copied to every expert-parallel rank."""
    shared = shape.num_layers * shape.n_shared_experts * shape.expert_params * DTYPE_BYTES[workload.dtype]
    return (shape.weight_bytes(workload.dtype) - shared) / workload.chips + shared / workload.tp


def _host_cost(tile: TileConfig, rows: Sequence[int], k: int, n: int) -> tuple[float, float]:
    """Order in which host tiles are worth a measurement: fewer grid steps, then fewer padded rows.

    In interpret mode each step copies its blocks, which costs far more than the multiplication.
    """
    assert isinstance(tile, BlockedTile)
    visits = sum(-(-int(r) // tile.tile_m) for r in rows if r)
    return visits * -(-k // tile.tile_k) * -(-n // tile.tile_n), visits * tile.tile_m
