"""Intervals and tests for a fixed number of cases, vectorised, with the paper that each comes from.

They live here, not in evaluate/, because checks carry intervals and a room imports only rooms before it; `evaluate.statistics`
offers the same names beside the always-valid ones. Confidence is two-sided unless a docstring says otherwise: an end of a two-sided
interval at `2c - 1` is a one-sided bound at `c` (see `two_sided`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

_NORMAL = NormalDist()
_CELLS = 8_000_000
"""Random draws held at once in a bootstrap."""


class Interval(NamedTuple):
    """A two-sided confidence interval: the ends, lowest first."""

    low: float
    high: float


def z_of(confidence: float) -> float:
    """The normal quantile of a two-sided confidence: 1.96 for 0.95."""
    return _NORMAL.inv_cdf(0.5 + confidence / 2)


def two_sided(confidence: float) -> float:
    """The two-sided confidence whose interval's ends are each a one-sided bound at `confidence` (0.95 -> 0.90)."""
    return 2 * confidence - 1


def level_of_looks(alpha: float, looks: float, windows: float) -> float:
    """The one-sided level of each of `looks` looks with which all of them together alarm with a probability of at most about `alpha`.

    The looks slide over a stretch of time that holds `windows` windows without overlap. For the maximum of the standardised mean of a sliding
    window, whose correlation falls linearly, P(max > z) is at most about (1 + windows * z^2) * P(Z > z) (Pickands, 1969, Trans. AMS 145, with
    constant 1), and at most looks * P(Z > z) (Bonferroni): the lesser counts. `alpha` itself where there is at most one look.
    """
    if looks <= 1:
        return alpha
    low, high = z_of(1 - 2 * alpha), 8.0
    for _ in range(60):
        z = (low + high) / 2
        tail = 0.5 * math.erfc(z / math.sqrt(2))
        low, high = (z, high) if min(looks, 1 + windows * z * z) * tail > alpha else (low, z)
    return 0.5 * math.erfc(high / math.sqrt(2))


def wilson(hits: float, n: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson, 1927, JASA 22). (0, 1) when n is 0."""
    if n <= 0:
        return Interval(0.0, 1.0)
    z = z_of(confidence)
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(0.0 if hits <= 0 else max(0.0, centre - half), 1.0 if hits >= n else min(1.0, centre + half))


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact (conservative) interval of a proportion (Clopper and Pearson, 1934, Biometrika 26)."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return Interval(low, high)


def newcombe(hits_a: int, n_a: int, hits_b: int, n_b: int, confidence: float = 0.95) -> Interval:
    """Interval of p_a - p_b for independent samples: Newcombe's (1998, Statistics in Medicine 17) method 10, two Wilson intervals squared and added."""
    if n_a <= 0 or n_b <= 0:
        return Interval(-1.0, 1.0)
    a, b = hits_a / n_a, hits_b / n_b
    low_a, high_a = wilson(hits_a, n_a, confidence)
    low_b, high_b = wilson(hits_b, n_b, confidence)
    return Interval(a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b))


def paired_proportions(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of p_a - p_b on the same n cases: Tango's score interval (1998, Statistics in Medicine 17).

    `only_a` cases were hit by a alone, `only_b` by b alone; the rest agree. Holds its level with few or no discordant cases.
    """
    if n <= 0:
        return Interval(-1.0, 1.0)
    z = z_of(confidence)

    def statistic(delta: float) -> float:
        top = only_a - only_b - n * delta
        b = -only_a - only_b + (2 * n - only_a + only_b) * delta
        c = -only_b * delta * (1 - delta)
        q = max(0.0, (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n))
        variance = n * (2 * q + delta * (1 - delta))
        return top / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, top) if top else 0.0

    def solve(target: float) -> float:
        low, high = -1.0 + 1e-12, 1.0 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if statistic(middle) > target else (low, middle)
        return (low + high) / 2

    return Interval(solve(z), solve(-z))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p-value that two classifiers err alike on the same cases: McNemar (1947, Psychometrika 12), exact binomial, mid-p (Fagerland 2013)."""
    from scipy.stats import binom

    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(k, n, 0.5) - binom.pmf(k, n, 0.5)))


