"""Lineage: why (back from an answer, a version or a run) and impact (forward from data), as a picture and as a list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from everloop.core.refs import cut_part
from everloop.web.ui import graph
from everloop.web.ui.page import Page, View
from everloop.web.ui.spans import messages

router = APIRouter(include_in_schema=False)
SIDES = {"both": "Both ways", "why": "Why: what it rests on", "impact": "Impact: what rests on it"}


@router.get("/ui/lineage")
async def lineage(page: Page) -> Response:
    """The lineage of whatever `ref` names: a reference, a run, a decision, a trace or a prediction."""
    ref, side = page.word("ref"), page.word("side") or "both"
    if ref is None:
        return await _start(page)
    why = await page.ws.govern.why(page.who, ref[:500])
    subject = str(why["subject"])
    if cut_part(ref)[1]:
        return await _part(page, ref[:500], why)
    trace = why.get("trace")
    impact: dict[str, Any] = {}
    if trace is None and side != "why" and subject.partition(":")[0] != "trace":
        impact = await page.ws.govern.impact(page.who, subject)
    earlier = why.get("earlier") or {"hidden": [], "chains": []}
    every = page.word("all") is not None
    nodes, edges = _joined(_folded(why, [] if every else earlier["hidden"]) if side != "impact" else {}, impact)
    if trace is not None:
        nodes, edges = _with_trace(nodes, edges, trace, str(why["id"]))
    here = f"trace:{trace['trace_id']}" if trace is not None else subject
    live = [
        {**one, "calls": impact.get("answers", {}).get(one["release"]), "rows": impact.get("predictions", {}).get(one["release"])}
        for one in impact.get("live", [])
    ]
    return await page.render(
        "lineage.html",
        _title(why, ref),
        [("Lineage", "/ui/lineage")],
        ref=ref,
        side=side,
        sides=SIDES,
        why=why,
        subject=subject,
        trace=trace,
        picture=graph.lineage(nodes, edges, here, page.url, whole=every),
        whole=every or (len(nodes) <= graph.SMALL and not earlier["hidden"]),
        chains=[] if every or side == "impact" else earlier["chains"],
        nodes=nodes,
        drawn=graph.NODES_DRAWN,
        cut=why.get("cut") or impact.get("cut"),
        live=live,
        answers={k: n for k, n in impact.get("answers", {}).items() if n},
        asked=messages(trace["inputs"]) if trace else None,
        answered=messages(trace["outputs"]) if trace else None,
    )


async def _part(page: View, ref: str, why: dict[str, Any]) -> Response:
    """What some rows or documents of a version reached, and what not."""
    impact = await page.ws.govern.impact(page.who, ref)
    own = impact["part"]["versions"]
    nodes = [n for n in impact["nodes"] if n["ref"] not in own]
    return await page.render(
        "lineage_part.html",
        f"Lineage of {ref}",
        [("Lineage", "/ui/lineage")],
        ref=ref,
        subject=str(why["subject"]),
        part=impact["part"],
        noun="document" if impact["part"]["kind"] == "document" else "row",
        groups={how: [n for n in nodes if n["reach"] == how] for how in ("yes", "may")},
        left=impact["not_reached"],
        live=[{**one, "calls": impact["answers"].get(one["release"])} for one in impact["live"]],
        answers={k: n for k, n in impact["answers"].items() if n},
        decisions=impact["decisions"],
        picture=graph.lineage(impact["nodes"], impact["edges"], own[0], page.url) if nodes else None,
    )


async def _start(page: View) -> Response:
    found = await page.ws.endpoints.list(page.who)
    live = [part["ref"] for e in found["items"] for part in e["live"] if part["ref"]]
    recent = (await page.ws.assets.list(page.who, limit=12))["items"]
    return await page.render("lineage_start.html", "Lineage", live=list(dict.fromkeys(live))[:12], recent=recent)


def _title(why: dict[str, Any], ref: str) -> str:
    if why.get("trace"):
        return f"Why this {'prediction' if why['what'] == 'prediction' else 'answer'}"
    return f"Lineage of {why['subject'] if why['what'] != 'decision' else ref[:12]}"


def _folded(why: dict[str, Any], hidden: list[str]) -> dict[str, Any]:
    """The graph without what is told as one line of earlier versions."""
    gone = set(hidden)
    edges = [e for e in why.get("edges", []) if e["source"] not in gone and e["target"] not in gone]
    return {"nodes": [n for n in why.get("nodes", []) if n["ref"] not in gone], "edges": edges}


def _joined(*found: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    nodes = {n["ref"]: n for one in found for n in one.get("nodes", [])}
    edges = {(e["source"], e["target"], e["relation"]): e for one in found for e in one.get("edges", [])}
    return list(nodes.values()), list(edges.values())


def _with_trace(
    nodes: list[dict[str, Any]], edges: list[dict[str, Any]], trace: dict[str, Any], id: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The graph with the trace itself at its end, behind the release that answered."""
    node = {
        "ref": f"trace:{trace['trace_id']}",
        "kind": "trace",
        "title": id[:12] + ("" if id == trace["trace_id"] else f" row {id.rpartition('-')[2]}"),
    }
    more = [{"source": trace["release"], "target": node["ref"], "relation": "answered"}] if trace.get("release") else []
    return [*nodes, node], [*edges, *more]
