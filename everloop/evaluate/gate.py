"""Judge a version against a gate's requirements: figures with intervals, paired with the champion on the same cases, in sentences.

A requirement holds only if the whole one-sided interval at the stated confidence satisfies it; it is contradicted if the whole interval on
the other side breaks it; in between there is not enough data, which is a verdict of its own and says how much would be needed.

All requirements must hold. That is an intersection-union test (Berger, 1982, Technometrics 24): a version that truly breaks any one of
them passes with probability at most 1 - confidence, however many there are, so no correction for several tests is made or needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from everloop.checks import statistics as stats
from everloop.checks.base import Estimate, NotAssessable, subset
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.types import Results, Score, Window
from everloop.evaluate.rules import Requirement, parse


def judge(requirements: Sequence[str], candidate: Results, champion: Results | None = None, confidence: float = 0.95) -> tuple[str, str, list[Score]]:
    """(verdict, why, a Score a requirement): verdict is "pass", "fail" or "inconclusive"; why is sentences for a person to read.

    `champion` holds the same cases answered by the present holder of the alias; without one, champion rules do not apply and do not block.
    Raises BadInput if a requirement does not parse or the confidence is not between 0.5 and 1.
    """
    if not 0.5 < confidence < 1:
        raise BadInput(f"The gate's confidence is {confidence!r}.", "Give a number between 0.5 and 1, such as 0.95.")
    parsed = [parse(text) for text in requirements]
    scores = [require(rule, candidate, champion, rule.confidence or confidence) for rule in parsed]
    blocking = [s for s in scores if s.details.get("blocks", True)]
    failed = [s for s in blocking if s.verdict == "fail"]
    open_ = [s for s in blocking if s.verdict in ("inconclusive", "not_assessed")]
    if failed:
        more = f" Besides, not decided: {' '.join(s.why for s in open_)}" if open_ else ""
        return "fail", f"{_count(len(failed), len(scores))} not met. {' '.join(s.why for s in failed)}{more}", scores
    if open_:
        return "inconclusive", f"{_count(len(open_), len(scores))} not decided. {' '.join(s.why for s in open_)}", scores
    return "pass", _passed(scores, parsed, confidence), scores


def require(rule: Requirement, candidate: Results, champion: Results | None, confidence: float) -> Score:
    """One requirement judged at a one-sided confidence."""
    check = rule.check()
    details: dict[str, Any] = {"requirement": rule.text, "confidence": stats.two_sided(confidence), "one_sided": confidence}
    if "gate" not in getattr(check, "stages", ()) or rule.against == "calibrated":
        why = f"{rule.text}: {rule.metric} compares a live window with its reference, so it watches in a monitor and cannot judge a suite."
        return Score(rule.text, None, "not_assessed", 0, None, "gate", why, {**details, "blocks": True})
    if rule.against == "champion" and champion is None:
        why = f"{rule.text}: no champion yet, so there is nothing to compare with and the rule does not apply."
        return Score(rule.text, None, "not_assessed", 0, None, "gate", why, {**details, "blocks": False})
    try:
        mine = _where(rule, candidate)
        if rule.against == "number":
            found, limit = check.estimate(mine, stats.two_sided(confidence)), rule.bound
        else:
            assert champion is not None
            theirs = _where(rule, champion)
            found, limit = check.difference(mine, theirs, stats.two_sided(confidence)), rule.bound
            details |= {"candidate": _figure(check, mine), "champion": _figure(check, theirs), "compared": "difference"}
    except NotAssessable as missing:
        return Score(rule.text, None, "not_assessed", 0, None, "gate", f"{rule.text}: cannot be judged: {missing}.", {**details, "blocks": True})
    verdict = verdict_of(rule.op, found.interval.low, found.interval.high, limit)
    details |= {**(found.details or {}), "limit": limit, "blocks": True}
    why = _sentence(rule, found, limit, verdict, confidence, details)
    return Score(rule.text, found.value, verdict, found.n, tuple(found.interval), "gate", why, details)


def verdict_of(op: str, low: float, high: float, limit: float) -> Any:
    """pass if the whole interval satisfies `x op limit`, fail if none of it does, else inconclusive."""
    slack = 1e-12
    if op == ">=":
        return "pass" if low >= limit - slack else "fail" if high < limit - slack else "inconclusive"
    if op == ">":
        return "pass" if low > limit + slack else "fail" if high <= limit + slack else "inconclusive"
    if op == "<=":
        return "pass" if high <= limit + slack else "fail" if low > limit + slack else "inconclusive"
    return "pass" if high < limit - slack else "fail" if low >= limit - slack else "inconclusive"


def needed(n: int, value: float, bound: float, limit: float) -> int | None:
    """About how many cases would settle it if the figure stays as it is: intervals shrink with the root of n. None if the figure is at the limit."""
    gap, half = abs(value - limit), abs(value - bound)
    if not math.isfinite(half) or gap < 1e-9:
        return None
    return max(n + 1, math.ceil(n * (half / gap) ** 2))


def watch(requirements: Sequence[str], window: Window) -> tuple[str, str, list[Score]]:
    """The same rules over a live window, for monitors: `psi(income) < calibrated`, `accuracy >= 0.8`; answers as `judge` does."""
    scores = [_watched(parse(text), window) for text in requirements]
    failed = [s for s in scores if s.verdict == "fail"]
    if failed:
        return "fail", " ".join(s.why for s in failed), scores
    if any(s.verdict == "pass" for s in scores):
        return "pass", "All rules that could be judged hold.", scores
    return "inconclusive", " ".join(s.why for s in scores) or "There is no rule.", scores


def _watched(rule: Requirement, window: Window) -> Score:
    check = rule.check()
    if "monitor" not in getattr(check, "stages", ()):
        return Score(rule.text, None, "not_assessed", 0, None, "monitor", f"{rule.text}: {rule.metric} cannot watch a window.")
    score: Score = check(window)
    details = {**score.details, "requirement": rule.text}
    if rule.against != "number" or not isinstance(score.value, int | float) or score.interval is None:
        return Score(rule.text, score.value, score.verdict, score.n, score.interval, score.source, score.why, details)
    verdict = verdict_of(rule.op, *score.interval, rule.bound)
    found = Estimate(float(score.value), stats.Interval(*score.interval), score.n)
    return Score(
        rule.text, score.value, verdict, score.n, score.interval, score.source, _sentence(rule, found, rule.bound, verdict, 0.975, details), details
    )


def _where(rule: Requirement, results: Results) -> Results:
    if rule.where is None:
        return results
    key, wanted = rule.where
    if results.cases:
        mask = np.array([_case_has(case, key, wanted) for case in results.cases], bool)
    elif key in results.features:
        mask = np.array([label(v) == wanted for v in results.features[key]], bool)
    else:
        raise NotAssessable(f"the suite keeps no column {key!r} (columns: {', '.join(results.features) or 'none'})")
    if not mask.any():
        raise NotAssessable(f"no case has {key}={wanted}")
    return subset(results, mask)


def _case_has(case: Any, key: str, wanted: str) -> bool:
    if key in ("tag", "tags"):
        return wanted in (case.get("tags") or ())
    return label(case.get(key)) == wanted


def _figure(check: Any, results: Results) -> float | None:
    try:
        return float(check.estimate(results).value)
    except NotAssessable:
        return None


def _sentence(rule: Requirement, found: Estimate, limit: float, verdict: str, confidence: float, details: dict[str, Any]) -> str:
    sure = f"{confidence:.0%}".replace("%", " %")
    low, high = found.interval
    bound = low if rule.upwards else high
    side = "at least" if rule.upwards else "at most"
    if verdict == "fail":
        bound, side = (high, "at most") if rule.upwards else (low, "at least")
    if rule.against == "champion":
        figures = f"{_num(details.get('candidate'))} against the champion's {_num(details.get('champion'))}"
        what = f"{rule.text}: {figures} on the same {found.n} cases; the difference is {found.value:+.4g}"
    else:
        what = f"{rule.text}: {_num(found.value)} over {found.n} cases"
    if verdict == "pass":
        text = f"{what}, with {sure} confidence {side} {_num(bound)}. It holds.{_shown_better(rule, bound, limit)}"
    elif verdict == "fail":
        text = f"{what}, with {sure} confidence {side} {_num(bound)}; {_limit(rule, limit)} was required. It does not hold."
    else:
        text = f"{what}, and with {sure} confidence between {_num(low)} and {_num(high)}; {_limit(rule, limit)} was required. {_more(rule, found, limit)}"
    return f"{text[:-1]} ({found.note})." if found.note else text


def _shown_better(rule: Requirement, bound: float, limit: float) -> str:
    """Whether a candidate that keeps within a margin of the champion was shown to be better than it; "" where the rule gives no margin."""
    margin = -limit if rule.upwards else limit
    if rule.against != "champion" or margin <= 0:
        return ""
    if (bound if rule.upwards else -bound) > 0:
        return " It was shown to be better than the champion."
    return f" The rule asks only that it is not worse by more than {margin:g}: it was not shown to be better than the champion."


def _more(rule: Requirement, found: Estimate, limit: float) -> str:
    satisfied = found.value >= limit if rule.upwards else found.value <= limit
    if not satisfied:
        return f"The figure misses the limit, but {found.n} cases are too few to be sure."
    bound = found.interval.low if rule.upwards else found.interval.high
    quantile = getattr(rule.check(), "q", None)
    if not math.isfinite(bound) and quantile:
        return f"Not enough data: n = {found.n}, would need about {math.ceil(math.log(0.05) / math.log(quantile))} calls for any bound."
    n = needed(found.n, found.value, bound, limit)
    if n is None:
        return f"Not enough data: n = {found.n}, and the figure is so near the limit that no number of cases can be named."
    return f"Not enough data: n = {found.n}, would need about {n}."


def _limit(rule: Requirement, limit: float) -> str:
    words = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[rule.op]
    return f"{words} {limit:+.4g}" if rule.against == "champion" else f"{words} {limit:.4g}"


def _num(value: Any) -> str:
    if value is None or not math.isfinite(value):
        return "unbounded" if value is not None else "unknown"
    return f"{value:.4g}"


def _count(some: int, all_: int) -> str:
    if all_ == 1:
        return "The one requirement is"
    return f"{some} of {all_} requirements {'is' if some == 1 else 'are'}"


def _passed(scores: list[Score], rules: list[Requirement], confidence: float) -> str:
    if not scores:
        return "The gate has no requirements, so there was nothing to judge."
    held = [s for s in scores if s.verdict == "pass"]
    waived = [s for s in scores if s.verdict != "pass"]
    sure = f"{min(r.confidence or confidence for r in rules):.0%}".replace("%", " %")
    text = f"{'All ' if len(held) > 1 else ''}{len(held)} requirement{'s hold' if len(held) != 1 else ' holds'} with {sure} confidence. {' '.join(s.why for s in held)}"
    if waived:
        text += f" {' '.join(s.why for s in waived)}"
    if len(held) > 1:
        text += f" All must hold, so a version that truly breaks one of them would pass at most {1 - float(sure[:-2]) / 100:.0%} of the time; no correction for several tests is needed."
    return text
