"""Whether groups are treated alike: gaps between the groups of a protected column, with intervals, and small groups left out by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks import statistics as stats
from everloop.checks.base import GATE, MONITOR, Estimate, Metric, NotAssessable
from everloop.checks.performance import is_positive, right
from everloop.core.types import Results

SMALL_GROUP = 30
"""Groups with fewer counted rows are left out, and named."""


@dataclass(frozen=True)
class _Gap(Metric, ABC):
    """Largest minus smallest rate over the groups of a column."""

    column: str = ""
    needs_column: ClassVar[bool] = True
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    @abstractmethod
    def outcome(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """(what is compared, which rows count), booleans by row."""

    def groups(self, results: Results) -> tuple[np.ndarray, list[str], list[str]]:
        """(group of each row, groups large enough, groups left out with their size)."""
        if self.column not in results.features:
            known = ", ".join(results.features) or "none"
            raise NotAssessable(f"the suite has no column {self.column!r} to compare groups by (columns: {known})")
        _, counted = self.outcome(results)
        group = np.asarray([("missing" if v is None else str(v)) for v in results.features[self.column]])
        names, sizes = np.unique(group[counted], return_counts=True)
        large = [str(n) for n, size in zip(names, sizes, strict=True) if size >= SMALL_GROUP]
        small = [f"{n} ({size})" for n, size in zip(names, sizes, strict=True) if size < SMALL_GROUP]
        if len(large) < 2:
            raise NotAssessable(f"fewer than two groups of {self.column} have {SMALL_GROUP} rows or more (too small: {', '.join(small) or 'none'})")
        return group, large, small

    def terms(self, results: Results) -> np.ndarray:
        """Per group: counted, and counted with the outcome."""
        group, large, _ = self.groups(results)
        return self._terms(results, group, large)

    def _terms(self, results: Results, group: np.ndarray, large: list[str]) -> np.ndarray:
        hit, counted = self.outcome(results)
        parts = []
        for name in large:
            member = (group == name) & counted
            parts += [member, member & hit]
        return np.stack(parts, axis=1).astype(float)

    def combine(self, means: np.ndarray) -> np.ndarray:
        """max - min over groups of rate"""
        with np.errstate(all="ignore"):
            rates = means[..., 1::2] / means[..., 0::2]
        return np.nanmax(rates, axis=-1) - np.nanmin(rates, axis=-1)

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The gap and its interval.

        Two groups: Newcombe's interval of the difference of rates, folded at 0. More groups: the bootstrap's upper end, after taking off
        the upward bias that a maximum over noisy groups has; both ends are widened to the two extreme groups' Newcombe interval.
        """
        self._applies(results)
        group, large, small = self.groups(results)
        hit, counted = self.outcome(results)
        sizes = [int(((group == g) & counted).sum()) for g in large]
        hits = [int(((group == g) & counted & hit).sum()) for g in large]
        rates = [h / n for h, n in zip(hits, sizes, strict=True)]
        top, bottom = int(np.argmax(rates)), int(np.argmin(rates))
        value = rates[top] - rates[bottom]
        low, high = stats.newcombe(hits[top], sizes[top], hits[bottom], sizes[bottom], confidence)
        if len(large) > 2:
            draws = stats.bootstrap(self._terms(results, group, large), self.combine, confidence)
            low, high = min(low, draws.low), max(high, draws.high)
        note = f"left out as smaller than {SMALL_GROUP}: {', '.join(small)}" if small else ""
        details = {"rates": dict(zip(large, rates, strict=True)), "sizes": dict(zip(large, sizes, strict=True)), "left_out": small}
        return Estimate(value, self._clip(stats.Interval(max(0.0, low), high)), int(sum(sizes)), note, details)

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """Gap(candidate) - gap(champion) on the same rows, over the groups that are large enough on both sides."""
        self._applies(candidate)
        group, large, small = self.groups(candidate)
        others = self.groups(champion)[1]
        both = [g for g in large if g in others]
        if len(both) < 2 or candidate.n != champion.n:
            raise NotAssessable(f"{self.label}: the two releases were measured on different rows or groups")
        a, b = self._terms(candidate, group, both), self._terms(champion, group, both)
        value = float(self.combine(a.mean(axis=0)) - self.combine(b.mean(axis=0)))
        note = f"left out as smaller than {SMALL_GROUP}: {', '.join(small)}" if small else ""
        return Estimate(value, stats.paired_bootstrap(a, b, self.combine, confidence), candidate.n, note)


@checks.add("fairness_gap")
@dataclass(frozen=True)
class FairnessGap(_Gap):
    """Demographic parity gap: largest difference between groups in how often the positive class is predicted (Calders et al., 2009)."""

    name: ClassVar[str] = "fairness_gap"
    tasks: ClassVar[tuple[str, ...]] = ("binary",)

    def outcome(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """Predicted positive, over all rows."""
        if results.prediction is None or results.positive is None:
            raise NotAssessable("the release gives no predictions, or the suite does not say which class is the positive one")
        hit = np.asarray(results.prediction).astype(str) == str(results.positive)
        return hit, np.ones(len(hit), bool)


@checks.add("opportunity_gap")
@dataclass(frozen=True)
class OpportunityGap(_Gap):
    """Equal opportunity gap: largest difference between groups in recall of the positive class (Hardt et al., 2016)."""

    name: ClassVar[str] = "opportunity_gap"
    tasks: ClassVar[tuple[str, ...]] = ("binary",)

    def outcome(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """Found, over the rows whose label is positive."""
        return right(results), is_positive(results)


@checks.add("accuracy_gap")
@dataclass(frozen=True)
class AccuracyGap(_Gap):
    """Largest difference between groups in accuracy; also for multiclass suites."""

    name: ClassVar[str] = "accuracy_gap"
    tasks: ClassVar[tuple[str, ...]] = ("binary", "multiclass")

    def outcome(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """Right, over all rows."""
        hit = right(results)
        return hit, np.ones(len(hit), bool)
