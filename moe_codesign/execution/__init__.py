"""Run functions in child processes with a time limit; every call ends as a value."""

from moe_codesign.execution.call_result import CallResult, Died, Done, Raised, TimedOut
from moe_codesign.execution.executor import LOCAL, Accelerator, Executor, WorkerPool
from moe_codesign.execution.pool import Pool

__all__ = [
    "LOCAL",
    "Accelerator",
    "CallResult",
    "Died",
    "Done",
    "Executor",
    "Pool",
    "Raised",
    "TimedOut",
    "WorkerPool",
]
