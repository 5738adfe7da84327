"""One shape for each chip, by a stated rule, with what it gains, what it costs and how sure that is.

The rule is the knee of the frontier: of the shapes that hold the quality constraint under every law that applies, the
one with the least weighted sum of the logarithms of its objectives over the best of each. With all weights 1 that is
the shape that loses least to the best in everything, as a product of ratios. A law's quality is a constraint where the
space sets ``min_quality_ratio``, and counts nothing beyond; see :class:`moe_codesign.study.space_tables.Recommend`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moe_codesign.chips import Chip
from moe_codesign.cost.ratio import Ratio, joined, ratio
from moe_codesign.domain.pair import Pair
from moe_codesign.domain.rank import memory_use, weight_bytes_per_chip
from moe_codesign.domain.trial import Mode, Trial

if TYPE_CHECKING:  # what prints an audit loads no optimiser and no database
    from moe_codesign.study.runner import SearchResult
    from moe_codesign.study.space import Space

_NEAR = 0.02
"""A constraint with less to spare binds."""


@dataclass(frozen=True)
class Gain:
    """How much faster one step of the way from the reference to the found shape is: over 1 is faster.

    Args:
        tiles: the reference with its best tiles over itself with its default ones; None where these are not known.
        shape: the found shape over the reference, both with their best tiles (else the reference with its default).
        whole: the found shape over the reference with its default tiles.
    """

    tiles: Ratio | None
    shape: Ratio
    whole: Ratio

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        steps = {"tiles": self.tiles, "shape": self.shape, "whole": self.whole}
        return {name: None if step is None else _faster(step) for name, step in steps.items()}


@dataclass(frozen=True)
class Rival:
    """Another shape, beside the recommended one.

    Args:
        pairs: its own, one for each workload.
        slower: its time over the recommended one's; below 1 it is the faster.
        fails: laws by which it does not hold the quality constraint.
    """

    pairs: tuple[Pair, ...]
    slower: Ratio
    fails: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"shape": self.pairs[0].shape.label(), "time": self.slower.to_dict(), "fails": list(self.fails)}


@dataclass(frozen=True)
class Recommendation:
    """What to take on one chip.

    Args:
        chip: its name.
        reference: name of the model that it is compared with.
        law: by which ``quality_ratio`` of its pairs is.
        pairs: the shape with its tiles, one for each workload.
        mode, trial: which search proposed it, and in which of its trials.
        gains: by workload, where the reference was timed under it too.
        gain: all of them together, by the weights of the objectives; None without any.
        fails: laws by which it does not hold the quality constraint; empty unless no shape holds it under all.
        weights_gb: weights of all its MoE layers on one chip, and the reference's, under the workload that needs most.
        runner_up: the next shape by the same rule; None where there is no other.
        ties: shapes that lie within error of it, by the same weights.
        excluded: a faster shape that does not hold under every law, if there is one.
        alone: by workload, the shape that is the best for that alone, where it is another one.
        binds: the constraints that have next to nothing to spare, in words.
    """

    chip: str
    reference: str
    law: str
    pairs: tuple[Pair, ...]
    mode: Mode
    trial: int
    gains: dict[str, Gain]
    gain: Gain | None
    fails: tuple[str, ...]
    weights_gb: tuple[float, float] | None
    runner_up: Rival | None
    ties: int
    excluded: Rival | None
    alone: dict[str, Rival]
    binds: tuple[str, ...]

    @property
    def beats_reference(self) -> bool:
        """Whether it is faster than the reference with its best tiles, beyond error."""
        return self.gain is not None and self.gain.shape.low > 1

    def __str__(self) -> str:
        return " ".join(
            filter(None, (self._what(), self._by_workload(), self._quality(), self._memory(), self._else()))
        )

    def _what(self) -> str:
        label = self.pairs[0].shape.label()
        if self.gain is None:
            return f"{self.chip}: take {label}; {self.reference} could not be timed here, so its gain is not known."
        best = "its best tiles" if self.gain.tiles else "its default tiles (its best ones are not known)"
        tiles = f"; best tiles alone give it {_gain(self.gain.tiles)}" if self.gain.tiles else ""
        if not self.beats_reference:
            itself = self.gain.shape.low == self.gain.shape.high == 1.0
            return f"{self.chip}: nothing beats your reference {self.reference} with {best} beyond error{tiles}. " + (
                "The rule takes the reference itself." if itself else f"Nearest is {label}, {_gain(self.gain.shape)}."
            )
        if not self.gain.tiles:
            return f"{self.chip}: take {label}, {_gain(self.gain.shape)} over {self.reference} with {best}."
        return (
            f"{self.chip}: take {label}, {_gain(self.gain.whole)} over {self.reference} with its default tiles: "
            f"{_gain(self.gain.tiles)} from tiles, {_gain(self.gain.shape)} from shape; the chance that it beats the "
            f"reference with its best tiles is {_percent(1 - self.gain.shape.chance)}."
        )

    def _by_workload(self) -> str:
        if len(self.gains) < 2 or all(gain.shape.low == gain.shape.high for gain in self.gains.values()):
            return ""
        said = ", ".join(f"{name} {_gain(gain.shape)}" for name, gain in self.gains.items())
        return f"From shape by workload: {said}."

    def _quality(self) -> str:
        pair = self.pairs[0]
        own = f"Quality {pair.quality_ratio - 1:+.1%} by {self.law}"
        others = ", ".join(f"{ratio - 1:+.1%} by {law}" for law, ratio in pair.quality_by_law.items())
        fails = (
            f"; it does NOT hold under {' and '.join(self.fails)}, and no shape holds under all" if self.fails else ""
        )
        return f"{own}{', ' if others else ''}{others}{fails}."

    def _memory(self) -> str:
        if self.weights_gb is None:
            return ""
        own, reference = self.weights_gb
        return f"Weights {own:.1f} GB a chip, the reference's {reference:.1f}."

    def _else(self) -> str:
        """What would change the answer."""
        said = []
        if self.runner_up is not None:
            said.append(f"next is {self.runner_up.pairs[0].shape.label()}, {_slower(self.runner_up.slower)}")
            if self.ties > 1:
                said[-1] += f" ({self.ties:,} shapes tie)"
        for name, rival in self.alone.items():
            said.append(f"for {name} alone {rival.pairs[0].shape.label()}, {_slower(rival.slower)} there")
        if self.excluded is not None:
            label, laws = self.excluded.pairs[0].shape.label(), " and ".join(self.excluded.fails)
            said.append(f"without {laws} {label}, {_slower(self.excluded.slower)}")
        said += self.binds
        return f"What would change it: {'; '.join(said)}." if said else ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sentence": str(self),
            "beats_reference": self.beats_reference,
            "mode": self.mode,
            "trial": self.trial,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "gains": {name: gain.to_dict() for name, gain in self.gains.items()},
            "gain": None if self.gain is None else self.gain.to_dict(),
            "fails": list(self.fails),
            "weights_gb": None if self.weights_gb is None else dict(
                zip(("own", "reference"), self.weights_gb, strict=True)
            ),
            "runner_up": None if self.runner_up is None else self.runner_up.to_dict(),
            "ties": self.ties,
            "excluded": None if self.excluded is None else self.excluded.to_dict(),
            "alone": {name: rival.to_dict() for name, rival in self.alone.items()},
            "binds": list(self.binds),
        }  # fmt: skip


def recommendations(result: "SearchResult") -> dict[str, Recommendation | None]:
    """The recommendation of each chip; None where no shape has a time."""
    return {chip.name: recommend(result, chip) for chip in result.space.chips}


def recommend(result: "SearchResult", chip: Chip) -> Recommendation | None:
    """One shape of a chip, by the rule of this module; None where no shape has a time."""
    space = result.space
    trials = [trial for trial in result.trials if trial.chip == chip.name and trial.pairs]
    if not trials:
        return None
    least = space.constraints.min_quality_ratio
    fails = {_key(trial): _fails(trial.pairs[0], least, space.law) for trial in trials}
    ranked = sorted(trials, key=lambda trial: _order(trial, space, chip))
    safe = [trial for trial in ranked if not fails[_key(trial)]]
    order = safe or ranked
    chosen = order[0]
    weights = _by_workload(space, chosen.pairs)

    def rival(trial: Trial) -> Rival:
        return Rival(trial.pairs, _over(trial.pairs, chosen.pairs, weights), fails[_key(trial)])

    others = list({trial.pairs[0].shape: trial for trial in reversed(order[1:])}.values())[::-1]
    others = [trial for trial in others if trial.pairs[0].shape != chosen.pairs[0].shape]
    others.sort(key=lambda trial: _order(trial, space, chip))
    faster = ranked[0] if _key(ranked[0]) != _key(chosen) else None
    gains, gain = _gains(result, chosen, weights)
    return Recommendation(
        chip=chip.name,
        reference=space.reference,
        law=space.law,
        pairs=chosen.pairs,
        mode=chosen.mode,
        trial=chosen.number,
        gains=gains,
        gain=gain,
        fails=fails[_key(chosen)],
        weights_gb=_weights_gb(result, chip, chosen),
        runner_up=rival(others[0]) if others else None,
        ties=sum(rival(trial).slower.is_tie for trial in others),
        excluded=rival(faster) if faster is not None else None,
        alone=_alone(order, chosen, weights),
        binds=_binds(space, chip, chosen.pairs),
    )


def _key(trial: Trial) -> tuple[Mode, int]:
    return trial.mode, trial.number


def _order(trial: Trial, space: "Space", chip: Chip) -> tuple[float, float, str]:
    """By the rule, then by quality: no seed has a part in it.

    The best of each objective is the same for all shapes and does not change their order.
    """
    score = 0.0
    for objective, weight in zip(space.objectives, space.weights(), strict=True):
        if weight:
            sign = -1.0 if objective.metric.maximise else 1.0
            score += weight * sign * math.log(objective.value(trial.pairs, chip))
    return round(score, 9), -trial.pairs[0].quality_ratio, trial.pairs[0].shape.label()


def _fails(pair: Pair, least: float | None, law: str) -> tuple[str, ...]:
    """Laws under which a pair does not hold the quality constraint."""
    if least is None:
        return ()
    return tuple(name for name, ratio in {law: pair.quality_ratio, **pair.quality_by_law}.items() if ratio < least)


def _by_workload(space: "Space", pairs: Sequence[Pair]) -> dict[str, float]:
    """What each workload's time counts for."""
    found = dict.fromkeys((pair.workload.name for pair in pairs), 0.0)
    for objective, weight in zip(space.objectives, space.weights(), strict=True):
        if objective.workload is not None:
            found[objective.workload] += weight
    return found if any(found.values()) else dict.fromkeys(found, 1.0)


