"""The sampled trials of one mode of a chip: claim, evaluate, store, tell; by as many processes as have the study.

The next trial is proposed by one process at a time, which sees what every other has proposed: no trial has the number
or the point of another. All else is done at the same time. A trial is stored before Optuna gets its result, and one
whose process was killed is finished by another under its own number: none is lost, none doubled. The sampler of trial
n is seeded by n, so a search by one process that was interrupted proposes what an uninterrupted one would have.

No trial stops a study, and none stops it again when it is resumed: whatever its evaluation raises is its stored result,
and one over which three processes were killed is given up.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Answered, Mode, Outcome, Refused, Trial
from moe_codesign.errors import MachineError
from moe_codesign.execution import Raised
from moe_codesign.storage.claims import GONE_AFTER_S, MOST_KILLS, Claim, Turn, Worker
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.open_points import OpenPoints
from moe_codesign.study.optuna_names import name_study, name_trial
from moe_codesign.study.samplers import Proposals, TileChoices, begun, suggest_shape

TrialProgress = Callable[[str, str, int, int], None]
"""Called with (chip, mode, trials done, trials asked)."""
_WAIT_S = 0.2
"""How often to look whether others have finished what they claimed."""


@dataclass(frozen=True)
class _Work:
    """A trial that is this process's to finish.

    Args:
        claim, trial: ours and Optuna's.
        is_new: no other process had it before.
    """

    claim: Claim
    trial: optuna.Trial
    is_new: bool


@dataclass(frozen=True)
class _Done:
    """Nothing is left to claim: all trials are finished, or the points are used up, which the note says."""

    note: str = ""


class SampledTrials:
    """The trials of one (chip, mode) of a search."""

    def __init__(
        self,
        evaluator: Evaluator,
        studies: Studies,
        storage: optuna.storages.RDBStorage,
        mode: Mode,
        progress: TrialProgress | None,
        worker: Worker,
    ) -> None:
        self.evaluator, self.studies, self.mode, self.progress = evaluator, studies, mode, progress
        self.worker = worker
        self.space, self.chip = evaluator.space, evaluator.chip
        with worker.turn(f"{self.chip.name}/{mode}"):
            self.optuna = optuna.create_study(
                study_name=f"{worker.study}/{self.chip.name}/{mode}",
                storage=storage,
                directions=["maximize" if up else "minimize" for up in self.space.maximised()],
                load_if_exists=True,
            )
            self.told_at = name_study(self.optuna, self.space, self.chip)
        self.tiles: TileChoices | None = None
        if mode == "joint" and evaluator.kernel is not None:
            names = [workload.name for workload in evaluator.workloads]
            self.tiles = TileChoices(evaluator.kernel, evaluator.tile_space, names)
        uses = 1 if self.tiles is None else self.tiles.count()
        open_points = OpenPoints(self.space, evaluator.reference, lambda some: evaluator.judged(some).failures, uses)
        self.proposals = Proposals(self.space, evaluator.reference, self.chip.name, mode, open_points, self.tiles)
        self._known: list[optuna.trial.FrozenTrial] = []
        self._unfinished: set[int] = set()

    def run(self, asked: int) -> list[str]:
        """Evaluate trials until ``asked`` are finished, by whichever processes, or nothing is left to try.

        Returns:
            One line where it ended for want of something to try.
        """
        while True:
            self.worker.held()
            work = self._next(asked)
            try:
                self._show(asked, work)
                if isinstance(work, _Work):
                    self._finish(work)
            except (KeyboardInterrupt, MachineError):
                # Whoever presses Ctrl-C has not seen the trial fail, and without processes none can be evaluated.
                if isinstance(work, _Work):
                    with contextlib.suppress(MachineError):
                        self.worker.release(work.claim)
                raise
            if isinstance(work, _Done):
                return [work.note] if work.note else []
            if work is None:
                time.sleep(_WAIT_S)

    def _show(self, asked: int, work: _Work | _Done | None) -> None:
        """Say how far the study is; not while others wait for this process's turn, as a terminal may hold it up."""
        if self.progress:
            total = self._done if isinstance(work, _Done) and work.note else asked
            self.progress(self.chip.name, self.mode, self._done, total)

    @property
    def _done(self) -> int:
        return len(self._known) - len(self._unfinished)

    def _next(self, asked: int) -> _Work | _Done | None:
        """What to do next; None where other processes have what is left to do."""
        with self.worker.turn(f"{self.chip.name}/{self.mode}", GONE_AFTER_S) as turn:
            claims = turn.claims(self.chip.name, self.mode)
            self._learn(turn, claims)
            for number in sorted(self._unfinished):
                if (claim := claims.get(number)) is None or turn.is_free(claim):
                    return self._take_over(turn, number, claim)
            if len(self._known) < asked and self.proposals.open.any_left():
                return self._propose(turn, self._begin(len(self._known)))
            if self._unfinished:
                return None
            return _Done(self._why_it_ended() if len(self._known) < asked else "")

    def _learn(self, turn: Turn, claims: dict[int, Claim]) -> None:
        """Take note of what every process has proposed and finished since."""
        seen = len(self._known)
        self._known = self.optuna.get_trials(deepcopy=False)
        self._unfinished.update(range(seen, len(self._known)))
        for number in sorted(self._unfinished):
            if self._known[number].state.is_finished():
                self.proposals.use(self._known[number].params)
                self._unfinished.remove(number)
        for number, claim in claims.items():
            if number in self._unfinished:
                self.proposals.use(claim.params)
            elif turn.is_free(claim):
                turn.forget(claim)

    def _begin(self, number: int) -> optuna.Trial:
        """Begin a trial with Optuna, whose numbers count up from 0."""
        self.optuna.sampler = self.proposals.sampler(number)
        trial = self.optuna.ask()
        assert trial.number == number, "one process at a time begins a trial"
        return trial

    def _take_over(self, turn: Turn, number: int, claim: Claim | None) -> _Work:
        """Finish what a killed process has left."""
        trial = optuna.Trial(self.optuna, self._known[number]._trial_id)
        if claim is not None:
            return _Work(turn.take_over(claim), trial, is_new=False)
        self.optuna.sampler = self.proposals.sampler(number)
        return self._propose(turn, trial, is_new=False)  # it was killed before it had proposed anything

    def _propose(self, turn: Turn, trial: optuna.Trial, *, is_new: bool = True) -> _Work:
        params: dict[str, Any] = {}
        # What a sampler raises, it raises again where the trial is evaluated, and is then the trial's result.
        with contextlib.suppress(Exception):
            params = trial.params or self.proposals.choose(self.optuna, trial)
        return _Work(turn.claim(self.chip.name, self.mode, trial.number, params), trial, is_new)

    def _why_it_ended(self) -> str:
        if not self.proposals.open.used:
            return f"{self.chip.name}: {self.proposals.open.why_none()}; nothing was timed"
        what = "shapes that meet" if self.tiles is None else "pairs of a shape and tiles that meet"
        return f"{self.chip.name}, {self.mode}: all {what} the constraints were tried, after {self._done:,} trials"

    def _finish(self, work: _Work) -> None:
        """Evaluate a trial, store what came of it, and let the sampler know."""
        claim, trial = work.claim, work.trial
        self.optuna.sampler = self.proposals.sampler(claim.number, claim.params)
        if (outcome := None if work.is_new else self.studies.outcome(claim)) is None:
            outcome = self._evaluate(work)
            finished = Trial(
                chip=self.chip.name, mode=self.mode, number=trial.number, params=trial.params, outcome=outcome
            )
            if not self.studies.put(claim.study, finished, claim=claim):
                return  # it took this process so long that another has the trial
        self._tell(work, outcome)
        self.worker.finish(claim)

    def _tell(self, work: _Work, outcome: Outcome) -> None:
        trial = work.trial
        if isinstance(outcome, Answered):
            values = self._values(outcome)
        else:
            # A failure has the worst possible values; its violation ranks it.
            values = [-math.inf if up else math.inf for up in self.space.maximised()]
        # What Study.tell does, but for reading the whole trial twice: a third of a trial's statements on a server.
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process has, meanwhile
            name_trial(self.optuna, trial, outcome)
            self.optuna.sampler.after_trial(self.optuna, begun(trial), TrialState.COMPLETE, values)
            trial.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)

    def _evaluate(self, work: _Work) -> Outcome:
        """What comes of a trial; whatever is raised is a failure of this trial alone."""
        claim, trial = work.claim, work.trial
        try:
            shape, tiles = self._proposed(trial)
            if claim.kills >= MOST_KILLS:
                text = f"the process that evaluated it was killed {claim.kills} times"
                return Refused(Failure(FailureKind.ERROR, text))
            if isinstance(shape, Failure):
                return Refused(shape)
            outcome = self.evaluator.evaluate(shape, tiles, seed=trial.number)
            if isinstance(outcome, Answered):
                for objective, value in zip(self.space.objectives, self._values(outcome), strict=True):
                    if not math.isfinite(value):  # Optuna would drop the trial, without a word
                        return Refused(Failure(FailureKind.ERROR, f"{objective} is {value}"))
            return outcome
        except MachineError:
            raise
        except (Exception, SystemExit) as error:  # SystemExit ends a process that a kernel's module is imported in
            return Refused(Failure(FailureKind.ERROR, str(Raised.of(error))))

    def _values(self, outcome: Answered) -> list[float]:
        return [objective.value(outcome.pairs, self.told_at) for objective in self.space.objectives]

    def _proposed(self, trial: optuna.Trial) -> tuple[MoEShape | Failure, dict[str, TilePair] | None]:
        """Everything is proposed before anything is judged, so that each trial has all its parameters."""
        shape = suggest_shape(trial, self.space, self.evaluator.reference)
        return shape, None if self.tiles is None else self.tiles.suggest(trial)
