"""A user's own ablations as a law: a Gaussian process through the logarithms of what was varied.

The logarithm of the loss is a constant, plus a published law's loss times a factor where the table corrects one, plus a
surface with the covariance ``v ((1 + u.u'/n)^2 + r exp(-|u - u'|^2 / 2 l^2)) + noise``: a quadratic trend, and what is
smooth beside it. u are the n logarithms, in units of their spread in the table. The length l, the share r and the noise
are those with the least leave-one-out error (Rasmussen and Williams, Gaussian Processes for Machine Learning, section
5.4.2).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_codesign.arrays import F64
from moe_codesign.domain.shape import MoEShape
from moe_codesign.errors import UserError
from moe_codesign.quality.features import Features, features_of
from moe_codesign.quality.law import Evidence, Law, Range

FEWEST_ROWS = 6
"""Of a table: fewer say nothing of how wrong the surface between them is."""
MOST_ROWS = 500
"""Of a table: its matrix is inverted for every covariance that is tried."""
_LENGTHS, _SHARES = (0.5, 1.0, 2.0), (0.0, 0.1, 1.0, 10.0)
_NOISES = tuple(10.0**exponent for exponent in range(-9, 1))
"""Of the table's variance: from a computed table to one that says nothing."""
_NESTED_UP_TO = 40
"""Rows up to which the error is found with the covariance chosen anew without each; later the choice hardly moves."""
_FREE = 1e4
"""Variance, of the table's, of the constant and the factor, about which nothing is assumed."""
_FIELDS = ("hidden", "width", "experts", "active", "shared", "tokens")


@dataclass(frozen=True)
class Ablation:
    """One training run.

    Args:
        shape: what was trained.
        training_tokens: on how many tokens.
        loss: what it reached; less is better.
    """

    shape: MoEShape
    training_tokens: float
    loss: float


@dataclass(frozen=True)
class _Kernel:
    """The surface's covariance; see the module."""

    length: float
    share: float

    def __call__(self, one: F64, other: F64) -> F64:
        inner = (1 + one @ other.T / one.shape[1]) ** 2
        distance = ((one[:, None] - other[None]) ** 2).sum(axis=2)
        return np.asarray(inner + self.share * np.exp(-distance / (2 * self.length**2)))


