"""A search: every chip of a space in turn, enumerated or sampled and polished; resumable at any point.

Each (chip, mode) that is sampled is an Optuna study of its own, ``NAME/chip/mode``, because a sampler that mixed chips
would only learn which chip is fast. Any number of processes, on any machines, may run the same search at the same time
where its storage is a server; each takes what nobody has.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import optuna

from moe_codesign.chips import Chip
from moe_codesign.compiler import Compiled, CompileResult, Request, Unanswered
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.enumeration import Enumeration
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.polish import Polish
from moe_codesign.domain.trial import Trial
from moe_codesign.errors import MachineError
from moe_codesign.execution import LOCAL, Executor, Raised
from moe_codesign.measure import MeasuringProcess, devices_over, not_measured
from moe_codesign.measure.presence import Platform
from moe_codesign.models import find_model
from moe_codesign.storage.claims import Worker
from moe_codesign.storage.studies import Studies
from moe_codesign.study.enumeration import enumerate_together
from moe_codesign.study.evaluate import Evaluator, Wanted
from moe_codesign.study.optuna_storage import optuna_storage
from moe_codesign.study.points import is_enumerated
from moe_codesign.study.polish import polish
from moe_codesign.study.samplers import check_sampler
from moe_codesign.study.space import Space, stored_space
from moe_codesign.study.tile_values import check_tiles
from moe_codesign.study.trials import SampledTrials, TrialProgress
from moe_kernels.kernel import Op, up_op


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
    platforms = devices_over(chips, tables.executor)
    measured = {name for name, platform in platforms.items() if platform is not None}
    allotted = space.allot(space.budget.trials if trials is None else trials, measured)
    # A warning is of how a sampler draws a value, which says nothing to whoever searches.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    interrupted = False
    with Worker.join(studies.database, study) as worker:
        identity = _identity(space, studies, study)
        compiled = tables.prepare(
            (chip, space.tile_space(chip), ops, workload.dtype)
            for chip in chips
            for workload in space.workloads_on(chip)
        )
        notes = _without_an_answer(compiled)
        studies.begin(study, identity, provenance)
        try:
            with optuna_storage(studies.database) as storage:
                for chip in chips:
                    with _bench(chip, platforms[chip.name], tables.executor) as bench:
                        evaluator = Evaluator(space, chip, reference, tables, bench)
                        with worker.turn(f"{chip.name}/reference"):
                            _put_references(evaluator, studies, study)
                        if bench is None and is_enumerated(space, trials):
                            enumerate_together(evaluator, studies, worker, _shown(progress, chip, "exact"))
                            continue
                        for mode in space.modes_on(measured=chip.name in measured):
                            sampled = SampledTrials(evaluator, studies, storage, mode, progress, worker)
                            notes += sampled.run(allotted[chip.name, mode])
                        if bench is None and space.budget.polish:
                            with worker.turn(f"{chip.name}/polish"):
                                notes += _polish(evaluator, studies, study, progress)
        except KeyboardInterrupt:
            interrupted = True
    result = read_search(space, studies, study, interrupted=interrupted)
    return dataclasses.replace(result, notes=(*space.dtype_notes(), *not_measured(space.chips), *notes))


def _shown(progress: TrialProgress | None, chip: Chip, mode: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(chip.name, mode, done, total)


def _put_references(evaluator: Evaluator, studies: Studies, study: str) -> None:
    """Store the reference model's pairs with its default tiles and with its best ones, where that is not done yet."""
    chip = evaluator.chip.name
    wanted: Wanted
    for tuned, wanted in ((False, "default"), (True, None)):
        if chip not in studies.references(study, tuned=tuned):
            pairs, by_chance = evaluator.reference_pairs(wanted)
            if not by_chance:
                studies.put_reference(study, chip, pairs, tuned=tuned)


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
    try:
        found = polish(evaluator, trials, _shown(progress, evaluator.chip, "polish"))
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
def _bench(chip: Chip, platform: Platform | None, executor: Executor) -> Iterator[MeasuringProcess | None]:
    if platform is None:
        yield None
    else:
        with MeasuringProcess(platform, executor=LOCAL if chip.is_host else executor) as bench:
            yield bench
