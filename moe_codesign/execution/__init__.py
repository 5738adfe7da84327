"""Run functions in child processes with a time limit; every call ends as a value."""

from moe_codesign.execution.call_result import CallResult, Died, Done, Raised, TimedOut
from moe_codesign.execution.pool import Pool

__all__ = ["CallResult", "Died", "Done", "Pool", "Raised", "TimedOut"]
