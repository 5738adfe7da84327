"""Where calls run: in processes of this machine, or over a cluster; what asks for them does not know which."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

from moe_codesign.execution.call_result import CallResult
from moe_codesign.execution.pool import Pool

_I = TypeVar("_I")
_T = TypeVar("_T")
Accelerator = Literal["GPU", "TPU"]
"""What a process has to itself, by the name that Ray gives it."""


class WorkerPool(Protocol):
    """Worker processes that run functions with a time limit; see :class:`moe_codesign.execution.pool.Pool`."""

    def call(self, function: Callable[..., _T], *arguments: Any, time_limit_s: float) -> CallResult[_T]:
        """The outcome of one call."""

    def map_unordered(
        self, function: Callable[[_I], _T], items: Iterable[_I], *, time_limit_s: float
    ) -> Iterator[tuple[_I, CallResult[_T]]]:
        """Each item with its outcome, in the order in which they finish."""


class Executor(Protocol):
    """What makes pools of workers."""

    def cores(self) -> int:
        """How many workers can compile at once."""

    def accelerators(self) -> frozenset[Accelerator]:
        """The kinds of accelerators that are elsewhere than in this machine; their chips can be measured there."""

    def pool(
        self,
        workers: int,
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        scratch: bool = False,
        accelerator: Accelerator | None = None,
    ) -> AbstractContextManager[WorkerPool]:
        """A pool; the arguments are those of :class:`moe_codesign.execution.pool.Pool`.

        Args:
            workers: how many processes at once.
            initializer, initargs: called in each new process.
            calls_per_process: after so many calls a process makes room for a new one.
            scratch: temporary files lie in a folder that goes with the pool.
            accelerator: of which each worker has one to itself.
        """


class Local:
    """The processes of this machine. Its one device of a kind is whoever's it is."""

    def cores(self) -> int:
        return os.cpu_count() or 1

    def accelerators(self) -> frozenset[Accelerator]:
        return frozenset()

    def pool(
        self,
        workers: int,
        *,
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        scratch: bool = False,
        accelerator: Accelerator | None = None,
    ) -> Pool:
        return Pool(
            workers, initializer=initializer, initargs=initargs, calls_per_process=calls_per_process, scratch=scratch
        )


LOCAL = Local()
