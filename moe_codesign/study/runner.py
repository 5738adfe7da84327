"""Optuna's studies over an evaluator: ask, evaluate, store, tell; resumable at any point.

Each (chip, mode) is an Optuna study of its own, ``NAME/chip/mode``, because a sampler that mixed chips would
only learn which chip is fast. A trial is stored before Optuna is told, and a trial that a killed process left
running is finished by the next one under its own number: none lost, none doubled. The sampler of trial n is
seeded by n, so a search that was interrupted proposes what an uninterrupted one would have.
"""

import contextlib
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import Trial, TrialState

from moe_codesign.chips import Chip, DatasheetChip, load_chip
from moe_codesign.compiler.kernels import kernel_for
from moe_codesign.compiler.tile_table import Tables
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.errors import UserError
from moe_codesign.measure import MeasuringProcess, device_for
from moe_codesign.storage.studies import Store, TrialRow, configure_sqlite
from moe_codesign.study.evaluate import Evaluator, InfeasibleError
from moe_codesign.study.space import SHAPE_FIELDS, Choice, Space, Span
from moe_kernels.kernel import Kernel, Op, up_op
from moe_kernels.tile import TileConfig, Value

_STARTUP_TRIALS = 12
"""Random trials before TPE models them: two per shape field that a space usually varies."""
Report = Callable[[str, str, int, int], None]
"""Called with (chip, mode, trials done, trials asked)."""


@dataclass
class SearchResult:
    """A study's outcome: every trial, and the reference's pairs per chip."""

    study: str
    space: Space
    trials: list[TrialRow]
    reference: list[Pair]
    interrupted: bool = False


def run_search(
    space: Space, store: Store, tables: Tables, *, study: str, trials: int, report: Report | None = None
) -> SearchResult:
    """Run the search until every (chip, mode) has its share of ``trials``, or Ctrl-C.

    Everything that was told is kept; calling it again with the same arguments goes on where it stopped.

    Raises:
        UserError: unknown chip or model, storage locked or of another space.
    """
    # The host is last: its measurements want the machine to themselves.
    named = sorted(((name, load_chip(name)) for name in space.chips), key=lambda item: item[1].is_host)
    chips = [chip for _, chip in named]
    allotted = space.allot(trials)
    for chip in chips:
        _check_chip(space, chip)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    interrupted = False
    with store.lock(study):
        try:
            gated = Evaluator(space, chips[0], tables, None).reference.gated
            ops: tuple[Op, ...] = (up_op(gated=gated), "down")
            tables.prepare(
                (chip, space.tile_space(chip.name, chip.backend), ops, workload.dtype)
                for chip in chips
                for workload in space.workloads_on(chip.name)
            )
            with _storage(store) as storage:
                for name, chip in named:
                    with _bench(chip) as bench:
                        evaluator = Evaluator(space, chip, tables, bench)
                        _reference(evaluator, store, study)
                        for mode in space.modes:
                            runner = _Runner(evaluator, store, storage, study, mode, report)
                            runner.run(allotted[name, mode])
        except KeyboardInterrupt:
            interrupted = True
    return read_search(space, store, study, interrupted=interrupted)


def read_search(space: Space, store: Store, study: str, *, interrupted: bool = False) -> SearchResult:
    """A stored study's outcome."""
    rows = store.trials(study)
    return SearchResult(
        study=study,
        space=space,
        trials=[row for row in rows if row.mode != "reference"],
        reference=[pair for row in rows if row.mode == "reference" for pair in row.pairs],
        interrupted=interrupted,
    )


def _check_chip(space: Space, chip: Chip) -> None:
    """Raise UserError for an objective that the chip's file cannot answer, or a tile field of no kernel of its."""
    for objective in space.objectives:
        metric = objective.rpartition(".")[2]
        if metric == "usd_per_mtok" and chip.price is None:
            raise UserError(f"objective {objective!r}: {chip.name} has no price", fix="drop the objective or the chip")
        if metric == "joules_per_token" and chip.power.all_in_kw is None:
            raise UserError(f"objective {objective!r}: {chip.name} has no power", fix="drop the objective or the chip")
    if not isinstance(chip, DatasheetChip):
        fields = kernel_for(chip).tile_type.fields()
        for field in space.tile_space(chip.name, chip.backend):
            if field not in fields:
                raise UserError(f"tiles for {chip.name} have field", value=field, fix="use " + ", ".join(fields))


@contextlib.contextmanager
def _storage(store: Store) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(store.url)
    if storage.engine.dialect.name == "sqlite":
        # The engine is open by now: set what its pool will hand out, too.
        sa.event.listen(storage.engine, "connect", configure_sqlite)
        storage.engine.dispose()
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


def _reference(evaluator: Evaluator, store: Store, study: str) -> None:
    """Time the reference model once per study and chip."""
    chip = evaluator.chip.name
    if not any(row.chip == chip and row.mode == "reference" for row in store.trials(study)):
        pairs = evaluator.reference_pairs()
        store.put(study, TrialRow(chip=chip, mode="reference", number=0, pairs=pairs))


