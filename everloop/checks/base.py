"""What checks share: a metric with intervals for gates and windows, and a text check lifted from one text to suites and windows.

A metric is a function of means of per-case terms: accuracy is the mean of "was right", F1 a function of three means, a fairness gap of
two a group. From that one description come its value, its interval and the paired difference between two releases on the same cases.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from everloop.checks import statistics as stats
from everloop.checks.statistics import Interval
from everloop.core.errors import BadInput
from everloop.core.types import Batch, Results, Score, Utterance, Verdict, Window

GUARDRAIL, GATE, MONITOR = "guardrail", "gate", "monitor"


class NotAssessable(Exception):
    """These results hold nothing to compute the metric from; the message says what is missing. Becomes a Score "not_assessed"."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the interval around it and the number of cases behind it."""

    value: float
    interval: Interval
    n: int
    note: str = ""
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Metric:
    """Base of the checks that measure results. Subclasses give `terms` and `combine`, or override `estimate` and `difference`."""

    name: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = (GATE,)
    better: ClassVar[str] = "higher"
    tasks: ClassVar[tuple[str, ...]] = ()
    low: ClassVar[float] = -math.inf
    high: ClassVar[float] = math.inf
    counts: ClassVar[bool] = False
    """Whether the first term of a case says that it counts; then only those that do are in n."""

    @property
    def label(self) -> str:
        """How this check is written in a rule: `fairness_gap(sex)`."""
        given = [_written(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(given)})" if given else self.name

    def terms(self, results: Results) -> np.ndarray:
        """Per-case terms, n x k; raise NotAssessable where the results have none."""
        raise NotAssessable(f"{self.label} is not made of means over cases")

    def combine(self, means: np.ndarray) -> np.ndarray:
        """From means of the terms (last axis) to the figure. The default: the one mean there is."""
        return means[..., 0]

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """The figure with its two-sided interval; raises NotAssessable."""
        self._applies(results)
        terms = _columns(self.terms(results))
        value = float(self.combine(terms.mean(axis=0))) if len(terms) else math.nan
        if math.isnan(value):
            raise NotAssessable(f"{self.label} is not defined on these {len(terms)} cases")
        interval = stats.bootstrap(terms, self.combine, confidence)
        return Estimate(value, self._clip(interval), self._n(terms))

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """candidate - champion on the same cases, with its two-sided interval; raises NotAssessable."""
        self._applies(candidate)
        a, b = _columns(self.terms(candidate)), _columns(self.terms(champion))
        if a.shape != b.shape:
            raise NotAssessable(f"{self.label}: the two releases were measured on different cases ({len(a)} and {len(b)})")
        value = float(self.combine(a.mean(axis=0)) - self.combine(b.mean(axis=0))) if len(a) else math.nan
        if math.isnan(value):
            raise NotAssessable(f"{self.label} is not defined on these {len(a)} cases")
        return Estimate(value, stats.paired_bootstrap(a, b, self.combine, confidence), self._n(a))

    def __call__(self, subject: Any) -> Score:
        """Measure results (a gate), or a window's labelled rows (a monitor). The verdict is left to a rule: not_assessed, or inconclusive."""
        results = labelled_results(subject) if isinstance(subject, Window) else subject
        if not isinstance(results, Results):
            raise BadInput(f"The check {self.name} judges a suite's results or a window, not {type(subject).__name__}.")
        try:
            found = self.estimate(results)
        except NotAssessable as why:
            return Score(self.label, None, "not_assessed", 0, None, self.name, f"{why}.")
        return Score(self.label, found.value, "not_assessed", found.n, tuple(found.interval), self.name, found.note, found.details or {})

    def _n(self, terms: np.ndarray) -> int:
        return int(terms[:, 0].sum()) if self.counts and terms.ndim > 1 else len(terms)

    def _applies(self, results: Results) -> None:
        if self.tasks and results.task not in self.tasks:
            raise NotAssessable(f"{self.name} is for {' or '.join(self.tasks)} suites; this one is {results.task}")

    def _clip(self, interval: Interval) -> Interval:
        return Interval(max(self.low, interval.low), min(self.high, interval.high))


