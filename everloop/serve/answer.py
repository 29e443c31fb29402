"""A chat release as a `Serve`: the prompt's messages rendered, an OpenAI-compatible engine asked, the policy around both."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from everloop.core.errors import BadInput, UpstreamFailed
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve, Usage
from everloop.serve.guard import guard
from everloop.serve.spans import span


def chat(release: Mapping[str, Any], pins: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any] | None) -> Serve:
    """The chain of a chat release; BadInput for one that pins what is not served yet or names an engine there is not."""
    if "index" in pins:
        raise BadInput("This release pins an index; chat endpoints do not retrieve yet.", "Make a release of a prompt alone.")
    engine = dict((release.get("params") or {}).get("engine") or {"name": "openai"})
    if engine.get("name") != "openai":
        raise BadInput(f"There is no chat engine {engine.get('name')!r}.", "Use openai, with base_url for any compatible server (Ollama, vLLM).")
    serve = prompt(upstream(engine), pins["prompt"]["manifest"])
    if policy is None:
        return serve
    from everloop.checks import checks

    return guard(serve, policy, lambda name, params: checks.get(name)(**params))


def prompt(inner: Serve, manifest: Mapping[str, Any]) -> Serve:
    """Put a prompt's messages before the conversation: its templates are rendered in a sandbox with `question`."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    jinja = manifest.get("syntax", "jinja2") == "jinja2"
    templates = [(m["role"], sandbox.from_string(m["content"]) if jinja else m["content"]) for m in manifest["messages"]]
    settings = dict(manifest.get("parameters") or {})

    async def serve(call: Call) -> Answer:
        messages = list(call.inputs.messages)
        values = {"question": next((str(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), ""), "context": ""}
        try:
            made = [{"role": r, "content": t.format(**values) if isinstance(t, str) else t.render(**values)} for r, t in templates]
        except (TemplateError, KeyError, IndexError, ValueError) as error:
            raise BadInput(f"The prompt cannot be filled: {error}.", f"Given are: {', '.join(values)}.") from None
        if any(m["role"] == "user" for m in made) and messages and messages[-1].get("role") == "user":
            head = [m for m in made if m["role"] != "user"]
            messages = [*head, *messages[:-1], *[m for m in made if m["role"] == "user"]]
        else:
            messages = [*made, *messages]
        return await inner(call.replace(inputs=Chat(messages, {**settings, **call.inputs.params}, call.inputs.stream)))

    return serve


def upstream(engine: Mapping[str, Any]) -> Serve:
    """An OpenAI-compatible server: {"model", "base_url"?, "key"?: "env:NAME"}. UpstreamFailed with its words where it refuses."""
    base = str(engine.get("base_url") or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
    key = str(engine.get("key") or "env:OPENAI_API_KEY")
    if not key.startswith("env:"):
        raise BadInput("A provider's key does not belong in a release.", 'Name its environment variable: "key": "env:OPENAI_API_KEY".')
    model = str(engine.get("model") or "gpt-4o-mini")

    async def serve(call: Call) -> Answer:
        body = {**call.inputs.params, "model": model, "messages": list(call.inputs.messages), "stream": call.inputs.stream}
        if call.inputs.stream:
            body["stream_options"] = {"include_usage": True}
            return Answer(_streamed(base, key, body))
        with span(call.trace, model, "LLM") as made:
            started = time.perf_counter()
            reply = b"".join([part async for part in _lines(base, key, body)])
            answer = orjson.loads(reply)
            choice, used = answer["choices"][0], answer.get("usage") or {}
            usage = Usage(used.get("prompt_tokens", 0), used.get("completion_tokens", 0), seconds=time.perf_counter() - started, model=model)
            made.attributes.update({"llm.model_name": model, "llm.provider": "openai", "llm.token_count.prompt": usage.tokens_in})
            made.attributes["llm.token_count.completion"] = usage.tokens_out
        return Answer(Message(choice["message"].get("content") or "", choice.get("finish_reason") or "stop"), usage=usage)

    return serve


async def _streamed(base: str, key: str, body: Mapping[str, Any]) -> AsyncIterator[Chunk]:
    reason = None
    usage = None
    async for line in _lines(base, key, body):
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or data == b"[DONE]":
            continue
        event = orjson.loads(data)
        if event.get("usage"):
            usage = Usage(event["usage"].get("prompt_tokens", 0), event["usage"].get("completion_tokens", 0), model=str(body["model"]))
        for choice in event.get("choices") or ():
            reason = choice.get("finish_reason") or reason
            if text := (choice.get("delta") or {}).get("content"):
                yield Chunk(text)
    yield Chunk("", reason or "stop", usage)


async def _lines(base: str, key: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
    import aiohttp

    token = os.environ.get(key.removeprefix("env:"), "")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{base}/chat/completions", data=orjson.dumps(body), headers=headers) as reply,
        ):
            if reply.status != 200:
                raise UpstreamFailed(f"{base} answered {reply.status}: {(await reply.text())[:300]}", f"Is {key} right, and the model there?")
            async for line in reply.content:
                yield line
    except aiohttp.ClientError as error:
        raise UpstreamFailed(f"{base} cannot be reached: {error}.", "Set OPENAI_BASE_URL, or base_url in the release's engine.") from error
