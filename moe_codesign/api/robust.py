"""One shape for several chips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from moe_codesign.answers.priced import ChipProgress
from moe_codesign.answers.robust import By, Robust, robust_of
from moe_codesign.api.priced_space import priced_space
from moe_codesign.compiler.build import Progress
from moe_codesign.errors import UserError
from moe_codesign.study.space import Space


def robust(
    space: str | Path | Space,
    *,
    chips: Sequence[str] | None = None,
    by: By = "worst",
    weights: Mapping[str, float] | None = None,
    objective: str | None = None,
    shares: Mapping[str, float] | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: ChipProgress | None = None,
) -> Robust:
    """One shape of a space for all of its chips, and its price against a shape for each.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        chips: names or files of chips, instead of the space's.
        by: make the highest of the chips' costs over their own best least (``worst``), or their mean (``weighted``).
        weights: of the chips in that mean, by name; 1 where left out.
        objective: what is best: WORKLOAD.METRIC, or a metric with ``shares``; default the space's first of a workload.
        shares: a mix of workloads: how many of the tokens each serves, in any unit.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip, weight or objective, or no shape of the space may be timed on every chip.
    """
    if by not in get_args(By):
        raise UserError("by", value=by, fix="use " + " or ".join(get_args(By)))
    if weights and by == "worst":
        raise UserError("weights have no part in the worst case", fix="ask by weighted, or leave them out")
    priced, reference = priced_space(
        space, chips, objective=objective, shares=shares, jobs=jobs, recompile=recompile, compiling=compiling
    )
    return robust_of(priced, reference, by, weights, running)