def _over(some: Sequence[Pair], others: Sequence[Pair], weights: dict[str, float]) -> Ratio:
    """Time of some pairs over that of others, their workloads together."""
    by_name = {pair.workload.name: pair for pair in others}
    both = [pair for pair in some if pair.workload.name in by_name]
    counted = [pair for pair in both if weights.get(pair.workload.name)] or both
    return joined(
        [ratio(pair, by_name[pair.workload.name]) for pair in counted],
        [weights.get(pair.workload.name) or 1.0 for pair in counted],
    )


def _gains(result: "SearchResult", chosen: Trial, weights: dict[str, float]) -> tuple[dict[str, Gain], Gain | None]:
    default = {pair.workload.name: pair for pair in result.reference.get(chosen.chip, ())}
    tuned = {pair.workload.name: pair for pair in result.tuned_reference.get(chosen.chip, ())}
    gains = {}
    for pair in chosen.pairs:
        name = pair.workload.name
        if (plain := default.get(name)) is None:
            continue
        best = tuned.get(name)
        if best is not None and best.timing.latency_us > plain.timing.latency_us:
            best = plain  # a space may narrow its tiles to some that are worse
        gains[name] = Gain(
            tiles=None if best is None else ratio(plain, best),
            shape=ratio(plain if best is None else best, pair),
            whole=ratio(plain, pair),
        )
    if not gains:
        return gains, None
    counted = [name for name in gains if weights[name]] or list(gains)
    shares = [weights[name] or 1.0 for name in counted]
    tiles = [gains[name].tiles for name in counted]
    known = [one for one in tiles if one is not None]
    return gains, Gain(
        tiles=joined(known, shares) if len(known) == len(tiles) else None,
        shape=joined([gains[name].shape for name in counted], shares),
        whole=joined([gains[name].whole for name in counted], shares),
    )


