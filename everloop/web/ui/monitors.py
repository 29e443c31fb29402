"""Monitors: what they saw window by window, the alarms, and what those started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.web.deps import check_csrf
from everloop.web.ui import charts
from everloop.web.ui.manifests import mapping
from everloop.web.ui.page import Page
from everloop.web.ui.show import piece

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/monitors/{name}/look",)}
"""Who may use which route: see web/rights.py."""
LOOKS = 500
"""Scores of a monitor that its page reads."""
SHOWN = 60
"""Scores in the table."""
ALERTS = 50


@router.get("/ui/monitors")
async def monitors(page: Page) -> Response:
    """All monitors with what they last saw, and recent alerts."""
    ws, who = page.ws, page.who
    found = await ws.monitors.list(who)
    wanted = (page.word("q") or "").lower()
    shown = [m for m in found if wanted in m["name"].lower() and page.word("verdict") in (None, (m["state"] or {}).get("verdict"))]
    alerts = [a for a in await ws.monitors.alerts(who, limit=ALERTS) if _within(page, a["event_at"])]
    return await page.render("monitors.html", "Monitors", monitors=shown, total=len(found), alerts=alerts)


@router.get("/ui/monitors/{name}")
async def monitor(page: Page, name: str) -> Response:
    """One monitor."""
    ws, who = page.ws, page.who
    found = await ws.monitors.get(who, name)
    looks = [s for s in await ws.monitors.looks(who, name, LOOKS) if _within(page, s["at"])]
    alerts = [a for a in await ws.monitors.alerts(who, name, ALERTS) if _within(page, a["event_at"])]
    state = found["state"] or {}
    series: dict[str, list[dict[str, Any]]] = {}
    for one in reversed(looks):
        series.setdefault(_named(one), []).append(one)
    return await page.render(
        "monitor.html",
        name,
        [("Monitors", "/ui/monitors")],
        m_=found,
        state=state,
        charts=[made for title, scores in sorted(series.items()) if (made := history(title, scores)) is not None],
        looks=looks[:SHOWN],
        alerts=alerts,
        moved=moved(state.get("scores") or []),
    )


@router.post("/ui/monitors/{name}/look")
async def look(page: Page, request: Request, name: str) -> Response:
    """Look at the window that ends now, and act on it as at any other time."""
    form = await request.form()
    check_csrf(request, form)
    seen = await page.ws.monitors.tick(page.who, name)
    return page.back(f"/ui/monitors/{piece(name)}", done=seen["verdict"])


def history(check: str, looks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A check's values over its windows, with the limit and the reference where the check tells them; None without a number."""
    if not any(s["value"] is not None for s in looks):
        return None
    x = [s["at"] for s in looks]
    lines: list[dict[str, Any]] = [{"label": check, "values": [s["value"] for s in looks], "joined": True}]
    limits = [mapping(s["details"]).get("limit") for s in looks]
    if any(isinstance(v, int | float) for v in limits):
        lines.append({"label": "limit", "values": limits, "dash": True, "tone": "bad"})
    references = [
        mapping(mapping(mapping(s["details"]).get("losses")).get("error")).get("reference", mapping(s["details"]).get("reference")) for s in looks
    ]
    if any(isinstance(v, int | float) for v in references):
        lines.append({"label": "at the gate", "values": references, "dash": True, "tone": "soft"})
    for side in ("low", "high"):
        if any(s[side] is not None for s in looks):
            lines.append({"label": side, "values": [s[side] for s in looks], "dash": True, "tone": "chart-1"})
    return charts.chart(check, x, lines, time=True)


def moved(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns that the last look compared, furthest moved first: [{"name", "statistic", "value", "beyond", "limit"}]."""
    found = []
    for score in scores:
        details = mapping(mapping(score).get("details"))
        for name, one in mapping(details.get("columns")).items():
            found.append({"name": name, "limit": details.get("limit"), **mapping(one)})
    number = lambda v: v if isinstance(v, int | float) else float("-inf")
    return sorted(found, key=lambda c: -number(c.get("beyond")))[:100]


def _named(score: dict[str, Any]) -> str:
    """What a score's series is called: a check that judges now by labels, now by inputs, has values of two sorts."""
    basis = mapping(score["details"]).get("basis")
    said = {"labels": "by labels", "drift": "by inputs", "estimate": "estimated"}.get(str(basis), "")
    return f"{score['name']}, {said}" if said else str(score["name"])


def _within(page: Any, at: float) -> bool:
    return (page.range.since is None or at >= page.range.since) and (page.range.until is None or at < page.range.until)
