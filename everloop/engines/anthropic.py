"""Anthropic's Messages dialect; chats come and go in OpenAI's message shape and are translated here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from everloop.core.errors import BadInput, UpstreamFailed
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve, Usage
from everloop.engines import http
from everloop.engines.base import Secrets, llms
from everloop.engines.chat import priced, text_of

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
MAX_TOKENS = 4096
"""Tokens of an answer when neither the call nor the release says."""
REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}
"""Anthropic's stop reasons in OpenAI's words."""


@llms.add("anthropic")
def make(spec: Mapping[str, Any], secrets: Secrets) -> Serve:
    """An engine from `{"model", "key"?, "base_url"?, "params"?, "prices"?}`; BadInput without a model, or for a key that may
    not go there.

    Without base_url it asks ANTHROPIC_BASE_URL of the server's environment, else Anthropic, and there the key is env:ANTHROPIC_API_KEY if not
    said otherwise.
    """
    import orjson

    if not spec.get("model"):
        raise BadInput("The anthropic engine needs a model.", 'Add it to the release: {"engine": {"name": "anthropic", "model": "..."}}.')
    base = str(spec.get("base_url") or os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL).rstrip("/").removesuffix("/v1")
    url, reference = f"{base}/v1/messages", str(spec.get("key") or "")
    if "key" not in spec and not spec.get("base_url"):
        reference = "env:ANTHROPIC_API_KEY"
    with suppress(UpstreamFailed):  # a key that is not there is told of when it is needed; one that may not go there, now
        secrets(reference, url)

    async def serve(call: Call) -> Answer:
        chat: Chat = call.inputs
        headers = {"content-type": "application/json", "anthropic-version": VERSION}
        if key := secrets(reference, url):
            headers["x-api-key"] = key
        started = time.perf_counter()
        response = await http.post(url, headers, orjson.dumps(body_of(spec, chat)), deadline=call.deadline)
        if chat.stream:
            return Answer(_stream(response, spec, call.deadline, started), usage=Usage(model=str(spec["model"]), provider="anthropic"))
        return _whole(await http.read_json(response, call.deadline), spec, time.perf_counter() - started)

    return serve


def body_of(spec: Mapping[str, Any], chat: Chat) -> dict[str, Any]:
    """The Messages request for a chat in OpenAI's shape."""
    params = {k: v for k, v in {**(spec.get("params") or {}), **chat.params}.items() if v is not None}
    body: dict[str, Any] = {"model": spec["model"], "max_tokens": int(params.get("max_completion_tokens") or params.get("max_tokens") or MAX_TOKENS)}
    for name in ("temperature", "top_p", "top_k", "metadata", "thinking", "output_config"):
        if name in params:
            body[name] = params[name]
    if params.get("stop"):
        body["stop_sequences"] = [params["stop"]] if isinstance(params["stop"], str) else list(params["stop"])
    if params.get("tools"):
        body["tools"] = [_tool(t) for t in params["tools"]]
        choice = _tool_choice(params.get("tool_choice"))
        if params.get("parallel_tool_calls") is False:
            choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
        if choice:
            body["tool_choice"] = choice
    if params.get("response_format"):
        body["output_config"] = {**(params.get("output_config") or {}), **_format(params["response_format"])}
    system = [text_of(m.get("content")) for m in chat.messages if m.get("role") in ("system", "developer")]
    if any(system):
        body["system"] = "\n\n".join(s for s in system if s)
    body["messages"] = _merged([_message(m) for m in chat.messages if m.get("role") not in ("system", "developer")])
    if chat.stream:
        body["stream"] = True
    return body


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function") or tool
    schema = function.get("parameters") or function.get("input_schema") or {"type": "object"}
    return {"name": function.get("name"), "description": function.get("description") or "", "input_schema": schema}


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if isinstance(choice, Mapping):
        return {"type": "tool", "name": (choice.get("function") or choice).get("name")}
    return {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}.get(str(choice))


