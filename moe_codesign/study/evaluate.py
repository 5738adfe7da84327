"""One candidate: constraints first, then a time per workload, then its pairs."""

from collections.abc import Sequence

from moe_codesign.chips import Chip, DatasheetChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.estimate import Estimate, NoTileError, default_tiles, estimate_layer
from moe_codesign.domain.dtype import DTYPE_BYTES
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import RankWork, rank_work
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing
from moe_codesign.domain.workload import Workload
from moe_codesign.errors import UserError
from moe_codesign.funnel import Timed, pick, promising, race, reason_of
from moe_codesign.measure import MeasuringProcess
from moe_codesign.models import find_model
from moe_codesign.quality import Quality, quality
from moe_codesign.study.space import Space
from moe_kernels.kernel import Kernel
from moe_kernels.tile import TileConfig


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
        budget = self.space.budget
        pairs = (
            [wanted]
            if wanted
            else promising(self.tables, self.chip, self.kernel, work, top=budget.measure_top, space=self.tile_space)
        )
        best = pick(race(self.bench, self.chip, self.kernel, work, pairs, seed=seed, seconds=budget.measure_seconds))
        if not isinstance(best, Timed):
            raise InfeasibleError(str(reason_of(best)))
        return best.timing, self.kernel.name, best.tiles


def _weight_bytes_per_chip(shape: MoEShape, workload: Workload) -> float:
    """Routed experts are split over all chips; shared ones are copied to every expert-parallel rank."""
    shared = shape.num_layers * shape.n_shared_experts * shape.expert_params * DTYPE_BYTES[workload.dtype]
    return (shape.weight_bytes(workload.dtype) - shared) / workload.chips + shared / workload.tp
