"""OpenAI's chat completions dialect: OpenAI itself and every server that speaks it (vLLM, Ollama, llama.cpp, gateways)."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

from everloop.core.errors import BadInput, UpstreamFailed
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve, Usage
from everloop.engines import http
from everloop.engines.base import Secrets, llms
from everloop.engines.chat import priced

BASE_URL = "https://api.openai.com/v1"
OURS = frozenset({"model", "messages", "stream", "stream_options"})
"""Parameters that the engine sets itself."""


def is_local(url: str) -> bool:
    """Whether a base URL names this machine (its tokens cost nothing)."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


@llms.add("openai")
def make(spec: Mapping[str, Any], secrets: Secrets) -> Serve:
    """An engine from `{"model", "base_url"?, "key"?, "params"?, "prices"?, "organization"?}`; BadInput without a model, or for
    a key that may not go there.

    Without base_url it asks OPENAI_BASE_URL of the server's environment, else OpenAI, and there the key is env:OPENAI_API_KEY if not said
    otherwise. Parameters of a call win over `params`; all pass through to the provider.
    """
    import orjson

    if not spec.get("model"):
        raise BadInput("The openai engine needs a model.", 'Add it to the release: {"engine": {"name": "openai", "model": "..."}}.')
    base = str(spec.get("base_url") or os.environ.get("OPENAI_BASE_URL") or BASE_URL).rstrip("/")
    url = f"{base}/chat/completions"
    provider, model, defaults = _provider(base), str(spec["model"]), dict(spec.get("params") or {})
    reference = str(spec.get("key") or "")
    if "key" not in spec and not spec.get("base_url") and os.environ.get("OPENAI_API_KEY"):
        reference = "env:OPENAI_API_KEY"
    with suppress(UpstreamFailed):  # a key that is not there is told of when it is needed; one that may not go there, now
        secrets(reference, url)

    def counted(found: Mapping[str, Any], model: str, seconds: float) -> Usage:
        return priced(_usage(found, provider, model, seconds), spec.get("prices"), free=is_local(base))

    async def serve(call: Call) -> Answer:
        chat: Chat = call.inputs
        headers = {"content-type": "application/json"}
        if key := secrets(reference, url):
            headers["authorization"] = f"Bearer {key}"
        if spec.get("organization"):
            headers["openai-organization"] = str(spec["organization"])
        started = time.perf_counter()
        response = await http.post(url, headers, orjson.dumps(_body(model, defaults, chat)), deadline=call.deadline)
        if chat.stream:
            return Answer(_stream(response, base, model, counted, call.deadline, started), usage=Usage(model=model, provider=provider))
        return _whole(await http.read_json(response, call.deadline), base, model, counted, started)

    return serve


def _body(model: str, defaults: Mapping[str, Any], chat: Chat) -> dict[str, Any]:
    body = {k: v for k, v in {**defaults, **chat.params}.items() if k not in OURS and v is not None}
    body["model"] = model
    body["messages"] = list(chat.messages)
    if chat.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _whole(found: Mapping[str, Any], base: str, model: str, counted: Any, started: float) -> Answer:
    choices = found.get("choices") or []
    if not choices:
        said = f": {http.words_of(found)}" if found.get("error") else ""
        raise UpstreamFailed(f"{base} answered without choices{said}.", upstream_status=200)
    message = choices[0].get("message") or {}
    tools = tuple(message.get("tool_calls") or ())
    text = message.get("content") or message.get("refusal") or ""
    out = Message(text, choices[0].get("finish_reason") or "stop", tool_calls=tools)
    usage = counted(found.get("usage") or {}, str(found.get("model") or model), time.perf_counter() - started)
    return Answer(out, usage=usage, notes={"refused": bool(message.get("refusal"))})


async def _stream(response: Any, base: str, model: str, counted: Any, deadline: float, started: float) -> AsyncIterator[Chunk]:
    """Text and tool calls as they come; the last chunk has the reason and the usage. UpstreamFailed where it ends without a reason."""
    reason, used = "", {}
    async with aclosing(http.events(response, deadline)) as events:
        async for event in events:
            if event.get("error"):
                raise UpstreamFailed(f"{base} failed in the middle of its answer: {http.words_of(event)}", upstream_status=200)
            model = event.get("model") or model
            used = event.get("usage") or used
            for choice in event.get("choices") or ():
                if choice.get("index", 0):
                    continue
                delta = choice.get("delta") or {}
                reason = choice.get("finish_reason") or reason
                text, tools = delta.get("content") or delta.get("refusal") or "", tuple(delta.get("tool_calls") or ())
                if text or tools:
                    yield Chunk(text, tool_calls=tools)
    if not reason:
        raise UpstreamFailed(f"{base} ended its stream without saying why.", "The answer is cut; ask again.", upstream_status=200)
    yield Chunk(finish_reason=reason, usage=counted(used, model, time.perf_counter() - started))


def _usage(found: Mapping[str, Any], provider: str, model: str, seconds: float) -> Usage:
    return Usage(
        int(found.get("prompt_tokens") or 0),
        int(found.get("completion_tokens") or 0),
        int((found.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        int((found.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0),
        None,
        seconds,
        model,
        provider,
    )


def _provider(base: str) -> str:
    if base == BASE_URL:
        return "openai"
    return "local" if is_local(base) else urlsplit(base).hostname or "openai"
