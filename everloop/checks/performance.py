"""How well predictions fit labels: AUC, accuracy, F1, calibration, errors; each with an interval, over a suite or a window's labelled rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks import statistics as stats
from everloop.checks.base import GATE, MONITOR, Estimate, Metric, NotAssessable, Rate
from everloop.checks.statistics import Interval
from everloop.core.types import Results

CLASSIFY = ("binary", "multiclass")
_TINY = 1e-15


def is_positive(results: Results) -> np.ndarray:
    """Which labels are the positive class; NotAssessable if the suite does not say which class is."""
    if results.positive is None:
        raise NotAssessable("the suite does not say which class is the positive one")
    return np.asarray(results.y).astype(str) == str(results.positive)


def score_of_positive(results: Results) -> np.ndarray:
    """P(positive) by row; NotAssessable if the model gave no probabilities."""
    if results.probability is None:
        raise NotAssessable("the model gives no probabilities")
    p = np.asarray(results.probability, dtype=float)
    if p.ndim == 2:
        p = p[:, [str(c) for c in results.classes].index(str(results.positive))]
    if not np.isfinite(p).all():
        raise NotAssessable(f"{int((~np.isfinite(p)).sum())} of {len(p)} probabilities are missing or not finite")
    return p


def table_of(results: Results) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(one-hot labels n x c, probabilities n x c, classes) for binary and multiclass suites alike."""
    y = np.asarray(results.y).astype(str)
    if results.probability is None:
        raise NotAssessable("the model gives no probabilities")
    p = np.asarray(results.probability, dtype=float)
    classes = [str(c) for c in results.classes] or sorted(set(y.tolist()))
    if p.ndim == 1:
        positive = str(results.positive)
        classes = [next((c for c in classes if c != positive), f"not {positive}"), positive]
        p = np.stack([1 - p, p], axis=1)
    if p.shape[1] != len(classes):
        raise NotAssessable(f"there are {len(classes)} classes and {p.shape[1]} probabilities a row")
    return (y[:, None] == np.asarray(classes)[None, :]).astype(float), p, classes


def right(results: Results) -> np.ndarray:
    """Which predictions are the label."""
    if results.prediction is None or results.y is None:
        raise NotAssessable("the suite has no labels or the release no predictions")
    return np.asarray(results.y).astype(str) == np.asarray(results.prediction).astype(str)


