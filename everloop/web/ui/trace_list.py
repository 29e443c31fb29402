"""The table of traces: one filter line with completion, a histogram by status, columns, saved views, what is done with chosen ones, and a live tail."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from markupsafe import Markup

from everloop.assets import trace_query
from everloop.core.errors import BadInput
from everloop.core.limits import TAIL_ROWS
from everloop.web.api.exports import answer
from everloop.web.deps import check_csrf
from everloop.web.ui import spans as tree
from everloop.web.ui.page import Page, View
from everloop.web.ui.show import stamp

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/traces/views", "POST /ui/traces/chosen", "POST /ui/traces/{trace_id}/suite")}
"""Who may use which route: see web/rights.py."""
SHOWN = 50
"""Traces on a page."""
COLUMNS = {
    "endpoint": "Endpoint",
    "status": "Status",
    "asked": "Asked",
    "answered": "Answered",
    "ms": "Time",
    "tokens": "Tokens",
    "cost": "Cost",
    "scores": "Scores",
    "release": "Release",
    "model": "Model",
    "user": "User",
    "session": "Session",
    "name": "Name",
    "spans": "Spans",
    "id": "Id",
}
DEFAULT = ("endpoint", "status", "asked", "answered", "ms", "tokens", "cost", "scores")
NUMBERS = ("ms", "tokens", "cost", "spans")
FOLDED = ("endpoint", "release", "status", "user", "session")
"""Parts of older addresses, which become terms of the line."""
STATES = ("ok", "refused", "blocked", "error")
ACTIONS = {"suite": "Add to suite", "dataset": "Add to dataset", "queue": "Add to annotation queue", "replay": "Ask again of release"}
RUBRIC = [{"name": "quality", "type": "class", "classes": ["good", "bad"]}, {"name": "correction", "type": "text"}]
"""What a queue asks that is made on the page; a correction becomes the expected answer of a case."""
FORMATS = {
    "csv": "CSV",
    "jsonl": "JSON lines",
    "parquet": "Parquet",
    "openai-evals": "OpenAI evals",
    "fine-tuning": "Fine-tuning JSONL",
}


@router.get("/ui/traces")
async def traces(page: Page) -> Response:
    """Traces that fit, newest first."""
    line, problem = line_of(page), None
    shown: dict[str, Any] = {"traces": [], "next": None}
    drawn: dict[str, Any] = {"total": 0, "items": []}
    try:
        trace_query.parse(line)
        shown, drawn = await asyncio.gather(_rows(page, line), page.ws.trace_lines.histogram(page.who, line, page.range.since, page.range.until))
    except BadInput as error:
        if "start" not in error.details:
            raise
        problem = error
    views = await page.ws.trace_lines.views(page.who)
    now = urlencode([(k, v) for k, v in page.query.multi_items() if k != "cursor"])
    return await page.render(
        "traces.html",
        "Traces",
        line=line,
        problem=problem,
        marked=_marked(line, problem) if problem else None,
        histogram=picture(page, drawn),
        total=drawn["total"],
        columns=columns(page),
        every=COLUMNS,
        numbers=NUMBERS,
        views=[{**view, "href": f"/ui/traces?{view['query']}", "on": view["query"] == now} for view in views],
        now=now,
        formats=FORMATS,
        actions=ACTIONS,
        tail_rows=TAIL_ROWS,
        filtered=bool(line or page.range.key != "all"),
        scripts=["traces.js"],
        **shown,
    )


@router.get("/ui/traces/rows")
async def rows(page: Page) -> Response:
    """The newest rows alone, for a table that follows what arrives."""
    line = line_of(page)
    trace_query.parse(line)
    return await page.render(
        "traces_rows.html", "Traces", line=line, columns=columns(page), every=COLUMNS, numbers=NUMBERS, **await _rows(page, line)
    )


@router.get("/ui/traces/complete")
async def complete(page: Page) -> Response:
    """What can stand at a place of the filter line, as JSON."""
    at = page.query.get("at", "")
    return JSONResponse(await page.ws.trace_lines.complete(page.who, page.query.get("q", ""), int(at) if at.isdigit() else None))


@router.post("/ui/traces/views")
async def save_view(page: Page, request: Request) -> Response:
    """Save the view that is shown under a name, or remove one."""
    form = await request.form()
    check_csrf(request, form)
    name, query = str(form.get("name", "")).strip(), str(form.get("query", ""))
    if form.get("do") == "remove":
        await page.ws.trace_lines.remove_view(page.who, name)
    else:
        await page.ws.trace_lines.save_view(page.who, name, query)
    parts = parse_qsl(query)
    return page.back("/ui/traces?" + urlencode(parts) if parts else "/ui/traces")


@router.post("/ui/traces/chosen")
async def act(page: Page, request: Request) -> Response:
    """Something done with the chosen traces, or with all that match: added to a dataset, suite or queue, asked of another release, exported."""
    form = await request.form(max_fields=TAIL_ROWS * 2)
    check_csrf(request, form)
    what, name, wanted = str(form.get("do", "")), str(form.get("to", "")).strip(), chosen(page, form)
    if what == "export":
        return answer(await page.ws.exports.traces(page.who, _format(form), **wanted))
    if what not in ACTIONS:
        raise BadInput(f"Traces cannot be {what!r}.", f"Choose one of: {', '.join(ACTIONS)}.")
    if not name:
        raise BadInput("The name is empty.", f"Say which {'release' if what == 'replay' else what}, in the field beside the action.")
    if what == "replay":
        asked = await page.ws.actions.replay(page.who, name, **wanted)
        return await page.render("traces_replay.html", f"Asked again of {asked['release']}", [("Traces", "/ui/traces")], asked=asked)
    if what == "queue":
        there = [one["name"] for one in (await page.ws.labels.list(page.who, 500))["items"]]
        made = await page.ws.actions.queue(page.who, name, rubric=None if name in there else RUBRIC, **wanted)
    elif what == "suite":
        made = await page.ws.actions.suite(page.who, name, **wanted)
    else:
        made = await page.ws.actions.dataset(page.who, name, **wanted)
    return page.back("/ui/traces", q=str(form.get("q", "")), done=what, to=name, n=made["added"])


@router.post("/ui/traces/{trace_id}/suite")
async def add_case(page: Page, request: Request, trace_id: str) -> Response:
    """Make the trace a case of a suite, with the answer that should have been given."""
    form = await request.form()
    check_csrf(request, form)
    name, expected = str(form.get("suite", "")).strip(), str(form.get("expected", "")).strip()
    if not name:
        raise BadInput("The suite's name is empty.", "Name one that is there, or a new one.")
    if expected:
        await page.ws.traces.add_scores(page.who, [{"subject": trace_id, "name": "correction", "value": expected, "source": "user"}])
    made = await page.ws.actions.suite(page.who, name, traces=[trace_id])
    return page.back(f"/ui/traces/{trace_id}", q=page.word("q"), done="case", to=made["ref"])


@router.get("/ui/traces/export")
async def export(page: Page) -> Response:
    """The chosen traces, or all that match, as a file."""
    return answer(await page.ws.exports.traces(page.who, _format(page.query), **chosen(page, page.query)))


def _format(given: Any) -> str:
    format = str(given.get("format", ""))
    if format not in FORMATS:
        raise BadInput(f"Traces are not exported as {format!r}.", f"Export them as one of: {', '.join(FORMATS)}.")
    return format


def chosen(page: View, given: Any) -> dict[str, Any]:
    """Which traces a form chose: their ids, or the filter where all that match are meant."""
    ids = [str(one) for one in given.getlist("trace")]
    if given.get("all") == "1":
        return {"query": str(given.get("q", "")), "since": page.range.since, "until": page.range.until}
    if not ids:
        raise BadInput("No trace is chosen.", "Tick traces in the table, or tick “all that match”.")
    return {"traces": ids}


def line_of(page: View) -> str:
    """The filter line of the address, with what links of other pages give in parts of their own."""
    parts = [page.word("q") or ""] + [trace_query.term(name, value) for name in FOLDED if (value := page.word(name))]
    return " ".join(part for part in [*parts, page.word("text") or ""] if part)


def columns(page: View) -> list[str]:
    """The columns that are shown: those of the address, else the usual ones."""
    return [name for name in page.query.getlist("col") if name in COLUMNS] or list(DEFAULT)


async def _rows(page: View, line: str) -> dict[str, Any]:
    cursor = page.word("cursor")
    found = await page.ws.traces.list(page.who, query=line, since=page.range.since, until=page.range.until, limit=SHOWN, cursor=cursor)
    made = [{**t, "asked": tree.preview(t["inputs"]), "answered": tree.preview(t["outputs"])} for t in found["items"]]
    return {"traces": made, "next": found["next"]}


def _marked(line: str, problem: BadInput) -> Markup:
    """The line with the wrong part marked."""
    start, end = problem.details["start"], max(problem.details["end"], problem.details["start"] + 1)
    return Markup("{}<mark>{}</mark>{}").format(line[:start], line[start:end] or " ", line[end:])


def picture(page: View, drawn: dict[str, Any]) -> dict[str, Any] | None:
    """The histogram: bars of states by time, each a link to its time; None without traces."""
    items = drawn["items"]
    if not items:
        return None
    length, first = drawn["bucket_s"], items[0]["at"]
    count = round((items[-1]["at"] - first) / length) + 1
    top = max(sum(one[s] for s in STATES) for one in items)
    bars, rows = Markup(""), []
    for one in items:
        whole = sum(one[s] for s in STATES)
        place, low = round((one["at"] - first) / length), 0.0
        parts = Markup("")
        for state in STATES:
            if one[state]:
                high = max(1.5, 70 * one[state] / top)
                parts += Markup('<rect class="s-{}" x="{}" y="{:.2f}" width="8.6" height="{:.2f}"/>').format(
                    state, place * 10 + 0.7, 72 - low - high, high
                )
                low += high
        href = page.here(since=stamp(one["at"]), until=stamp(one["at"] + length), range=None, cursor=None)
        told = f"{stamp(one['at'])[:16].replace('T', ' ')}: " + ", ".join(f"{one[s]} {s}" for s in STATES if one[s])
        bars += Markup('<a href="{}" tabindex="-1"><title>{}</title>{}</a>').format(href, told, parts)
        rows.append({"at": one["at"], "href": href, "whole": whole, **one})
    label = f"{drawn['total']:,} traces by time and status; the figures are in the table below"
    svg = Markup('<svg viewBox="0 0 {} 72" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(count * 10, label, bars)
    states = [s for s in STATES if any(one[s] for one in items)]
    return {"svg": svg, "rows": rows, "since": first, "bucket": length, "count": count, "until": first + count * length, "states": states}
