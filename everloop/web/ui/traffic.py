"""Traffic over all endpoints as figures and charts, sessions as conversations."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from everloop.assets.trace_query import term
from everloop.web.ui import charts
from everloop.web.ui import spans as tree
from everloop.web.ui.messages import messages
from everloop.web.ui.page import Page

router = APIRouter(include_in_schema=False)
SHOWN = 50
"""Sessions on a page."""
TURNS = 100
"""Traces of a session on a page."""
SLICES = ("endpoint", "release", "model", "user", "session", "principal", "name")
"""What the traffic page can be broken down by."""


@router.get("/ui/traffic")
async def traffic(page: Page) -> Response:
    """Volume, latency, cost, tokens over time; the same by model, user, endpoint or release; what guardrails did; verdicts of users."""
    ws, who, since, until = page.ws, page.who, page.range.since, page.range.until
    endpoint = page.word("endpoint")
    by = page.word("by") if page.word("by") in SLICES else SLICES[0]
    series, rows, whole, guards, listed = await asyncio.gather(
        ws.traces.series(who, since, until, endpoint=endpoint),
        ws.reports.breakdown(who, str(by), endpoint=endpoint, since=since, until=until, limit=SHOWN),
        ws.reports.breakdown(who, "endpoint", endpoint=endpoint, since=since, until=until),
        ws.reports.guardrails(who, endpoint=endpoint, since=since, until=until),
        ws.endpoints.list(who),
    )
    return await page.render(
        "traffic.html",
        "Traffic",
        charts=charts.traffic(series),
        rows=rows,
        by=by,
        slices=SLICES,
        term=term,
        totals=_totals(whole),
        guards=guards,
        endpoints=[e["name"] for e in listed["items"]],
    )


@router.get("/ui/sessions")
async def sessions(page: Page) -> Response:
    """Sessions, the one that went on last first."""
    found = await page.ws.reports.sessions(
        page.who,
        endpoint=page.word("endpoint"),
        user=page.word("user"),
        since=page.range.since,
        until=page.range.until,
        limit=SHOWN,
        cursor=page.word("cursor"),
    )
    rows = [{**s, "asked": tree.preview(s["first"])} for s in found["items"]]
    filtered = bool(page.word("endpoint") or page.word("user") or page.range.key != "all")
    return await page.render("sessions.html", "Sessions", sessions=rows, next=found["next"], filtered=filtered)


@router.get("/ui/sessions/{session:path}")
async def session(page: Page, session: str) -> Response:
    """One session: its traces as the turns of a conversation, the last TURNS of them on the first page."""
    found = await page.ws.traces.list(page.who, session=session, limit=TURNS, cursor=page.word("cursor"))
    turns = [_turn(t) for t in reversed(found["items"])]
    title = f"Session {session if len(session) <= 40 else session[:39] + '…'}"
    return await page.render("session.html", title, [("Sessions", "/ui/sessions")], session=session, turns=turns, earlier=found["next"])


def _turn(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace as one turn: what the user said last, and what was answered."""
    asked, answered = messages(trace["inputs"]), tree.messages(trace["outputs"])
    said = [m for m in asked or () if m["role"] in ("user", "")]
    return {**trace, "asked": said[-1]["text"] if said else None, "answered": answered[-1]["text"] if answered else None}


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    add = lambda key: sum(row[key] or 0 for row in rows)
    calls = add("calls")
    return {
        "calls": calls,
        "errors": add("errors"),
        "blocked": add("blocked"),
        "cost": add("cost") if any(row["cost"] is not None for row in rows) else None,
        "tokens": add("tokens_in") + add("tokens_out"),
        "up": add("up"),
        "down": add("down"),
    }
