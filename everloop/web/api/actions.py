"""Bulk actions on traces over REST, and traces as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Body
from starlette.responses import StreamingResponse

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["traces"])
FILTERS = ("endpoint", "status", "release", "user", "session", "since", "until", "text", "query")
SELECTION = ("traces", "score", "limit", *FILTERS)
QUIET_LOOKS = 20
"""Looks without a trace after which a comment keeps the stream open."""


@router.post("/traces/actions/dataset", status_code=201)
async def add_to_dataset(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Add traces to a dataset: {dataset, of?: traces or predictions, and a selection: traces: [ids], or filters of /traces, score?, limit?}."""
    return await ws.actions.dataset(who, _text(body, "dataset"), of=body.get("of"), **_selection(body, "dataset", "of"))


@router.post("/traces/actions/suite", status_code=201)
async def add_to_suite(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Add traces to a suite as cases: {suite, tags?, and a selection}."""
    return await ws.actions.suite(who, _text(body, "suite"), tags=_texts(body, "tags"), **_selection(body, "suite", "tags"))


@router.post("/traces/actions/queue", status_code=201)
async def add_to_queue(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Put traces into an annotation queue: {queue, rubric? (makes the queue), and a selection}."""
    return await ws.actions.queue(who, _text(body, "queue"), rubric=body.get("rubric"), **_selection(body, "queue", "rubric"))


@router.post("/traces/actions/replay")
async def replay(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Ask a release what traces were asked, nothing recorded as traffic: {to: release, checks?, and a selection}."""
    return await ws.actions.replay(who, _text(body, "to"), checks=_texts(body, "checks"), **_selection(body, "to", "checks"))


@router.get("/traces/tail")
async def tail(
    who: Who,
    ws: Ws,
    endpoint: str | None = None,
    status: str | None = None,
    release: str | None = None,
    user: str | None = None,
    session: str | None = None,
    text: str = "",
    seconds: float = 3600.0,
) -> StreamingResponse:
    """Traces as they come, as server-sent events (`event: trace`, data: an item of /traces), for so many seconds at most."""
    filters = {"endpoint": endpoint, "status": status, "release": release, "user": user, "session": session, "text": text}
    found = await ws.tail.traces(who, seconds, **filters)

    async def events() -> AsyncIterator[bytes]:
        quiet = 0
        yield b": watching\n\n"
        async for items in found:
            for item in items:
                yield b"event: trace\nid: " + item["trace_id"].encode() + b"\ndata: " + orjson.dumps(item, default=str) + b"\n\n"
            quiet = 0 if items else quiet + 1
            if quiet and quiet % QUIET_LOOKS == 0:
                yield b": still watching\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-cache", "x-accel-buffering": "no"})


def _selection(body: dict[str, Any], *own: str) -> dict[str, Any]:
    if unknown := sorted(set(body) - {*SELECTION, *own}):
        raise BadInput(f"This action has no {', '.join(unknown)}.", f"It has: {', '.join((*own, *SELECTION))}.")
    chosen = {key: body[key] for key in SELECTION if body.get(key) not in (None, "")}
    if not chosen:
        raise BadInput("Nothing is selected.", 'Give "traces": [ids], or a filter such as "endpoint", "since", "session".')
    if "traces" in chosen:
        chosen["traces"] = _texts(chosen, "traces")
    for key in ("since", "until"):
        if key in chosen:
            chosen[key] = from_iso(str(chosen[key]))
    if isinstance(chosen.get("limit", 1), bool) or not isinstance(chosen.get("limit", 1), int) or chosen.get("limit", 1) < 1:
        raise BadInput(f"limit={chosen['limit']!r} is no whole number above 0.")
    wrong = [key for key, value in chosen.items() if key not in ("traces", "limit", "since", "until") and not isinstance(value, str)]
    if wrong:
        raise BadInput(f"{', '.join(wrong)} must be text.")
    return chosen


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadInput(f"The field {name!r} is missing.", f'For example: {{"{name}": "NAME", "traces": [...]}}')
    return value.removeprefix(f"{name}:")


def _texts(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadInput(f"{name} is not a list of texts.")
    return value


rights = {
    "editor": (
        "POST /api/v1/traces/actions/dataset",
        "POST /api/v1/traces/actions/suite",
        "POST /api/v1/traces/actions/queue",
        "POST /api/v1/traces/actions/replay",
    ),
    "viewer": ("GET /api/v1/traces/tail",),
}
"""Who may use which route: see web/rights.py."""