def holm(p_values: Any) -> np.ndarray:
    """p-values adjusted so that any rejection at alpha is wrong with at most alpha over the whole family (Holm, 1979, Scand. J. Statist. 6)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty_like(p)
    out[order] = np.minimum(adjusted, 1.0)
    return out


def permutation(a: Any, b: Any, *, paired: bool = False, resamples: int = 5000, seed: int = 7) -> float:
    """Two-sided p-value for a difference of means by permutation (Pitman, 1937): labels shuffled, or signs flipped when paired.

    Counts the observed arrangement among the resamples (Phipson and Smyth, 2010), so it is never 0.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    rng = np.random.default_rng(seed)
    if paired:
        d = a - b
        observed, n = abs(d.mean()), len(d)
        more = 0
        for size in _chunks(resamples, n):
            signs = rng.integers(0, 2, (size, n), dtype=np.int8) * 2 - 1
            more += int((np.abs(signs @ d / n) >= observed - 1e-12).sum())
        return (more + 1) / (resamples + 1)
    pool = np.concatenate([a, b])
    observed, more = abs(a.mean() - b.mean()), 0
    for size in _chunks(resamples, len(pool)):
        shuffled = rng.permuted(np.broadcast_to(pool, (size, len(pool))), axis=1)
        more += int((np.abs(shuffled[:, : len(a)].mean(axis=1) - shuffled[:, len(a) :].mean(axis=1)) >= observed - 1e-12).sum())
    return (more + 1) / (resamples + 1)


def midranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean rank."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def auc_of(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half. NaN if a class is missing."""
    m = int(positive.sum())
    n = len(positive) - m
    if m == 0 or n == 0:
        return math.nan
    return float((midranks(score)[positive].sum() - m * (m + 1) / 2) / (m * n))


