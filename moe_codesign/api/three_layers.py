"""What a chip, tiles and a shape gain, alone and together."""

from collections.abc import Mapping
from pathlib import Path

from moe_codesign.answers.priced import ChipProgress
from moe_codesign.answers.three_layers import ThreeLayers, three_layers_of
from moe_codesign.api.priced_space import priced_space
from moe_codesign.compiler.build import Progress
from moe_codesign.study.space import Space


def three_layers(
    space: str | Path | Space,
    *,
    from_chip: str,
    to_chip: str,
    objective: str | None = None,
    shares: Mapping[str, float] | None = None,
    jobs: int = 1,
    recompile: bool = False,
    compiling: Progress | None = None,
    running: ChipProgress | None = None,
) -> ThreeLayers:
    """Gains from one chip to another, from default to best tiles, and from the reference to the found shape.

    Each alone, one after another in every order, and all together, so that whether gains multiply is a number.

    Args:
        space: a space file, the name of one that comes with the project, or a Space.
        from_chip, to_chip: names or files of two chips. The found shape is the space's best for the second.
        objective: what is best: WORKLOAD.METRIC, or a metric with ``shares``; default the space's first of a workload.
        shares: a mix of workloads: how many of the tokens each serves, in any unit.
        jobs: compiler processes.
        recompile: compile here what the facts that come with the package would answer.
        compiling, running: progress callbacks.

    Raises:
        UserError: wrong space, chip or objective, or a state that has no time.
    """
    priced, reference = priced_space(
        space,
        [from_chip, to_chip],
        objective=objective,
        shares=shares,
        jobs=jobs,
        recompile=recompile,
        compiling=compiling,
    )
    start, target = priced.values()
    return three_layers_of(start, target, reference, running)
