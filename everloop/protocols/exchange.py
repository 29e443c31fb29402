"""One HTTP exchange of a chat in raw ASGI: JSON in, JSON or server-sent events out; when the client leaves, the work is dropped at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from everloop.core.errors import BadInput, EverloopError, TooLarge
from everloop.core.limits import CHAT_CHARS
from everloop.core.types import Answer

T = TypeVar("T")
Headers = Sequence[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """There is no one to answer any more."""


class Exchange:
    """A request and its answer."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.left = False

    async def ask(self) -> dict[str, Any]:
        """The request's JSON object; BadInput if it is none. Raises ClientLeft."""
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        try:
            body = orjson.loads(b"".join(parts))
        except ValueError as error:
            raise BadInput(f"The body is not JSON: {error}.") from None
        if not isinstance(body, dict):
            raise BadInput("The body must be a JSON object.")
        return body

    async def while_there(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the client leaves: then ClientLeft is raised."""
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.get_running_loop().create_task(self._watch(task))
        try:
            return await work
        except asyncio.CancelledError:
            if not self.left:
                raise
            task.uncancel()
            raise ClientLeft from None
        finally:
            watch.cancel()

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            continue
        self.left = True
        task.cancel()

    async def json(self, body: Any, status: int = 200, headers: Headers = ()) -> None:
        """Answer with JSON."""
        data = orjson.dumps(body, default=str)
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": data})

    async def refuse(self, error: EverloopError, body: Any, status: int | None = None) -> None:
        """Answer an error, in its protocol's words, with when to come back where that is known."""
        known, retry = failure(error)
        await self.json(body, status or known, [(b"retry-after", str(max(1, round(retry))).encode())] if retry else [])

    async def events(self, pieces: AsyncIterator[bytes], headers: Headers = ()) -> None:
        """Answer with server-sent events as they come; what makes them is closed when the client leaves."""
        head = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *headers]
        await self.send({"type": "http.response.start", "status": 200, "headers": head})

        async def write() -> None:
            async with contextlib.aclosing(pieces) as source:  # type: ignore[type-var]
                async for piece in source:
                    await self.send({"type": "http.response.body", "body": piece, "more_body": True})
            await self.send({"type": "http.response.body", "body": b""})

        await self.while_there(write())


def headers_of(answer: Answer, trace_id: str) -> list[tuple[bytes, bytes]]:
    """Headers that name the trace and the release behind an answer."""
    return [(b"x-everloop-trace-id", trace_id.encode()), (b"x-everloop-release", str(answer.release or "").encode())]


def ours(answer: Answer, trace_id: str) -> dict[str, Any]:
    """What everloop adds to another protocol's answer, under the key `everloop`: the trace, the release, what is cited, what the policy did."""
    notes = answer.notes
    return {
        "trace_id": trace_id,
        "release": str(answer.release or ""),
        "citations": list(notes.get("citations") or ()),
        "blocked": bool(notes.get("blocked")),
        "refused": bool(notes.get("refused")),
        "flags": [{k: f.get(k) for k in ("rule", "stage", "action")} for f in notes.get("flags") or ()],
    }


def failure(error: EverloopError) -> tuple[int, float | None]:
    """(status, seconds after which to come back) of an error: a provider's refusal of the request itself, and its "too many", are passed on."""
    retry = getattr(error, "retry_after", None) or error.details.get("retry_after")
    said = error.details.get("upstream_status")
    return (said if said in (400, 413, 422, 429) else error.status), retry


def check_size(messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any] | None = None) -> None:
    """TooLarge for messages and parameters with over CHAT_CHARS characters; each value counts for one at least."""
    left, waiting = CHAT_CHARS, [messages, params]
    while waiting and left >= 0:
        value: Any = waiting.pop()
        if isinstance(value, str):
            left -= len(value) + 1
        elif isinstance(value, Mapping):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        else:
            left -= 1
    if left < 0:
        raise TooLarge(f"The messages have over {CHAT_CHARS} characters.", "Send fewer or shorter messages.")
