"""A space file priced on its chips: what the answers across chips begin with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from moe_codesign.answers.priced import Priced, price_on
from moe_codesign.compiler.build import Progress
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.shape import MoEShape
from moe_codesign.models import find_model
from moe_codesign.study.space import Space, load_space


def priced_space(
    space: str | Path | Space,
    chips: Sequence[str] | None,
    *,
    objective: str | None,
    shares: Mapping[str, float] | None,
    jobs: int,
    recompile: bool,
    compiling: Progress | None,
) -> tuple[dict[str, Priced], MoEShape]:
    """A space on each of its chips, by name, and its reference model; arguments as those of the answers.

    Raises:
        UserError: wrong space, chip or objective.
    """
    loaded = load_space(space, chips=chips)
    tables = Tables(jobs=jobs, progress=compiling, recompile=recompile)
    return price_on(loaded, tables, objective, shares), find_model(loaded.reference)
