"""Messages of LLM calls that instrumentations send as log records beside the span: found by trace and span, put into its inputs and outputs.

OpenTelemetry's GenAI conventions had one event a message (gen_ai.user.message, gen_ai.choice), then one event with all of them
(gen_ai.client.inference.operation.details); both are understood. They are joined when a trace is read, so that it does not matter which came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
CHOICE = "gen_ai.choice"
DETAILS = ("gen_ai.client.inference.operation.details", "gen_ai.client.operation.details")


def join(spans: Iterable[dict[str, Any]], logs: Iterable[Mapping[str, Any]]) -> None:
    """Fill inputs and outputs of spans that have none from the records of theirs (oldest first)."""
    told: dict[str, list[Mapping[str, Any]]] = {}
    for one in logs:
        if one["span_id"] and str(one["event"] or "").startswith("gen_ai."):
            told.setdefault(one["span_id"], []).append(one)
    if not told:
        return
    for span in spans:
        if found := told.get(span["span_id"]):
            inputs, outputs = messages(found)
            span["inputs"] = span["inputs"] if span["inputs"] is not None else inputs
            span["outputs"] = span["outputs"] if span["outputs"] is not None else outputs


def messages(events: Iterable[Mapping[str, Any]]) -> tuple[list[Any] | None, list[Any] | None]:
    """What went in and what came out, as lists of messages, by one span's event records; None where they do not say."""
    inputs, outputs = list[Any](), list[Any]()
    for one in events:
        event, body, a = one["event"], one["body"], one["attributes"] or {}
        if event in ROLES:
            inputs.append({"role": ROLES[event], **_object(body)})
        elif event == CHOICE:
            choice = _object(body)
            message = choice.pop("message", None)
            outputs.append({"role": "assistant", **(_object(message) if message is not None else {}), **choice})
        elif event in DETAILS:
            source = {**_object(body), **a}
            inputs += [{"role": "system", "parts": said} for said in _parts(source.get("gen_ai.system_instructions"))]
            inputs += _list(source.get("gen_ai.input.messages"))
            outputs += _list(source.get("gen_ai.output.messages"))
    return inputs or None, outputs or None


def _object(value: Any) -> dict[str, Any]:
    """A body as a dict; plain text is its content."""
    value = _read(value)
    if isinstance(value, Mapping):
        return dict(value)
    return {} if value is None else {"content": value}


def _list(value: Any) -> list[Any]:
    value = _read(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _parts(value: Any) -> list[list[Any]]:
    """System instructions: a list of parts makes one message."""
    found = _list(value)
    return [found] if found else []


def _read(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
