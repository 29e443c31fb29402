"""A trace: one interaction as a tree of spans with all that was said, found, checked and scored."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput
from everloop.core.limits import REASON_CHARS
from everloop.web.deps import check_csrf
from everloop.web.ui import spans as tree
from everloop.web.ui.messages import messages
from everloop.web.ui.page import Page

router = APIRouter(include_in_schema=False)
rights = {"call": ("POST /ui/traces/{trace_id}/feedback", "POST /ui/traces/{trace_id}/score")}
"""Who may use which route: see web/rights.py."""
ROWS = 25
"""Predictions of a trace on a page."""


@router.get("/ui/traces/{trace_id}")
async def trace(page: Page, trace_id: str) -> Response:
    """One trace."""
    line = page.word("q") or ""
    found = await page.ws.traces.get(page.who, trace_id)
    beside = await page.ws.trace_lines.neighbours(page.who, trace_id, line, page.range.since, page.range.until)
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
        line=line,
        beside=beside,
        scripts=["traces.js"],
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


@router.post("/ui/traces/{trace_id}/score")
async def score(page: Page, request: Request, trace_id: str) -> Response:
    """A score by name: a number where the value is one, else a word."""
    form = await request.form()
    check_csrf(request, form)
    name, value, why = (str(form.get(key, "")).strip() for key in ("name", "value", "why"))
    if not name or not value:
        raise BadInput("A score needs a name and a value.", "For example: helpful and 4, or tone and friendly.")
    if max(len(name), len(value), len(why)) > REASON_CHARS:
        raise BadInput(f"A part of the score is longer than {REASON_CHARS} characters.")
    await page.ws.traces.get(page.who.reading(), trace_id)
    await page.ws.traces.add_scores(page.who, [{"subject": trace_id, "name": name, "value": _value(value), "source": "user", "why": why}])
    await page.ws.telemetry.flush()
    return page.back(f"/ui/traces/{trace_id}", q=page.word("q"), done="score")


def _value(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
