"""The quality of shapes beside a reference: by the law that was asked for, and by every other law that applies."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from moe_codesign.arrays import F64, Mask
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.quality.ablations import Ablations
from moe_codesign.quality.features import Features, features_of, forward_flops_per_token
from moe_codesign.quality.law import Kind, Law
from moe_codesign.quality.laws import published_laws

Equal = Literal["training_tokens", "training_compute"]
"""What is held equal where two models' qualities are compared."""
EQUALS: tuple[Equal, ...] = get_args(Equal)
_ROUNDING = 1e-12
"""What a loss may rise by and still count as level."""


@dataclass(frozen=True)
class Qualities:
    """The quality of many shapes.

    Args:
        ratio: by the law that was asked for, float64 [shapes]; above 1 is better than the reference.
        usable: whether the law has a say at these shapes, bool [shapes]; see :meth:`Judge.why_unusable`.
        by_law: every other law's ratio, float64 [shapes], NaN where it does not apply.
    """

    ratio: F64
    usable: Mask
    by_law: Mapping[str, F64]

    def of(self, index: int) -> "Quality":
        """One shape's."""
        others = {name: float(ratios[index]) for name, ratios in self.by_law.items()}
        return Quality(
            float(self.ratio[index]), {name: ratio for name, ratio in others.items() if math.isfinite(ratio)}
        )


@dataclass(frozen=True)
class Quality:
    """The quality of one shape.

    Args:
        ratio: by the law that was asked for.
        by_law: by the other laws that apply to the shape.
    """

    ratio: float
    by_law: dict[str, float]


class Judge:
    """Compares shapes with one reference.

    Args:
        law: the law to go by.
        reference: the model that ratios are over.
        training_tokens: what the reference is trained on.
        equal: whether every shape is trained on as many tokens, or with as many FLOPs.

    Raises:
        UserError: the law has no say at the reference.
    """

    def __init__(self, law: Law, reference: MoEShape, training_tokens: float, equal: Equal = "training_tokens") -> None:
        self.law, self.reference, self.training_tokens, self.equal = law, reference, training_tokens, equal
        self._features = features_of([reference], training_tokens)
        if reason := self.why_unusable(reference):
            raise UserError(
                f"law = {law.name!r} has no say on {reference.name or reference.label()}: {reason}",
                fix="give another `law`, or a table of `ablations`",
            )
        self._others = [one for one in published_laws() if one.name != law.name and _applies(one, self._features)[0]]

    def qualities(self, shapes: Sequence[MoEShape]) -> Qualities:
        """The quality of every shape."""
        features = self._features_of(shapes)
        by_law = {}
        for law in self._others:
            says = _applies(law, features) & ~_contradicts_itself(law, shapes, features)
            by_law[law.name] = np.where(says, law.ratio(features, self._features), np.nan)
        usable = _applies(self.law, features, "condition") & ~_contradicts_itself(self.law, shapes, features)
        return Qualities(self.law.ratio(features, self._features), usable, by_law)

    def why_unusable(self, shape: MoEShape) -> str:
        """Why the law has no say at a shape; empty where it has."""
        features = self._features_of([shape])
        if conditions := _outside(self.law, features, "condition"):
            return f"it holds for other designs alone ({'; '.join(conditions)})"
        if _contradicts_itself(self.law, [shape], features)[0]:
            return "it says that one more expert would make a worse model on the same tokens, which no data shows"
        return ""

    def outside(self, shape: MoEShape) -> tuple[str, ...]:
        """What of the shape the law's experiments did not cover, in words; how large it is apart, see :meth:`notes`."""
        found = _outside(self.law, self._features_of([shape]), "shape")
        if shape.moe_latent_size is not None:
            found.append(f"experts at a latent width of {shape.moe_latent_size} are in none of its experiments")
        if shape.zero_expert_num:
            found.append(f"{shape.zero_expert_num} zero experts are in none of its experiments")
        return tuple(found)

    def notes(self) -> tuple[str, ...]:
        """What holds for every ratio of this judge, a sentence each: the law, how far it is carried on, and which
        others have a say."""
        own = (
            f"Quality by the law {self.law.name} ({self.law.paper}): {self.law.measure}, at equal {_words(self.equal)}"
        )
        sizes = _outside(self.law, self._features, "size")
        far = f"; it is carried on far beyond its experiments: {self._name}'s {' and '.join(sizes)}" if sizes else ""
        others = ", ".join(law.name for law in self._others)
        also = (
            f"Other laws that apply to {self._name}: {others}." if others else f"No other law applies to {self._name}."
        )
        return (f"{own}{far}.", also)

    @property
    def _name(self) -> str:
        return self.reference.name or self.reference.label()

    def _features_of(self, shapes: Sequence[MoEShape]) -> Features:
        if self.equal == "training_tokens":
            return features_of(shapes, self.training_tokens)
        flops = np.fromiter(map(forward_flops_per_token, shapes), dtype=float, count=len(shapes))
        return features_of(shapes, self._features.compute / flops)


def _words(equal: Equal) -> str:
    return equal.replace("_", " ")


def _applies(law: Law, features: Features, *kinds: Kind) -> Mask:
    """Whether the shapes lie inside of the law's ranges of these kinds, bool [shapes]."""
    inside = np.ones(len(features.hidden), dtype=bool)
    for limits, values in law.covered(features):
        if limits.kind in (kinds or ("shape", "condition")):
            inside &= limits.holds(values)
    return inside


def _outside(law: Law, features: Features, kind: Kind) -> list[str]:
    """The ranges of that kind that the one shape lies outside of, in words."""
    return [
        text
        for limits, values in law.covered(features)
        if limits.kind == kind and (text := limits.outside(float(values[0])))
    ]


def _contradicts_itself(law: Law, shapes: Sequence[MoEShape], features: Features) -> Mask:
    """Where the law says that one more expert, or one more active expert, would make a worse model on the same
    tokens."""
    worse = np.zeros(len(shapes), dtype=bool)
    if isinstance(law, Ablations):
        # Somebody's own measurements may show what published ones do not.
        return worse
    more_experts = [dataclasses.replace(s, num_experts=s.num_experts + 1) for s in shapes]
    more_active = [
        dataclasses.replace(s, num_experts_per_tok=min(s.num_experts_per_tok + 1, s.num_experts)) for s in shapes
    ]
    own = law.loss(features)
    for changed in (more_experts, more_active):
        worse |= law.loss(features_of(changed, features.tokens)) > own + _ROUNDING
    return worse
