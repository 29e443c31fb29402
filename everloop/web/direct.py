"""Hot requests of protocols, answered right below the sign-in layer: a dict look-up by method and path instead of FastAPI's routes.

A module of `protocols/` that has such says `direct(ws)`: {(method, path): handler}. A handler gets the principal, the body and the query and answers the
bytes of a JSON answer with status 200, or None: then the request goes on to the route proper as if nothing had been. So a handler takes only what is plainly
right, and all that needs judging or refusing is written once, in the route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from everloop.core.principal import Principal

Handler = Callable[[Principal, bytes, bytes], Awaitable[bytes | None]]
JSON = (b"content-type", b"application/json")


class Direct:
    """Raw ASGI middleware, the innermost one: what signs in, bounds bodies and writes headers lies round it."""

    def __init__(self, app: Any, table: Mapping[tuple[str, str], Handler]) -> None:
        self.app, self.table = app, table

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or hand on."""
        handler = self.table.get((scope["method"], scope["path"])) if scope["type"] == "http" and not scope.get("root_path") else None
        if handler is None:
            await self.app(scope, receive, send)
            return
        message = await receive()
        if message["type"] != "http.request":  # the client has gone
            return
        parts = [message.get("body", b"")]
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                return
            parts.append(message.get("body", b""))
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        answer = await handler(scope["everloop.who"], body, scope["query_string"])
        if answer is None:
            await self.app(scope, _again(body, receive), send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [JSON, (b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})


def _again(body: bytes, receive: Any) -> Any:
    """A `receive` that gives a body that was read already, then goes on."""
    given = False

    async def replay() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
