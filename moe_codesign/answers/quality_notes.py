"""By which laws a study's qualities are, and what a reader should know of them, said once."""

from typing import TYPE_CHECKING

from moe_codesign.models import find_model

if TYPE_CHECKING:  # what prints an audit loads no optimiser and no database
    from moe_codesign.study.runner import SearchResult


def quality_notes(result: "SearchResult") -> list[str]:
    """A sentence for the law, one for the other laws, and one for the mark of shapes unlike its experiments.

    Raises:
        UserError: the reference or the law is gone since the study was begun.
    """
    from moe_codesign.study.screen import judge_of

    judge = judge_of(result.space, find_model(result.space.reference))
    marked = [pair for trial in result.trials for pair in trial.pairs if pair.outside]
    if not marked:
        return list(judge.notes())
    return [*judge.notes(), f"* marks shapes unlike the law's experiments: {marked[0].outside[0]}, for one."]
