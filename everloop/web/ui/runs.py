"""One run: its figures, live charts, files, lineage, code and environment, the runs in it and its traces; a tab each, in the address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Response

from everloop.core.errors import EverloopError
from everloop.web.ui import artifacts, curves, graph, run_diff
from everloop.web.ui.page import Page, View
from everloop.web.ui.pipelines import steps_picture
from everloop.web.ui.run_compare import live, names

router = APIRouter(include_in_schema=False)
SHOWN = 50
TREE = 200
"""Runs in a run, of all levels, that its page shows."""
TRACES = 50
LOG, LOG_BYTES, LOG_SHOWN = "log.txt", 4_000_000, 20_000
"""A step's log: its file, the size up to which it is read, and how much of its end is shown."""
TABS = {
    "": "Overview",
    "metrics": "Metrics",
    "system": "System",
    "artifacts": "Artifacts",
    "lineage": "Lineage",
    "code": "Code and environment",
    "traces": "Traces",
}


@router.get("/ui/runs/{id}")
async def run(page: Page, id: str) -> Response:
    """One run, a tab of it."""
    ws, who = page.ws, page.who
    found = await ws.runs.get(who, id)
    tab = page.query.get("tab", "")
    tab = tab if tab in TABS else ""
    files = await ws.runs.artifacts(who, id)
    counts = await ws.runs.series_counts(who, [id])
    system = any(key.startswith(curves.SYSTEM) for key in counts)
    plotted = sum(not key.startswith((curves.PREFIX, curves.IMPORTANCE, curves.SYSTEM)) for key in found["metrics"])
    make = {"": _overview, "metrics": _metrics, "system": _metrics, "artifacts": _artifacts, "lineage": _lineage, "code": _code, "traces": _traces}
    pipeline = found["pipeline"]
    return await page.render(
        "run.html",
        found["name"] or id[-8:],
        [("Runs", "/ui/runs"), *([(pipeline, f"/ui/pipelines/{quote(pipeline, safe='')}")] if pipeline else [])],
        r=found,
        runs=[found],
        names=names([found]),
        tab=tab,
        tabs=[(key, label, {"metrics": plotted, "artifacts": len(files)}.get(key)) for key, label in TABS.items() if key != "system" or system],
        files=files,
        scripts=["charts.js"] if tab in ("metrics", "system") else [],
        **await make[tab](page, found, files),
    )


async def _overview(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ws, who, id = page.ws, page.who, found["id"]
    below = await ws.runs.tree(who, id, TREE)
    read, made = await ws.govern.beside(who, [id])
    links = (await ws.runs.links(who, [id])).get(id, {"datasets": [], "inputs": [], "outputs": []})
    state = await ws.pipelines.state(who, id) if found["kind"] == "pipeline" else None
    hidden = (curves.PREFIX, curves.IMPORTANCE, curves.SYSTEM)
    direct = [one for one in below if one["depth"] == 1]
    return {
        "metrics": {k: v for k, v in found["metrics"].items() if not k.startswith(hidden)},
        "importance": curves.importance(found["metrics"]),
        "charts": await curves.of_run(page, found),
        "log": await _log(page, id, files),
        "links": links,
        "below": below,
        "most": TREE if len(below) == TREE else 0,
        "read": read.get(id, []),
        "made": made.get(id, []),
        "tasks": state["tasks"] if state else None,
        "steps": steps_picture(page, found, state["tasks"], direct) if state else None,
    }


async def _metrics(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shown = await live(page, [found])
    system = page.query.get("tab") == "system"
    single = {
        k: v for k, v in found["metrics"].items() if k not in shown["keys"] and not k.startswith((curves.PREFIX, curves.IMPORTANCE, curves.SYSTEM))
    }
    return {"live": shown, "which": shown["system"] if system else shown["keys"], "single": {} if system else single}


async def _artifacts(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    path = page.word("path")
    one = next((f for f in files if f["path"] == path), None)
    shown = await artifacts.view(page, found["id"], one) if one else None
    return {"chosen": path, "file": one, "folders": artifacts.folders(files), "shown": shown}


async def _lineage(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ws, who, node = page.ws, page.who, f"run:{found['id']}"
    why, impact = await ws.govern.why(who, node), await ws.govern.impact(who, node)
    nodes = {n["ref"]: n for n in [*why["nodes"], *impact["nodes"]]}
    edges = [*why["edges"], *impact["edges"]]
    read, made = await ws.govern.beside(who, [found["id"]])
    links = (await ws.runs.links(who, [found["id"]])).get(found["id"], {"datasets": [], "inputs": [], "outputs": []})
    picture = graph.lineage(list(nodes.values()), edges, node, page.url) if len(nodes) > 1 else None
    return {"picture": picture, "read": read.get(found["id"], []), "made": made.get(found["id"], []), "links": links}


async def _code(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    environment = dict(found["environment"] or {})
    packages = environment.pop("packages", None)
    patch = await run_diff.patch(page, found)
    facts = {k: v for k, v in environment.items() if isinstance(v, str | int | float)}
    rest = {k: v for k, v in environment.items() if k not in facts and v}
    return {
        "patch": run_diff.marked(patch.splitlines()),
        "packages": packages if isinstance(packages, dict) else {},
        "environment": facts,
        "rest": rest,
    }


async def _traces(page: View, found: dict[str, Any], files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    asked = f"attributes.run_id = '{found['id']}'" if found["id"].isalnum() else ""
    try:
        traces, more = await page.ws.trace_infos.search(page.who, [found["experiment_id"]], asked, limit=TRACES) if asked else ([], False)
    except EverloopError:
        traces, more = [], False
    return {"traces": traces, "more": more}


async def _log(page: View, id: str, files: Sequence[dict[str, Any]]) -> str:
    """The end of what a step printed, where that was kept as its file log.txt."""
    if not any(f["path"] == LOG and f["size"] <= LOG_BYTES for f in files):
        return ""
    return (await page.ws.runs.get_artifact(page.who, id, LOG))[-LOG_SHOWN:].decode("utf-8", "replace")
