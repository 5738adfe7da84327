"""A table of a user's own training runs, as a space file names it or a stored study holds it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.formats.tables import read_table
from moe_codesign.quality import Ablation
from moe_codesign.quality.ablations import FEWEST_ROWS, MOST_ROWS
from moe_codesign.study.sizes import Size
from moe_codesign.tables import Table


class AblationRow(Table):
    """One training run: the fields in which its shape differs from the reference, and what it reached.

    Args:
        loss: what it reached; less is better.
        training_tokens: on how many tokens; the space's where it is left out.
        hidden_size: of its shape; the reference's where it is left out, as with the other fields.
        moe_intermediate_size: of its shape.
        num_experts: of its shape.
        num_experts_per_tok: of its shape.
        n_shared_experts: of its shape.
        num_layers: of its shape.
    """

    loss: float = Field(gt=0)
    training_tokens: float | None = Field(default=None, gt=0)
    hidden_size: Size | None = None
    moe_intermediate_size: Size | None = None
    num_experts: Size | None = None
    num_experts_per_tok: Size | None = None
    n_shared_experts: Size | None = None
    num_layers: Size | None = None

    def ablation(self, reference: MoEShape, training_tokens: float) -> Ablation:
        """The run, with what it leaves out taken from the reference.

        Raises:
            UserError: its sizes are no shape.
        """
        sizes = self.model_dump(exclude={"loss", "training_tokens"}, exclude_none=True)
        return Ablation(reference.replaced(**sizes), self.training_tokens or training_tokens, self.loss)


def _rows(value: Any) -> Any:
    """The rows of a .csv, .jsonl or .parquet file; what is no path stays as it is.

    Raises:
        ValueError: the file cannot be read.
    """
    if not isinstance(value, str):
        return value
    try:
        rows = read_table(Path(value))
    except UserError as error:
        raise ValueError(str(error)) from None
    return [{str(name): cell for name, cell in row.items() if not _is_empty(cell)} for row in rows]


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


AblationRows = Annotated[list[AblationRow], BeforeValidator(_rows), Field(min_length=FEWEST_ROWS, max_length=MOST_ROWS)]
