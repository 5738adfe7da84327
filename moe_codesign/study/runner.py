"""Optuna's studies over an evaluator: ask, evaluate, store, tell; resumable at any point.

Each (chip, mode) is an Optuna study of its own, ``NAME/chip/mode``, because a sampler that mixed chips would
only learn which chip is fast. A trial is stored before Optuna gets its result, and a trial that a killed process left
running is finished by the next one under its own number: none lost, none doubled. The sampler of trial n is
seeded by n, so a search that was interrupted proposes what an uninterrupted one would have.

No trial stops a study, and none stops it again when it is resumed: whatever its evaluation raises is its stored result,
and one whose process was killed is tried twice more and then given up.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from moe_codesign.chips import Chip
from moe_codesign.chips.schema import OwnPower, Price
from moe_codesign.compiler import Compiled, CompileResult, Request, Unanswered
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.failure import Failure, FailureKind
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.polish import Polish
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.domain.trial import Answered, Mode, Outcome, Refused, Trial
from moe_codesign.errors import MachineError, first_line
from moe_codesign.execution import Raised
from moe_codesign.measure import MeasuringProcess, device_for, not_measured
from moe_codesign.models import find_model
from moe_codesign.storage.database import ENGINE_OPTIONS, Held, configure_sqlite, say_in_one_line
from moe_codesign.storage.studies import Studies
from moe_codesign.study.evaluate import Evaluator, Wanted
from moe_codesign.study.exact import enumerate_space
from moe_codesign.study.open_points import OpenPoints
from moe_codesign.study.points import is_enumerated
from moe_codesign.study.polish import polish
from moe_codesign.study.samplers import Proposals, TileChoices, check_sampler, suggest_shape
from moe_codesign.study.space import Space, stored_space
from moe_codesign.study.tile_values import check_tiles
from moe_kernels.kernel import Op, up_op

_RETRIES = 2
"""Times that a trial which a killed process left running is evaluated again. One that kills its process by itself, by
the memory that it takes, would else end every run of the study."""
_TRIED = "evaluated_again"
"""The attribute of an Optuna trial that counts them."""
TrialProgress = Callable[[str, str, int, int], None]
"""Called with (chip, mode, trials done, trials asked)."""


@dataclass(frozen=True)
class SearchResult:
    """A study's outcome.

    Args:
        study: its name.
        space: what was searched.
        trials: every finished trial.
        reference: the reference model's pairs with its default tiles, by chip.
        provenance: versions that the study was begun with.
        interrupted: Ctrl-C ended it before all trials were done.
        notes: what a reader of this run should know, such as a device that is here and was not measured.
        enumerations: what came of every shape of the space, by the chips on which all were timed.
        polishes: what came of the neighbours of a sampled frontier, by the chips on which they were timed.
        tuned_reference: the reference model's pairs with the best tiles of the space, by chip.
    """

    study: str
    space: Space
    trials: list[Trial]
    reference: dict[str, tuple[Pair, ...]]
    provenance: dict[str, str]
    interrupted: bool = False
    notes: tuple[str, ...] = ()
    enumerations: dict[str, Enumeration] = field(default_factory=dict)
    polishes: dict[str, Polish] = field(default_factory=dict)
    tuned_reference: dict[str, tuple[Pair, ...]] = field(default_factory=dict)

    @property
    def asked_for(self) -> list[Trial]:
        """The trials but for those that a polish added."""
        return [trial for trial in self.trials if trial.mode != "polish"]

    @property
    def is_exact(self) -> bool:
        """Whether every chip's frontier is that of all shapes of the space."""
        return all(chip.name in self.enumerations for chip in self.space.chips)


