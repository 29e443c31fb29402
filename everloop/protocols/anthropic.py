"""Anthropic's Messages API: a chat endpoint's name is a `model`; system, tools and images translated both ways, whole and streamed.

Like OpenAI's, answers carry `everloop` {trace_id, release, citations, ...}: on the message, or on a stream's message_delta event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.routing import Route

from everloop.core.errors import BadInput, Busy, EverloopError, Forbidden, NotFound, TooLarge, TooMany, Unauthorized
from everloop.core.types import Answer, Chat, Chunk, Usage
from everloop.protocols.exchange import ClientLeft, Exchange, check_size, failure, headers_of, ours

rights = {"call": ("POST /v1/messages",)}
"""Who may use which route: see web/rights.py."""
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}
PASSED = ("max_tokens", "temperature", "top_p", "top_k", "thinking")
"""Parameters with one name in both dialects, or in none but this."""


def mount(app: Any, ws: Any) -> None:
    """Serve the messages below the framework, before all other routes."""
    app.router.routes.insert(0, Route("/v1/messages", Messages(ws), methods=["POST"]))


class Messages:
    """POST /v1/messages as an ASGI app."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            body = await exchange.ask()
            chat, metadata = chat_of(body), body.get("metadata") or {}
            user = str(metadata.get("user_id") or "") if isinstance(metadata, dict) else ""
            answer, trace_id = await exchange.while_there(self.ws.endpoints.chat(scope["everloop.who"], body["model"], chat, user=user))
            head = {"id": f"msg_{trace_id}", "type": "message", "role": "assistant", "model": body["model"]}
            if answer.streams:
                await exchange.events(_events(answer, trace_id, head), headers_of(answer, trace_id))
            else:
                await exchange.json(_whole(answer, trace_id, head), headers=headers_of(answer, trace_id))
        except ClientLeft:
            return
        except EverloopError as error:
            await exchange.refuse(error, error_body(error), 529 if _overloaded(error) else None)


def chat_of(body: Mapping[str, Any]) -> Chat:
    """A Messages request as a Chat in OpenAI's shape; BadInput names the field that cannot be."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadInput("model: Field required.", "Name a chat endpoint; GET /v1/models lists them.")
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadInput("max_tokens: a whole number from 1 is required.")
    given = body.get("messages")
    if not isinstance(given, list) or not given or not all(isinstance(m, dict) for m in given):
        raise BadInput("messages: a list of messages is required.", '[{"role": "user", "content": "..."}]')
    messages: list[dict[str, Any]] = []
    system = body.get("system")
    if system:
        messages.append({"role": "system", "content": system if isinstance(system, str) else "\n\n".join(_text(b, "system") for b in system)})
    for i, message in enumerate(given):
        if message.get("role") not in ("user", "assistant"):
            raise BadInput(f"messages.{i}.role: it must be user or assistant.")
        messages += _message(message, f"messages.{i}")
    params = {name: body[name] for name in PASSED if body.get(name) is not None}
    if body.get("stop_sequences"):
        params["stop"] = body["stop_sequences"]
    if body.get("tools"):
        params["tools"] = [_tool(t) for t in body["tools"]]
    params.update(_tool_choice(body.get("tool_choice") or {}))
    if wanted := (body.get("output_config") or {}).get("format"):
        params["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.get("schema") or {}, "strict": True}}
    check_size(messages, params)
    return Chat(messages, params, bool(body.get("stream")))


def _message(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One message as one or, where it holds tool results, several of OpenAI's."""
    role, content = message["role"], message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(b, dict) for b in content):
        raise BadInput(f"{where}.content: it must be a text or a list of blocks.")
    made: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        kind = block.get("type")
        if kind == "text":
            parts.append({"type": "text", "text": str(block.get("text") or "")})
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _image(block.get("source") or {}, where)}})
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": orjson.dumps(block.get("input") or {}).decode()}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            made.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _result(block.get("content"), where)})
        elif kind not in ("thinking", "redacted_thinking"):
            raise BadInput(f"{where}.content: blocks of type {kind!r} are not taken.", "Taken are: text, image, tool_use, tool_result.")
    plain = all(p["type"] == "text" for p in parts)
    if parts or calls:
        said: Any = "\n".join(p["text"] for p in parts) if plain else parts
        made.append({"role": role, "content": said or None, **({"tool_calls": calls} if calls else {})})
    return made


def _text(block: Any, where: str) -> str:
    if not isinstance(block, Mapping) or block.get("type") != "text":
        raise BadInput(f"{where}: only text blocks are taken here.")
    return str(block.get("text") or "")


