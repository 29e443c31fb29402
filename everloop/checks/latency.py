"""How long calls take: quantiles with distribution-free intervals, over a suite's timed calls or a window's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks import statistics as stats
from everloop.checks.base import GATE, MONITOR, Estimate, Metric, NotAssessable
from everloop.checks.statistics import Interval
from everloop.core.types import Results, Score, Window


@dataclass(frozen=True)
class _Latency(Metric):
    q: ClassVar[float] = 0.5
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0
    over: ClassVar[str] = "calls"

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The quantile in milliseconds, its interval from order statistics (no distribution assumed)."""
        ms = self.milliseconds(results)
        value, interval = stats.quantile_interval(ms, self.q, confidence)
        return Estimate(value, interval, len(ms))

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """Difference of the two quantiles: the calls are not paired, so each side is resampled by itself (percentile bootstrap)."""
        a, b = np.sort(self.milliseconds(candidate)), np.sort(self.milliseconds(champion))
        rng = np.random.default_rng(7)
        draws = _quantiles(a, self.q, rng) - _quantiles(b, self.q, rng)
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        value = float(np.quantile(a, self.q) - np.quantile(b, self.q))
        return Estimate(value, Interval(float(low), float(high)), min(len(a), len(b)))

    def milliseconds(self, results: Results) -> np.ndarray:
        """What is judged of the timed calls; NotAssessable where none was timed."""
        return _milliseconds(results.seconds)

    def __call__(self, subject: Any) -> Score:
        """Results.seconds (gate) or the seconds of the window's calls (monitor)."""
        if isinstance(subject, Window):
            subject = replace(Results(subject.n, subject.task), seconds=subject.calls.get("seconds"))
        return super().__call__(subject)


@checks.add("latency_p50_ms")
@dataclass(frozen=True)
class LatencyP50(_Latency):
    """Median time of a call in milliseconds."""

    name: ClassVar[str] = "latency_p50_ms"
    q: ClassVar[float] = 0.50


@checks.add("latency_p95_ms")
@dataclass(frozen=True)
class LatencyP95(_Latency):
    """Time in milliseconds that 95 of 100 calls stay under. An upper bound at 95 % needs 59 timed calls at least."""

    name: ClassVar[str] = "latency_p95_ms"
    q: ClassVar[float] = 0.95


@checks.add("latency_p99_ms")
@dataclass(frozen=True)
class LatencyP99(_Latency):
    """Time in milliseconds that 99 of 100 calls stay under. An upper bound at 95 % needs 299 timed calls at least."""

    name: ClassVar[str] = "latency_p99_ms"
    q: ClassVar[float] = 0.99


@checks.add("cpu_p95_ms")
@dataclass(frozen=True)
class CpuP95(_Latency):
    """Processor time in milliseconds that 95 of 100 single-row calls of a suite stay under: what a model costs, however busy the machine is.

    A call's time by the clock depends on what else runs; the processor time of the process that answers does not, so the same model gives the
    same verdict on a loaded machine. Calls that wait (for an LLM elsewhere) cost none of it: use latency_p95_ms for those.
    """

    name: ClassVar[str] = "cpu_p95_ms"
    q: ClassVar[float] = 0.95
    stages: ClassVar[tuple[str, ...]] = (GATE,)

    def milliseconds(self, results: Results) -> np.ndarray:
        """Processor time of the timed calls."""
        return _milliseconds(results.cpu_seconds)


def _milliseconds(seconds: Any) -> np.ndarray:
    if seconds is None:
        raise NotAssessable("no call was timed")
    ms = np.asarray(seconds, dtype=float) * 1000
    ms = ms[np.isfinite(ms)]
    if not len(ms):
        raise NotAssessable("no call was timed")
    return ms


def _quantiles(ordered: np.ndarray, q: float, rng: np.random.Generator, draws: int = 2000) -> np.ndarray:
    """A quantile in bootstrap samples of sorted values: its rank in a resample is a beta variate, so no resample is drawn."""
    n = len(ordered)
    k = max(1, math.ceil(q * n))
    where = rng.beta(k, n - k + 1, draws)
    return ordered[np.minimum((where * n).astype(int), n - 1)]
