"""What proposes the next candidate: Optuna's samplers, and how shapes and tiles become their parameters.

No sampler of Optuna's knows what a space rules out by arithmetic, and each proposes some points twice. A proposal that
is ruled out, or was evaluated already, is therefore replaced before it becomes a trial: the sampler is asked again, and
then the nearest point that is new and meets the constraints is taken.
"""

import hashlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from moe_codesign.domain.failure import Failure
from moe_codesign.domain.shape import MoEShape
from moe_codesign.domain.tile_pair import TilePair
from moe_codesign.extras import require
from moe_codesign.models.catalogue import models
from moe_codesign.study.open_points import OpenPoints
from moe_codesign.study.points import nearest_number, neighbours, number_of, points, shape_of
from moe_codesign.study.sizes import Choice, Span
from moe_codesign.study.space import Space
from moe_kernels.kernel import Kernel
from moe_kernels.tile import TileConfig, Value

_STARTUP_TRIALS = 12
"""Random trials before a sampler models them, after the ones that a search starts with: two for each field of a shape
that a space usually varies."""
_MOST_FIRST = 32
"""Trials that a search starts with at most: the reference, its neighbours, and models of the catalogue."""
_TILE_DRAWS = 8
"""Tiles that are drawn for a shape before all of them are gone through for one that is new."""


class _Named(NamedTuple):
    """A sampler of Optuna's.

    Args:
        make: it, by its seed and the number of trials that come before it models them.
        asks: how often it is asked for a proposal before one is replaced; once where asking takes long.
        needs: packages that it needs beside Optuna's own.
        by_trial: each trial has a seed of its own; else all have one, as a sequence must not change on its way.
    """

    make: Callable[[int, int], optuna.samplers.BaseSampler]
    asks: int
    needs: tuple[str, ...] = ()
    by_trial: bool = True


_NAMED = {
    "tpe": _Named(lambda seed, first: optuna.samplers.TPESampler(
            seed=seed, multivariate=True, n_startup_trials=first
        ),
        3,
    ),
    "nsga2": _Named(lambda seed, _: optuna.samplers.NSGAIISampler(seed=seed), 20),
    "nsga3": _Named(lambda seed, _: optuna.samplers.NSGAIIISampler(seed=seed), 20),
    "gp": _Named(
        lambda seed, first: optuna.samplers.GPSampler(seed=seed, n_startup_trials=first),
        1, ("torch", "scipy"),
    ),
    "qmc": _Named(
        lambda seed, _: optuna.samplers.QMCSampler(seed=seed, scramble=True),
        20, ("scipy",), by_trial=False,
    ),
    "random": _Named(lambda seed, _: optuna.samplers.RandomSampler(seed=seed), 20),
}  # fmt: skip


def sampler_name(space: Space) -> str:
    """The sampler of the chips that are not enumerated."""
    return space.sampler if space.sampler in _NAMED else "tpe"


def check_sampler(space: Space) -> None:
    """Raise UserError where the space's sampler needs a package that is not installed."""
    for package in _NAMED[sampler_name(space)].needs:
        require(package, f"sampler = {sampler_name(space)!r}")