def _result(content: Any, where: str) -> str:
    return content if isinstance(content, str) else "\n".join(_text(b, f"{where}.tool_result") for b in content or ())


def _image(source: Mapping[str, Any], where: str) -> str:
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    if source.get("type") == "url":
        return str(source.get("url"))
    raise BadInput(f"{where}: an image needs a source of type base64 or url.")


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") not in (None, "custom") or not tool.get("name"):
        raise BadInput("tools: only tools of the client's own are taken.", '{"name", "description", "input_schema"}')
    schema = tool.get("input_schema") or {"type": "object"}
    return {"type": "function", "function": {"name": tool["name"], "description": tool.get("description") or "", "parameters": schema}}


def _tool_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kind = choice.get("type")
    made: dict[str, Any] = {}
    if kind == "tool":
        made["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in ("auto", "any", "none"):
        made["tool_choice"] = "required" if kind == "any" else kind
    if choice.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _whole(answer: Answer, trace_id: str, head: dict[str, Any]) -> dict[str, Any]:
    said: Any = answer.outputs
    content: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    for call in said.tool_calls:
        function = call.get("function") or {}
        content.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": _arguments(function.get("arguments"))})
    reason = REASONS.get(said.finish_reason, "end_turn")
    ended = {"stop_reason": reason, "stop_sequence": None, "usage": usage_of(answer.usage)}
    return {**head, "content": content, **ended, "everloop": ours(answer, trace_id)}


def _arguments(text: Any) -> Any:
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {"arguments": text}


async def _events(answer: Answer, trace_id: str, head: dict[str, Any]) -> AsyncIterator[bytes]:
    outputs, blocks = answer.outputs, Blocks()
    start = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage_of(Usage())}
    usage, reason = answer.usage, "stop"
    try:
        yield _event("message_start", message=start)
        async for chunk in outputs:
            usage, reason = chunk.usage or usage, chunk.finish_reason or reason
            for event in blocks.take(chunk):
                yield event
        for event in blocks.close():
            yield event
        ended = {"stop_reason": REASONS.get(reason, "end_turn"), "stop_sequence": None}
        yield _event("message_delta", delta=ended, usage=usage_of(usage), everloop=ours(answer, trace_id))
        yield _event("message_stop")
    except EverloopError as error:
        yield _event("error", **{k: v for k, v in error_body(error).items() if k != "type"})
    finally:
        await outputs.aclose()


class Blocks:
    """Chunks as content blocks: text in one, each tool call in one of its own; one is open at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._open: tuple[str, int] | None = None

    def take(self, chunk: Chunk) -> list[bytes]:
        """The events of one chunk."""
        made: list[bytes] = []
        if chunk.text:
            made += self._start(("text", 0), {"type": "text", "text": ""})
            made.append(_event("content_block_delta", index=self._index, delta={"type": "text_delta", "text": chunk.text}))
        for piece in chunk.tool_calls:
            function = piece.get("function") or {}
            block = {"type": "tool_use", "id": piece.get("id"), "name": function.get("name"), "input": {}}
            made += self._start(("tool", int(piece.get("index", 0))), block)
            if function.get("arguments"):
                delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
                made.append(_event("content_block_delta", index=self._index, delta=delta))
        return made

    def close(self) -> list[bytes]:
        """The end of the block that is open."""
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", index=self._index)]

    def _start(self, wanted: tuple[str, int], block: dict[str, Any]) -> list[bytes]:
        if self._open == wanted:
            return []
        made = self.close()
        self._open, self._index = wanted, self._index + 1
        return [*made, _event("content_block_start", index=self._index, content_block=block)]


def usage_of(usage: Usage) -> dict[str, int]:
    """Token counts in Anthropic's shape: cached input is counted apart."""
    read = usage.tokens_cached
    return {
        "input_tokens": max(0, usage.tokens_in - read),
        "output_tokens": usage.tokens_out,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": read,
    }


def _overloaded(error: EverloopError) -> bool:
    return isinstance(error, Busy) and not isinstance(error, TooMany) and error.status == 503


def error_body(error: EverloopError) -> dict[str, Any]:
    """An error in Anthropic's shape."""
    status, _ = failure(error)
    if status == 429:
        kind = "rate_limit_error"
    elif _overloaded(error):
        kind = "overloaded_error"
    else:
        known = (
            (Unauthorized, "authentication_error"),
            (Forbidden, "permission_error"),
            (NotFound, "not_found_error"),
            (TooLarge, "request_too_large"),
        )
        kind = next((name for cls, name in known if isinstance(error, cls)), "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(error)}}


error_shapes = {"/v1/messages": error_body}


def _event(kind: str, **body: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **body}, default=str) + b"\n\n"
