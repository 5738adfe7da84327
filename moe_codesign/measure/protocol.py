"""The measuring protocol, the same on every device: verify, interleave and time, verify again.

A kernel is held to these rules, whatever it does:

- The device's :meth:`Device.launch` is all that calls it, for a check as for a time.
- Every check and every timed round has operands that it has not seen, so that a remembered result is a wrong one. Timed
  rounds are checked too, in an order that is drawn by lot, for about as long as they took, so mostly all of them.
- The reference comes after the result, from activations that are drawn again and from weights whose checksum is what it
  was. A kernel that changes its operands is refused for it.
- Results are copied as the clock stops, and compared in full.
"""

import dataclasses
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from moe_codesign.arrays import F64
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.execution import Raised
from moe_codesign.measure.draws import LEAST_ROUTINGS, Draw, after_timing, before_timing, for_timing
from moe_codesign.measure.job import LayerJob, Measurement
from moe_codesign.measure.samples import enough
from moe_codesign.measure.verification import Tolerance, WrongResultError, check, clock

WARM_S = 0.05
"""Untimed rounds before: a GPU that has waited takes tens of milliseconds to raise its clock, and an H100's first ten
layers were up to 14 % slower, most likely for it."""
_ROUTINGS_S = 10.0
"""How long further routings are checked where a batch takes many of them to reach each expert."""
_LEAST_KEPT = 2
"""Timed rounds whose results are checked in any case."""
_KEPT_BYTES = 1 << 28
"""Of memory, for results of timed rounds."""


class Device(Protocol):
    """What a device must be able to do."""

    name: str
    software: str

    def load(self, job: LayerJob) -> None:
        """Draw weights of unit scale and put them on the device, rounded to the job's type."""

    def weights_checksum(self) -> int:
        """Of the weights as the device holds them now."""

    def draw(self, draw: Draw) -> None:
        """Put activations, router weights and routing on the device: what is launched next runs on them."""

    def changed(self) -> bool:
        """Whether what was put there by :meth:`draw` is there no longer."""

    def launch(self, tiles: TilePair) -> float:
        """Run the layer once, into fresh or poisoned memory: microseconds until the result was there."""

    def output(self, tiles: TilePair) -> F64:
        """A copy of what the last launch of these tiles had written as its time ended: [T, H]."""

    def expected(self, draw: Draw) -> F64:
        """The layer's output [T, H] in float64, from the weights as they are held and a draw that is made again."""


@dataclass
class _Candidate:
    position: int
    tiles: TilePair
    error: float = 0.0
    checks: int = 0
    samples: list[float] = field(default_factory=list)
    kept: dict[Draw, F64] = field(default_factory=dict)
    """Results of timed rounds, still to be checked."""


def measure_layer(job: LayerJob, device: Device) -> list[Measurement | Failure]:
    """Verify and time every candidate of a job; a candidate that fails does not stop the others.

    Returns:
        For each candidate its measurement, or a failure of kind ``MEASUREMENT``.
    """
    device.load(job)
    referee = _Referee(job, device)
    outcomes: dict[int, Measurement | Failure] = {}
    alive: list[_Candidate] = []
    for position, tiles in enumerate(job.candidates):
        candidate = _Candidate(position, tiles)
        if failure := referee.refuses(candidate, before_timing(job), ""):
            outcomes[position] = failure
        else:
            alive.append(candidate)
    secret = random.SystemRandom().getrandbits(31)
    raising, seconds = _time(job, device, alive, secret)
    for candidate, raised in raising:
        outcomes[candidate.position] = _failure(raised if isinstance(raised, WrongResultError) else Raised.of(raised))
        alive.remove(candidate)
    if alive and referee.weights_changed():
        if len(job.candidates) > 1:  # by which of them?
            alone = (dataclasses.replace(job, candidates=(tiles,)) for tiles in job.candidates)
            return [outcome for one in alone for outcome in measure_layer(one, device)]
        return [_failure(_CHANGED)]
    referee.until = clock() + seconds
    for candidate in alive:
        failure = referee.refuses(candidate, after_timing(job, secret), " after timing")
        outcomes[candidate.position] = failure or Measurement(
            tiles=candidate.tiles,
            samples_us=tuple(candidate.samples),
            error=candidate.error,
            checks=candidate.checks,
            device=device.name,
            software=device.software,
        )
    return [outcomes[i] for i in range(len(job.candidates))]


_CHANGED = "wrong: it changed its operands"


