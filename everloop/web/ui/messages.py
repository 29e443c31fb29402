"""Inputs and outputs of an LLM as a conversation, whoever wrote them down: OpenAI's messages, GenAI's parts, LangChain's constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "model": "assistant", "chat": "", "function": "tool"}


def messages(value: Any) -> list[dict[str, str]] | None:
    """The messages as [{"role", "text"}]; None where the value is something else."""
    if isinstance(value, Mapping):
        value = _listed(value)
    if isinstance(value, str):
        return [{"role": "", "text": value}]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):  # LangChain's batches of one
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    read = [_message(m) for m in value]
    return None if None in read else [m for m in read if m is not None]


def _listed(value: Mapping[str, Any]) -> Any:
    """What holds the messages in an object that carries more: a request, an answer, LangChain's generations."""
    if isinstance(value.get("text"), str) and "messages" not in value:
        return [{"role": "assistant", "content": value["text"], "tool_calls": value.get("tool_calls")}]
    if isinstance(value.get("choices"), list):
        return [c.get("message") for c in value["choices"] if isinstance(c, dict)]
    if isinstance(value.get("generations"), list):
        flat = [g for batch in value["generations"] for g in (batch if isinstance(batch, list) else [batch]) if isinstance(g, dict)]
        return [g.get("message") or {"role": "assistant", "content": g.get("text")} for g in flat]
    if "messages" not in value and _message(value) is not None:
        return [value]
    return value.get("messages")


def _message(given: Any) -> dict[str, str] | None:
    """One message; None where it is none."""
    if not isinstance(given, Mapping):
        return None
    inner = given.get("kwargs") if given.get("lc") else given.get("data") if isinstance(given.get("data"), Mapping) else None
    m = {**given, **inner} if isinstance(inner, Mapping) else given
    content = m.get("content", m.get("parts"))
    calls = m.get("tool_calls")
    if content is None and not calls:
        return None
    role = str(m.get("role") or (m.get("type") if m.get("type") != "constructor" else "") or "")
    said = [_content(content), *(_called(c) for c in calls or () if isinstance(c, Mapping))]
    return {"role": _ROLES.get(role, role), "text": "\n".join(text for text in said if text)}


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(filter(None, (_part(part) for part in content)))
    return "" if content is None else str(content)


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    kind = part.get("type")
    if kind in ("tool_call", "tool_use", "function_call"):
        return _called(part)
    if kind in ("tool_call_response", "tool_result"):
        return f"answer of the tool: {_content(part.get('response', part.get('result', part.get('content'))))}"
    for key in ("text", "content", "refusal"):
        if isinstance(part.get(key), str):
            return str(part[key])
    return f"({kind or 'a part that is no text'})"


def _called(call: Mapping[str, Any]) -> str:
    """A tool call: name(arguments)."""
    asked = call.get("function") if isinstance(call.get("function"), Mapping) else call
    inner = asked.get("tool_call") if isinstance(asked.get("tool_call"), Mapping) else asked
    given = inner.get("arguments", inner.get("args", inner.get("input", {})))
    shown = given if isinstance(given, str) else orjson.dumps(given, default=str).decode()
    name = inner.get("name") or (inner.get("function") or {}).get("name") or inner.get("function.name") or "tool"
    return f"calls {name}({shown or inner.get('function.arguments', '')})"