class _Runner:
    """One (chip, mode) of a search."""

    def __init__(
        self,
        evaluator: Evaluator,
        store: Store,
        storage: optuna.storages.RDBStorage,
        study: str,
        mode: str,
        report: Report | None,
    ) -> None:
        self.evaluator, self.store, self.study, self.mode, self.report = evaluator, store, study, mode, report
        self.space, self.chip = evaluator.space, evaluator.chip
        self.optuna = optuna.create_study(
            study_name=f"{study}/{self.chip.name}/{mode}",
            storage=storage,
            directions=["maximize" if up else "minimize" for up in self.space.maximised()],
            load_if_exists=True,
        )

    def run(self, asked: int) -> None:
        """Evaluate trials until ``asked`` are finished."""
        known = self.optuna.get_trials(deepcopy=False)
        done = sum(t.state.is_finished() for t in known)
        # The study is locked, so a running trial is one that a killed process left.
        left = [t.number for t in known if t.state == TrialState.RUNNING]
        self._tell_progress(done, asked)
        while done < asked:
            if left:
                number = left.pop(0)
                self._seed(number)
                trial = Trial(self.optuna, known[number]._trial_id)
            else:
                self._seed(len(known))
                trial = self.optuna.ask()
                known = self.optuna.get_trials(deepcopy=False)
            self._evaluate(trial)
            done += 1
            self._tell_progress(done, asked)

    def _tell_progress(self, done: int, asked: int) -> None:
        if self.report:
            self.report(self.chip.name, self.mode, done, asked)

    def _seed(self, number: int) -> None:
        text = f"{self.space.seed}/{self.chip.name}/{self.mode}/{number}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.optuna.sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, n_startup_trials=_STARTUP_TRIALS
            )

    def _evaluate(self, trial: Trial) -> None:
        pairs: list[Pair] = []
        reason, violation = "", 0.0
        shape = self._suggest_shape(trial)
        tiles = self._suggest_tiles(trial) if self.mode == "joint" else None
        try:
            if isinstance(shape, str):
                raise InfeasibleError(shape)
            self.evaluator.check(shape)
            pairs = self.evaluator.pairs(shape, tiles, mode=self.mode, trial=trial.number)
        except InfeasibleError as error:
            reason, violation = str(error), error.violation
        row = TrialRow(
            chip=self.chip.name, mode=self.mode, number=trial.number, pairs=pairs, reason=reason, params=trial.params
        )
        self.store.put(self.study, row)
        trial.set_constraint("violation", violation)
        self.optuna.tell(trial, self._values(pairs))

    def _values(self, pairs: list[Pair]) -> list[float]:
        """Objective values; the worst there is where the trial is infeasible (its violation ranks it)."""
        if not pairs:
            return [-math.inf if up else math.inf for up in self.space.maximised()]
        by_workload = {pair.workload.name: pair.metrics(self.chip) for pair in pairs}
        values = []
        for objective in self.space.objectives:
            workload, _, metric = objective.rpartition(".")
            values.append(by_workload[workload or pairs[0].workload.name][metric])
        return values

    def _suggest_shape(self, trial: Trial) -> MoEShape | str:
        """The proposed shape, or why there is none."""
        reference = self.evaluator.reference
        values: dict[str, Any] = {}
        for field in SHAPE_FIELDS:
            choice = self.space.shape.get(field)
            values[field] = getattr(reference, field) if choice is None else _suggest(trial, field, choice)
        if values["num_experts_per_tok"] > values["num_experts"]:
            return f"shape: num_experts_per_tok {values['num_experts_per_tok']} exceeds {values['num_experts']} experts"
        return MoEShape(**values, gated=reference.gated)

    def _suggest_tiles(self, trial: Trial) -> dict[str, TilePair] | None:
        kernel = self.evaluator.kernel
        if kernel is None:
            return None
        return {
            w.name: TilePair(
                self._suggest_tile(trial, kernel, f"{w.name}.up"),
                self._suggest_tile(trial, kernel, f"{w.name}.down"),
            )
            for w in self.evaluator.workloads
        }

    def _suggest_tile(self, trial: Trial, kernel: Kernel, prefix: str) -> TileConfig:
        ways = kernel.tile_spaces
        way = next(iter(ways)) if len(ways) == 1 else str(trial.suggest_categorical(f"{prefix}.way", sorted(ways)))
        space = {**ways[way], **self.evaluator.tile_space}
        # The same field may have other values in another way, which Optuna takes for another parameter.
        name = prefix if len(ways) == 1 else f"{prefix}.{way}"
        return kernel.tile_type.from_dict({f: _choose(trial, f"{name}.{f}", v) for f, v in space.items()})


def _choose(trial: Trial, name: str, values: tuple[Value, ...]) -> Value:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, sorted(values))


def _suggest(trial: Trial, name: str, choice: Choice) -> int:
    if isinstance(choice, Span):
        high = choice.values()[-1]
        return trial.suggest_int(name, choice.low, high, step=choice.step)
    if isinstance(choice, int):
        return choice
    if len(choice) == 1:
        return choice[0]
    return int(trial.suggest_categorical(name, sorted(choice)))
