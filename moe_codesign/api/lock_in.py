"""What it costs to run the shape that was chosen for one chip on another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from moe_codesign.answers.lock_in import LockIn, lock_in_of
from moe_codesign.answers.priced import ChipProgress
from moe_codesign.api.priced_space import priced_space
from moe_codesign.compiler.build import Progress
from moe_codesign.study.space import Space


def lock_in(
    space: str | Path | Space,
    *,
    chips: Sequence[str] | None = None,
    objective: str | None = None,
    shares: Mapping[str, float] | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: ChipProgress | None = None,
) -> LockIn:
    """The shape of a space that is best for each chip, run on every other with that one's best tiles.

    Every shape of the space is judged by its constraints and timed on every chip, by estimates alone.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        chips: names or files of chips, instead of the space's.
        objective: what is best: WORKLOAD.METRIC, or a metric with ``shares``; default the space's first of a workload.
        shares: a mix of workloads: how many of the tokens each serves, in any unit.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip or objective, or no shape of the space may be timed on a chip.
    """
    priced, reference = priced_space(
        space, chips, objective=objective, shares=shares, jobs=jobs, recompile=recompile, compiling=compiling
    )
    return lock_in_of(priced, reference, running)
