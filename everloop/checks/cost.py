"""What an answer costs: US dollars and tokens a call, from the usage that each case reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks.base import GATE, MONITOR, Metric, NotAssessable
from everloop.core.errors import BadInput
from everloop.core.types import Results, Score, Window


@dataclass(frozen=True)
class _PerCall(Metric):
    key: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = (GATE, MONITOR)
    better: ClassVar[str] = "lower"
    low: ClassVar[float] = 0.0
    over: ClassVar[str] = "calls"

    def terms(self, results: Results) -> np.ndarray:
        """The figure of each case; NotAssessable if a case has none (a missing price is not a price of 0)."""
        values = [self.of(case) for case in results.cases]
        known = [v for v in values if v is not None]
        if not known:
            raise NotAssessable("no case reports it" if results.cases else "the suite has no chat cases")
        if len(known) < len(values):
            raise NotAssessable(f"{len(values) - len(known)} of {len(values)} cases do not report it")
        return np.asarray(known, dtype=float)

    def of(self, case: Any) -> float | None:
        """The figure of one case, None if it is not known."""
        usage = case.get("usage") or {}
        value = usage.get(self.key, case.get(self.key))
        return None if value is None else float(value)

    def __call__(self, subject: Any) -> Score:
        """Results (gate), or the calls of a window that say it (monitor)."""
        if isinstance(subject, Window):
            known = [v for v in subject.calls.get(self.key, ()) if v is not None]  # calls that failed or were blocked cost nothing that is known
            subject = Results(len(known), subject.task, cases=[{self.key: v} for v in known])
        if not isinstance(subject, Results):
            raise BadInput(f"The check {self.name} judges a suite's results or a window, not {type(subject).__name__}.")
        return super().__call__(subject)


@checks.add("cost_per_call")
@dataclass(frozen=True)
class CostPerCall(_PerCall):
    """Mean US dollars a call."""

    name: ClassVar[str] = "cost_per_call"
    key: ClassVar[str] = "cost"


@checks.add("tokens_in_per_call")
@dataclass(frozen=True)
class TokensIn(_PerCall):
    """Mean prompt tokens a call."""

    name: ClassVar[str] = "tokens_in_per_call"
    key: ClassVar[str] = "tokens_in"


@checks.add("tokens_out_per_call")
@dataclass(frozen=True)
class TokensOut(_PerCall):
    """Mean answer tokens a call."""

    name: ClassVar[str] = "tokens_out_per_call"
    key: ClassVar[str] = "tokens_out"
