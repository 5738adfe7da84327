"""How right the models of public ragged_dot kernels are: writes results/accuracy/ragged_dot.md.

Each (K, N, groups) is judged by a fit without it. There too: which tile of those measured on a problem is named the
best, and what that costs.

    python benchmarks/accuracy/ragged_dot.py --ragged FILE.csv.gz      a few minutes on two cores
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_codesign.chips import GpuChip, load_chip
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.fitting.ragged_dot import (
    Case,
    by_chip,
    cases_of,
    errors_text,
    fit,
    held_out_us,
    interval,
    measured_us,
    predicted_us,
    without_facts,
)
from moe_codesign.formats.tokamax import DEVICES, read_times
from moe_codesign.versions import compiler_version

OUT = Path(__file__).parents[2] / "results" / "accuracy" / "ragged_dot.md"


def problem_of(case: Case) -> tuple[Any, ...]:
    """The problem, whatever the kernel."""
    return case.gemm.total_rows, *case.shape, case.time.spread


@dataclass(frozen=True)
class Choice:
    """The tile named best and the best tile of a problem measured with several, with their times."""

    problem: tuple[Any, ...]
    named: str
    named_us: float
    best: str
    best_us: float

    @property
    def loss(self) -> float:
        return self.named_us / self.best_us - 1.0


def choices(some: Sequence[Case], predicted: np.ndarray, *, together: bool) -> list[Choice]:
    """The choice at each problem.

    Args:
        together: a tile's time is the least over the kernels that ran it (the model knows of tiles, not of kernels);
            else each kernel's problems stand alone.
    """
    by_problem: dict[tuple[Any, ...], dict[str, tuple[float, float]]] = defaultdict(dict)
    for case, guess in zip(some, predicted, strict=True):
        tiles = by_problem[problem_of(case) if together else (case.time.op, *problem_of(case))]
        tiles[case.time.tile] = min(tiles.get(case.time.tile, (np.inf, 0.0)), (case.time.us, float(guess)))
    return [_choice(problem, tiles) for problem, tiles in by_problem.items() if len(tiles) > 1]


def _choice(problem: tuple[Any, ...], tiles: dict[str, tuple[float, float]]) -> Choice:
    """``tiles``: measured and predicted time of each."""
    named = min(tiles, key=lambda tile: tiles[tile][1])
    best = min(tiles, key=lambda tile: tiles[tile][0])
    return Choice(problem, named, tiles[named][0], best, tiles[best][0])


def regret(found: list[Choice]) -> str:
    """How often the best is named, the mean loss of the named one, and the worst."""
    losses = [choice.loss for choice in found]
    return f"{losses.count(0.0)} of {len(losses)}, {np.mean(losses):.1%}, {max(losses):.0%}" if losses else "-"


def worst(alone: list[Choice], together: list[Choice]) -> str:
    """The worst choice, and what the tile that was named took in the kernel that ran it fastest."""
    choice = max(alone, key=lambda choice: choice.loss)
    elsewhere = [one.named_us for one in together if one.problem == choice.problem[1:] and one.named == choice.named]
    other = f"; by another kernel {elsewhere[0]:,.0f} us" if elsewhere and elsewhere[0] < choice.named_us else ""
    return (
        f"{' '.join(map(str, choice.problem))}: named {choice.named}, {choice.named_us:,.0f} us{other}; best "
        f"{choice.best}, {choice.best_us:,.0f} us."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragged", type=Path, required=True)
    cases, refused = cases_of(read_times(parser.parse_args().ragged), Tables(jobs=2))
    of_chip = by_chip(cases)
    lines, worst_of = [], []
    for chip in DEVICES.values():
        is_gpu = isinstance(load_chip(chip), GpuChip)
        some = of_chip[chip]
        measured, shapes = measured_us(some), len({case.shape for case in some})
        logs, out = fit(some), held_out_us(some)
        low, high = interval(some, out)
        furthest = np.abs(out / measured - 1.0).max()
        alone, together = (choices(some, out, together=together) for together in (False, True))
        if is_gpu and alone:
            worst_of.append(f"{chip}, {worst(alone, together)}")
        walk = errors_text(measured, predicted_us(fit(some, walk=False), some)) if is_gpu else "-"
        blind = errors_text(measured, held_out_us(without_facts(some))) if is_gpu else "-"
        lines.append(
            f"| {chip} | {len(some)} | {shapes} | {errors_text(measured, predicted_us(logs, some))} "
            f"| {errors_text(measured, out)} | {furthest:.0%} | {walk} | {blind} | {low:.2f} .. {high:.2f} "
            f"| {regret(alone)} | {regret(together)} |"
        )
    OUT.write_text(
        "# Public grouped matmuls: predicted against measured\n\n"
        f"Made by `python benchmarks/accuracy/ragged_dot.py --ragged FILE` with {compiler_version('triton')}; what is "
        "measured, and which binaries stand for it, stands at the head of moe_codesign/fitting/ragged_dot.py. Errors "
        "are mean / median of |predicted / "
        "measured - 1|; interval: 5th to 95th percentile of measured / predicted on shapes left out.\n\n"
        "| chip | times | shapes (K, N, groups) | error of the fit | on shapes left out | worst of them | of a fit "
        "without the walk | on shapes left out without the binary's facts | interval | best tile named, mean regret, "
        "worst | kernels together |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nThe walk: every program of these kernels finds its group by walking the groups' sizes, one dependent "
        "load after the other. With 256 groups and K = 512 it is most of the time. The binary's facts do not help "
        "here: the binary is of our kernel, and theirs seems to take more registers on the H100. Time for spilled "
        "registers was tried, and made shapes left out worse on the B200.\n\n"
        "Best tile: of the problems that a kernel was measured at with several tiles; then of all kernels of a chip "
        "together, a tile's time being the least of theirs: the model knows of tiles, not of kernels. "
        f"Worst (kernel, rows, K, N, groups): {' '.join(worst_of)}\n\n"
        "Two problems of eight groups on tpu7x (8192 x 4096 x 14336 and 4096 x 4096 x 4096), said to be of random "
        "groups, took exactly as long as the same in equal groups or in a single one; they are predicted for random "
        "groups here, and are the worst there.\n\n"
        f"Left out, {len(refused)}: {'; '.join(sorted(set(refused))) or 'none'}.\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
