"""Traces: the list, and one interaction as a tree of spans with all that was said, found, checked and scored."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput
from everloop.core.limits import REASON_CHARS
from everloop.web.deps import check_csrf
from everloop.web.ui import spans as tree
from everloop.web.ui.messages import messages
from everloop.web.ui.page import Page

router = APIRouter(include_in_schema=False)
rights = {"call": ("POST /ui/traces/{trace_id}/feedback",)}
"""Who may use which route: see web/rights.py."""
SHOWN = 50
"""Traces on a page."""
ROWS = 25
"""Predictions of a trace on a page."""
FILTERS = ("endpoint", "release", "status", "user", "session")


@router.get("/ui/traces")
async def traces(page: Page) -> Response:
    """Traces, newest first, by endpoint, status, words, release, user, session and time."""
    ws, who = page.ws, page.who
    wanted: dict[str, Any] = {name: page.word(name) for name in FILTERS}
    text = page.word("text") or ""
    found = await ws.traces.list(who, **wanted, since=page.range.since, until=page.range.until, text=text, limit=SHOWN, cursor=page.word("cursor"))
    names = [e["name"] for e in (await ws.endpoints.list(who))["items"]]
    rows = [{**t, "asked": tree.preview(t["inputs"]), "answered": tree.preview(t["outputs"])} for t in found["items"]]
    filtered = bool(text or any(wanted.values()) or page.range.key != "all")
    return await page.render("traces.html", "Traces", traces=rows, next=found["next"], endpoints=names, filtered=filtered)


@router.get("/ui/traces/{trace_id}")
async def trace(page: Page, trace_id: str) -> Response:
    """One trace."""
    found = await page.ws.traces.get(page.who, trace_id)
    rows = tree.rows(found["spans"])
    head = rows[0]["span"] if rows else {}
    first = max(0, int(page.word("row") or 0) // ROWS * ROWS) if (page.word("row") or "0").isdigit() else 0
    every = sorted(found["predictions"], key=lambda p: (len(p["prediction_id"]), p["prediction_id"]))
    predictions = every[first : first + ROWS]
    names = [e["name"] for e in (await page.ws.endpoints.list(page.who))["items"]]
    scores = [s for s in found["scores"] if s["name"] != "label" or s["subject"] == trace_id]
    return await page.render(
        "trace.html",
        f"Trace {trace_id[:12]}",
        [("Traces", "/ui/traces")],
        trace=found,
        rows=rows,
        head=head,
        outcome=_outcome(head),
        usage=tree.usage(found["spans"]),
        passages=[p for row in rows for p in row["passages"]],
        guards=[row for row in rows if row["guard"]],
        predictions=predictions,
        first=first,
        total=len(every),
        page_rows=ROWS,
        scores=scores,
        labels=len(found["scores"]) - len(scores),
        served=head.get("endpoint") in names,
        columns=tree.columns(predictions),
        asked=messages(head.get("inputs")),
        answered=messages(head.get("outputs")),
    )


def _outcome(head: dict[str, Any]) -> str:
    """What became of a call: blocked by a guardrail, refused by the engine, or its span's status."""
    attributes = head.get("attributes") or {}
    return next((word for word in ("blocked", "refused") if attributes.get(f"everloop.{word}")), head.get("status") or "unset")


@router.post("/ui/traces/{trace_id}/feedback")
async def feedback(page: Page, request: Request, trace_id: str) -> Response:
    """A thumb, with a reason if one likes."""
    form = await request.form()
    check_csrf(request, form)
    value, why = str(form.get("value", "")), str(form.get("why", "")).strip()
    if value not in ("1", "-1"):
        raise BadInput(f"A thumb is {value!r}.", "It is 1 (up) or -1 (down).")
    if len(why) > REASON_CHARS:
        raise BadInput(f"The reason is {len(why)} characters long; at most {REASON_CHARS} are allowed.")
    await page.ws.traces.feedback(page.who, trace_id, int(value), why=why)
    return page.back(f"/ui/traces/{trace_id}", done="feedback")