class _Referee:
    """Compares candidates with the reference, of which it keeps one for each draw."""

    def __init__(self, job: LayerJob, device: Device) -> None:
        self._job, self._device = job, device
        self._tolerance = Tolerance.of_layer(job.dtype)
        self._checksum = device.weights_checksum()
        self._expected: dict[Draw, F64] = {}
        self.until = 0.0
        """When, on the clock, results of timed rounds are no longer worth a new reference."""

    def weights_changed(self) -> bool:
        return self._device.weights_checksum() != self._checksum

    def refuses(self, candidate: _Candidate, draws: Iterable[Draw], when: str) -> Failure | None:
        """Check the results that the candidate has left from its timing, and then new ones."""
        failure: Failure | None = None
        try:
            for number, (draw, found) in enumerate(candidate.kept.items()):
                if number < _LEAST_KEPT or draw in self._expected or clock() < self.until:
                    self._compare(candidate, draw, found)
            candidate.kept.clear()
            start = clock()
            for number, draw in enumerate(draws):
                if number >= LEAST_ROUTINGS and clock() - start > _ROUTINGS_S:
                    break
                self._device.draw(draw)
                self._device.launch(candidate.tiles)
                found = self._device.output(candidate.tiles)
                if self._device.changed():
                    return _failure(_CHANGED)
                self._compare(candidate, draw, found)
        except WrongResultError as wrong:
            failure = _failure(f"wrong result{when}: {wrong}")
        except Exception as problem:
            failure = _failure(Raised.of(problem))
        if self.weights_changed():
            self._expected.clear()  # some may have been made from what it left
            self._device.load(self._job)
            return _failure(_CHANGED)
        return failure

    def _compare(self, candidate: _Candidate, draw: Draw, found: F64) -> None:
        if draw not in self._expected:
            self._expected[draw] = self._device.expected(draw)
        candidate.error = max(candidate.error, check(found, self._expected[draw], self._tolerance))
        candidate.checks += 1


def _time(
    job: LayerJob, device: Device, candidates: list[_Candidate], secret: int
) -> tuple[list[tuple[_Candidate, Exception]], float]:
    """Rounds over all candidates in turn: what drifts (clock, temperature, neighbours) hits each alike.

    Results of rounds are kept for a check, all of them where there is memory, else by lot.

    Returns:
        Those that raised, with what they raised; and the seconds that it took.
    """
    failed: dict[int, tuple[_Candidate, Exception]] = {}
    draws = for_timing(job, secret)
    lot = random.SystemRandom()

    def launch_all(draw: Draw, keep: Callable[[_Candidate, float], None]) -> bool:
        """Whether any candidate is left."""
        device.draw(draw)
        for candidate in candidates:
            if candidate.position in failed:
                continue
            try:
                sample = device.launch(candidate.tiles)
                keep(candidate, sample)
                if device.changed():
                    raise WrongResultError(_CHANGED)
            except Exception as problem:
                failed[candidate.position] = (candidate, problem)
        return len(failed) < len(candidates)

    start = clock()
    while launch_all(next(draws), lambda candidate, sample: None) and clock() - start < WARM_S:
        pass
    start = clock()
    budget = job.budget_s * len(candidates)
    room = max(_LEAST_KEPT, _KEPT_BYTES // (8 * job.tokens * job.hidden_size * max(1, len(candidates))))
    kept: list[Draw] = []
    for number in range(job.max_samples):
        left = [candidate.samples for candidate in candidates if candidate.position not in failed]
        over = clock() - start > budget
        if not left or (over and all(enough(samples, job.min_samples) for samples in left)):
            break
        if over and number >= 4 * job.min_samples:
            break
        draw = next(draws)
        place = number if number < room else lot.randrange(number + 1)
        if place < room:
            kept[place : place + 1] = [draw]

        def keep(candidate: _Candidate, sample: float, draw: Draw = draw) -> None:
            candidate.samples.append(sample)
            if draw in kept:
                candidate.kept = {one: found for one, found in candidate.kept.items() if one in kept}
                candidate.kept[draw] = device.output(candidate.tiles)

        launch_all(draw, keep)
    lot.shuffle(kept)
    for candidate in candidates:
        candidate.kept = {draw: candidate.kept[draw] for draw in kept if draw in candidate.kept}
    return list(failed.values()), clock() - start


def _failure(reason: object) -> Failure:
    return Failure(FailureKind.MEASUREMENT, str(reason))
