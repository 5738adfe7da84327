"""Which fields of a shape, and of its tiles, decide each objective: PED-ANOVA (Watanabe et al., arXiv 2304.10255).

A field matters where its values among the best tenth of the candidates are distributed unlike its values among all of
them. Candidates that broke a constraint take no part.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from moe_codesign.arrays import F64
from moe_codesign.study.evaluate import Evaluator
from moe_codesign.study.points import points
from moe_codesign.study.sizes import Span
from moe_codesign.study.space import Space

BEST = 0.1
"""The share of the candidates that counts as the best."""
FEWEST = 50
"""Candidates below which the best tenth says nothing: five of them, as Optuna advises."""
MOST = 5_000
"""Points of an enumerated space that are looked at, spread over all of them."""

Importances = dict[str, dict[str, float]]
"""By objective, the share of each field, the largest first; they sum to 1."""


def importances(space: Space, params: Sequence[Mapping[str, Any]], values: F64) -> Importances:
    """Which parameters mattered for each objective of a space.

    Args:
        space: whose objectives.
        params: of the feasible candidates, by name.
        values: of their objectives, float64 [candidates, objectives].

    Returns:
        Empty with fewer than FEWEST candidates. An objective that is the same for all of them is left out.
    """
    if len(params) < FEWEST:
        return {}
    known = _distributions(space, params)
    study = optuna.create_study(directions=["minimize"] * len(space.objectives))
    study.add_trials(
        [
            optuna.create_trial(
                params=dict(one), distributions={name: known[name] for name in one}, values=of_one.tolist()
            )
            for one, of_one in zip(params, values, strict=True)
        ]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
    found: Importances = {}
    for place, (objective, up) in enumerate(zip(space.objectives, space.maximised(), strict=True)):
        if np.ptp(values[:, place]) == 0:
            continue
        sign = -1.0 if up else 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns that lower targets count as better, which they are
            found[str(objective)] = get_param_importances(
                study, evaluator=evaluator, target=functools.partial(_value, place, sign)
            )
    return found


def _value(place: int, sign: float, trial: optuna.trial.FrozenTrial) -> float:
    return float(sign * trial.values[place])


def importances_of_points(evaluator: Evaluator, numbers: Sequence[int], values: F64) -> Importances:
    """The same of points of an enumerated space, of which up to MOST are looked at.

    Args:
        evaluator: of the space on the chip.
        numbers: of the feasible points, counted through the space.
        values: of their objectives, float64 [numbers, objectives].
    """
    every = max(1, -(-len(numbers) // MOST))
    some = points(evaluator.space, evaluator.reference, numbers[::every])
    return importances(evaluator.space, [params for _, (params, _) in some], values[::every])


def _distributions(space: Space, params: Sequence[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """What each parameter could be: as the space says, or, of tiles, what was tried."""
    seen: dict[str, set[Any]] = {}
    for one in params:
        for name, value in one.items():
            seen.setdefault(name, set()).add(value)
    found: dict[str, BaseDistribution] = {}
    for name, tried in seen.items():
        choice = space.choices.get(name)
        if isinstance(choice, Span):
            found[name] = IntDistribution(choice.low, choice.values()[-1], step=choice.step)
        else:
            found[name] = CategoricalDistribution(sorted(tried, key=str))
    return found
