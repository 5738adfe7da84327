"""Run functions in child processes with a time limit; every call ends as a value."""

from moe_codesign.execution.outcome import Died, Done, Outcome, Raised, TimedOut
from moe_codesign.execution.pool import Pool

__all__ = ["Died", "Done", "Outcome", "Pool", "Raised", "TimedOut"]