def _weights_gb(result: "SearchResult", chip: Chip, chosen: Trial) -> tuple[float, float] | None:
    """None on the host, which holds one layer, or where the reference was not timed."""
    reference = result.reference.get(chip.name, ())
    if chip.is_host or not reference:
        return None
    own, theirs = (max(weight_bytes_per_chip(p.shape, p.workload) for p in some) for some in (chosen.pairs, reference))
    return own / 1e9, theirs / 1e9


def _alone(order: Sequence[Trial], chosen: Trial, weights: dict[str, float]) -> dict[str, Rival]:
    """For each of several workloads that count, the shape that is fastest under it, if it is not the chosen one."""
    names = [name for name, weight in weights.items() if weight]
    found = {}
    for name in names if len(names) > 1 else ():
        only = {name: 1.0}
        best = min(order, key=lambda trial: next(p.timing.latency_us for p in trial.pairs if p.workload.name == name))
        own, theirs = (tuple(pair for pair in trial.pairs if pair.workload.name == name) for trial in (best, chosen))
        if own[0].shape != theirs[0].shape and own[0].timing.latency_us < theirs[0].timing.latency_us:
            found[name] = Rival(own, _over(own, theirs, only))
    return found


def _binds(space: "Space", chip: Chip, pairs: Sequence[Pair]) -> tuple[str, ...]:
    found = []
    if (least := space.constraints.min_quality_ratio) is not None:
        qualities = {space.law: pairs[0].quality_ratio, **pairs[0].quality_by_law}
        law = min(qualities, key=lambda name: qualities[name])
        if 0 <= qualities[law] - least < _NEAR:
            found.append(f"quality binds, with {qualities[law] - least:.1%} to spare by {law}")
    allowed = space.constraints.memory_fraction * chip.memory.hbm_bytes
    used = max(memory_use(pair.shape, pair.workload).total for pair in pairs)
    if not chip.is_host and 0 <= 1 - used / allowed < _NEAR:
        found.append(f"memory binds, with {(allowed - used) / 1e9:.1f} GB a chip to spare")
    return tuple(found)


def _faster(step: Ratio) -> dict[str, Any]:
    """A gain in JSON: the chance is that of the faster side to be so."""
    return {**step.to_dict(), "chance": 1.0 - step.chance}


def _gain(one: Ratio) -> str:
    """``1.10x (1.02 .. 1.18)``, and whether that is a tie."""
    if one.low == one.high == 1.0:
        return "1.00x (the same)"
    return f"{one.value:.2f}x ({one.low:.2f} .. {one.high:.2f}{', a tie' if one.is_tie else ''})"


def _slower(one: Ratio) -> str:
    """``1.5 % slower``, or that it is a tie."""
    word = "slower" if one.value >= 1 else "faster"
    apart = f"{abs(one.value - 1):.1%} {word}" if abs(one.value - 1) >= 0.0005 else "as fast"
    return f"{apart}{', a tie' if one.is_tie else ''}"


def _percent(chance: float) -> str:
    """Never quite certain."""
    return "over 99%" if chance > 0.995 else "below 1%" if chance < 0.005 else f"{chance:.0%}"
