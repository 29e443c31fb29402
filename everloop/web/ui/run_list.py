"""The table of runs: filter, columns, order, groups, and what is done with chosen runs. Each view is an address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from everloop.assets import run_filter, run_table
from everloop.assets.runs import KINDS, STATUSES
from everloop.core.clock import iso
from everloop.core.csv_text import lines
from everloop.core.errors import BadInput
from everloop.core.limits import RUN_GROUPS, RUNS_CHANGED, RUNS_EXPORTED
from everloop.core.principal import Role
from everloop.web.deps import check_csrf
from everloop.web.ui import run_columns
from everloop.web.ui.page import Page, View
from everloop.web.ui.run_columns import Column

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/runs/chosen",)}
"""Who may use which route: see web/rights.py."""
SIZES = (25, 50, 100, 200)
"""Rows on a page of the table that can be chosen; the second when not told."""
GROUP_METRICS = 4
"""Metrics whose mean, least and greatest value the table of groups shows at most."""
EXPORT_PAGE = 500
KEPT = ("filter", "q", "kind", "status", "experiment", "view", "order", "group", "n")
"""Parts of the address that a form of the table keeps, besides columns and the time range."""


@router.get("/ui/runs")
async def runs(page: Page) -> Response:
    """Runs that fit, newest first or by any column; or in groups."""
    problem, experiments = None, (await page.ws.runs.experiments(page.who, limit=200))["items"]
    shown: dict[str, Any] = {"runs": [], "next": None, "columns": [], "groups": None, "total": 0}
    try:
        shown |= await (_groups(page) if page.word("group") else _rows(page))
    except BadInput as error:
        problem = error
    return await page.render(
        "runs.html",
        "Runs",
        problem=problem,
        experiments=[e["name"] for e in experiments],
        kinds=KINDS,
        statuses=STATUSES,
        sizes=SIZES,
        size=_size(page),
        kept={key: page.query.getlist(key) for key in (*KEPT, "col", "pin")},
        filtered=any(page.word(key) for key in (*KEPT, "cursor")) or bool(page.range.query),
        scripts=["runs.js"],
        **shown,
    )


@router.get("/ui/runs/columns")
async def columns(page: Page) -> Response:
    """The column picker: all keys that runs have, those shown ticked."""
    found = await page.ws.runs.keys(page.who, **wanted(page))
    on = {c.name: c for c in run_columns.chosen(page, [])} if page.query.getlist("col") or page.query.getlist("columns") else {}
    if not on:
        first = (await _search(page, 50))["items"]
        on = {c.name: c for c in run_columns.chosen(page, first)}
    sides = [("attributes", [{"key": key, "label": label, "runs": None} for key, (label, _) in run_columns.ATTRIBUTES.items()])]
    sides += [(side, [{**one, "label": one["key"]} for one in found[side]]) for side in run_columns.SIDES]
    back = "/ui/runs"
    return await page.render("runs_columns.html", "Columns", [("Runs", back)], sides=sides, on=on, kept={k: page.query.getlist(k) for k in KEPT})


@router.get("/ui/runs/export")
async def export(page: Page) -> Response:
    """The table as CSV: all runs that fit, or those chosen, with the columns shown (all there are when none are named)."""
    ids = page.query.getlist("run")
    named = await page.ws.runs.many(page.who, _chosen(ids)) if ids else None
    if named is None:
        await _search(page, 1)  # a filter that cannot be is told before the file begins
    headers = {"content-disposition": 'attachment; filename="runs.csv"'}
    return StreamingResponse(_csv(page, named), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/ui/runs/chosen")
async def chosen(page: Page) -> Response:
    """The runs that were chosen, and what can be done with them."""
    ids = _chosen(page.query.getlist("run"))
    found = await page.ws.runs.many(page.who, ids)
    return await page.render("runs_chosen.html", f"{len(found)} chosen run{'s' if len(found) != 1 else ''}", [("Runs", "/ui/runs")], runs=found)


@router.post("/ui/runs/chosen")
async def change(page: Page, request: Request) -> Response:
    """Tag, delete or restore chosen runs."""
    form = await request.form(max_fields=RUNS_CHANGED + 10)
    check_csrf(request, form)
    page.who.need(Role.editor, "change runs")
    ids = _chosen([str(one) for one in form.getlist("run")])
    what = str(form.get("do", ""))
    if what == "tag":
        key = str(form.get("key", "")).strip()
        if not key:
            raise BadInput("The tag's key is empty.", "Give a word such as: team")
        await page.ws.runs.change_many(page.who, ids, tags={key: str(form.get("value", ""))})
    elif what in ("delete", "restore"):
        await page.ws.runs.change_many(page.who, ids, deleted=what == "delete")
    else:
        raise BadInput(f"Runs cannot be changed by {what!r}.", "Choose one of: tag, delete, restore.")
    if what == "delete":
        return page.back("/ui/runs", gone=len(ids))
    return page.back("/ui/runs/chosen", run=ids, done=what)


def _chosen(ids: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(id for id in ids if id))
    if not 1 <= len(found) <= RUNS_CHANGED:
        raise BadInput(f"{len(found)} runs are chosen.", f"Choose 1 to {RUNS_CHANGED} in the list of runs.")
    return found


def wanted(page: View) -> dict[str, Any]:
    """What the address asks of runs, as arguments of the facade's `search`, `count` and `groups`."""
    view = page.word("view") or "active"
    parts = {"kind": page.word("kind"), "text": page.word("q") or "", "view": view, "experiment": page.word("experiment")}
    return {"filter": filter_line(page), **parts}


