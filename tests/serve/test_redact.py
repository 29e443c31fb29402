"""Redaction of spans: everywhere, in linear time, and nothing passes that could not be checked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from everloop.core.types import Score, Span, Utterance
from everloop.serve.redact import Redactor, redacting
from everloop.serve.rules import Rule
from everloop.workspace.assets import make_check

RULES = [{"check": "pii", "stage": "input", "action": "redact"}, {"check": "secrets", "stage": "output", "action": "redact"}]


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return Redactor("policy:p@1", redacting({"rules": RULES}, make_check), lambda text: f"h-{len(text)}")


def span(**more: Any) -> Span:
    return Span("a" * 32, "b" * 16, None, "ask", "LLM", 1, 2, "ok", **more)


def test_values_of_every_shape_are_redacted_and_others_are_the_same_object(redactor: Redactor) -> None:
    inputs = {"messages": [{"role": "user", "content": "I am ann@example.com"}], "card": 4111111111111111, "ann@example.com": (1, 2.5, None, True)}
    [made] = redactor.clean([span(inputs=inputs, attributes={"llm.model_name": "gpt-4o", "everloop.release": "release:tutor@1"})])[0]
    assert made.inputs == {"messages": [{"role": "user", "content": "I am [email]"}], "card": "[card]", "[email]": (1, 2.5, None, True)}
    assert made.attributes["everloop.redacted"] == {"email": 2, "card": 1} and inputs["card"] == 4111111111111111
    plain = span(inputs={"question": "what is a loan?", "n": 12}, attributes={"llm.model_name": "gpt-4o", "at": 1764000000000000000})
    assert redactor.clean([plain])[0][0] is plain


def test_a_private_key_goes_with_its_body(redactor: Redactor) -> None:
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDZ"
    for end in ("\n", "\\n"):
        text = f"see{end}-----BEGIN RSA PRIVATE KEY-----{end}{body}{end}{body}{end}-----END RSA PRIVATE KEY-----{end}that was it"
        assert redactor.text(text)[0] == f"see{end}[private_key]{end}that was it"
        cut = text[: text.index("-----END")]
        assert body[-8:] not in redactor.text(cut)[0]


def test_a_long_text_full_of_findings_takes_linear_time(redactor: Redactor) -> None:
    line = "write to ann@example.com or pay with 4111 1111 1111 1111 today. "
    took = []
    for times in (1_000, 8_000):
        start = time.perf_counter()
        text, found = redactor.text(line * times)
        took.append(time.perf_counter() - start)
        assert found == {"email": times, "card": times} and "@" not in text
    assert took[1] < 8 * took[0] * 4


def test_what_cannot_be_checked_is_not_written() -> None:
    def broken(subject: Utterance) -> Score:
        raise RuntimeError("out of order")

    made = Redactor("policy:p@1", [Rule("r", "pii", "input", "redact", broken)], str).clean([span(inputs="my secret")])[0][0]
    assert made.inputs == "[not checked]" and made.attributes["everloop.redacted"] == {"not checked": 1}
