"""The file of what was fitted to measured runs of whole models: a serving stack's rules."""

import functools
from pathlib import Path

from pydantic import NonNegativeFloat, PositiveInt

from moe_codesign.errors import UserError
from moe_codesign.files import read_json, replace_file
from moe_codesign.tables import Table, read_table

PATH = Path(__file__).parent / "serving.json"


class FamilyErrors(Table):
    """Errors on the runs of one family of models, in percent.

    Attributes:
        runs: that were fitted.
        mape, median: absolute error of a token's time. ttft_median: of the time to the first token.
        elsewhere_mape, elsewhere_median, elsewhere_ttft_median: the same by rules that have not seen the family.
    """

    runs: PositiveInt
    mape: float
    median: float
    ttft_median: float
    elsewhere_mape: float
    elsewhere_median: float
    elsewhere_ttft_median: float


class FittedRules(Table):
    """One stack's: numbers of :class:`moe_codesign.cost.step.rules.StackRules` by name, and the errors by family."""

    rules: dict[str, NonNegativeFloat]
    families: dict[str, FamilyErrors]


class ServingFile(Table):
    """The whole file; ``left_out``: runs that were not fitted, by reason."""

    source: str
    left_out: dict[str, int]
    stacks: dict[str, FittedRules]


@functools.cache
def shipped_rules() -> ServingFile:
    """What ships."""
    return read_table(ServingFile, read_json(PATH), str(PATH))


def rules_of(stack: str) -> FittedRules:
    """A stack's fitted rules.

    Raises:
        UserError: no runs of the stack were measured.
    """
    found = shipped_rules().stacks
    if stack not in found:
        raise UserError(f"no whole model was measured under stack {stack}", fix="use one of " + ", ".join(found))
    return found[stack]


def write_rules(file: ServingFile, path: Path = PATH) -> None:
    """Write the file whole or not at all."""
    replace_file(path, (file.model_dump_json(indent=1) + "\n").encode())