def errors(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """(labels, prediction - label) of a regression suite."""
    if results.prediction is None or results.y is None:
        raise NotAssessable("the suite has no labels or the release no predictions")
    y, said = np.asarray(results.y, dtype=float), np.asarray(results.prediction, dtype=float)
    if not np.isfinite(said).all():
        raise NotAssessable(f"{int((~np.isfinite(said)).sum())} of {len(said)} predictions are missing or not finite")
    return y, said - y


@checks.add("auc")
@dataclass(frozen=True)
class Auc(Metric):
    """Area under the ROC curve (binary: DeLong's interval; multiclass: mean of one class against the rest, bootstrap)."""

    name: ClassVar[str] = "auc"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The AUC and its interval."""
        self._applies(results)
        if results.task == "binary":
            value, interval = stats.delong_interval(is_positive(results), score_of_positive(results), confidence)
            if math.isnan(value):
                raise NotAssessable("auc needs rows of both classes")
            return Estimate(value, interval, results.n)
        value, half = self._rest(results, None, confidence)
        return Estimate(value, self._clip(Interval(value - half, value + half)), results.n, "mean over classes, each against the rest")

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """AUC(candidate) - AUC(champion) on the same rows."""
        self._applies(candidate)
        if candidate.n != champion.n:
            raise NotAssessable(f"the two releases were measured on different rows ({candidate.n} and {champion.n})")
        if candidate.task == "binary":
            value, interval = stats.delong_difference(is_positive(candidate), score_of_positive(candidate), score_of_positive(champion), confidence)
            if math.isnan(value):
                raise NotAssessable("auc needs rows of both classes")
            return Estimate(value, interval, candidate.n)
        value, half = self._rest(candidate, champion, confidence)
        return Estimate(value, Interval(value - half, value + half), candidate.n)

    def _rest(self, results: Results, other: Results | None, confidence: float) -> tuple[float, float]:
        """Macro one-vs-rest AUC (or difference) and the half width from DeLong's placement values summed over classes by row."""
        truth, p, classes = table_of(results)
        q = table_of(other)[1] if other is not None else None
        total, pull, used = 0.0, np.zeros(len(truth)), 0
        for c in range(len(classes)):
            positive = truth[:, c] > 0
            m, n = int(positive.sum()), int((~positive).sum())
            if m < 2 or n < 2:
                continue
            used += 1
            for scores, sign in ((p, 1.0), (q, -1.0)):
                if scores is None:
                    continue
                placed = _placements(positive, scores[:, c])
                auc = float(placed[positive].mean())
                total += sign * auc
                pull += sign * np.where(positive, (placed - auc) / m, (placed - auc) / n)
        if used == 0:
            raise NotAssessable("auc needs two rows or more of two classes")
        return total / used, stats.z_of(confidence) * float(np.sqrt((pull**2).sum())) / used


def _placements(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """For a positive row the share of negatives below it; for a negative row the share of positives above it (ties half)."""
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = stats.midranks(score)
    out = np.empty(len(score))
    out[positive] = (ranks[positive] - stats.midranks(score[positive])) / n
    out[~positive] = 1 - (ranks[~positive] - stats.midranks(score[~positive])) / m
    return out


@checks.add("accuracy")
@dataclass(frozen=True)
class Accuracy(Rate):
    """Share of rows whose prediction is the label."""

    name: ClassVar[str] = "accuracy"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY

    def outcomes(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """Right or not, over all rows."""
        hit = right(results)
        return hit, np.ones(len(hit), bool)


@dataclass(frozen=True)
class _Confusion(Metric, ABC):
    """Base of precision, recall and F1: of the positive class, or with `average="macro"` (always for multiclass) the mean over classes."""

    average: str = "auto"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def terms(self, results: Results) -> np.ndarray:
        """Per class: true positive, false positive, false negative."""
        right(results)
        y, said = np.asarray(results.y).astype(str), np.asarray(results.prediction).astype(str)
        if results.task == "binary" and self.average != "macro":
            if results.positive is None:
                raise NotAssessable("the suite does not say which class is the positive one")
            classes = [str(results.positive)]
        else:
            classes = sorted(set(y.tolist()) | {str(c) for c in results.classes})
        parts = []
        for c in classes:
            is_c, said_c = y == c, said == c
            parts += [is_c & said_c, said_c & ~is_c, is_c & ~said_c]
        return np.stack(parts, axis=1).astype(float)

    def combine(self, means: np.ndarray) -> np.ndarray:
        """The figure of each class, then their mean."""
        hit, false, missed = means[..., 0::3], means[..., 1::3], means[..., 2::3]
        with np.errstate(all="ignore"):
            return np.nan_to_num(self.of(hit, false, missed)).mean(axis=-1)

    @abstractmethod
    def of(self, hit: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """The figure of one class."""


@checks.add("precision")
@dataclass(frozen=True)
class Precision(_Confusion):
    """Share of positive predictions that are right."""

    name: ClassVar[str] = "precision"

    def of(self, hit: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """tp / (tp + fp)"""
        return hit / (hit + false)


@checks.add("recall")
@dataclass(frozen=True)
class Recall(_Confusion):
    """Share of positive labels that are found."""

    name: ClassVar[str] = "recall"

    def of(self, hit: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """tp / (tp + fn)"""
        return hit / (hit + missed)


@checks.add("f1")
@dataclass(frozen=True)
class F1(_Confusion):
    """Harmonic mean of precision and recall."""

    name: ClassVar[str] = "f1"

    def of(self, hit: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
        """2 tp / (2 tp + fp + fn)"""
        return 2 * hit / (2 * hit + false + missed)


@checks.add("macro_f1")
@dataclass(frozen=True)
class MacroF1(F1):
    """Mean over classes of F1, each class counting alike, in binary suites too."""

    average: str = "macro"
    name: ClassVar[str] = "macro_f1"


@checks.add("log_loss")
@dataclass(frozen=True)
class LogLoss(Metric):
    """Mean negative log of the probability given to the label (nats)."""

    name: ClassVar[str] = "log_loss"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0

    def terms(self, results: Results) -> np.ndarray:
        """-log p(label) by row."""
        truth, p, _ = table_of(results)
        return -np.log(np.clip((truth * p).sum(axis=1), _TINY, 1.0))


@checks.add("brier")
@dataclass(frozen=True)
class Brier(Metric):
    """Mean squared distance of probability and outcome (Brier, 1950): binary as (p - y)^2, multiclass summed over classes."""

    name: ClassVar[str] = "brier"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0

    def terms(self, results: Results) -> np.ndarray:
        """Squared distance by row."""
        truth, p, classes = table_of(results)
        squared = ((p - truth) ** 2).sum(axis=1)
        return squared / 2 if results.task == "binary" and len(classes) == 2 else squared


@checks.add("ece")
@dataclass(frozen=True)
class Ece(Metric):
    """Expected calibration error over bins of equal count: how far stated probabilities are from what happens (Naeini et al., 2015).

    Binary: of P(positive); multiclass: of the probability of the predicted class. Biased upwards on few rows, so the interval is a
    plain percentile bootstrap shifted by the estimated bias.
    """

    bins: int = 10
    name: ClassVar[str] = "ece"
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = CLASSIFY
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def terms(self, results: Results) -> np.ndarray:
        """Per bin: outcome - probability of the rows that fall into it."""
        if results.task == "binary":
            p, hit = score_of_positive(results), is_positive(results).astype(float)
        else:
            truth, table, _ = table_of(results)
            best = table.argmax(axis=1)
            p, hit = table[np.arange(len(best)), best], truth[np.arange(len(best)), best]
        edges = np.unique(np.quantile(p, np.linspace(0, 1, self.bins + 1)[1:-1]))
        bin_of = np.searchsorted(edges, p, side="right")
        out = np.zeros((len(p), len(edges) + 1))
        out[np.arange(len(p)), bin_of] = hit - p
        return out

    def combine(self, means: np.ndarray) -> np.ndarray:
        """Sum over bins of |mean gap|."""
        return np.abs(means).sum(axis=-1)

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The calibration error, its interval by bootstrap with the bias taken off both ends."""
        self._applies(results)
        terms = self.terms(results)
        value = float(self.combine(terms.mean(axis=0)))
        draws = self.combine(stats.resampled_means(terms, 1000, 7)) if len(terms) <= 20_000 else np.array([value])
        bias = float(draws.mean()) - value
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        interval = Interval(max(0.0, float(low) - 2 * bias), max(value, float(high) - bias))
        return Estimate(value, self._clip(interval), len(terms), details={"bias": bias})


@checks.add("calibration_error")
@dataclass(frozen=True)
class CalibrationError(Ece):
    """How far stated probabilities are from what happens: root mean squared gap over bins of equal count, without the part that chance makes.

    Squared gaps are debiased as in Kumar, Liang and Ma (2019, NeurIPS 32), so that few rows do not look badly calibrated; where `ece` grows
    as rows get fewer, this does not. `bins` at most, each of 50 rows or more. The interval is a bootstrap around the debiased figure.
    """

    name: ClassVar[str] = "calibration_error"

    def terms(self, results: Results) -> np.ndarray:
        """Per bin: gap, its square, membership; last, the number of rows."""
        rows = len(np.asarray(results.y))
        fewer = replace(self, bins=int(np.clip(rows // 50, 2, self.bins)))
        gaps = Ece.terms(fewer, results)
        inside = gaps != 0
        return np.hstack([gaps, gaps**2, inside.astype(float), np.full((rows, 1), float(rows))])

    def combine(self, means: np.ndarray) -> np.ndarray:
        """sqrt of the bin-weighted mean of squared gap minus its sampling variance, at least 0"""
        return np.asarray(np.sqrt(np.maximum(self._squared(means), 0.0)))

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The figure and its interval: the bootstrap's spread of the squared figure before debiasing, laid around the debiased one."""
        self._applies(results)
        terms = self.terms(results)
        if len(terms) < 20:
            raise NotAssessable(f"calibration_error needs 20 rows or more; there are {len(terms)}")
        squared = float(self._squared(terms.mean(axis=0)))
        draws = self._squared(stats.resampled_means(terms, 1000, 7), debias=False)
        low, high = squared + np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]) - float(draws.mean())
        ends = Interval(math.sqrt(max(0.0, float(low))), math.sqrt(max(0.0, squared, float(high))))
        return Estimate(math.sqrt(max(0.0, squared)), self._clip(ends), len(terms))

    def _squared(self, means: np.ndarray, debias: bool = True) -> np.ndarray:
        k = (means.shape[-1] - 1) // 3
        share, rows = means[..., 2 * k : 3 * k], means[..., -1:]
        with np.errstate(all="ignore"):
            gap = np.nan_to_num(means[..., :k] / share)
            spread = np.nan_to_num(means[..., k : 2 * k] / share) - gap**2
            variance = spread / np.maximum(share * rows - 1, 1) if debias else 0.0
        return np.asarray(((gap**2 - variance) * share).sum(axis=-1))


@dataclass(frozen=True)
class _Regression(Metric):
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    tasks: ClassVar[tuple[str, ...]] = ("regression",)
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0


@checks.add("rmse")
@dataclass(frozen=True)
class Rmse(_Regression):
    """Root of the mean squared error, in the target's unit."""

    name: ClassVar[str] = "rmse"

    def terms(self, results: Results) -> np.ndarray:
        """Squared error by row."""
        return errors(results)[1] ** 2

    def combine(self, means: np.ndarray) -> np.ndarray:
        """sqrt of the mean"""
        return np.sqrt(np.maximum(means[..., 0], 0.0))


@checks.add("mae")
@dataclass(frozen=True)
class Mae(_Regression):
    """Mean absolute error, in the target's unit."""

    name: ClassVar[str] = "mae"

    def terms(self, results: Results) -> np.ndarray:
        """Absolute error by row."""
        return np.abs(errors(results)[1])


class _Variance(_Regression):
    """Errors beside the target's own spread."""

    def terms(self, results: Results) -> np.ndarray:
        """Centred label, its square, squared error."""
        y, e = errors(results)
        y = y - y.mean()
        return np.stack([y, y * y, e * e], axis=1)

    def unexplained(self, means: np.ndarray) -> np.ndarray:
        """mse / variance, nan where all labels are the same."""
        with np.errstate(all="ignore"):
            variance: Any = means[..., 1] - means[..., 0] ** 2
            return np.where(variance > 0, means[..., 2] / variance, math.nan)


@checks.add("rmse_ratio")
@dataclass(frozen=True)
class RmseRatio(_Variance):
    """RMSE relative to a baseline that always says the suite's mean: below 1 is better than no model, in any unit of the target."""

    name: ClassVar[str] = "rmse_ratio"

    def combine(self, means: np.ndarray) -> np.ndarray:
        """sqrt(mse / variance)"""
        return np.sqrt(self.unexplained(means))


@checks.add("r2")
@dataclass(frozen=True)
class R2(_Variance):
    """Share of the target's variance that the predictions explain."""

    name: ClassVar[str] = "r2"
    better: ClassVar[str] = "higher"
    low: ClassVar[float] = -math.inf
    high: ClassVar[float] = 1.0

    def combine(self, means: np.ndarray) -> np.ndarray:
        """1 - mse / variance"""
        return 1 - self.unexplained(means)
