"""Quality beside time: what has to be given before a shape's quality can be said."""

import math
from dataclasses import dataclass

from moe_codesign.errors import UserError
from moe_codesign.models import read_model_named
from moe_codesign.quality import DEFAULT_LAW, LAWS, Judge, law_named


@dataclass(frozen=True)
class QualityAsked:
    """Beside which model quality is asked for.

    Args:
        reference: catalogue name, or a config.json.
        training_tokens: what it, and every shape beside it, is trained on.
        law: the scaling law to go by.

    Raises:
        UserError: no such law, or a number of tokens that cannot be.
    """

    reference: str
    training_tokens: float
    law: str = DEFAULT_LAW

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise UserError("law", value=self.law, fix="use one of " + ", ".join(LAWS))
        if not (math.isfinite(self.training_tokens) and 0 < self.training_tokens <= 1e18):
            raise UserError("training_tokens", value=self.training_tokens, fix="give a number up to 1e18, as 15e12")

    def judge(self) -> Judge:
        """What judges shapes so.

        Raises:
            UserError: there is no such model, or the law has no say on it.
        """
        return Judge(law_named(self.law), read_model_named(self.reference).shape, self.training_tokens)

    def notes(self) -> tuple[str, ...]:
        """What holds for every ratio of a table's rows, a sentence each."""
        judge = self.judge()
        layers = (
            f"A row without num_layers is judged as a model of {judge.reference.num_layers} layers, its reference's."
        )
        return (*judge.notes(), layers)


def quality_asked(reference: str | None, training_tokens: float | None, law: str | None) -> QualityAsked | None:
    """What is asked of quality; None where nothing is.

    Raises:
        UserError: a part is missing. How many tokens a model is trained on is in no file here, and nothing is assumed.
    """
    if reference is None and training_tokens is None and law is None:
        return None
    if reference is None:
        raise UserError("quality is a ratio to a reference", fix="give a reference, as Qwen3-30B-A3B")
    if training_tokens is None:
        raise UserError(
            f"quality beside {reference} depends on how many tokens it is trained on", fix="give training_tokens"
        )
    return QualityAsked(reference, training_tokens, law or DEFAULT_LAW)
