"""Pipelines: their steps and schedules, starting them, and how their runs went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from everloop.core.errors import BadInput
from everloop.web.deps import check_csrf
from everloop.web.ui import graph
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/pipelines/{name}/start", "POST /ui/schedules/{name}/run", "POST /ui/runs/{id}/cancel")}
"""Who may use which route: see web/rights.py."""
SHOWN = 25
PARAM_LINES = 200
OWN_PARAMS = ("until", "reason", "scheduled_at")
"""Params that whoever starts a run gives it; they are not offered again."""


@router.get("/ui/pipelines")
async def pipelines(page: Page) -> Response:
    """All pipelines with their last run and schedule."""
    ws, who = page.ws, page.who
    found = (await ws.pipelines.list(who))["items"]
    plans = (await ws.pipelines.schedules(who))["items"]
    rows = []
    for one in found[:100]:
        last = (await ws.pipelines.runs(who, one["name"], limit=1))["items"]
        rows.append({**one, "last": last[0] if last else None, "plans": [p for p in plans if p["pipeline"] == one["name"]]})
    return await page.render("pipelines.html", "Pipelines", pipelines=rows, total=len(found))


@router.get("/ui/pipelines/{name}")
async def pipeline(page: Page, name: str) -> Response:
    """One pipeline."""
    ws, who = page.ws, page.who
    found = await ws.pipelines.get(who, name)
    runs = await ws.pipelines.runs(who, name, SHOWN, page.word("cursor"))
    last = runs["items"][0] if runs["items"] and not page.word("cursor") else None
    state = await ws.pipelines.state(who, last["id"]) if last else None
    below = (await ws.runs.search(who, "", None, 100, parent=last["id"]))["items"] if last else []
    plans = [p for p in (await ws.pipelines.schedules(who))["items"] if p["pipeline"] == name]
    return await page.render(
        "pipeline.html",
        name,
        [("Pipelines", "/ui/pipelines")],
        p=found,
        steps=[s for s in found["spec"].get("steps") or [] if isinstance(s, dict)],
        runs=runs["items"],
        next=runs["next"],
        last=last,
        picture=steps_picture(page, last, state["tasks"], below) if last and state else _declared(found),
        plans=plans,
        params=_offered(found, last),
    )


@router.post("/ui/pipelines/{name}/start")
async def start(page: Page, request: Request, name: str) -> Response:
    """Start a run with the params of the form, one `name: value` a line; on to its page."""
    form = await request.form()
    check_csrf(request, form)
    run = await page.ws.pipelines.start(page.who, name, _parsed(str(form.get("params", ""))))
    return page.back(f"/ui/runs/{run['id']}")


@router.post("/ui/schedules/{name}/run")
async def run_schedule(page: Page, request: Request, name: str) -> Response:
    """Start now what a schedule starts; on to the run's page."""
    form = await request.form()
    check_csrf(request, form)
    run = await page.ws.pipelines.run_now(page.who, name)
    return page.back(f"/ui/runs/{run['id']}")


@router.post("/ui/runs/{id}/cancel")
async def cancel(page: Page, request: Request, id: str) -> Response:
    """End a pipeline's run that is under way."""
    form = await request.form()
    check_csrf(request, form)
    await page.ws.pipelines.cancel(page.who, id)
    return page.back(f"/ui/runs/{id}")


def steps_picture(page: View, run: dict[str, Any], tasks: Sequence[dict[str, Any]], below: Sequence[dict[str, Any]]) -> Markup:
    """The steps of a run as a graph with their states; each is a link to its own run, where it has begun."""
    own = {one["name"]: one["id"] for one in reversed(below)}
    names = [task["step"] for task in tasks]
    nodes = [
        {
            "id": task["step"],
            "label": task["step"],
            "kind": "step",
            "note": "",
            "href": page.url(f"/ui/runs/{own[task['step']]}") if task["step"] in own else "",
            "state": {"leased": "running"}.get(task["state"], task["state"]),
        }
        for task in tasks
    ]
    edges = [(s, task["step"]) for task in tasks for s in task["after"] if s in names]
    return graph.picture(nodes, edges, f"Steps of {run['pipeline']}")


def _declared(found: dict[str, Any]) -> Markup:
    steps = [s for s in found["spec"].get("steps") or [] if isinstance(s, dict) and "name" in s]
    nodes = [{"id": s["name"], "label": s["name"], "kind": "step", "note": str(s.get("call", "")), "href": ""} for s in steps]
    return graph.picture(nodes, [(str(a), str(s["name"])) for s in steps for a in s.get("after") or []], f"Steps of {found['name']}")


def _offered(found: dict[str, Any], last: dict[str, Any] | None) -> str:
    """What the form's params start with: those of the last run, else those that the pipeline declares."""
    held = {**(found["spec"].get("params") or {}), **(last["params"] if last else {})}
    return "\n".join(f"{k}: {v if isinstance(v, str) else orjson.dumps(v).decode()}" for k, v in held.items() if k not in OWN_PARAMS)


def _parsed(text: str) -> dict[str, Any]:
    """Params from lines `name: value`; a value is JSON where it parses as such, else text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > PARAM_LINES:
        raise BadInput(f"{len(lines)} params are given; at most {PARAM_LINES} are allowed.")
    made: dict[str, Any] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise BadInput(f"The line {line[:80]!r} is no param.", "Write one `name: value` a line.")
        try:
            made[name.strip()] = orjson.loads(value.strip())
        except orjson.JSONDecodeError:
            made[name.strip()] = value.strip()
    return made
