"""Times of public ragged_dot kernels at a given tile.

On GPUs a binary of our kernel stands for theirs; on TPUs the model knows published times alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from moe_codesign.calibrations.ragged_dot import interval_and_warning, of_gpu, of_tpu
from moe_codesign.chips import CompiledChip, GpuChip, TpuChip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.cost.bound import gemm_bound
from moe_codesign.cost.datasheet import datasheet, gemm_slowdown
from moe_codesign.cost.estimate import Answer, Estimate, Need, NoTileError, attempt, row_of_tile, timing_of
from moe_codesign.cost.ragged_dot import gpu, tpu
from moe_codesign.domain.grouped_gemm import GroupedGemm
from moe_codesign.domain.question import RaggedDot
from moe_kernels.tile import TileConfig


@dataclass(frozen=True)
class RaggedDotKernels:
    """Answers questions about ragged_dot on one chip; see :class:`moe_codesign.cost.estimate.CostModel`."""

    chip: CompiledChip
    tables: Tables

    at_once: ClassVar[int] = 200

    def needs(self, questions: Iterable[RaggedDot]) -> Iterator[Need]:
        """Nothing: each question names its tile, which is compiled alone."""
        return iter(())

    def answer(self, questions: Sequence[RaggedDot]) -> list[Answer]:
        """An answer to each question, in their order."""
        return [attempt(lambda question=question: self._estimate(question)) for question in questions]  # type: ignore[misc]

    def _estimate(self, question: RaggedDot) -> Estimate:
        chip, gemm, tile = self.chip, question.gemm, question.tile
        bound = gemm_bound(chip, gemm)
        if gemm.dtype not in kernel_for(chip).dtypes:
            return datasheet(bound, gemm_slowdown(chip), f"no ragged_dot kernel was measured in {gemm.dtype}")
        if isinstance(chip, GpuChip):
            parts, total, interval, warning = self._on_gpu(chip, gemm, tile)
        else:
            parts, total, interval, warning = self._on_tpu(chip, gemm, tile)
        timing, notes = timing_of(chip, bound, gemm, total, parts, interval, "modelled")
        return Estimate(timing, "ragged_dot", (tile,), (*notes, *([warning] if warning else [])))

    def _on_gpu(
        self, chip: GpuChip, gemm: GroupedGemm, tile: TileConfig
    ) -> tuple[dict[str, float], float, tuple[float, float], str]:
        table = self.tables.get(chip, kernel_for(chip, gpu.KERNEL), gemm.op, gemm.dtype, only=tile)
        found = of_gpu(chip)
        rows = table.rows(np.array([row_of_tile(table, gemm.problem, tile)]))
        times = gpu.tile_times(rows, gemm, found.value.coefficients)
        parts = {name: float(us[0]) for name, us in times.parts_us.items()}
        return parts, float(times.total_us[0]), *interval_and_warning(chip, found)

    def _on_tpu(
        self, chip: TpuChip, gemm: GroupedGemm, tile: TileConfig
    ) -> tuple[dict[str, float], float, tuple[float, float], str]:
        found = of_tpu(chip)
        fields = tile.as_dict()
        sizes = (int(fields["tile_m"]), int(fields["tile_k"]), int(fields["tile_n"]))
        if (needs := tpu.vmem_bytes(gemm, sizes)) > chip.core.vmem_bytes:
            raise NoTileError(
                f"tile_m, tile_k, tile_n = {sizes} need {needs} bytes of VMEM, a core of {chip.name} has "
                f"{chip.core.vmem_bytes}; use smaller tiles"
            )
        parts = tpu.time_parts(chip, gemm, sizes, found.value.coefficients)
        interval, warning = interval_and_warning(chip, found)
        cores = f"; on one of {chip.core.count} cores, as they run" if chip.core.count > 1 else ""
        return (
            parts,
            sum(parts.values()),
            interval,
            warning or f"from published times of such kernels, not from a binary{cores}",
        )
