"""What a measurement says, as values that reports print."""

from dataclasses import dataclass

from moe_codesign.domain.failure import Failure
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.timing import Timing


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One pair of tiles at one batch size, with its time, or with the reason why it has none.

    Args:
        num_tokens: the batch size.
        routing: how its tokens choose experts.
        dtype: of weights and activations.
        tiles: of the two grouped GEMMs.
        timing: None where the pair could not be launched or gave a wrong result.
        error: the largest row error against float64 over all checks.
        checks: how often the result was compared.
        device, software: what was measured; names as the device's own software gives them.
        reason: why there is no time, or why the time cannot be believed; else None.
    """

    num_tokens: int
    routing: str
    dtype: str
    tiles: TilePair
    timing: Timing | None = None
    error: float | None = None
    checks: int = 0
    device: str
    software: str = ""
    reason: Failure | None = None