def run_search(
    space: Space,
    studies: Studies,
    tables: Tables,
    *,
    study: str,
    trials: int | None,
    provenance: dict[str, str],
    progress: TrialProgress | None = None,
) -> SearchResult:
    """Enumerate the space, or run trials until every (chip, mode) has its share of them, or Ctrl-C.

    What was stored is kept; calling it again with the same arguments goes on where it stopped.

    Args:
        space: what to search.
        studies: where results are kept.
        tables: compiled tiles.
        study: name of the study.
        trials: how many trials to sample; None for the space's budget, or to enumerate a space that is small enough.
        provenance: versions to keep with a study that begins.
        progress: called as trials end.

    Raises:
        UserError: unknown model, a tile field or value that no kernel has, a compiler that is not installed, or a study
            that is locked or of another space. All of it is found before anything is stored.
        KeyboardInterrupt: Ctrl-C while tiles were compiled, before the study has begun.
    """
    reference = find_model(space.reference)
    ops: tuple[Op, ...] = (up_op(gated=reference.gated), "down")
    for chip in space.chips:
        check_tiles(space, chip, ops)
    check_sampler(space)
    # The host is last: its measurements want the machine to themselves.
    chips = sorted(space.chips, key=lambda chip: chip.is_host)
    measured = {chip.name for chip in chips if device_for(chip) is not None}
    allotted = space.allot(space.budget.trials if trials is None else trials, measured)
    # A warning is of how a sampler draws a value, which says nothing to whoever searches.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    interrupted = False
    with studies.database.lock(study) as held:
        identity = _identity(space, studies, study)
        compiled = tables.prepare(
            (chip, space.tile_space(chip), ops, workload.dtype)
            for chip in chips
            for workload in space.workloads_on(chip)
        )
        notes = _without_an_answer(compiled)
        studies.begin(study, identity, provenance)
        try:
            with _optuna_storage(studies) as storage:
                for chip in chips:
                    with _bench(chip) as bench:
                        evaluator = Evaluator(space, chip, reference, tables, bench)
                        _put_references(evaluator, studies, study)
                        if bench is None and is_enumerated(space, trials):
                            if chip.name not in studies.enumerations(study):
                                _enumerate(evaluator, studies, study, progress)
                            continue
                        for mode in space.modes_on(measured=chip.name in measured):
                            runner = _Runner(evaluator, studies, storage, study, mode, progress, held)
                            notes += runner.run(allotted[chip.name, mode])
                        if bench is None and space.budget.polish:
                            notes += _polish(evaluator, studies, study, progress)
        except KeyboardInterrupt:
            interrupted = True
    result = read_search(space, studies, study, interrupted=interrupted)
    return dataclasses.replace(result, notes=(*space.dtype_notes(), *not_measured(space.chips), *notes))


def _put_references(evaluator: Evaluator, studies: Studies, study: str) -> None:
    """Store the reference model's pairs with its default tiles and with its best ones, where that is not done yet."""
    chip = evaluator.chip.name
    wanted: Wanted
    for tuned, wanted in ((False, "default"), (True, None)):
        if chip not in studies.references(study, tuned=tuned):
            pairs, by_chance = evaluator.reference_pairs(wanted)
            if not by_chance:
                studies.put_reference(study, chip, pairs, tuned=tuned)


def _enumerate(evaluator: Evaluator, studies: Studies, study: str, progress: TrialProgress | None) -> None:
    chip = evaluator.chip.name
    counts, trials = enumerate_space(
        evaluator, None if progress is None else lambda done, total: progress(chip, "exact", done, total)
    )
    studies.put_enumeration(study, counts, trials)


def _polish(evaluator: Evaluator, studies: Studies, study: str, progress: TrialProgress | None) -> list[str]:
    """Time the neighbours of a chip's frontier, unless it was done and no trial was added since.

    Returns:
        One line where it failed: the trials stand without it.
    """
    chip = evaluator.chip.name
    trials = [trial for trial in studies.trials(study) if trial.chip == chip]
    done = studies.polishes(study).get(chip)
    unchanged = done is not None and done.trials == sum(trial.mode != "polish" for trial in trials)
    if unchanged or not any(trial.pairs for trial in trials):
        return []
    show = None if progress is None else lambda some, limit: progress(chip, "polish", some, limit)
    try:
        found = polish(evaluator, trials, show)
    except MachineError:
        raise
    except Exception as error:
        return [f"{chip}: the neighbours of the frontier were not timed ({Raised.of(error)})"]
    studies.put_polish(study, *found)
    return []


def read_search(space: Space, studies: Studies, study: str, *, interrupted: bool = False) -> SearchResult:
    """A stored study's outcome.

    Raises:
        UserError: a stored trial cannot be read.
    """
    return SearchResult(
        study=study,
        space=space,
        trials=studies.trials(study),
        reference=studies.references(study),
        provenance=studies.get(study).provenance,
        interrupted=interrupted,
        enumerations=studies.enumerations(study),
        polishes=studies.polishes(study),
        tuned_reference=studies.references(study, tuned=True),
    )


