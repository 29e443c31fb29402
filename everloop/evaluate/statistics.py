"""Statistics of evaluation: the fixed-n intervals and tests (from checks/statistics.py) beside always-valid ones, for those who look after every case.

A fixed-n test looked at again and again promotes a worse version sooner or later. The confidence sequences here hold at all times at once:
whoever stops when they like is still wrong with at most alpha (Howard et al., 2021; Waudby-Smith and Ramdas, 2024).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from everloop.checks.statistics import (
    Interval,
    auc_of,
    bootstrap,
    clopper_pearson,
    delong,
    delong_difference,
    delong_interval,
    holm,
    ks_distance,
    mcnemar,
    newcombe,
    paired_bootstrap,
    paired_proportions,
    permutation,
    quantile_interval,
    spearman,
    two_sided,
    wilson,
    z_of,
)

__all__ = [
    "Interval",
    "auc_of",
    "bootstrap",
    "clopper_pearson",
    "delong",
    "delong_difference",
    "delong_interval",
    "holm",
    "ks_distance",
    "mcnemar",
    "mean_sequence",
    "newcombe",
    "paired_bootstrap",
    "paired_proportions",
    "permutation",
    "quantile_interval",
    "sequential_difference",
    "spearman",
    "two_sided",
    "wilson",
    "z_of",
]


def mean_sequence(values: Any, confidence: float = 0.95, *, low: float = 0.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A confidence sequence for the mean of bounded values: lower and upper ends after each value, all valid at once.

    The predictable plug-in empirical Bernstein sequence (Waudby-Smith and Ramdas, 2024, JRSS-B 86, Theorem 2), running intersection taken.
    Values outside [low, high] raise ValueError. Not needed: independence of the spread, a stopping rule, a sample size.
    """
    x = (np.asarray(values, dtype=float) - low) / (high - low)
    if len(x) and (x.min() < -1e-9 or x.max() > 1 + 1e-9):
        raise ValueError(f"values must lie in [{low}, {high}]")
    alpha = 1 - confidence
    t = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    previous_mean = np.concatenate([[0.5], mean[:-1]])
    previous_variance = np.concatenate([[0.25], variance[:-1]])
    bet = np.minimum(0.5, np.sqrt(2 * math.log(2 / alpha) / (previous_variance * t * np.log(1 + t))))
    surprise = (x - previous_mean) ** 2
    psi = -np.log1p(-bet) - bet
    total = np.cumsum(bet)
    centre = np.cumsum(bet * x) / total
    half = (math.log(2 / alpha) + np.cumsum(surprise * psi)) / total
    lower = np.maximum.accumulate(np.maximum(0.0, centre - half))
    upper = np.minimum.accumulate(np.minimum(1.0, centre + half))
    return low + (high - low) * lower, low + (high - low) * upper


def sequential_difference(a: Any, b: Any, confidence: float = 0.95, *, paired: bool = False) -> Interval:
    """Interval of mean(a) - mean(b) for values in [0, 1], valid whenever and however often one looks (canaries, A/B).

    Paired: one sequence over a - b in [-1, 1]. Independent: one sequence a side at half the error each, ends combined.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if paired:
        if not len(a):
            return Interval(-1.0, 1.0)
        lower, upper = mean_sequence(a - b, confidence, low=-1.0, high=1.0)
        return Interval(float(lower[-1]), float(upper[-1]))
    if not len(a) or not len(b):
        return Interval(-1.0, 1.0)
    each = 1 - (1 - confidence) / 2
    (low_a, high_a), (low_b, high_b) = mean_sequence(a, each), mean_sequence(b, each)
    return Interval(float(low_a[-1] - high_b[-1]), float(high_a[-1] - low_b[-1]))
