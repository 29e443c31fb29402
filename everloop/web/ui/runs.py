"""Runs: the list in MLflow's filter language, one run with its curves, and several beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Response

from everloop.core.errors import BadInput
from everloop.web.ui import charts, curves, graph
from everloop.web.ui.page import Page, View
from everloop.web.ui.pipelines import steps_picture

router = APIRouter(include_in_schema=False)
SHOWN = 50
COLUMNS = 6
"""Params, and metrics, that the list shows when not told."""
CELL_CHARS = 40
"""Length of a param's values for it to get a column by itself."""
COMPARED = 8
"""Runs that are compared at most."""
KEYS_COMPARED = 40
"""Metrics whose series are looked for when runs are compared."""
LOG, LOG_BYTES, LOG_SHOWN = "log.txt", 4_000_000, 20_000
"""A step's log: its file, the size up to which it is read, and how much of its end is shown."""
KINDS = ("training", "evaluation", "pipeline", "step", "index", "batch", "ingest", "custom")
STATUSES = ("running", "scheduled", "finished", "failed", "killed")


@router.get("/ui/runs/compare")
async def compare(page: Page) -> Response:
    """Runs side by side: params and metrics that differ first, curves over each other."""
    ids = list(dict.fromkeys(page.query.getlist("run")))
    if not 2 <= len(ids) <= COMPARED:
        raise BadInput(f"{len(ids)} runs are chosen.", f"Choose 2 to {COMPARED} in the list of runs.")
    found = [await page.ws.runs.get(page.who, id) for id in ids]
    keys = sorted(_keys(found, "metrics"), key=lambda key: not key.startswith(curves.PREFIX))
    drawn = [made for key in keys[:KEYS_COMPARED] if (made := await _over(page, key, found)) is not None][: curves.CHARTS]
    return await page.render(
        "runs_compare.html",
        f"{len(found)} runs compared",
        [("Runs", "/ui/runs")],
        runs=found,
        params=_differing(found, "params"),
        metrics=_differing(found, "metrics", lambda k: not k.startswith(curves.PREFIX)),
        charts=drawn,
    )


@router.get("/ui/runs/{id}")
async def run(page: Page, id: str) -> Response:
    """One run."""
    ws, who = page.ws, page.who
    found = await ws.runs.get(who, id)
    links = (await ws.runs.links(who, [id])).get(id, {"datasets": [], "inputs": [], "outputs": []})
    below = (await ws.runs.search(who, "", None, SHOWN, parent=id))["items"]
    why, impact = await ws.govern.why(who, f"run:{id}"), await ws.govern.impact(who, f"run:{id}")
    nodes = {n["ref"]: n for n in [*why["nodes"], *impact["nodes"]]}
    edges = [*why["edges"], *impact["edges"]]
    read = sorted({e["source"] for e in edges if e["target"] == f"run:{id}" and e["relation"] == "read"})
    made = sorted({e["target"] for e in edges if e["source"] == f"run:{id}" and e["relation"] == "made"})
    artifacts = await ws.runs.artifacts(who, id)
    state = await ws.pipelines.state(who, id) if found["kind"] == "pipeline" else None
    title = found["name"] or id[-8:]
    return await page.render(
        "run.html",
        title,
        [("Runs", "/ui/runs"), *([(found["pipeline"], f"/ui/pipelines/{quote(found['pipeline'], safe='')}")] if found["pipeline"] else [])],
        r=found,
        metrics={k: v for k, v in found["metrics"].items() if not k.startswith((curves.PREFIX, curves.IMPORTANCE))},
        importance=curves.importance(found["metrics"]),
        charts=await curves.of_run(page, found),
        artifacts=artifacts[:200],
        log=await _log(page, id, artifacts),
        links=links,
        below=below,
        read=read,
        made=made,
        picture=graph.lineage(list(nodes.values()), edges, f"run:{id}", page.url) if len(nodes) > 1 else None,
        tasks=state["tasks"] if state else None,
        steps=steps_picture(page, found, state["tasks"], below) if state else None,
    )


async def _log(page: View, id: str, artifacts: Sequence[dict[str, Any]]) -> str:
    """The end of what a step printed, where that was kept as its file log.txt."""
    if not any(f["path"] == LOG and f["size"] <= LOG_BYTES for f in artifacts):
        return ""
    return (await page.ws.runs.get_artifact(page.who, id, LOG))[-LOG_SHOWN:].decode("utf-8", "replace")


def _keys(found: Sequence[dict[str, Any]], side: str) -> list[str]:
    """The keys that runs have on a side, those that most of them have first."""
    counts = Counter(key for one in found for key in one[side])
    return [key for key, _ in counts.most_common()]


def _differing(found: Sequence[dict[str, Any]], side: str, wanted: Any = lambda key: True) -> list[dict[str, Any]]:
    rows = [{"key": key, "values": [one[side].get(key) for one in found]} for key in _keys(found, side) if wanted(key)]
    rows = [{**row, "differs": len({str(v) for v in row["values"]}) > 1} for row in rows]
    return sorted(rows, key=lambda row: not row["differs"])


async def _over(page: View, key: str, found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One metric's series of several runs in one chart, by step; None where no run has more than one point."""
    series: dict[str, dict[int, float]] = {}
    for one in found:
        if key in one["metrics"]:
            points, _ = await page.ws.runs.history_points(page.who, one["id"], key, curves.POINTS)
            if len(points) > 1:
                series[f"{one['name']} {one['id'][-4:]}"] = {step: value for value, step, _ in points if isinstance(value, float)}
    if not series:
        return None
    steps = sorted({step for points in series.values() for step in points})
    lines = [{"label": name, "values": [points.get(step) for step in steps], "joined": True} for name, points in series.items()]
    if key.startswith(curves.PREFIX):
        title, across = curves.titled(key)
        return charts.chart(title, [step / 1000 for step in steps], lines, xlabel=across, yrange=(0, 1.02), xrange=(0, 1))
    return charts.chart(key, steps, lines, xlabel="Step", zero=False)
