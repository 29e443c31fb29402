"""What a window of calls shows by itself, without labels: how many failed, were blocked, declined, or got a thumb down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks.base import MONITOR, NotAssessable, Rate, need_window
from everloop.core.types import Results, Score


@dataclass(frozen=True)
class _CallRate(Rate):
    """Share of a window's calls whose `key` is set; calls where it is None (no thumb came) do not count."""

    key: ClassVar[str] = ""
    over: ClassVar[str] = "calls"
    basis: ClassVar[str] = "calls"
    stages: ClassVar[tuple[str, ...]] = (MONITOR,)
    better: ClassVar[str] = "lower"

    def outcomes(self, results: Results) -> tuple[np.ndarray, np.ndarray]:
        """(set, known) over the calls."""
        values = [case.get(self.key) for case in results.cases]
        counted = np.array([v is not None for v in values], bool)
        if not counted.any():
            raise NotAssessable(f"no call of the window says anything about it ({self.key})")
        return np.array([bool(v) for v in values], bool), counted

    def __call__(self, subject: Any) -> Score:
        """A window's calls."""
        subject = need_window(self.name, subject)
        return super().__call__(Results(subject.n, subject.task, cases=[{self.key: v} for v in subject.calls.get(self.key, ())]))


@checks.add("failure_rate")
@dataclass(frozen=True)
class FailureRate(_CallRate):
    """Share of calls that ended with an error: a model or provider that failed, a timeout, a bound that was reached."""

    name: ClassVar[str] = "failure_rate"
    key: ClassVar[str] = "failed"


@checks.add("blocked_rate")
@dataclass(frozen=True)
class BlockedRate(_CallRate):
    """Share of calls that a guardrail blocked, at the question or at the answer."""

    name: ClassVar[str] = "blocked_rate"
    key: ClassVar[str] = "blocked"


@checks.add("refusal_rate")
@dataclass(frozen=True)
class RefusalRate(_CallRate):
    """Share of calls that the engine declined to answer, or found nothing to answer from. (What a guardrail blocked is not among them.)"""

    name: ClassVar[str] = "refusal_rate"
    key: ClassVar[str] = "refused"


@checks.add("thumbs_down_rate")
@dataclass(frozen=True)
class ThumbsDownRate(_CallRate):
    """Share of thumbs that point down, among calls that got one: the last one of each call counts."""

    name: ClassVar[str] = "thumbs_down_rate"
    key: ClassVar[str] = "thumbs_down"
    basis: ClassVar[str] = "labels"