def delong(positive: Any, *scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of one or more scores on the same cases and their covariance: DeLong et al. (1988, Biometrics 44), by ranks (Sun and Xu, 2014).

    `positive` is a boolean array. Two positives and two negatives at least, else the covariance is NaN.
    """
    positive = np.asarray(positive, dtype=bool)
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        return np.full(len(scores), math.nan), np.full((len(scores), len(scores)), math.nan)
    aucs, over, under = np.empty(len(scores)), [], []
    for i, score in enumerate(scores):
        score = np.asarray(score, dtype=float)
        ranks = midranks(score)
        v10 = (ranks[positive] - midranks(score[positive])) / n
        v01 = 1 - (ranks[~positive] - midranks(score[~positive])) / m
        aucs[i] = v10.mean()
        over.append(v10)
        under.append(v01)
    if m < 2 or n < 2:
        return aucs, np.full((len(scores), len(scores)), math.nan)
    return aucs, np.atleast_2d(np.cov(over)) / m + np.atleast_2d(np.cov(under)) / n


def delong_interval(positive: Any, score: Any, confidence: float = 0.95) -> tuple[float, Interval]:
    """An AUC and its interval on the logit scale (Pepe, 2003, ch. 5), which stays inside (0, 1) and holds its level near 1.

    At an AUC of exactly 0 or 1 DeLong's variance is 0; then the far bound is Wilson's with n = min(positives, negatives):
    our own choice, from no paper.
    """
    positive = np.asarray(positive, dtype=bool)
    aucs, cov = delong(positive, score)
    auc, variance = float(aucs[0]), float(cov[0, 0])
    m, n = int(positive.sum()), int((~positive).sum())
    if math.isnan(variance):
        return auc, Interval(0.0, 1.0)
    z = z_of(confidence)
    if auc in (0.0, 1.0):
        edge = z * z / (z * z + min(m, n))
        return auc, Interval(1.0 - edge, 1.0) if auc == 1.0 else Interval(0.0, edge)
    half = z * math.sqrt(variance) / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    return auc, Interval(1 / (1 + math.exp(-(centre - half))), 1 / (1 + math.exp(-(centre + half))))


def delong_difference(positive: Any, a: Any, b: Any, confidence: float = 0.95) -> tuple[float, Interval]:
    """AUC(a) - AUC(b) on the same cases, with DeLong's interval for correlated curves."""
    aucs, cov = delong(positive, a, b)
    difference = float(aucs[0] - aucs[1])
    variance = float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    if math.isnan(variance):
        return difference, Interval(-1.0, 1.0)
    half = z_of(confidence) * math.sqrt(max(0.0, variance))
    return difference, Interval(difference - half, difference + half)


Combine = Callable[[np.ndarray], np.ndarray]
"""From means of per-case terms (any leading shape, last axis the terms) to a statistic (that leading shape)."""


def bootstrap(terms: Any, combine: Combine, confidence: float = 0.95, *, resamples: int = 2000, seed: int = 7, bca: bool = True) -> Interval:
    """Interval of a statistic that is a function of means of per-case terms (n x k): BCa (Efron, 1987, JASA 82), or percentile.

    Resampled sums are one matrix product a block; the acceleration comes from the infinitesimal jackknife (Jaeckel, 1972). Above 20,000
    cases the interval is normal with the infinitesimal jackknife's standard error. Seeded: the same input gives the same interval.
    """
    terms = np.asarray(terms, dtype=float)
    if terms.ndim == 1:
        terms = terms[:, None]
    n = len(terms)
    if n < 2:
        return Interval(-math.inf, math.inf)
    value = float(combine(terms.mean(axis=0)))
    influence = influences(terms, combine)
    if n > 20_000:
        half = z_of(confidence) * float(np.sqrt((influence**2).sum())) / n
        return Interval(value - half, value + half)
    draws = combine(resampled_means(terms, resamples, seed))
    draws = np.sort(draws[np.isfinite(draws)])
    if len(draws) < resamples // 2:
        return Interval(-math.inf, math.inf)
    return _bca(value, draws, influence, confidence) if bca else Interval(*np.quantile(draws, _tails(confidence)).tolist())


def paired_bootstrap(terms_a: Any, terms_b: Any, combine: Combine, confidence: float = 0.95, **options: Any) -> Interval:
    """Interval of statistic(a) - statistic(b) on the same cases: both sides are resampled with the same cases."""
    a, b = (np.asarray(t, dtype=float) for t in (terms_a, terms_b))
    a, b = (t[:, None] if t.ndim == 1 else t for t in (a, b))
    k = a.shape[1]
    return bootstrap(np.hstack([a, b]), lambda means: combine(means[..., :k]) - combine(means[..., k:]), confidence, **options)


def resampled_means(terms: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of the terms in `resamples` bootstrap samples: resamples x k."""
    rng = np.random.default_rng(seed)
    n = len(terms)
    parts = []
    for size in _chunks(resamples, n):
        picks = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        counts = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        parts.append(counts @ terms / n)
    return np.concatenate(parts)


def influences(terms: np.ndarray, combine: Combine, step: float = 1e-4) -> np.ndarray:
    """How much each case pulls the statistic (the infinitesimal jackknife), by a symmetric difference towards that case."""
    mean = terms.mean(axis=0)
    away = step * (terms - mean)
    with np.errstate(all="ignore"):
        pull = (combine(mean + away) - combine(mean - away)) / (2 * step)
    return np.nan_to_num(pull)


def quantile_interval(values: Any, q: float, confidence: float = 0.95) -> tuple[float, Interval]:
    """A quantile and its distribution-free interval from order statistics (David and Nagaraja, Order Statistics, 2003, ch. 7).

    The end that the sample is too small for is infinite (upper) or the smallest possible value, 0 (lower): say so, do not guess.
    """
    from scipy.stats import binom

    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    if n == 0:
        return math.nan, Interval(-math.inf, math.inf)
    tail = (1 - confidence) / 2
    value = float(np.quantile(x, q))
    low_rank = int(binom.ppf(tail, n, q))
    while low_rank > 0 and binom.cdf(low_rank - 1, n, q) > tail:
        low_rank -= 1
    high_rank = int(binom.ppf(1 - tail, n, q)) + 1
    low = float(x[low_rank - 1]) if low_rank >= 1 else 0.0
    high = float(x[high_rank - 1]) if high_rank <= n else math.inf
    return value, Interval(min(low, value), max(high, value))


def ks_distance(a: Any, b: Any) -> float:
    """Largest gap between two empirical distribution functions (Smirnov, 1939)."""
    a, b = np.sort(np.asarray(a, dtype=float)), np.sort(np.asarray(b, dtype=float))
    if not len(a) or not len(b):
        return math.nan
    both = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(a, both, side="right") / len(a) - np.searchsorted(b, both, side="right") / len(b)).max())


def spearman(a: Any, b: Any) -> float:
    """Rank correlation (Spearman, 1904). NaN if either side is constant."""
    ra, rb = midranks(np.asarray(a, dtype=float)), midranks(np.asarray(b, dtype=float))
    if ra.std() == 0 or rb.std() == 0:
        return math.nan
    return float(np.corrcoef(ra, rb)[0, 1])


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _bca(value: float, draws: np.ndarray, influence: np.ndarray, confidence: float) -> Interval:
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    below = min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws))
    z0 = _NORMAL.inv_cdf(float(below))
    spread = float((influence**2).sum()) ** 1.5
    a = float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0
    ends = []
    for tail in _tails(confidence):
        z = z0 + _NORMAL.inv_cdf(tail)
        ends.append(_NORMAL.cdf(z0 + z / max(1e-6, 1 - a * z)))
    low, high = np.quantile(draws, ends)
    return Interval(float(min(low, value)), float(max(high, value)))


def _chunks(resamples: int, n: int) -> list[int]:
    size = max(1, min(resamples, _CELLS // max(1, n)))
    return [size] * (resamples // size) + ([resamples % size] if resamples % size else [])
