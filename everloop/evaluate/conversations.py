"""Inputs and outputs of an LLM as a conversation in OpenAI's shape, whoever wrote them down: OpenAI's messages, GenAI's parts, LangChain's constructors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "model": "assistant", "chat": "", "function": "tool"}
_CALLS = ("tool_call", "tool_use", "function_call")
_RESULTS = ("tool_call_response", "tool_result")

_SCHEMA = re.compile(r"llm\.tools\.(\d+)\.tool\.json_schema")

Message = dict[str, Any]


def listed(value: Mapping[str, Any]) -> Any:
    """What holds the messages in an object that carries more: a request, an answer, LangChain's generations."""
    if isinstance(value.get("text"), str) and "messages" not in value:
        return [{"role": "assistant", "content": value["text"], "tool_calls": value.get("tool_calls")}]
    if isinstance(value.get("choices"), list):
        return [c.get("message") for c in value["choices"] if isinstance(c, dict)]
    if isinstance(value.get("generations"), list):
        flat = [g for batch in value["generations"] for g in (batch if isinstance(batch, list) else [batch]) if isinstance(g, dict)]
        return [g.get("message") or {"role": "assistant", "content": g.get("text")} for g in flat]
    if "messages" not in value and fields(value) is not None:
        return [value]
    return value.get("messages")


def fields(given: Any) -> dict[str, Any] | None:
    """A message's own fields, out of the wrapper that LangChain puts round them; None where it is no message."""
    if not isinstance(given, Mapping):
        return None
    inner = given.get("kwargs") if given.get("lc") else given.get("data") if isinstance(given.get("data"), Mapping) else None
    m = {**given, **inner} if isinstance(inner, Mapping) else dict(given)
    if m.get("content", m.get("parts")) is None and not m.get("tool_calls"):
        return None
    return m


def role_of(m: Mapping[str, Any]) -> str:
    """Who says a message, in OpenAI's words; empty where it does not tell."""
    role = str(m.get("role") or (m.get("type") if m.get("type") != "constructor" else "") or "")
    return ROLES.get(role, role)


def call_of(call: Mapping[str, Any]) -> tuple[str, str]:
    """A tool call's name and its arguments as text."""
    asked = call.get("function") if isinstance(call.get("function"), Mapping) else call
    inner = asked.get("tool_call") if isinstance(asked.get("tool_call"), Mapping) else asked
    given = inner.get("arguments", inner.get("args", inner.get("input", {})))
    shown = given if isinstance(given, str) else orjson.dumps(given, default=str).decode()
    name = inner.get("name") or (inner.get("function") or {}).get("name") or inner.get("function.name") or "tool"
    return str(name), str((shown if shown != "{}" else "") or inner.get("function.arguments", "") or shown)


def turns(value: Any, role: str = "user") -> list[Message] | None:
    """The messages in OpenAI's shape: {"role", "content", "tool_calls"?, "tool_call_id"?}; None where the value is something else.

    `role` is whose a message is that does not say; a plain text is one such message.
    """
    if isinstance(value, Mapping):
        value = listed(value)
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value else None
    if isinstance(value, Sequence) and len(value) == 1 and isinstance(value[0], list):  # LangChain's batches of one
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    read = [_turn(one, role) for one in value]
    return None if None in read else [message for one in read for message in one or ()]


def answer(value: Any) -> Message | None:
    """The last message that an LLM answered; None where it said nothing and called no tool."""
    for message in reversed(turns(value, "assistant") or []):
        if message["role"] == "assistant" and (message.get("content") or message.get("tool_calls")):
            return message
    return None


def tools(span: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that a call to an LLM could use, as OpenAI's {"type": "function", "function": {...}}: from its inputs, or by OpenInference's or GenAI's names."""
    attributes = span.get("attributes") or {}
    inputs = span.get("inputs")
    found = inputs.get("tools") if isinstance(inputs, Mapping) else None
    found = found or _json(attributes.get("gen_ai.tool.definitions"))
    if not found:
        schemas = {int(read[1]): value for key, value in attributes.items() if (read := _SCHEMA.fullmatch(key))}
        found = [_json(schemas[place]) for place in sorted(schemas)]
    if not found:
        asked = _json(attributes.get("llm.invocation_parameters"))
        found = asked.get("tools") if isinstance(asked, Mapping) else None
    return [tool for one in found if (tool := _tool(one)) is not None] if isinstance(found, list) else []


def _tool(given: Any) -> dict[str, Any] | None:
    if not isinstance(given, Mapping):
        return None
    if isinstance(given.get("function"), Mapping):
        return {"type": "function", "function": dict(given["function"])}
    if not given.get("name"):
        return None
    parameters = given.get("parameters", given.get("input_schema"))
    told = {"name": given["name"], "description": given.get("description"), "parameters": parameters}
    return {"type": "function", "function": {key: value for key, value in told.items() if value is not None}}


def _turn(given: Any, role: str) -> list[Message] | None:
    """One message; several where one carries answers of several tools."""
    m = fields(given)
    if m is None:
        return None
    content = m.get("content", m.get("parts"))
    calls = [one for one in m.get("tool_calls") or () if isinstance(one, Mapping)]
    said: list[Any] = []
    answers: list[Message] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _CALLS:
            calls.append(part)
        elif kind in _RESULTS:
            answers.append(_result(part))
        elif part is not None:
            said.append(part)
    told = role_of(m) or role
    message: Message = {"role": told, "content": _said(said)}
    if calls:
        message["tool_calls"] = [_call(one, i) for i, one in enumerate(calls)]
    if told == "tool" and (id := m.get("tool_call_id")):
        message["tool_call_id"] = id
    return [*answers, message] if said or calls or not answers else answers


def _said(parts: list[Any]) -> Any:
    """Text, or parts where one is no text (a picture)."""
    texts = [_text(part) for part in parts]
    if None in texts:
        return [{"type": "text", "text": text} if text is not None else dict(part) for part, text in zip(parts, texts, strict=True)]
    return "\n".join(text for text in texts if text) if texts else None


def _text(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return str(part)
    return next((str(part[key]) for key in ("text", "content", "refusal") if isinstance(part.get(key), str)), None)


def _call(call: Mapping[str, Any], place: int) -> dict[str, Any]:
    name, arguments = call_of(call)
    inner = call.get("tool_call") if isinstance(call.get("tool_call"), Mapping) else call
    return {"id": str(inner.get("id") or f"call_{place}"), "type": "function", "function": {"name": name, "arguments": arguments}}


def _result(part: Mapping[str, Any]) -> Message:
    value = part.get("response", part.get("result", part.get("content")))
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    id = part.get("id") or part.get("tool_use_id") or part.get("tool_call_id")
    return {"role": "tool", "content": text} | ({"tool_call_id": str(id)} if id else {})


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