class Proposals:
    """What one mode of a chip tries next.

    Args:
        space, reference: of the shapes.
        chip, mode: by name; part of the seed.
        points: those of the space that are open. It is told of every trial by :meth:`use`.
        tiles: the choices of tiles for each name, in ``joint`` mode; empty where tiles are not proposed.
    """

    def __init__(
        self,
        space: Space,
        reference: MoEShape,
        chip: str,
        mode: str,
        open_points: OpenPoints,
        tiles: "TileChoices | None",
    ) -> None:
        self.space, self.reference, self.open, self.tiles = space, reference, open_points, tiles
        self._seed = f"{space.seed}/{chip}/{mode}"
        self._sampler = _NAMED[sampler_name(space)]
        self.first = _first(space, reference, open_points)
        self._tried: set[tuple[tuple[str, Any], ...]] = set()

    def use(self, params: Mapping[str, Any]) -> None:
        """Take note of a trial."""
        if (number := number_of(self.space, params)) is not None and _key(params) not in self._tried:
            self.open.used[number] += 1
            self._tried.add(_key(params))

    def sampler(self, number: int, chosen: Mapping[str, Any] | None = None) -> "_NewPoints":
        """The sampler that proposes one trial, seeded by the trial's number.

        A search that was interrupted thus proposes what an uninterrupted one would have.

        Args:
            number: of the trial.
            chosen: what was proposed for it before, if anything was.
        """
        text = f"{self._seed}/{number}" if self._sampler.by_trial else self._seed
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _NewPoints(self._sampler.make(seed, len(self.first) + _STARTUP_TRIALS), self, chosen or None)

    def choose(self, study: optuna.Study, trial: optuna.Trial) -> dict[str, Any]:
        """The values of a trial that was just begun with the study's sampler, which is one of :meth:`sampler`."""
        assert isinstance(study.sampler, _NewPoints)
        return dict(study.sampler.choose(study, begun(trial)))

    def propose(
        self, base: optuna.samplers.BaseSampler, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, Any]:
        """The values of a trial: what the base sampler proposes, or what is nearest to it of what is new and open."""
        if trial.number < len(self.first) and self.open.is_open(first := self.first[trial.number]):
            return self._with_new_tiles(base, study, trial, first)
        number = 0
        for _ in range(self._sampler.asks):
            draft = _Draft(base, study, trial, {})
            suggest_shape(draft, self.space, self.reference)
            number = number_of(self.space, draft.params) or 0
            if self.open.is_open(number):
                if self.tiles is None:
                    return draft.params
                self.tiles.suggest(draft)
                if _key(draft.params) not in self._tried:
                    return draft.params
        nearest = self.open.nearest(number)
        return self._with_new_tiles(base, study, trial, number if nearest is None else nearest)

    def _with_new_tiles(
        self, base: optuna.samplers.BaseSampler, study: optuna.Study, trial: optuna.trial.FrozenTrial, number: int
    ) -> dict[str, Any]:
        _, (values, _) = next(points(self.space, self.reference, [number]))
        for _ in range(_TILE_DRAWS if self.tiles is not None else 1):
            draft = _Draft(base, study, trial, values)
            suggest_shape(draft, self.space, self.reference)
            if self.tiles is not None:
                self.tiles.suggest(draft)
            if _key(draft.params) not in self._tried:
                return draft.params
        of_shape = {key: draft.params[key] for key in values}
        every = (of_shape | chosen for chosen in (self.tiles.every() if self.tiles is not None else iter(())))
        return next((params for params in every if _key(params) not in self._tried), draft.params)


