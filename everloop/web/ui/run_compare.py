"""Runs beside each other: live charts over each other, what differs, and many runs as parallel coordinates and scatter."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Response

from everloop.assets.run_metrics import SPECIAL_TEXT
from everloop.core.csv_text import lines
from everloop.core.errors import BadInput
from everloop.web.ui import curves, run_columns, run_diff
from everloop.web.ui.page import Page, View
from everloop.web.ui.run_list import wanted

router = APIRouter(include_in_schema=False)
COMPARED = 20
"""Runs that are compared at most."""
PIECES = (600, 2_000)
"""Pieces of a series that a chart asks for, and may ask for at most."""
PLOTTED = 2_000
"""Runs that a plot of params and metrics shows at most."""
AXES, AXES_MOST = 7, 24
"""Axes of that plot when none are told, and at most."""
ACROSS = {"step": "Step", "time": "Wall time", "relative": "Time since its start"}


@router.get("/ui/runs/compare")
async def compare(page: Page) -> Response:
    """Several runs: their charts, and what differs between them first."""
    ids = list(dict.fromkeys(page.query.getlist("run")))
    if not 2 <= len(ids) <= COMPARED:
        raise BadInput(f"{len(ids)} runs are chosen.", f"Choose 2 to {COMPARED} in the list of runs.")
    found = await page.ws.runs.many(page.who, ids)
    return await page.render(
        "runs_compare.html",
        f"{len(found)} runs compared",
        [("Runs", "/ui/runs")],
        runs=found,
        names=names(found),
        live=await live(page, found),
        parts=await run_diff.parts(page, found),
        scripts=["charts.js"],
    )


@router.get("/ui/runs/series")
async def series(page: Page) -> Response:
    """One metric of some runs for a chart, thinned: {"version", "running", "series": [{"run", "step", "at", "value", "min", "max"}]}.

    304 where nothing came since `known`, the version that the asker has.
    """
    ids = list(dict.fromkeys(page.query.getlist("run")))
    key = page.query.get("key", "")
    told = page.query.get("points", "")
    if not 1 <= len(ids) <= COMPARED or not key:
        raise BadInput("A chart is of one metric (`key`) and 1 to 20 runs (`run`).")
    buckets = min(int(told), PIECES[1]) if told.isdigit() and int(told) > 0 else PIECES[0]
    found = await page.ws.runs.series_heads(page.who, ids, key)
    counts = await page.ws.runs.series_counts(page.who, ids, key)  # a late point does not move the end
    version = hashlib.sha256(repr((found, counts, buckets)).encode()).hexdigest()[:16]
    if page.query.get("known") == version:
        return Response(status_code=304)
    thin = await page.ws.runs.thinned(page.who, ids, key, buckets)
    body = {
        "version": version,
        "running": any(one["status"] in ("running", "scheduled") for one in found),
        "series": [{"run": id, **_columns(thin[id])} for id in ids],
    }
    if page.query.get("as") == "csv":
        return Response(_csv(found, body["series"]), media_type="text/csv", headers={"content-disposition": 'attachment; filename="series.csv"'})
    return Response(orjson.dumps(body), media_type="application/json")


@router.get("/ui/runs/plot")
async def plot(page: Page) -> Response:
    """Params and metrics of many runs, those chosen or those that fit the filter: parallel coordinates and a scatter plot."""
    ids = list(dict.fromkeys(page.query.getlist("run"))) or None
    asked = {**wanted(page), "ids": ids}
    axes = [c for name in dict.fromkeys(page.query.getlist("axis")) if (c := run_columns.read(name)) and c.side != "attributes"]
    keys = await page.ws.runs.keys(page.who, **wanted(page))
    if not axes:
        axes = await _axes(page, asked, keys)
    colour = run_columns.read(page.word("colour") or "")
    last = next((c for c in reversed(axes) if c.side == "metrics"), None)
    colour = colour if colour in axes else last
    axes = axes[:AXES_MOST]
    rows = await page.ws.runs.values(page.who, [(c.side, c.key) for c in axes], PLOTTED, **asked)
    total = len(ids) if ids else await page.ws.runs.count(page.who, **wanted(page))
    spec = {
        "axes": [{"name": c.name, "label": c.label, **_axis([row["values"][i] for row in rows])} for i, c in enumerate(axes)],
        "ids": [row["id"] for row in rows],
        "names": [row["name"][:60] for row in rows],
        "colour": axes.index(colour) if colour in axes else None,
    }
    return await page.render(
        "runs_plot.html",
        "Params and metrics of runs",
        [("Runs", "/ui/runs")],
        spec=orjson.dumps(spec).decode(),
        axes=axes,
        colour=colour,
        rows=rows[:50],
        shown=len(rows),
        total=total,
        keys=[(side, [one["key"] for one in keys[side]][:300]) for side in ("params", "metrics")],
        kept={k: page.query.getlist(k) for k in ("run", "filter", "q", "kind", "status", "experiment", "view")},
        scripts=["plots.js"],
    )


async def _axes(page: View, asked: dict[str, Any], keys: dict[str, list[dict[str, Any]]]) -> list[run_columns.Column]:
    """The params that differ most among the newest runs, then a metric."""
    params = [("params", one["key"]) for one in keys["params"][:60]]
    metrics = [("metrics", one["key"]) for one in keys["metrics"] if not one["key"].startswith((curves.PREFIX, curves.IMPORTANCE, curves.SYSTEM))][
        :20
    ]
    rows = await page.ws.runs.values(page.who, [*params, *metrics], 100, **asked)
    sorts = {}
    for i, name in enumerate([*params, *metrics]):
        sorts[name] = {row["values"][i] for row in rows} - {None}
    varied = [name for name in params if len(sorts[name]) > 1 and all(len(str(v)) <= run_columns.CELL_CHARS for v in sorts[name])]
    measured = [name for name in metrics if sorts[name]]
    chosen = [*varied[: AXES - 1], *measured[: max(1, AXES - len(varied))]]
    return [run_columns.Column(side, key) for side, key in chosen]


def _axis(values: Sequence[Any]) -> dict[str, Any]:
    """An axis: numbers where all values are (params are text), on a log scale where they span three powers of ten; else categories in order."""
    found = [None if v is None else _number(v) for v in values]
    there = [v for v, raw in zip(found, values, strict=True) if raw is not None]
    if there and all(v is not None for v in there):
        numbers = [v for v in there if v is not None]
        return {"kind": "number", "values": found, "log": min(numbers) > 0 and max(numbers) / min(numbers) >= 1000}
    names = sorted({str(v)[: run_columns.CELL_CHARS] for v in values if v is not None})
    place = {name: i for i, name in enumerate(names)}
    return {"kind": "category", "names": names, "values": [None if v is None else place[str(v)[: run_columns.CELL_CHARS]] for v in values]}


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


async def live(page: View, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the charts of some runs need: {"runs": JSON for the script, "keys": metrics with a series, "system": the machine's, "x", "smooth", "log"}."""
    counts = await page.ws.runs.series_counts(page.who, [one["id"] for one in found])
    keys = [key for key, points in counts.items() if points > len(found) and not key.startswith((curves.PREFIX, curves.IMPORTANCE))]
    spec = {
        "runs": [
            {"id": one["id"], "name": name, "started": one["started_at"], "status": one["status"]}
            for one, name in zip(found, names(found), strict=True)
        ],
        "running": any(one["status"] in ("running", "scheduled") for one in found),
    }
    x, smooth = page.query.get("x", "step"), page.query.get("smooth", "0")
    return {
        "spec": orjson.dumps(spec).decode(),
        "keys": [key for key in keys if not key.startswith(curves.SYSTEM)],
        "system": [key for key in keys if key.startswith(curves.SYSTEM)],
        "across": ACROSS,
        "x": x if x in ACROSS else "step",
        "smooth": smooth if smooth.replace(".", "", 1).isdigit() and float(smooth) < 1 else "0",
        "log": page.query.get("log") == "1",
        "running": spec["running"],
    }


