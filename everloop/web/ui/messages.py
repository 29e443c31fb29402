"""Inputs and outputs of an LLM as a conversation, whoever wrote them down: OpenAI's messages, GenAI's parts, LangChain's constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.evaluate.conversations import call_of, fields, listed, role_of


def messages(value: Any) -> list[dict[str, str]] | None:
    """The messages as [{"role", "text"}]; None where the value is something else."""
    if isinstance(value, Mapping):
        value = listed(value)
    if isinstance(value, str):
        return [{"role": "", "text": value}]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):  # LangChain's batches of one
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    read = [_message(m) for m in value]
    return None if None in read else [m for m in read if m is not None]


def _message(given: Any) -> dict[str, str] | None:
    """One message; None where it is none."""
    m = fields(given)
    if m is None:
        return None
    content, calls = m.get("content", m.get("parts")), m.get("tool_calls")
    said = [_content(content), *(_called(c) for c in calls or () if isinstance(c, Mapping))]
    return {"role": role_of(m), "text": "\n".join(text for text in said if text)}


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
    name, arguments = call_of(call)
    return f"calls {name}({arguments})"
