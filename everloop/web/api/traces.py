"""Traces, scores and figures about traffic over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Query

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws, time_or_none

router = APIRouter(prefix="/api/v1", tags=["traces"])
DAY = 86400.0


@router.get("/traces")
async def list_traces(
    who: Who,
    ws: Ws,
    endpoint: str | None = None,
    status: str | None = None,
    release: str | None = None,
    user: str | None = None,
    session: str | None = None,
    since: str | None = None,
    until: str | None = None,
    text: str = "",
    query: str = "",
    limit: int = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Traces, newest first; since and until are ISO 8601 or epoch seconds, text searches inputs and outputs, query is a filter
    line such as: endpoint:tutor status:error ms>2000 score.thumbs<0 "free text"."""
    return await ws.traces.list(
        who,
        endpoint=endpoint,
        status=status,
        release=release,
        user=user,
        session=session,
        since=time_or_none(since),
        until=time_or_none(until),
        text=text,
        query=query,
        limit=limit,
        cursor=cursor,
    )


@router.get("/traces/{trace_id}")
async def trace(who: Who, ws: Ws, trace_id: str) -> dict[str, Any]:
    """One trace with its spans, predictions and scores."""
    return await ws.traces.get(who, trace_id)


@router.post("/traces/{trace_id}/feedback", status_code=201)
async def add_feedback(who: Who, ws: Ws, trace_id: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """A user's verdict on an answer: {"value": 1 or -1, "why"?, "name"?: "thumbs", "source"?: "user"}. Durable when answered."""
    if "value" not in body:
        raise BadInput("The field 'value' is missing.", 'Send {"value": 1} for a thumb up, {"value": -1} for a thumb down.')
    more = {key: str(body[key]) for key in ("why", "name", "source") if body.get(key)}
    return await ws.traces.feedback(who, trace_id, body["value"], **more)


@router.post("/scores", status_code=201)
async def add_scores(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Add scores: {"scores": [{"subject", "name", "value", "source"?, "why"?, "at"?}]}, or one such object alone. Durable when answered."""
    scores = body.get("scores", [body] if "subject" in body else None)
    if not isinstance(scores, list) or not all(isinstance(score, dict) for score in scores):
        raise BadInput("The field 'scores' is missing or is not a list of objects.", 'Send {"scores": [{"subject", "name", "value"}]}.')
    return await ws.traces.add_scores(who, scores)


@router.get("/scores")
async def scores(who: Who, ws: Ws, subject: str) -> dict[str, Any]:
    """Scores of a trace or prediction, oldest first."""
    return {"items": await ws.traces.scores(who, subject), "next": None}


@router.get("/stats")
async def stats(
    who: Who, ws: Ws, since: str | None = None, until: str | None = None, bucket_s: float = 3600.0, endpoint: str | None = None
) -> dict[str, Any]:
    """Traffic by time bucket: count, errors, p50 and p95 latency in ms, cost in US dollars, tokens. The last day when not told."""
    end = ws.clock.now() if until is None else from_iso(until)
    begin = end - DAY if since is None else from_iso(since)
    return {"items": await ws.traces.stats(who, begin, end, bucket_s, endpoint), "since": begin, "until": end}


@router.get("/stats/histogram")
async def histogram(
    who: Who, ws: Ws, edges_ms: list[float] = Query(), endpoint: str | None = None, since: str | None = None, until: str | None = None
) -> dict[str, Any]:
    """How many calls took how long, between the given edges in milliseconds."""
    return await ws.traces.histogram(who, edges_ms, endpoint=endpoint, since=time_or_none(since), until=time_or_none(until))


rights = {
    "call": (
        "POST /api/v1/scores",
        "POST /api/v1/traces/{trace_id}/feedback",
    ),
    "viewer": (
        "GET /api/v1/traces",
        "GET /api/v1/traces/{trace_id}",
        "GET /api/v1/scores",
        "GET /api/v1/stats",
        "GET /api/v1/stats/histogram",
    ),
}
"""Who may use which route: see web/rights.py."""