def names(found: Sequence[dict[str, Any]]) -> list[str]:
    """Names that tell runs apart: an end of the id is added where two are called the same."""
    given = [one["name"] for one in found]
    return [name if given.count(name) == 1 else f"{name} {one['id'][-4:]}" for name, one in zip(given, found, strict=True)]


def _columns(pieces: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Pieces of a series as columns; numbers in as many digits as a picture shows, so that the answer stays small."""
    short = lambda v: float(f"{v:.6g}") if isinstance(v, float) and math.isfinite(v) else None if isinstance(v, float) else v
    made: dict[str, list[Any]] = {name: [short(p[name]) for p in pieces] for name in ("value", "min", "max")}
    return {"step": [p["step"] for p in pieces], "at": [round(p["at"], 3) for p in pieces], **made}


def _csv(found: Sequence[dict[str, Any]], series: Sequence[dict[str, Any]]) -> bytes:
    rows: list[list[Any]] = [["run", "name", "step", "at", "value", "min", "max"]]
    for one, drawn in zip(found, series, strict=True):
        columns = zip(*(drawn[name] for name in ("step", "at", "value", "min", "max")), strict=True)
        rows += [[one["id"], one["name"], *(SPECIAL_TEXT["nan"] if v is None else v for v in row)] for row in columns]
    return lines(rows)
