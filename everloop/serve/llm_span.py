"""The span of one question to an LLM, whole or streamed, in OpenInference's words; what was said lies in its inputs and outputs."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Any

import orjson

from everloop.core.types import Answer, Call, Chunk, Message, Serve, Span, Usage
from everloop.serve.spans import span
from everloop.serve.streams import reading
from everloop.serve.tools import ToolCalls

FIRST = "gen_ai.response.time_to_first_chunk"
"""Seconds until the first text or tool call of a stream."""


def traced(inner: Serve, engine: Mapping[str, Any]) -> Serve:
    """`inner`, an LLM engine, with a span a call: model, provider, tokens, cost, parameters, messages; on streams the time to the first chunk."""
    name = str(engine.get("model") or engine.get("name") or "llm")

    async def serve(call: Call) -> Answer:
        started = time.perf_counter()
        with ExitStack() as stack:
            made = stack.enter_context(span(call.trace, name, "LLM"))
            made.inputs = list(call.inputs.messages)
            made.attributes["llm.model_name"] = name
            if call.inputs.params:
                made.attributes["llm.invocation_parameters"] = orjson.dumps(dict(call.inputs.params), default=str).decode()
            answer = await inner(call)
            if not answer.streams:
                message: Any = answer.outputs
                made.outputs = [_said(message)]
                count(made, answer.usage, name)
                made.attributes["llm.finish_reason"] = message.finish_reason
                return answer
            return answer.replace(outputs=_streamed(answer, made, stack.pop_all(), started, name))

    return serve


async def _streamed(answer: Answer, made: Span, stack: ExitStack, started: float, name: str) -> AsyncIterator[Chunk]:
    text: list[str] = []
    tools, reason, usage = ToolCalls(), "", answer.usage
    try:
        async with reading(answer.outputs) as source:
            async for chunk in source:
                if FIRST not in made.attributes and (chunk.text or chunk.tool_calls):
                    made.attributes[FIRST] = round(time.perf_counter() - started, 6)
                text.append(chunk.text)
                tools.add(chunk.tool_calls)
                reason, usage = chunk.finish_reason or reason, chunk.usage or usage
                yield chunk
    except GeneratorExit:
        made.attributes["everloop.cut"] = "the reader left"
        made.status = "ok"
    except BaseException:
        if not stack.__exit__(*sys.exc_info()):
            raise
    finally:
        made.outputs = [_said(Message("".join(text), tool_calls=tools.calls()))]
        count(made, usage, name)
        if reason:
            made.attributes["llm.finish_reason"] = reason
        stack.close()


def count(made: Span, usage: Usage, name: str) -> None:
    """Put what a question used on its span. Tokens that no one counted are left out."""
    told: dict[str, Any] = {"llm.model_name": usage.model or name, "llm.provider": usage.provider or None, "llm.cost.total": usage.cost}
    if usage.tokens_in or usage.tokens_out:
        told.update({"llm.token_count.prompt": usage.tokens_in, "llm.token_count.completion": usage.tokens_out})
        told["llm.token_count.total"] = usage.tokens_in + usage.tokens_out
        told["llm.token_count.prompt_details.cache_read"] = usage.tokens_cached or None
        told["llm.token_count.completion_details.reasoning"] = usage.tokens_reasoning or None
    made.attributes.update({k: v for k, v in told.items() if v is not None})


def _said(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": message.text}
    if message.tool_calls:
        said["tool_calls"] = [dict(c) for c in message.tool_calls]
    return said