@dataclass(frozen=True)
class Rate(Metric, ABC):
    """Base of the metrics that are a proportion of some of the cases: Wilson's interval, Tango's for paired differences."""

    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    @abstractmethod
    def outcomes(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """(hit, counted): two boolean arrays over all cases; raise NotAssessable where nothing counts."""

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """hits / counted with Wilson's interval."""
        self._applies(results)
        hit, counted = self.outcomes(results)
        n, hits = int(counted.sum()), int((hit & counted).sum())
        if n == 0:
            raise NotAssessable(f"{self.label}: no case counts towards it")
        return Estimate(hits / n, stats.wilson(hits, n, confidence), n, details={"hits": hits, "of": n})

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """Difference of the two rates: Tango's interval where the same cases count on both sides, else Newcombe's."""
        self._applies(candidate)
        (hit_a, in_a), (hit_b, in_b) = self.outcomes(candidate), self.outcomes(champion)
        n_a, n_b = int(in_a.sum()), int(in_b.sum())
        if n_a == 0 or n_b == 0:
            raise NotAssessable(f"{self.label}: no case counts towards it")
        hits_a, hits_b = int((hit_a & in_a).sum()), int((hit_b & in_b).sum())
        if len(in_a) == len(in_b) and bool((in_a == in_b).all()):
            only_a, only_b = int((hit_a & ~hit_b & in_a).sum()), int((hit_b & ~hit_a & in_a).sum())
            interval = stats.paired_proportions(only_a, only_b, n_a, confidence)
            return Estimate((hits_a - hits_b) / n_a, interval, n_a, details={"only_candidate": only_a, "only_champion": only_b})
        return Estimate(
            hits_a / n_a - hits_b / n_b, stats.newcombe(hits_a, n_a, hits_b, n_b, confidence), n_a, "not the same cases count on both sides"
        )


@dataclass(frozen=True)
class TextCheck(ABC):
    """Base of the checks that judge one text. `judge` says what is wrong with it; suites and windows then get a rate with Wilson's interval.

    `limit`: the share of texts that may fail before a suite or window fails; None leaves the verdict to a rule.
    """

    name: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = (GUARDRAIL, GATE, MONITOR)
    part: ClassVar[str] = "answer"
    better: ClassVar[str] = "lower"
    redacts: ClassVar[bool] = False
    """Whether a failing score's details["spans"] say which words to redact."""
    local: ClassVar[bool] = False
    """Whether a stretch of a text can be judged alone, so that a streamed answer may leave bit by bit. (A check that redacts always can.)"""

    @cached_property
    def label(self) -> str:
        """How this check is written in a rule."""
        given = [_written(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(given)})" if given else self.name

    @abstractmethod
    def judge(self, text: Utterance) -> Score:
        """Judge one text: verdict fail when it is caught."""

    def __call__(self, subject: Any) -> Score:
        """An Utterance (guardrail), a Batch's text columns, a chat suite's Results, or a Window with texts."""
        if isinstance(subject, Utterance):
            return self.judge(subject)
        if isinstance(subject, str):
            return self.judge(Utterance(subject))
        if isinstance(subject, Batch):
            texts = [Utterance(v) for column in subject.columns.values() for v in column if isinstance(v, str)]
            return self._rate(texts)
        if isinstance(subject, Window):
            values = next((where[c] for where in (subject.calls, subject.live) for c in ("answer", "text", "outputs") if c in where), None)
            if values is None:
                return Score(self.label, None, "not_assessed", 0, None, self.name, "The window has no texts.")
            return self._rate([Utterance(str(v), "output") for v in values])
        if isinstance(subject, Results):
            return self._rate([utterance_of(case, self.part) for case in subject.cases])
        raise BadInput(f"The check {self.name} judges a text, a batch, a suite's results or a window, not {type(subject).__name__}.")

    def outcomes(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """(caught, judged) over a chat suite's cases."""
        scores = [self.judge(utterance_of(case, self.part)) for case in results.cases]
        return np.array([s.verdict == "fail" for s in scores], bool), np.array([s.verdict in ("pass", "fail") for s in scores], bool)

    def estimate(self, results: Results, confidence: float = 0.95) -> Estimate:
        """Share of the suite's answers that are caught, with Wilson's interval."""
        return _Caught(self).estimate(results, confidence)

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """Difference of the shares on the same cases."""
        return _Caught(self).difference(candidate, champion, confidence)

    def _rate(self, texts: Sequence[Utterance]) -> Score:
        scores = [self.judge(text) for text in texts]
        judged = [s for s in scores if s.verdict in ("pass", "fail")]
        caught = sum(s.verdict == "fail" for s in judged)
        if not judged:
            return Score(self.label, None, "not_assessed", 0, None, self.name, "No text could be judged.")
        verdict: Verdict = "fail" if caught else "pass"
        why = f"{caught} of {len(judged)} texts were caught by {self.name}."
        return Score(self.label, caught / len(judged), verdict, len(judged), tuple(stats.wilson(caught, len(judged))), self.name, why)


@dataclass(frozen=True)
class _Caught(Rate):
    """The rate of texts that a text check catches."""

    check: TextCheck | None = None
    name: ClassVar[str] = "caught"

    @property
    def label(self) -> str:
        return self.check.label if self.check else self.name

    def outcomes(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        if not results.cases or self.check is None:
            raise NotAssessable(f"{self.label} judges chat suites; this one has no cases")
        return self.check.outcomes(results)


def utterance_of(case: Mapping[str, Any], part: str = "answer") -> Utterance:
    """A case's answer (or question) as a text to judge, with the sources that it should rest on."""
    sources = [source_text(p) for p in case.get("retrieved") or ()]
    if part == "question":
        return Utterance(str(case.get("question") or ""), "input", context=dict(case))
    return Utterance(str(case.get("answer") or ""), "output", str(case.get("question") or ""), sources, dict(case))


def source_text(passage: Any) -> str:
    """The words of a retrieved passage: a dict's text (or content), or the string itself."""
    if isinstance(passage, Mapping):
        return str(passage.get("text") or passage.get("content") or "")
    return str(passage)


def need_window(check: str, subject: Any) -> Window:
    """The subject, if it is a window of traffic; BadInput otherwise."""
    if not isinstance(subject, Window):
        raise BadInput(f"The check {check} watches windows, not {type(subject).__name__}.")
    return subject


def labelled_results(window: Window) -> Results:
    """The labelled rows of a window as Results, so that a metric measures live traffic as it measures a suite."""
    return _as_results(window.labelled, window)


def reference_results(window: Window) -> Results:
    """The reference's labelled rows as Results."""
    return _as_results(window.reference_labelled, window)


def _as_results(columns: Mapping[str, Any], window: Window) -> Results:
    y = np.asarray(columns.get("label", ()))
    probability = columns.get("probability")
    probability = None if probability is None else np.asarray(probability, dtype=float)
    prediction = None if columns.get("prediction") is None else np.asarray(columns["prediction"])
    features = {k: v for k, v in columns.items() if k not in ("label", "prediction", "probability")}
    positive = guess_positive(window.reference_labelled or columns) if window.task == "binary" else None
    classes = tuple(sorted({str(v) for v in y})) if window.task != "regression" else ()
    return Results(len(y), window.task, y=y, prediction=prediction, probability=probability, classes=classes, positive=positive, features=features)


def guess_positive(columns: Mapping[str, Any]) -> str | None:
    """The class whose probability a column holds, by what was predicted where it is high: the most frequent prediction above its median."""
    probability, prediction = columns.get("probability"), columns.get("prediction")
    if probability is None or prediction is None or not len(probability):
        return None
    p, said = np.asarray(probability, dtype=float), np.asarray(prediction)
    if p.ndim != 1:
        return None
    names = sorted({str(v) for v in said})
    means = [float(np.nanmean(p[said == name])) if (said == name).any() else -1.0 for name in names]
    if len(names) == 1:
        labels = sorted({str(v) for v in columns.get("label", ())} | set(names))
        wrong_way = means[0] < 0.5
        rest = [v for v in labels if v != names[0]]
        return (rest[0] if rest else None) if wrong_way else names[0]
    return names[int(np.argmax(means))]


def subset(results: Results, mask: np.ndarray) -> Results:
    """The results of the cases that `mask` (boolean, n) keeps; per-call seconds are kept only where they are aligned."""

    def cut(value: Any) -> Any:
        return np.asarray(value)[mask] if value is not None and len(value) == len(mask) else value

    cases = tuple(case for case, keep in zip(results.cases, mask, strict=True) if keep) if results.cases else ()
    return replace(
        results,
        n=int(mask.sum()),
        y=cut(results.y),
        prediction=cut(results.prediction),
        probability=cut(results.probability),
        features={name: cut(column) for name, column in results.features.items()},
        seconds=cut(results.seconds),
        cpu_seconds=cut(results.cpu_seconds),
        cases=cases,
    )


def _columns(terms: np.ndarray) -> np.ndarray:
    terms = np.asarray(terms, dtype=float)
    return terms[:, None] if terms.ndim == 1 else terms


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_written(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
