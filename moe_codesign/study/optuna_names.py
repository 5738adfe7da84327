"""What Optuna's own tools show of a study: its dashboard, its plots, and whoever loads it from its storage.

They know nothing of pairs. So an Optuna study says by its attributes what its values are of, each trial what came of
it, in plain text, and a constraint stands where the dashboard looks for it.
"""

import warnings

import optuna

from moe_codesign.chips import Chip
from moe_codesign.chips.schema import OwnPower, Price
from moe_codesign.domain.trial import Outcome, Refused
from moe_codesign.study.space import Space

_CONSTRAINTS = "constraints"
"""The system attribute of a trial that holds its constraints as a list. Optuna 5 reads it, and so does its dashboard,
which does not know the names that ``Trial.set_constraint`` gives."""


def name_study(study: optuna.Study, space: Space, chip: Chip) -> Chip:
    """Give an Optuna study the names of its objectives, and say what its values are of.

    A sampler compares values of one scale. Costs and joules are therefore at the price and power of the first run,
    whatever those of later runs are, and the attributes ``usd_per_hour`` and ``watts`` say at which.

    Returns:
        The chip at the price and power at which values are told.
    """
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([str(objective) for objective in space.objectives])
    known = study.user_attrs
    if "chip" not in known:
        # Trials without it are from before there were own prices.
        first = chip.as_filed() if study.get_trials(deepcopy=False) else chip
        texts = {"reference": space.reference, "law": space.law, "chip": chip.name}
        numbers = {
            "usd_per_hour": None if first.price is None else first.price.usd_per_hour,
            "watts": first.all_in_w,
        }
        # The chip is last: it says that the others are there.
        known = {name: value for name, value in (numbers | texts).items() if value is not None}
        for name, value in known.items():
            study.set_user_attr(name, value)
    usd, watts = known.get("usd_per_hour"), known.get("watts")
    return chip.at(
        None if usd is None else Price(usd, "space", None, None), None if watts is None else OwnPower(watts, None)
    )


def name_trial(study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
    """Say what came of a trial, before Optuna is told its values; said again it is the same."""
    storage = study._storage
    if isinstance(outcome, Refused):
        storage.set_trial_user_attr(trial._trial_id, "ruled out", str(outcome.failure))
        storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, [outcome.failure.violation])
        return
    storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, [0.0])
    storage.set_trial_user_attr(trial._trial_id, "shape", outcome.pairs[0].shape.label())
    for pair in outcome.pairs:
        timing = pair.timing
        tiles = f", tiles {pair.tiles.label()}" if pair.tiles is not None else ""
        text = f"{timing.latency_us:.4g} us ({timing.low_us:.4g} .. {timing.high_us:.4g}), {timing.grade}{tiles}"
        storage.set_trial_user_attr(trial._trial_id, f"time under {pair.workload.name}", text)