def _without_an_answer(compiled: Mapping[Request, CompileResult]) -> list[str]:
    """One line for each target some of whose tiles have no answer: they count as refused in what follows.

    Raises:
        MachineError: a target has no tile at all for that reason; every trial would be stored as refused.
    """
    notes = []
    for target in dict.fromkeys(one.target for one in compiled):
        results = [result for one, result in compiled.items() if one.target == target]
        lost = [result for result in results if isinstance(result, Unanswered)]
        if not lost:
            continue
        said = f"({lost[0].status}: {lost[0].reason})"
        if not any(isinstance(result, Compiled) for result in results):
            raise MachineError(f"no tile for {target} could be compiled {said}; nothing is stored, try again")
        notes.append(f"{len(lost)} of {len(results)} tiles for {target} have no answer {said} and count as refused")
    return notes


def _identity(space: Space, studies: Studies, study: str) -> str:
    """What the study is kept under: as it was begun, where that is the same space as this version reads it.

    Prices and power of the space's own are those of the last run: they are applied when results are read.

    Raises:
        UserError: it was begun with another space, or with one that this version cannot read.
    """
    text = space.stored()
    if (begun := studies.find(study)) is not None:
        earlier = stored_space(study, begun.identity)
        if earlier.identity() != space.identity():
            studies.check(study, text)
        elif (earlier.price, earlier.power) == (space.price, space.power):
            # A key that was added to spaces since then has its default there.
            return begun.identity
        else:
            studies.put_identity(study, text)
    return text


@contextlib.contextmanager
def _optuna_storage(studies: Studies) -> Iterator[optuna.storages.RDBStorage]:
    try:
        with studies.database.making_tables():
            storage = optuna.storages.RDBStorage(studies.database.url, engine_kwargs=dict(ENGINE_OPTIONS))
    except sa.exc.SQLAlchemyError as error:
        raise MachineError(f"storage {studies.database.name!r}: {first_line(error)}") from None
    if storage.engine.dialect.name == "sqlite":
        # The engine is open by now: set what its pool will hand out, too.
        sa.event.listen(storage.engine, "connect", configure_sqlite)
        storage.engine.dispose()
    say_in_one_line(storage.engine, studies.database.name)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def _bench(chip: Chip) -> Iterator[MeasuringProcess | None]:
    platform = device_for(chip)
    if platform is None:
        yield None
    else:
        with MeasuringProcess(platform) as bench:
            yield bench


def _told_at(study: optuna.Study, chip: Chip) -> Chip:
    """The chip at the price and power at which Optuna's values are, whatever those of this run are.

    A sampler compares values of one scale. It is that of the first run, and stands beside the values, as the Optuna
    study's attributes ``usd_per_hour`` and ``watts``.
    """
    if "usd_per_hour" not in study.user_attrs:
        first = (
            chip.as_filed() if study.get_trials(deepcopy=False) else chip
        )  # trials from before there were own prices
        study.set_user_attr("watts", first.all_in_w)
        study.set_user_attr("usd_per_hour", first.price.usd_per_hour if first.price is not None else None)
    usd, watts = (study.user_attrs[name] for name in ("usd_per_hour", "watts"))
    return chip.at(
        None if usd is None else Price(usd, "space", None, None), None if watts is None else OwnPower(watts, None)
    )