def begun(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    """A trial that has no values yet, as a sampler sees it. A storage takes many statements to say the same."""
    frozen = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    frozen.number, frozen._trial_id = trial.number, trial._trial_id
    return frozen


class _NewPoints(optuna.samplers.BaseSampler):
    """A sampler whose proposals are new and open. One is made for each trial."""

    def __init__(
        self, base: optuna.samplers.BaseSampler, proposals: Proposals, chosen: Mapping[str, Any] | None
    ) -> None:
        self._base, self._proposals, self._chosen = base, proposals, chosen

    def choose(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Mapping[str, Any]:
        """The trial's values, which stay what they are."""
        if self._chosen is None:
            self._chosen = self._proposals.propose(self._base, study, trial)
        return self._chosen

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.choose(study, trial)[param_name]

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        self._base.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._base.after_trial(study, trial, state, values)


class _Draft:
    """Stands in for a trial: what a sampler proposes, before it is a trial's.

    Args:
        base, study, trial: whose proposal.
        given: values that are not the sampler's to choose.
    """

    def __init__(
        self,
        base: optuna.samplers.BaseSampler,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        given: Mapping[str, Any],
    ) -> None:
        self.params: dict[str, Any] = {}
        self._base, self._study, self._trial, self._given = base, study, trial, given
        self._relative = base.sample_relative(study, trial, base.infer_relative_search_space(study, trial))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return int(self._suggest(name, IntDistribution(low, high, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._given:
            value = self._given[name]
        elif name in self._relative and distribution._contains(distribution.to_internal_repr(self._relative[name])):
            value = self._relative[name]
        else:
            value = self._base.sample_independent(self._study, self._trial, name, distribution)
        self.params[name] = value
        return value


Suggests = optuna.Trial | _Draft


def suggest_shape(trial: Suggests, space: Space, reference: MoEShape) -> MoEShape | Failure:
    """The proposed shape, or why the proposed sizes make no shape. Fields left out of the space are the reference's."""
    return shape_of(space, reference, {field: _suggest(trial, field, space.choices[field]) for field in space.varied})


class TileChoices:
    """The tiles that can be proposed for the two GEMMs of each workload.

    Args:
        kernel: whose tiles.
        space: values that replace those of the kernel's own tile spaces, by field.
        workloads: their names.
    """

    def __init__(self, kernel: Kernel, space: Mapping[str, tuple[Value, ...]], workloads: Iterable[str]) -> None:
        self._kernel, self._workloads = kernel, list(workloads)
        self._ways: dict[str, dict[str, tuple[Value, ...]]] = {}
        for way, fields in kernel.tile_spaces.items():
            # Ways that differ in fields that the space narrows may be one way there.
            if (narrowed := {**fields, **space}) not in self._ways.values():
                self._ways[way] = narrowed

    def suggest(self, trial: Suggests) -> dict[str, TilePair]:
        """The proposed tiles, by the name of a workload."""
        return {
            name: TilePair(self._one(trial, f"{name}.up"), self._one(trial, f"{name}.down")) for name in self._workloads
        }

    def count(self) -> int:
        """How many there are for a shape."""
        of_one = sum(math.prod(len(set(values)) for values in fields.values()) for fields in self._ways.values())
        return int(of_one ** (2 * len(self._workloads)))

    def every(self) -> Iterator[dict[str, Any]]:
        """All of them, as a trial's parameters."""
        names = [f"{name}.{gemm}" for name in self._workloads for gemm in ("up", "down")]
        for together in itertools.product(*(list(self._params(name)) for name in names)):
            yield {key: value for one in together for key, value in one.items()}

    def _params(self, prefix: str) -> Iterator[dict[str, Any]]:
        for way, fields in self._ways.items():
            several = {field: sorted(set(values)) for field, values in fields.items() if len(values) > 1}
            of_way = {} if len(self._ways) == 1 else {f"{prefix}.way": way}
            for chosen in itertools.product(*several.values()):
                named = {f"{self._prefix(prefix, way)}.{f}": v for f, v in zip(several, chosen, strict=True)}
                yield of_way | named

    def _prefix(self, prefix: str, way: str) -> str:
        # The same field may have other values in another way, which Optuna takes for another parameter.
        return prefix if len(self._ways) == 1 else f"{prefix}.{way}"

    def _one(self, trial: Suggests, prefix: str) -> TileConfig:
        ways = sorted(self._ways)
        way = ways[0] if len(ways) == 1 else str(trial.suggest_categorical(f"{prefix}.way", ways))
        name = self._prefix(prefix, way)
        return self._kernel.tile_type.from_dict(
            {f: _choose(trial, f"{name}.{f}", values) for f, values in self._ways[way].items()}
        )


def _first(space: Space, reference: MoEShape, open_points: OpenPoints) -> list[int]:
    """What a search starts with: the reference, or the open point nearest to it; what is one step from it in each
    field; and models of the catalogue whose values the space has in every field that varies."""
    start = open_points.nearest(nearest_number(space, reference))
    if start is None:
        return []
    known = (
        number_of(space, {field: getattr(shape, field) or 0 for field in space.varied}) for shape in models().values()
    )
    wanted = [start, *neighbours(space, start), *(number for number in known if number is not None)]
    return open_points.open_among(list(dict.fromkeys(wanted)))[:_MOST_FIRST]


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))


def _choose(trial: Suggests, name: str, values: tuple[Value, ...]) -> Value:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, sorted(set(values)))


def _suggest(trial: Suggests, name: str, choice: Choice) -> int:
    if isinstance(choice, Span):
        return trial.suggest_int(name, choice.low, choice.values()[-1], step=choice.step)
    assert not isinstance(choice, int), "a field that varies has several values"
    return int(trial.suggest_categorical(name, sorted(set(choice))))