def _format(wanted: Any) -> dict[str, Any]:
    """OpenAI's response_format as output_config; BadInput for json_object, which Anthropic has not."""
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_schema" and isinstance(wanted.get("json_schema"), Mapping):
        return {"format": {"type": "json_schema", "schema": wanted["json_schema"].get("schema") or {}}}
    raise BadInput(f"The anthropic engine cannot answer in response_format {kind!r}.", 'Give a schema: {"type": "json_schema", ...}.')


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if role == "tool":
        return {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": text_of(message.get("content"))}],
        }
    blocks = _blocks(message.get("content"))
    for tool in message.get("tool_calls") or ():
        function = tool.get("function") or {}
        try:
            given = json.loads(function.get("arguments") or "{}")
        except ValueError:
            raise BadInput(f"The arguments of the tool call {tool.get('id')!r} are not JSON: {str(function.get('arguments'))[:100]!r}.") from None
        blocks.append({"type": "tool_use", "id": tool.get("id"), "name": function.get("name"), "input": given})
    return {"role": "assistant" if role == "assistant" else "user", "content": blocks}


def _blocks(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        text = text_of(content)
        return [{"type": "text", "text": text}] if text else []
    blocks = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") == "image_url":
            url = str((part.get("image_url") or {}).get("url", ""))
            if url.startswith("data:"):
                kind, _, data = url[5:].partition(";base64,")
                blocks.append({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}})
            else:
                blocks.append({"type": "image", "source": {"type": "url", "url": url}})
        elif text_of([part]):
            blocks.append({"type": "text", "text": text_of([part])})
    return blocks


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one role joined, as the API wants them to alternate."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"].extend(message["content"])
        elif message["content"]:
            merged.append(message)
    return merged


def _whole(found: Mapping[str, Any], spec: Mapping[str, Any], seconds: float) -> Answer:
    blocks = found.get("content") or []
    text = "".join(b.get("text") or "" for b in blocks if b.get("type") == "text")
    tools = tuple(
        {"id": b.get("id"), "type": "function", "function": {"name": b.get("name"), "arguments": json.dumps(b.get("input") or {})}}
        for b in blocks
        if b.get("type") == "tool_use"
    )
    reason = REASONS.get(str(found.get("stop_reason")), "stop")
    usage = _usage(found.get("usage") or {}, spec, str(found.get("model") or spec["model"]), seconds)
    return Answer(Message(text, reason, tool_calls=tools), usage=usage, notes={"refused": found.get("stop_reason") == "refusal"})


async def _stream(response: Any, spec: Mapping[str, Any], deadline: float, started: float) -> AsyncIterator[Chunk]:
    reason, used, model, tools, ended = "stop", {}, str(spec["model"]), 0, False
    async with aclosing(http.events(response, deadline)) as events:
        async for event in events:
            kind = event.get("type")
            if kind == "error":
                raise UpstreamFailed(f"Anthropic failed in the middle of its answer: {http.words_of(event)}", upstream_status=200)
            if kind == "message_start":
                model = event["message"].get("model") or model
                used = dict(event["message"].get("usage") or {})
            elif kind == "content_block_start" and (event.get("content_block") or {}).get("type") == "tool_use":
                block = event["content_block"]
                call = {"index": tools, "id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": ""}}
                tools += 1
                yield Chunk(tool_calls=(call,))
            elif kind == "content_block_delta":
                delta = event.get("delta") or {}
                if delta.get("type") == "text_delta" and delta.get("text"):
                    yield Chunk(delta["text"])
                elif delta.get("type") == "input_json_delta" and delta.get("partial_json"):
                    yield Chunk(tool_calls=({"index": tools - 1, "function": {"arguments": delta["partial_json"]}},))
            elif kind == "message_delta":
                reason = REASONS.get(str((event.get("delta") or {}).get("stop_reason")), reason)
                used.update({k: v for k, v in (event.get("usage") or {}).items() if v is not None})
            ended = ended or kind == "message_stop"
    if not ended:
        raise UpstreamFailed("Anthropic ended its stream before the answer was whole.", "The answer is cut; ask again.", upstream_status=200)
    yield Chunk(finish_reason=reason, usage=_usage(used, spec, model, time.perf_counter() - started))


def _usage(found: Mapping[str, Any], spec: Mapping[str, Any], model: str, seconds: float) -> Usage:
    cached = int(found.get("cache_read_input_tokens") or 0)
    written = int(found.get("cache_creation_input_tokens") or 0)
    usage = Usage(
        int(found.get("input_tokens") or 0) + cached + written,
        int(found.get("output_tokens") or 0),
        cached,
        0,
        None,
        seconds,
        model,
        "anthropic",
    )
    return priced(usage, spec.get("prices"))