def filter_line(page: View) -> str:
    """The filter that was typed, with the time range and the status joined on. What was typed is checked by itself first, so that an error shows it alone."""
    typed = page.word("filter") or ""
    run_filter.parse(typed, run_filter.RUNS)
    parts = [typed]
    if page.word("status"):
        parts.append(f"attributes.status = {run_table.quoted(page.word('status') or '')}")
    if page.range.since is not None:
        parts.append(f"attributes.start_time >= {int(page.range.since * 1000)}")
    if page.range.until is not None:
        parts.append(f"attributes.start_time < {int(page.range.until * 1000)}")
    return " and ".join(part for part in parts if part)


async def _search(page: View, limit: int, cursor: str | None = None) -> dict[str, Any]:
    order = page.word("order")
    asked = wanted(page)
    found: dict[str, Any] = await page.ws.runs.search(page.who, limit=limit, cursor=cursor, order_by=[order] if order else None, **asked)
    return found


def _size(page: View) -> int:
    told = page.query.get("n", "")
    return int(told) if told.isdigit() and int(told) in SIZES else SIZES[1]


async def _rows(page: View) -> dict[str, Any]:
    asked = wanted(page)  # a filter that cannot be is told before either begins
    searching = _search(page, _size(page), page.word("cursor"))
    found, total = await asyncio.gather(searching, page.ws.runs.count(page.who, **asked))  # each reads in a thread of its own
    columns = run_columns.chosen(page, found["items"])
    heads = [_head(page, column) for column in columns]
    return {"runs": found["items"], "next": found["next"], "columns": columns, "heads": heads, "total": total}


def _head(page: View, column: Column) -> dict[str, Any]:
    """A column's heading: where it leads (the other way round when it is the order already), and how it is ordered now."""
    by, now = column.order, page.word("order") or ""
    state = "descending" if now == f"{by} DESC" else "ascending" if by and now in (by, f"{by} ASC") else ""
    href = page.here(order=f"{by} {'ASC' if state == 'descending' else 'DESC'}", cursor=None) if by else ""
    pins = page.query.getlist("pin")
    pin = [p for p in pins if p != column.name] if column.pinned else [*pins, column.name]
    cols = page.query.getlist("col")
    return {"column": column, "href": href, "state": state, "pin": page.here(pin=pin, col=cols), "pinned": column.pinned}


async def _groups(page: View) -> dict[str, Any]:
    by = page.word("group") or ""
    columns = [c for c in run_columns.chosen(page, []) if c.side == "metrics"]
    if not columns:
        first = (await _search(page, 50))["items"]
        columns = [c for c in run_columns.fitting(first) if c.side == "metrics"]
    columns = columns[:GROUP_METRICS]
    found = await page.ws.runs.groups(page.who, by, [c.key for c in columns], **wanted(page))
    items = [{**one, "href": _inside(page, by, one["value"])} for one in found["items"]]
    how, _, key = (page.word("sort") or "").partition(":")
    if how in ("mean", "min", "max"):
        items = [one for one in items if key in one["metrics"]]
        value = lambda one: one["metrics"][key][how]
        items.sort(key=lambda one: (value(one) is None, -(value(one) or 0.0)))
    return {"groups": items, "columns": columns, "by": by, "most": RUN_GROUPS if found["more"] else 0, "total": sum(one["runs"] for one in items)}


def _inside(page: View, by: str, value: str | None) -> str:
    """The address of the runs of a group; "" where the filter cannot say it."""
    if by == "experiment":
        return page.here(group=None, sort=None, experiment=value)
    side, _, key = by.removeprefix("attributes.").partition(".")
    name = run_table.named(side, key) if key else f"attributes.{side}"
    clause = f"{name} IS NULL" if value is None else f"{name} = {run_table.quoted(value)}"
    if not name or (value is None and not key):
        return ""
    try:
        read = run_filter.parse(clause, run_filter.RUNS)
    except BadInput:
        return ""
    if len(read) != 1 or read[0].value != value:
        return ""
    return page.here(group=None, sort=None, filter=" and ".join(part for part in (page.word("filter"), clause) if part))


async def _csv(page: View, named: list[dict[str, Any]] | None) -> AsyncIterator[bytes]:
    """Rows of the file, a page of runs at a time; of `named` runs only where some are."""
    told = run_columns.chosen(page, []) if page.query.getlist("col") else []
    if not told:
        found = await page.ws.runs.keys(page.who, **wanted(page))
        told = [Column("attributes", key) for key in run_columns.ATTRIBUTES if key != "id"]
        told += [Column(side, one["key"]) for side in run_columns.SIDES for one in found[side]]
    yield lines([["id", "name", *(column.name for column in told)]])
    cursor, sent = None, 0
    while sent < RUNS_EXPORTED:
        if named is not None:
            items, cursor = named, None
        else:
            got = await _search(page, EXPORT_PAGE, cursor)
            items, cursor = got["items"], got["next"]
        yield lines([[run["id"], run["name"], *(_cell(column, run) for column in told)] for run in items])
        sent += len(items)
        if not cursor:
            break


def _cell(column: Column, run: dict[str, Any]) -> Any:
    value = column.plain(run)
    return iso(value) if column.name == "attributes.started" else value