class Ablations:
    """The law of a table of training runs; see :class:`moe_codesign.quality.law.Law`.

    Args:
        runs: the table.
        corrects: the published law that it corrects; None where the table is the law.

    Raises:
        UserError: fewer than six runs or more than 500, a loss that is no positive number, or runs that differ in no
            field.
    """

    evidence: Evidence = "runs"
    measure = "loss of the reference over the loss of the shape"

    def __init__(self, runs: Sequence[Ablation], corrects: Law | None = None) -> None:
        if not FEWEST_ROWS <= len(runs) <= MOST_ROWS:
            raise UserError("rows of ablations", value=len(runs), fix=f"give {FEWEST_ROWS} to {MOST_ROWS} runs")
        losses = np.array([run.loss for run in runs], dtype=float)
        if not (np.isfinite(losses) & (losses > 0)).all():
            raise UserError("loss of an ablation", value=float(losses.min()), fix="give positive numbers")
        self._corrects = corrects
        self.name = f"ablations over {corrects.name}" if corrects else "ablations"
        features = features_of([run.shape for run in runs], np.array([run.training_tokens for run in runs]))
        self.runs = len(runs)
        logs = _logs(features)
        self._varied = [i for i in range(len(_FIELDS)) if np.ptp(logs[:, i]) > 0]
        if not self._varied:
            raise UserError("ablations in which no field varies", fix="give runs of different shapes")
        self._centre, self._spread = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-12)
        self._ranges = {i: (float(_values(features, i).min()), float(_values(features, i).max())) for i in self._varied}
        if corrects is not None:
            published = corrects.loss(features)
            self._published = float(published.mean()), float(published.std()) or 1.0
        self._known = self._inputs(features)
        self._mean, self._scale = np.log(losses).mean(), np.log(losses).std() or 1.0
        y = np.asarray((np.log(losses) - self._mean) / self._scale)
        self._kernel, noise, error = self._chosen(self._known, y)
        self._weights = self._inverse(self._kernel, noise, self._known) @ y
        if len(runs) <= _NESTED_UP_TO:
            error = self._nested_error(y)
        self._error = self._scale * error

    @property
    def paper(self) -> str:
        """What stands in a paper's place: the runs, and how well they predict one another."""
        over = f" over the law {self._corrects.name}" if self._corrects else ""
        return f"{self.runs} runs of the user's own{over}, leave-one-out error {self.error:.2%} of the loss"

    @property
    def error(self) -> float:
        """Root mean square of the relative error of each run's loss, predicted by the others."""
        return self._error

    def covered(self, features: Features) -> list[tuple[Range, F64]]:
        return [(Range(_FIELDS[i], *self._ranges[i]), _values(features, i)) for i in self._varied]

    def ratio(self, features: Features, reference: Features) -> F64:
        return np.asarray(self.loss(reference)[0] / self.loss(features))

    def loss(self, features: Features) -> F64:
        """Predicted loss, float64 [shapes]."""
        standard = self._covariance(self._kernel, self._inputs(features), self._known) @ self._weights
        return np.asarray(np.exp(self._mean + self._scale * standard))

    def _chosen(self, known: F64, y: F64) -> tuple[_Kernel, float, float]:
        """The covariance and the noise with the least leave-one-out error, and that error."""
        best = (_Kernel(1.0, 0.0), 1.0, np.inf)
        for length, share, noise in itertools.product(_LENGTHS, _SHARES, _NOISES):
            kernel = _Kernel(length, share)
            inverse = self._inverse(kernel, noise, known)
            error = float(np.sqrt(np.mean(((inverse @ y) / np.diag(inverse)) ** 2)))
            if (np.diag(inverse) > 0).all() and error < best[2]:
                best = (kernel, noise, error)
        return best

    def _nested_error(self, y: F64) -> float:
        """The error of each run by all others, which choose the covariance too: choosing by the error itself flatters
        it."""
        errors = []
        for index in range(len(y)):
            rest = np.arange(len(y)) != index
            kernel, noise, _ = self._chosen(self._known[rest], y[rest])
            weights = self._inverse(kernel, noise, self._known[rest]) @ y[rest]
            errors.append(y[index] - (self._covariance(kernel, self._known[[index]], self._known[rest]) @ weights)[0])
        return float(np.sqrt(np.mean(np.square(errors))))

    def _inverse(self, kernel: _Kernel, noise: float, known: F64) -> F64:
        inverse = np.linalg.inv(self._covariance(kernel, known, known) + noise * np.eye(len(known)))
        return np.asarray(inverse, dtype=float)

    def _inputs(self, features: Features) -> F64:
        """[shapes, varied fields], and the published law's loss behind them where there is one."""
        logs = ((_logs(features) - self._centre) / self._spread)[:, self._varied]
        if self._corrects is None:
            return np.asarray(logs)
        mean, scale = self._published
        return np.column_stack([logs, (self._corrects.loss(features) - mean) / scale])

    def _covariance(self, kernel: _Kernel, one: F64, other: F64) -> F64:
        fields = len(self._varied)
        found = kernel(one[:, :fields], other[:, :fields]) + _FREE
        if self._corrects is not None:
            found = found + _FREE * np.outer(one[:, fields], other[:, fields])
        return np.asarray(found)


def _values(features: Features, field: int) -> F64:
    values: F64 = getattr(features, _FIELDS[field])
    return values


def _logs(features: Features) -> F64:
    """[shapes, fields]; shared experts, of which there may be none, count one more."""
    columns = [_values(features, i) + (_FIELDS[i] == "shared") for i in range(len(_FIELDS))]
    return np.log(np.column_stack(columns))
