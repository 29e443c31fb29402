"""A policy's rules around a chat: what a user asks and what is answered, each checked, then blocked, redacted or flagged.

An answer with output rules is held back until they have been run on all of it, also when it streams: nothing leaves unchecked. A check
that fails to run counts as failed.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Score, Serve, Utterance
from everloop.serve.spans import span

ACTIONS = ("block", "redact", "flag")
REFUSAL = "I cannot help with that."


def guard(inner: Serve, policy: Mapping[str, Any], make: Callable[[str, Mapping[str, Any]], Any]) -> Serve:
    """`inner` under a policy's rules of stages input and output; `make(name, params)` gives the checks. BadInput for an unknown action."""
    rules = [(dict(rule), make(rule["check"], rule.get("params") or {})) for rule in policy.get("rules") or ()]
    for rule, _ in rules:
        if rule.get("action", "block") not in ACTIONS or rule.get("stage") not in ("input", "retrieved", "output"):
            raise BadInput(f"The rule {rule.get('name')!r} has stage {rule.get('stage')!r} and action {rule.get('action')!r}.", "See the policy.")
    asked = [r for r in rules if r[0]["stage"] == "input"]
    said = [r for r in rules if r[0]["stage"] == "output"]
    refusal = str(policy.get("refusal") or REFUSAL)

    async def serve(call: Call) -> Answer:
        flags: list[dict[str, Any]] = []
        stream = bool(call.inputs.stream)
        messages = []
        for message in call.inputs.messages:
            checked = await _checked(call, asked, message, flags)
            if checked is None:
                return _shown(Answer(Message(refusal, "content_filter"), notes={"blocked": True, "flags": flags}), stream)
            messages.append(checked)
        if not said:
            answer = await inner(call.replace(inputs=Chat(messages, call.inputs.params, stream)))
            return answer.replace(notes={**answer.notes, "flags": flags, "blocked": False})
        answer = await inner(call.replace(inputs=Chat(messages, call.inputs.params, False)))
        question = next((str(m["content"]) for m in reversed(messages) if m.get("role") == "user"), "")
        whole: Any = answer.outputs
        text = await _run(call, said, Utterance(whole.text, "output", question), flags)
        message_out = Message(refusal, "content_filter") if text is None else Message(text, whole.finish_reason, whole.citations)
        notes = {**answer.notes, "flags": flags, "blocked": text is None}
        return _shown(answer.replace(outputs=message_out, notes=notes), stream)

    return serve


async def _checked(
    call: Call, rules: Sequence[tuple[dict[str, Any], Any]], message: Mapping[str, Any], flags: list[dict[str, Any]]
) -> Mapping[str, Any] | None:
    """A caller's message, of whatever role (a forged assistant turn is a way in too), with all its text checked; None where a rule blocks it."""
    content = message.get("content")
    if isinstance(content, str):
        text = await _run(call, rules, Utterance(content, "input"), flags)
        return None if text is None else {**message, "content": text}
    parts = []
    for part in content or ():
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            text = await _run(call, rules, Utterance(part["text"], "input"), flags)
            if text is None:
                return None
            part = {**part, "text": text}
        parts.append(part)
    return {**message, "content": parts} if parts else message


def _shown(answer: Answer, stream: bool) -> Answer:
    """A whole answer, as a stream where one was asked for."""
    if not stream:
        return answer
    message: Any = answer.outputs

    async def chunks() -> AsyncIterator[Chunk]:
        yield Chunk(message.text)
        yield Chunk("", message.finish_reason, answer.usage)

    return answer.replace(outputs=chunks())


async def _run(call: Call, rules: Sequence[tuple[dict[str, Any], Any]], subject: Utterance, flags: list[dict[str, Any]]) -> str | None:
    """The text after all rules of its stage, redacted where they say so; None where one blocks it."""
    for rule, check in rules:
        action = rule.get("action", "block")
        with span(call.trace, str(rule.get("name") or rule["check"]), "GUARDRAIL") as made:
            try:
                found = check(subject)
                score: Score = await found if inspect.isawaitable(found) else found
            except Exception as error:
                score = Score(rule["check"], None, "fail", why=f"the check failed to run: {error}")
            made.attributes.update({"guardrail.check": rule["check"], "guardrail.action": action, "guardrail.verdict": score.verdict})
        if score.verdict != "fail":
            continue
        flags.append({"rule": rule.get("name") or rule["check"], "stage": subject.stage, "action": action, "why": score.why})
        spans = score.details.get("spans")
        if action == "block" or (action == "redact" and not spans):
            return None
        if action == "redact" and spans:
            subject = replace(subject, text=redact(subject.text, spans))
    return subject.text


def redact(text: str, spans: Sequence[Any]) -> str:
    """`text` with each span, {"start", "end", "label"?} or (start, end, label?), replaced by its label in brackets."""
    plain = [
        (s["start"], s["end"], s.get("label", "redacted")) if isinstance(s, Mapping) else (s[0], s[1], s[2] if len(s) > 2 else "redacted")
        for s in spans
    ]
    for start, end, name in sorted(plain, reverse=True):
        text = f"{text[:start]}[{name}]{text[end:]}"
    return text
