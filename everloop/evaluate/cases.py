"""A chat suite's cases one by one: what was expected, what came, and in a sentence why a case counts as right or wrong.

It says the same of a case as the checks that the gate counts with: `hit_rate`, `refusal_accuracy`, `answer_relevance` (checks/retrieval.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.checks.retrieval import declined, documents, relevant
from everloop.checks.text import content

DECLINE = ("unanswerable", "harmful", "off_topic", "injection")
K = 4
"""Documents among which an expected one is looked for."""


def judged(case: Mapping[str, Any]) -> dict[str, Any]:
    """{"id", "question", "kind", "right", "hit" (None where no source is expected), "rank", "declined", "by" (policy or engine), "covered" (share of the
    expected answer's words), "expected_sources", "expected_answer", "found" (paths), "answer", "error", "why"}."""
    kind, wanted, seen = str(case.get("kind") or "answerable"), case.get("expected_sources") or [], documents(case)
    no, should = declined(case), kind in DECLINE
    rank = next((i for i, names in enumerate(seen, 1) if relevant(names, wanted)), None) if wanted else None
    hit = None if not wanted else rank is not None and rank <= K
    words, said = set(content(str(case.get("expected_answer") or ""))), set(content(str(case.get("answer") or "")))
    covered = len(words & said) / len(words) if words and not no else None
    told = {"declined": no, "by": ("policy" if case.get("blocked") else "engine") if no else None, "hit": hit, "rank": rank, "covered": covered}
    right = not case.get("error") and no == should and hit is not False
    kept = {key: case.get(key) for key in ("id", "question", "answer", "expected_answer")}
    found = [names[0] for names in seen[:K]]
    full = {**kept, "kind": kind, "right": right, **told, "expected_sources": list(wanted), "found": found, "error": case.get("error") or ""}
    return {**full, "why": _why(full, should)}


def _why(case: Mapping[str, Any], should: bool) -> str:
    if case["error"]:
        return f"It failed: {case['error']}"
    if should:
        return f"Declined by the {case['by']}, as it should be." if case["declined"] else f"Answered, though it is {case['kind'].replace('_', ' ')}."
    parts = [f"Declined by the {case['by']}, though the documents answer it."] if case["declined"] else []
    if case["hit"] is False:
        place = f"it came at place {case['rank']}" if case["rank"] else "it was not found at all"
        parts.append(f"None of the best {K} documents is an expected one: {place}.")
    elif case["hit"]:
        parts.append(f"The expected document was found at place {case['rank']}.")
    if case["covered"] is not None:
        parts.append(f"The answer has {case['covered']:.0%} of the expected answer's words.")
    return " ".join(parts) or "Answered."
