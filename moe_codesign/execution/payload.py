"""What is sent to a worker and back, as bytes: whatever cannot be pickled, or read again, is a result of its own."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from moe_codesign.execution.call_result import CallResult, Done, Raised

_I = TypeVar("_I")
Job = tuple[int, Callable[..., Any], tuple[Any, ...]]
"""Its number, the function, and the arguments."""
Pickled = tuple[int, bytes | Raised]
"""The number of a job, and what is sent to the worker, or what was raised where it cannot be pickled."""


def numbered(function: Callable[[_I], Any], items: Iterable[_I], kept: dict[int, _I]) -> Iterator[Pickled]:
    """A job for each item, made as it is asked for; the items of those that were are kept by number."""
    for number, item in enumerate(items):
        kept[number] = item
        yield pickled((number, function, (item,)))


def pickled(job: Job) -> Pickled:
    """What is sent to the worker; or what was raised, by whatever a user's class does, where it cannot be pickled."""
    number, function, arguments = job
    try:
        return number, pickle.dumps((function, arguments))
    except Exception as error:
        return number, Raised.of(error)


def call(job: bytes) -> bytes:
    """In the worker. Pickled here, not by Pebble, for which one bad pickle is the end of the pool."""
    outcome: CallResult[Any]
    try:
        function, arguments = pickle.loads(job)  # noqa: S301 - written by our own parent
        outcome = Done(function(*arguments))
    except BaseException as error:  # SystemExit too: it is the function's, not the worker's
        outcome = Raised.of(error)
    return written(outcome)


def written(outcome: CallResult[Any]) -> bytes:
    """An outcome as bytes; where it cannot be pickled, what that raised."""
    try:
        return pickle.dumps(outcome)
    except Exception as error:  # whatever a class raises that cannot be pickled
        return pickle.dumps(Raised.of(error))


def read(answer: bytes) -> CallResult[Any]:
    """An outcome that a worker has written; where it cannot be read, what that raised."""
    try:
        outcome: CallResult[Any] = pickle.loads(answer)  # noqa: S301 - written by our own worker
    except Exception as error:  # whatever a class raises that cannot be unpickled
        return Raised.of(error)
    return outcome
