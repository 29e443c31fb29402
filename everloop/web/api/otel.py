"""Metrics and logs of OpenTelemetry clients, over REST; they are sent to /v1/metrics and /v1/logs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query

from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws, time_or_none

router = APIRouter(prefix="/api/v1/otel", tags=["otel"])


@router.get("/metrics")
async def metrics(who: Who, ws: Ws, text: str = "") -> dict[str, Any]:
    """The metrics there are, with type, unit and how many points and series; `text` occurs in the name."""
    return await ws.otel.metrics(who, text)


@router.get("/metrics/points")
async def points(
    who: Who,
    ws: Ws,
    name: str,
    since: str | None = None,
    until: str | None = None,
    where: list[str] = Query(default=[]),
    limit: int = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """A metric's points as they were sent, newest first. `where` is NAME=VALUE of an attribute, or resource.NAME=VALUE; several must all hold."""
    return await ws.otel.points(who, name, since=time_or_none(since), until=time_or_none(until), where=_where(where), limit=limit, cursor=cursor)


@router.get("/metrics/series")
async def series(
    who: Who,
    ws: Ws,
    name: str,
    figure: str | None = None,
    by: list[str] = Query(default=[]),
    where: list[str] = Query(default=[]),
    since: str | None = None,
    until: str | None = None,
    bucket_s: float | None = None,
) -> dict[str, Any]:
    """A metric over time, by attributes: avg, min, max, last of a gauge; increase, rate of a sum; count, avg, p95 of a histogram."""
    return await ws.otel.series(
        who, name, figure=figure, by=by, where=_where(where), since=time_or_none(since), until=time_or_none(until), bucket_s=bucket_s
    )


@router.get("/genai")
async def genai(who: Who, ws: Ws, since: str | None = None, until: str | None = None) -> dict[str, Any]:
    """What LLM clients measured (gen_ai.client.token.usage, gen_ai.client.operation.duration): calls, tokens and seconds by model, provider, operation and service."""
    return await ws.otel.genai(who, time_or_none(since), time_or_none(until))


@router.get("/logs")
async def logs(
    who: Who,
    ws: Ws,
    since: str | None = None,
    until: str | None = None,
    level: str | None = None,
    text: str = "",
    trace: str | None = None,
    event: str | None = None,
    where: list[str] = Query(default=[]),
    limit: int = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Log records, newest first. `level` is the lowest one shown (debug, info, warn, error), `text` occurs in the body."""
    return await ws.otel.logs(
        who,
        since=time_or_none(since),
        until=time_or_none(until),
        level=level,
        text=text,
        trace=trace,
        event=event,
        where=_where(where),
        limit=limit,
        cursor=cursor,
    )


def _where(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise BadInput(f"where={one!r} is no NAME=VALUE.", "For example: where=gen_ai.token.type=input")
        found[name] = value
    return found


rights = {
    "viewer": tuple(f"GET /api/v1/otel/{path}" for path in ("metrics", "metrics/points", "metrics/series", "genai", "logs")),
}
"""Who may use which route: see web/rights.py."""
