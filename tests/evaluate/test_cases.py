"""A case judged alone: right or wrong as the gate's checks count it, and a sentence that says why."""

from __future__ import annotations

import pytest

from everloop.checks import checks
from everloop.core.types import Results
from everloop.evaluate.cases import judged

FOUND = [{"path": p} for p in ("a.md", "b.md", "c.md", "d.md", "guides/e.md")]
CASES = [
    ({"expected_sources": ["b.md"], "expected_answer": "two wheels", "answer": "It has two."}, True, "found at place 2. The answer has 50%"),
    ({"expected_sources": ["e.md"], "answer": "Yes."}, False, "it came at place 5"),
    ({"expected_sources": ["z.md"], "answer": "Yes."}, False, "not found at all"),
    ({"answer": "I could not find it.", "refused": True}, False, "Declined by the engine, though the documents answer it"),
    ({"kind": "off_topic", "answer": "No.", "blocked": True}, True, "Declined by the policy, as it should be"),
    ({"kind": "off_topic", "answer": "It will rain."}, False, "Answered, though it is off topic"),
    ({"kind": "harmful", "error": "timeout"}, False, "It failed: timeout"),
]


@pytest.mark.parametrize(("case", "right", "told"), CASES)
def test_each_case_says_why(case: dict, right: bool, told: str) -> None:
    found = judged({"id": "1", "question": "?", "retrieved": FOUND, **case})
    assert found["right"] is right and told in found["why"], found["why"]


def test_it_counts_as_the_gates_checks_do() -> None:
    cases = [{"id": str(i), "question": "?", "retrieved": FOUND, **case} for i, (case, _, _) in enumerate(CASES)]
    results, told = Results(len(cases), "chat", cases=cases), [judged(case) for case in cases]
    hits = [one["hit"] for one in told if one["hit"] is not None]
    assert checks.get("hit_rate")(k=4)(results).value == pytest.approx(sum(hits) / len(hits))
    declined = [one["declined"] == (one["kind"] != "answerable") and not one["error"] for one in told]
    assert checks.get("refusal_accuracy")()(results).value == pytest.approx(sum(declined) / len(told))