class _Runner:
    """One (chip, mode) of a search."""

    def __init__(
        self,
        evaluator: Evaluator,
        studies: Studies,
        storage: optuna.storages.RDBStorage,
        study: str,
        mode: Mode,
        progress: TrialProgress | None,
        held: Held,
    ) -> None:
        self.evaluator, self.studies, self.study, self.mode, self.progress = evaluator, studies, study, mode, progress
        self.held = held
        self.space, self.chip = evaluator.space, evaluator.chip
        self.optuna = optuna.create_study(
            study_name=f"{study}/{self.chip.name}/{mode}",
            storage=storage,
            directions=["maximize" if up else "minimize" for up in self.space.maximised()],
            load_if_exists=True,
        )
        self.told_at = _told_at(self.optuna, self.chip)
        self.tiles: TileChoices | None = None
        if mode == "joint" and evaluator.kernel is not None:
            names = [workload.name for workload in evaluator.workloads]
            self.tiles = TileChoices(evaluator.kernel, evaluator.tile_space, names)
        uses = 1 if self.tiles is None else self.tiles.count()
        open_points = OpenPoints(self.space, evaluator.reference, lambda some: evaluator.judged(some).failures, uses)
        self.proposals = Proposals(self.space, evaluator.reference, self.chip.name, mode, open_points, self.tiles)

    def run(self, asked: int) -> list[str]:
        """Evaluate trials until ``asked`` are finished, or nothing is left to try.

        Returns:
            One line where it ended for want of something to try.
        """
        known = self.optuna.get_trials(deepcopy=False)
        done = sum(t.state.is_finished() for t in known)
        for finished in known:
            if finished.state.is_finished():
                self.proposals.use(finished.params)
        # The study is locked, so a running trial is one that a killed process left.
        left = [t for t in known if t.state == TrialState.RUNNING]
        self._show(done, asked)
        while done < asked:
            self.held()
            if left:
                again = left.pop(0)
                self._seed(again.number)
                self._finish(optuna.Trial(self.optuna, again._trial_id), again.user_attrs.get(_TRIED, 0) + 1)
            elif self.proposals.open.any_left():
                self._seed(len(known))
                trial = self.optuna.ask()
                known = self.optuna.get_trials(deepcopy=False)
                self._finish(trial, 0)
            else:
                self._show(done, done)
                return [self._why_it_ended(done)]
            done += 1
            self._show(done, asked)
        return []

    def _why_it_ended(self, done: int) -> str:
        if not self.proposals.open.used:
            return f"{self.chip.name}: {self.proposals.open.why_none()}; nothing was timed"
        what = "shapes that meet" if self.tiles is None else "pairs of a shape and tiles that meet"
        return f"{self.chip.name}, {self.mode}: all {what} the constraints were tried, after {done:,} trials"

    def _show(self, done: int, asked: int) -> None:
        if self.progress:
            self.progress(self.chip.name, self.mode, done, asked)

    def _seed(self, number: int) -> None:
        self.optuna.sampler = self.proposals.sampler(number)

    def _finish(self, trial: optuna.Trial, tried: int) -> None:
        """Evaluate a trial, store what came of it, and let the sampler know; ``tried`` counts earlier evaluations."""
        if tried:
            trial.set_user_attr(_TRIED, tried)
        try:
            outcome, values = self._evaluate(trial, tried)
        except (KeyboardInterrupt, MachineError):
            # Whoever presses Ctrl-C has not seen the trial fail, and without processes none can be evaluated.
            trial.set_user_attr(_TRIED, tried - 1)
            raise
        finished = Trial(chip=self.chip.name, mode=self.mode, number=trial.number, params=trial.params, outcome=outcome)
        self.studies.put(self.study, finished)
        if "violation" not in trial.constraints:  # else its process was killed after this line
            trial.set_constraint("violation", outcome.failure.violation if isinstance(outcome, Refused) else 0.0)
        self.optuna.tell(trial, values)
        self.proposals.use(trial.params)

    def _evaluate(self, trial: optuna.Trial, tried: int) -> tuple[Outcome, list[float]]:
        """What comes of a trial, and its objective values; whatever is raised is a failure of this trial alone."""
        try:
            shape, tiles = self._proposed(trial)
            if tried > _RETRIES:
                text = f"the process that evaluated it was killed {tried} times"
                return self._refused(Failure(FailureKind.ERROR, text))
            if isinstance(shape, Failure):
                return self._refused(shape)
            outcome = self.evaluator.evaluate(shape, tiles, seed=trial.number)
            if isinstance(outcome, Refused):
                return self._refused(outcome.failure)
            return self._answered(outcome)
        except MachineError:
            raise
        except (Exception, SystemExit) as error:  # SystemExit ends a process that a kernel's module is imported in
            return self._refused(Failure(FailureKind.ERROR, str(Raised.of(error))))

    def _proposed(self, trial: optuna.Trial) -> tuple[MoEShape | Failure, dict[str, TilePair] | None]:
        """Everything is proposed before anything is judged, so that each trial has all its parameters."""
        shape = suggest_shape(trial, self.space, self.evaluator.reference)
        return shape, None if self.tiles is None else self.tiles.suggest(trial)

    def _answered(self, outcome: Answered) -> tuple[Outcome, list[float]]:
        values = [objective.value(outcome.pairs, self.told_at) for objective in self.space.objectives]
        for objective, value in zip(self.space.objectives, values, strict=True):
            if not math.isfinite(value):  # Optuna would drop the trial, without a word
                return self._refused(Failure(FailureKind.ERROR, f"{objective} is {value}"))
        return outcome, values

    def _refused(self, failure: Failure) -> tuple[Outcome, list[float]]:
        """A failure has the worst possible values; its violation ranks it."""
        return Refused(failure), [-math.inf if up else math.inf for up in self.space.maximised()]
