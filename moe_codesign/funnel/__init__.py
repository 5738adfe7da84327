"""From the tiles that a kernel has to the pair that a layer runs fastest with.

Rank all tiles by the cost model (which compiles what it has not seen), launch the promising pairs on the device,
verify and time them side by side, and pick the fastest.
"""

from moe_codesign.funnel.race import Failed, Timed, implausible, pick, race, reason_of
from moe_codesign.funnel.ranking import promising

__all__ = ["Failed", "Timed", "implausible", "pick", "promising", "race", "reason_of"]
