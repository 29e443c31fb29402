"""Whether a live model got worse: by labels where they have come, before that by an estimate from its own confidence and its inputs.

Errors from labels outrank everything else: `details["basis"]` says "labels" when they decided, "estimate" when they had not come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks import statistics as stats
from everloop.checks.base import MONITOR, labelled_results, need_window, reference_results
from everloop.checks.drift import Drift, stretches
from everloop.checks.performance import is_positive, right, score_of_positive, table_of
from everloop.core.types import Results, Score, Window

MIN_LABELS = 50
"""Fewer labelled rows, in the window or the reference, decide nothing."""


def losses(results: Results) -> dict[str, np.ndarray]:
    """Loss by row: `error` (wrong or not; absolute error for regression) and, where there are probabilities, `brier`."""
    if results.task == "regression":
        return {"error": np.abs(np.asarray(results.prediction, dtype=float) - np.asarray(results.y, dtype=float))}
    found = {"error": (~right(results)).astype(float)}
    if results.probability is not None:
        if results.task == "binary":
            if results.positive is not None:
                found["brier"] = (score_of_positive(results) - is_positive(results)) ** 2
        else:
            truth, p, _ = table_of(results)
            found["brier"] = ((p - truth) ** 2).sum(axis=1)
    return found


def worse_by(live: np.ndarray, reference: np.ndarray, alpha: float) -> tuple[float, float]:
    """(standardised rise of the mean loss, the limit that it passes with probability alpha when nothing changed).

    The rise is Welch's statistic. The limit is the normal quantile, or more where neighbouring rows err alike: whole stretches of the reference
    as long as the window are compared with the rest of it; the quantile is stretched by their standard deviation where that is over 1, and is at
    least the level's quantile of what they show.
    """
    n = len(live)
    spread = math.sqrt(max(live.var(), reference.var() * 0.25) / n + reference.var() / len(reference)) or 1e-9
    rise = float(live.mean() - reference.mean()) / spread
    limit = stats.z_of(1 - 2 * alpha)
    starts = stretches(len(reference), n)
    if len(starts):
        running = np.concatenate([[0.0], np.cumsum(reference)])
        inside = (running[starts + n] - running[starts]) / n
        rest = (running[-1] - (running[starts + n] - running[starts])) / (len(reference) - n)
        shown = (inside - rest) / spread
        limit = max(limit * max(1.0, float(shown.std())), float(np.quantile(shown, 1 - alpha)))
    return rise, limit


@checks.add("decay")
@dataclass(frozen=True)
class Decay:
    """The model errs more than when it passed its gate.

    With labels: error rate and Brier score (absolute error for regression) of the window's labelled rows against the reference's, each a
    one-sided test at half of alpha (Bonferroni) with a limit calibrated on the reference. A monitor looks again and again, so its window brings a
    level with which all looks of a year share one budget. Without labels it judges what `drift` judges, and says so (`basis`).
    """

    alpha: float = 0.025
    min_labels: int = MIN_LABELS
    name: ClassVar[str] = "decay"
    stages: ClassVar[tuple[str, ...]] = (MONITOR,)
    better: ClassVar[str] = "lower"

    @property
    def label(self) -> str:
        """How this check is written in a rule."""
        return self.name

    def __call__(self, window: Window) -> Score:
        """Judge by labels if there are enough, else by the estimate."""
        window = need_window(self.name, window)
        have, held = len(window.labelled.get("label", ())), len(window.reference_labelled.get("label", ()))
        if have >= self.min_labels and held >= self.min_labels and window.labelled.get("prediction") is not None:
            return self.by_labels(window)
        return self.by_estimate(window, have, held)

    def by_labels(self, window: Window) -> Score:
        """Compare losses on labelled rows with the reference's."""
        live, reference = losses(labelled_results(window)), losses(reference_results(window))
        both = [name for name in live if name in reference]
        alpha = self.alpha if window.level is None else min(self.alpha, window.level)
        found: dict[str, Any] = {}
        for name in both:
            rise, limit = worse_by(live[name], reference[name], alpha / len(both))
            found[name] = {"live": float(live[name].mean()), "reference": float(reference[name].mean()), "rise": rise, "limit": limit}
        n = len(live["error"])
        worst = max(both, key=lambda name: found[name]["rise"] - found[name]["limit"])
        bad = found[worst]["rise"] > found[worst]["limit"]
        value, before = found["error"]["live"], found["error"]["reference"]
        interval = stats.wilson(value * n, n) if window.task != "regression" else _mean_interval(live["error"])
        word = "mean absolute error" if window.task == "regression" else "error rate"
        told = f"{word} {value:.4g} on {n} labelled rows, {before:.4g} at the gate"
        if worst != "error":
            told += f"; Brier score {found['brier']['live']:.4g}, {found['brier']['reference']:.4g} at the gate"
        why = f"The model got worse: {told}." if bad else f"The model holds: {told}."
        details = {"basis": "labels", "losses": found, "alpha": alpha, "one_sided": True}
        return Score(self.name, value, "fail" if bad else "pass", n, tuple(interval), self.name, why, details)

    def by_estimate(self, window: Window, have: int, held: int) -> Score:
        """No labels yet: drift of the inputs and outputs stands in, and says so."""
        score = Drift(alpha=self.alpha)(window)
        few = f"{have} labelled rows in the window and {held} in the reference ({self.min_labels} of each are needed)"
        why = f"Before labels ({few}): {score.why}"
        return Score(self.name, score.value, score.verdict, score.n, None, self.name, why, {**score.details, "basis": "drift"})


def _mean_interval(values: np.ndarray) -> stats.Interval:
    half = stats.z_of(0.95) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return stats.Interval(float(values.mean()) - half, float(values.mean()) + half)
