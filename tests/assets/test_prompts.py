"""Prompts, policies and suites are checked before a version is made; the errors name message, rule and line."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from everloop.assets import policies, prompts, suites
from everloop.core.errors import BadInput
from everloop.workspace.assets import make_check


def prompt(text: str, **more: Any) -> dict[str, Any]:
    return prompts.checked({"messages": [{"role": "system", "content": text}], **more})


def test_variables_are_found_in_the_order_they_come() -> None:
    made = prompts.checked(
        {"messages": [{"role": "system", "content": "{{ b }} {% for p in a %}{{ p }}{% endfor %}"}, {"role": "user", "content": "{{ question }}"}]}
    )
    assert made["variables"] == ["b", "a", "question"] and made["syntax"] == "jinja2"
    assert prompt("{a:{width}} {{x}}", syntax="fstring")["variables"] == ["a", "width"]


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("{{ question", {}, "message 1 (system) is not a Jinja2 template, line 1"),
        ("{{ question | shout }}", {}, "No filter named 'shout'"),
        ("{{ question.__class__.__mro__ }}", {}, "reaches for '__mro__'"),
        ("{{ question['_x'] }}", {}, "reaches for '_x'"),
        ("{% include 'secrets' %}", {}, "includes another template"),
        ("{question", {"syntax": "fstring"}, "is not a format string"),
        ("{question.__class__}", {"syntax": "fstring"}, "has the field {question.__class__}"),
        ("{}", {"syntax": "fstring"}, "has the field {}"),
        ("hi", {"syntax": "mustache"}, "syntax cannot be 'mustache'"),
        ("hi", {"defaults": {"tone": "x"}}, "default for 'tone'"),
        ("hi", {"settings": {"retrieval": {"top_k": 3}}}, "retrieval has no setting 'top_k'"),
        ("hi", {"settings": {"retrieval": {"k": True}}}, "retrieval.k is True"),
        ("hi", {"settings": {"answer": {"min_score": 2}}}, "answer.min_score is 2"),
    ],
)
def test_a_prompt_that_cannot_be_says_what_and_where(text: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        prompt(text, **more)
    assert said in str(error.value)


def test_a_release_needs_every_variable_filled() -> None:
    with pytest.raises(BadInput, match=r"'tone' in message 1 \(system\) is filled by nothing"):
        prompts.check_filled(prompt("Be {{ tone }}. {{ context }}"))
    prompts.check_filled(prompt("Be {{ tone }}."), ["tone"])
    prompts.check_filled(prompt("Be {{ tone }}.", defaults={"tone": "kind"}))
    prompts.check_filled(prompt("Be {{ tone | default('kind') }}. {% if name is defined %}{{ name }}{% endif %}"))


def test_rendering_fills_defaults_and_stays_in_its_box() -> None:
    render = prompts.renderer(prompt("Be {{ tone }}: {{ question }}", defaults={"tone": "kind"}))
    assert render({"question": "why?"}) == [{"role": "system", "content": "Be kind: why?"}]
    assert prompts.renderer(prompt("{a} {{}}", syntax="fstring"))({"a": 1})[0]["content"] == "1 {}"
    with pytest.raises(BadInput, match="message 1"):
        prompts.renderer(prompt("{{ question.nothing }}"))({"question": "x"})
    unsafe = {"messages": [{"role": "system", "content": "{{ (question ~ '')|attr('__class__') }}"}]}
    with pytest.raises(BadInput):
        prompts.renderer(unsafe)({"question": "x"})
    parts = prompts.checked(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "{{ question }}"}, {"type": "image_url", "url": "u"}]}]}
    )
    assert prompts.renderer(parts)({"question": "?"})[0]["content"] == [{"type": "text", "text": "?"}, {"type": "image_url", "url": "u"}]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"check": "pia"}, "There is no check called 'pia'"),
        ({"check": "pii", "stage": "inputs"}, "stage of rule 1 is 'inputs'"),
        ({"check": "pii", "action": "mask"}, "action of rule 1 is 'mask'"),
        ({"check": "length", "params": {"maximum": 3}}, "does not take (maximum=3)"),
        ({"check": "injection", "params": {"threshold": "high"}}, "threshold is 'high'"),
        ({"check": "injection", "action": "redact"}, "does not say which words to redact"),
        ({"check": "auc"}, "does not judge single texts"),
        ({"check": "regex"}, "needs a pattern"),
        ({"check": "pii", "when": 3}, "has no 'when'"),
    ],
)
def test_a_policy_that_cannot_be_names_the_rule(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        policies.checked({"rules": [rule]}, make_check)
    assert said in str(error.value)


def test_a_policy_is_complete() -> None:
    made = policies.checked(
        {"rules": [{"check": "pii", "stage": "output", "action": "redact"}, {"check": "length", "params": {"max": 9}}]}, make_check
    )
    assert made["rules"][0] == {"name": "pii-output", "check": "pii", "stage": "output", "action": "redact", "params": {}}
    assert made["stream"] == "buffer" and made["rules"][1]["action"] == "block"
    with pytest.raises(BadInput, match="called 'pii-input'"):
        policies.checked({"rules": [{"check": "pii"}, {"check": "pii"}]}, make_check)


def lines(*cases: Any) -> bytes:
    return b"\n".join(orjson.dumps(case) for case in cases)


def test_cases_are_complete() -> None:
    found = suites.parse(
        lines({"question": "Why?", "expected_sources": "a.md"}) + b"\n\n" + lines({"question": "Bomb?", "kind": "harmful", "id": "h1"})
    )
    assert found[0] == {"id": "case-1", "question": "Why?", "kind": "answerable", "expected_answer": None, "expected_sources": ["a.md"], "tags": []}
    assert found[1]["id"] == "h1" and found[1]["expected_sources"] == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "has no cases"),
        (b'{"question": "a"}\n{bad', "Line 2 of the suite is not JSON"),
        (lines({"question": "a", "kind": "hard"}), "Line 1 of the suite has the kind 'hard'"),
        (lines({"question": "a"}, {"question": " A "}), "Line 2 of the suite has the same question as line 1"),
        (lines({"question": "a", "id": "x"}, {"question": "b", "id": "x"}), "same id as line 1: 'x'"),
        (lines({"kind": "harmful"}), "has no question"),
        (lines({"question": "a", "expected_sources": [1]}), "expected_sources must be a list of texts"),
        (lines({"question": "a", "kind": "off_topic", "expected_sources": ["a.md"]}), "is off_topic and expects sources"),
        (lines(["a"]), "is not an object"),
    ],
)
def test_a_suite_that_cannot_be_names_the_line(data: bytes, said: str) -> None:
    with pytest.raises(BadInput) as error:
        suites.parse(data)
    assert said in str(error.value)
