"""The recorder: the root span of each call and its predictions reach the telemetry log before the answer leaves.

A streamed answer is recorded when its stream ends or its reader leaves; the last chunk is held until then.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from everloop.core.limits import SPAN_ROWS
from everloop.core.principal import Principal
from everloop.core.types import Answer, Batch, Call, Chunk, Message, Predictions, Serve, Span, Usage
from everloop.serve.spans import plain
from everloop.serve.streams import reading
from everloop.serve.tools import ToolCalls

Write = Callable[[Principal, list[Span], list[dict[str, Any]]], Awaitable[Any]]


def record(inner: Serve, write: Write) -> Serve:
    """Wrap `inner` so that every call is recorded through `write(principal, spans, predictions)`, failed ones too."""

    async def serve(call: Call) -> Answer:
        started = time.perf_counter_ns()
        try:
            answer = await inner(call)
        except BaseException as error:
            if not isinstance(error, Exception):
                call.trace.attributes["everloop.cut"] = "the client left"
            await write(call.principal, _spans(call, started, None, Usage(), error), [])
            raise
        if answer.streams:
            return answer.replace(outputs=_stream(call, answer, started, write))
        many = isinstance(call.inputs, Batch) and call.inputs.n > SPAN_ROWS
        rows = await asyncio.to_thread(predictions_of, call, answer) if many else predictions_of(call, answer)
        await write(call.principal, _spans(call, started, _shown(answer.outputs), answer.usage, None), rows)
        return answer

    return serve


def predictions_of(call: Call, answer: Answer) -> list[dict[str, Any]]:
    """One row a prediction: id, event time, release, features and outputs. Empty for other answers."""
    if not isinstance(call.inputs, Batch) or not isinstance(answer.outputs, Predictions):
        return []
    release, trace = str(answer.release or ""), call.trace.trace_id
    return [
        {
            "prediction_id": f"{trace}-{row}",
            "trace_id": trace,
            "endpoint": call.endpoint,
            "at": call.trace.at,
            "release": release,
            "alias": call.trace.attributes.get("everloop.alias", ""),
            "user": call.params.get("user") or "",
            "session": call.params.get("session") or "",
            "features": row_of(call.inputs.columns, row),
            "outputs": row_of(answer.outputs.columns, row),
        }
        for row in range(answer.outputs.n)
    ]


def row_of(columns: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of equally long columns, as native Python values."""
    return {name: v.item() if hasattr(v := values[row], "item") else v for name, values in columns.items()}


async def _stream(call: Call, answer: Answer, started: int, write: Write) -> AsyncIterator[Chunk]:
    text: list[str] = []
    tools = ToolCalls()
    usage, reason, failed = answer.usage, "stop", None
    held: list[Chunk] = []
    ended = False
    try:
        async with reading(answer.outputs) as source:
            async for chunk in source:
                text.append(chunk.text)
                tools.add(chunk.tool_calls)
                usage, reason = chunk.usage or usage, chunk.finish_reason or reason
                if chunk.finish_reason or held:
                    held.append(chunk)
                else:
                    yield chunk
        ended = True
    except Exception as error:
        failed = error
        raise
    finally:
        if not ended and failed is None:
            call.trace.attributes["everloop.cut"] = "the client left"
        said = plain(Message("".join(text), reason, tool_calls=tools.calls()))
        await write(call.principal, _spans(call, started, said, usage, failed), [])
    for chunk in held:
        yield chunk


def _spans(call: Call, started: int, outputs: Any, usage: Usage, error: BaseException | None) -> list[Span]:
    predict = isinstance(call.inputs, Batch)
    begin = int(call.trace.at * 1e9)
    attributes = {
        "everloop.endpoint": call.endpoint,
        "everloop.principal": call.principal.name,
        **call.trace.attributes,
        **{to: call.params[key] for key, to in (("session", "session.id"), ("user", "user.id")) if call.params.get(key)},
    }
    if predict:
        attributes["everloop.rows"] = call.inputs.n
    if usage.tokens_in or usage.tokens_out:
        attributes.update({"llm.token_count.prompt": usage.tokens_in, "llm.token_count.completion": usage.tokens_out})
        if usage.cost is not None:
            attributes["llm.cost.total"] = usage.cost
    root = Span(
        call.trace.trace_id,
        call.trace.span_id,
        call.trace.parent_id,
        call.endpoint,
        "PREDICT" if predict else "CHAIN",
        begin,
        begin + time.perf_counter_ns() - started,
        "error" if error is not None else "ok",
        attributes,
        [] if error is None else [{"name": "exception", "attributes": {"exception.type": type(error).__name__, "exception.message": str(error)}}],
        _shown(call.inputs),
        outputs,
    )
    return without([root, *call.trace.spans], call.trace.hidden)


def _shown(value: Any) -> Any:
    """Inputs or outputs as a span keeps them: of a batch the first SPAN_ROWS rows, since each row is a prediction of its own in the record."""
    columns = getattr(value, "columns", None)
    if columns is None or value.n <= SPAN_ROWS:
        return plain(value)
    return {name: list(values[:SPAN_ROWS]) for name, values in columns.items()}


def without(spans: list[Span], hidden: Mapping[str, str]) -> list[Span]:
    """The spans with what a policy hides replaced, wherever it stands in their inputs, outputs, attributes and events."""
    if not hidden:
        return spans
    pattern = re.compile("|".join(re.escape(text) for text in sorted(hidden, key=len, reverse=True)))
    for span in spans:
        for name in ("inputs", "outputs", "attributes", "events"):
            setattr(span, name, _without(getattr(span, name), pattern, hidden))
    return spans


def _without(value: Any, pattern: re.Pattern[str], hidden: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(lambda found: hidden[found.group()], value)
    if isinstance(value, Mapping):
        return {k: _without(v, pattern, hidden) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without(v, pattern, hidden) for v in value]
    return value
