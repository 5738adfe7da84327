"""By which laws a study's qualities are, and what a reader should know of them, said once."""

from typing import TYPE_CHECKING

from moe_codesign.errors import UserError
from moe_codesign.models import find_model

if TYPE_CHECKING:  # what prints an audit loads no optimiser and no database
    from moe_codesign.study.runner import SearchResult


def quality_notes(result: "SearchResult") -> list[str]:
    """A sentence for the law, one for the other laws, and one for the mark of shapes unlike its experiments.

    A stored study may outlive its reference model's file; it is shown all the same.
    """
    from moe_codesign.study.screen import judge_of

    space = result.space
    try:
        judge = judge_of(space, find_model(space.reference))
    except UserError:
        return [f"Quality by the law {space.law}, over {space.reference}, which cannot be read any more."]
    marked = [pair for trial in result.trials for pair in trial.pairs if pair.outside]
    if not marked:
        return list(judge.notes())
    return [*judge.notes(), f"* marks shapes unlike the law's experiments: {marked[0].outside[0]}, for one."]
