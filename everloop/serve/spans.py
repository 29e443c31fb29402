"""Spans of a call: event time moved on by a monotonic clock, so a replay's spans lie where its call says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from everloop.core.clock import new_span_id
from everloop.core.types import Span, TraceContext


@contextmanager
def span(trace: TraceContext, name: str, kind: str) -> Iterator[Span]:
    """A child of the call's root span, appended to the trace when the block ends; status error if it raises."""
    shift = int((trace.at - time.time()) * 1e9) if trace.at and abs(trace.at - time.time()) > 3600 else 0
    made = Span(trace.trace_id, new_span_id(), trace.span_id, name, kind, time.time_ns() + shift, 0)
    try:
        yield made
        if made.status == "unset":
            made.status = "ok"
    except BaseException as error:
        made.status = "error"
        made.events.append({"name": "exception", "attributes": {"exception.message": str(error), "exception.type": type(error).__name__}})
        raise
    finally:
        made.end_ns = time.time_ns() + shift
        trace.spans.append(made)


def plain(inputs: Any) -> Any:
    """A call's inputs or outputs as JSON can carry them: messages of a chat, columns of a batch, the text of a message (all of one with tools)."""
    if getattr(inputs, "tool_calls", None):
        return {"role": "assistant", "content": inputs.text, "tool_calls": list(inputs.tool_calls)}
    for name in ("messages", "columns", "text"):
        found = getattr(inputs, name, None)
        if found is not None:
            return list(found) if name == "messages" else dict(found) if name == "columns" else found
    return inputs
