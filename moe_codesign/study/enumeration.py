"""The enumeration of a finite space on one chip, by as many processes as have the study: each claims batches of it.

A batch is stored as soon as it was timed, so that an enumeration that ends early goes on where it stopped.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from moe_codesign.errors import MachineError
from moe_codesign.storage.batches import Batch, Batches
from moe_codesign.storage.claims import GONE_AFTER_S, MOST_KILLS, Claim, Worker
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.exact import AT_ONCE, TimedPoints, batches_of, counted, timed_batches, together
from moe_codesign.study.points import point_count

_WAIT_S = 0.2
"""How often to look whether others have finished what they claimed."""
_MODE = "exact"


def enumerate_together(
    evaluator: Evaluator, studies: Studies, worker: Worker, progress: Callable[[int, int], None] | None = None
) -> None:
    """Judge and time every shape of a space on one chip, and store what came of it, unless that is done.

    Args:
        evaluator: of the space on the chip, which is estimated and not measured.
        studies: where the result is kept.
        worker: this process's part in the study.
        progress: called with (shapes done, shapes of the space), those of other processes too.

    Raises:
        MachineError: a child process ended without an answer, or so did several processes over one batch.
    """
    share = _Share(evaluator, Batches(studies.database, worker.study, evaluator.chip.name), worker)
    while not (stored := evaluator.chip.name in studies.enumerations(worker.study)) and share.left():
        for done in share.run():
            if progress:
                progress(min(done * AT_ONCE, point_count(evaluator.space)), point_count(evaluator.space))
        worker.held()
        if share.left():
            time.sleep(_WAIT_S)
    if not stored:
        with worker.turn(f"{evaluator.chip.name}/enumerated"):
            if evaluator.chip.name not in studies.enumerations(worker.study):
                studies.put_enumeration(worker.study, *counted(evaluator, _every(share)))


def _every(share: "_Share") -> TimedPoints:
    columns = len(share.evaluator.space.objectives)
    return together(
        [
            TimedPoints(batch.numbers, np.array(batch.values).reshape(-1, columns), Counter(batch.refused))
            for batch in share.batches.every()
        ]
    )


class _Share:
    """What this process does of an enumeration."""

    def __init__(self, evaluator: Evaluator, batches: Batches, worker: Worker) -> None:
        self.evaluator, self.batches, self.worker = evaluator, batches, worker
        self._every = batches_of(evaluator.space)
        self._mine: dict[int, Claim] = {}

    def left(self) -> bool:
        """Whether some batch was not timed yet."""
        return len(self.batches.done()) < len(self._every)

    def run(self) -> Iterator[int]:
        """Time the batches that nobody has; yields how many are done, by whichever process."""
        if (first := self._claim()) is None:
            return
        try:
            for number, found in timed_batches(self.evaluator, itertools.chain([first], self._claims())):
                batch = Batch(found.numbers, found.values.tolist(), dict(found.refused))
                self.batches.put(batch, self._mine.pop(number))
                yield len(self.batches.done())
                self.worker.held()
        finally:
            for claim in self._mine.values():  # it was interrupted
                self.worker.release(claim)
            self._mine.clear()

    def _claims(self) -> Iterator[int]:
        while (number := self._claim()) is not None:
            yield number

    def _claim(self) -> int | None:
        """The first point of a batch that is this process's now."""
        chip = self.evaluator.chip.name
        with self.worker.turn(f"{chip}/{_MODE}", GONE_AFTER_S) as turn:
            claims = turn.claims(chip, _MODE)
            done = self.batches.done()
            for number in self._every:
                if number in done:
                    continue
                if (claim := claims.get(number)) is None:
                    self._mine[number] = turn.claim(chip, _MODE, number, {})
                    return number
                if turn.is_free(claim):
                    taken = turn.take_over(claim)
                    if taken.kills >= MOST_KILLS:
                        turn.forget(taken)  # the next command tries again
                        raise MachineError(
                            f"{chip}: the shapes from number {number} on were given up: the process that timed them "
                            f"was killed {taken.kills} times"
                        )
                    self._mine[number] = taken
                    return number
        return None
