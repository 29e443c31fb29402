"""The two lineage questions: `why` (back from an answer, a version or a run to all that it rests on) and `impact` (forward from data)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everloop.assets import catalog, lineage, run_links
from everloop.core.errors import NotFound
from everloop.core.limits import PAGE_ROWS_MAX
from everloop.core.refs import KINDS, Ref
from everloop.govern import folding
from everloop.store.records import Tx
from everloop.store.schema import alias_moves, decisions, endpoints, runs


def describe(tx: Tx, node: str) -> dict[str, Any]:
    """What a node of the lineage graph is, in one dict: {"ref", "kind", "title", "at", "by", ...}; unknown nodes say so."""
    kind, _, rest = node.partition(":")
    if kind == "run":
        row = tx.row(sa.select(runs).where(runs.c.project == tx.project, runs.c.id == rest))
        if row is None:
            return {"ref": node, "kind": "run", "title": "a run that is gone"}
        return {
            "ref": node,
            "kind": "run",
            "title": f"{row['kind']} run {row['name']}",
            "at": row["started_at"],
            "by": row["created_by"],
            "code": row["code"],
            "status": row["status"],
            "pipeline": row["pipeline"],
            "parent": row["parent"],
        }
    if kind in KINDS:
        try:
            asset = catalog.get(tx, node)
        except NotFound:
            return {"ref": node, "kind": kind, "title": "an asset that is gone"}
        return {
            "ref": asset["ref"],
            "kind": kind,
            "title": asset["description"] or title_of(asset),
            "at": asset["created_at"],
            "by": asset["created_by"],
            "digest": asset["digest"],
            "run": asset["run"],
            "source": asset["manifest"].get("source"),
        }
    if kind == run_links.INPUT:
        return {"ref": node, "kind": kind, "title": f"a data set that a client named {rest.rpartition('#')[0]!r}; not a version here"}
    return {"ref": node, "kind": kind, "title": node}


def title_of(asset: dict[str, Any]) -> str:
    """One line about an asset, from its manifest."""
    m, kind = asset["manifest"], asset["kind"]
    if kind == "dataset":
        if m.get("format") == "files":
            return f"{m.get('count', len(m.get('files') or [])):,} files"
        return f"{m['rows']:,} rows x {len(m['schema'])} columns" if m.get("format") == "table" else f"{len(m.get('documents', []))} documents"
    if kind == "model":
        served = f"served by {m['engine']}" if m.get("engine") else "not served in this form"
        trained = m.get("training") or {}
        learnt = f", learnt from {trained['rows']:,} rows of {trained['dataset']}" if trained.get("dataset") and trained.get("rows") else ""
        return f"{m.get('task', '')} model, {m.get('format', '')}, {served}{learnt}".strip()
    if kind == "index":
        return f"{m.get('count', 0):,} chunks, {m.get('embedder', {}).get('name', '')}"
    if kind == "release":
        return " + ".join([*m.get("pins", {}).values(), *([m["policy"]] if m.get("policy") else [])])
    if kind == "policy":
        return ", ".join(dict.fromkeys(r.get("check", "") for r in m.get("rules", [])))
    if kind == "suite":
        return f"{m.get('count', 0):,} cases ({m.get('task', '')})"
    if kind == "prompt":
        return str((m.get("messages") or [{}])[0].get("content", ""))[:80]
    return ""


def why_release(tx: Tx, ref: str) -> dict[str, Any]:
    """All that a release (or any asset or run) rests on, with who moved it to where it is and the decision that let it.

    Of the runs that made the same version, only the first is told: an answer does not rest on a run that made again what was there.
    """
    walked = lineage.upstream(tx, ref)
    nodes = [describe(tx, node) for node in walked["nodes"]]
    first = {node["ref"]: f"run:{node['run']}" for node in nodes if node.get("run")}
    edges = [e for e in walked["edges"] if e["relation"] != "made" or first.get(e["target"], e["source"]) == e["source"]]
    behind, ahead = {ref}, [ref]
    while ahead:
        target = ahead.pop()
        ahead += [e["source"] for e in edges if e["target"] == target and e["source"] not in behind]
        behind.update(ahead)
    kept = [e for e in edges if e["target"] in behind]
    return {
        "subject": ref,
        "nodes": [node for node, name in zip(nodes, walked["nodes"], strict=True) if name in behind],
        "edges": kept,
        "earlier": folding.earlier(ref, kept),
        "cut": walked["cut"],
        "decisions": decisions_of(tx, ref),
        "moves": moves_of(tx, ref),
    }


def decisions_of(tx: Tx, ref: str) -> list[dict[str, Any]]:
    """Gate decisions about exactly this version, newest first."""
    from everloop.assets import gates

    exact = Ref.parse(ref) if not ref.startswith("run:") else None
    if exact is None or exact.version is None:
        return []
    found = tx.rows(
        sa.select(decisions)
        .where(
            decisions.c.project == tx.project, decisions.c.kind == exact.kind, decisions.c.name == exact.name, decisions.c.version == exact.version
        )
        .order_by(decisions.c.at.desc())
    )
    return [gates.shown(row) for row in found]


def moves_of(tx: Tx, ref: str) -> list[dict[str, Any]]:
    """When aliases came to this version, and when they left it."""
    exact = Ref.parse(ref) if not ref.startswith("run:") else None
    if exact is None or exact.version is None:
        return []
    t = alias_moves
    return tx.rows(
        sa.select(t)
        .where(
            t.c.project == tx.project,
            t.c.kind == exact.kind,
            t.c.name == exact.name,
            sa.or_(t.c.to_version == exact.version, t.c.from_version == exact.version),
        )
        .order_by(t.c.at.desc())
    )


def impact(tx: Tx, ref: str) -> dict[str, Any]:
    """All versions and runs that rest on `ref`, the releases among them, the endpoints that serve those now, and decisions by suites among them."""
    start = ref if ref.startswith("run:") else str(catalog.resolve(tx, ref))
    return {"subject": start, **resting(tx, [start])}


def passages_of(spans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The passages that a trace's retrievers gave, once each: [{"chunk", "document", "title", "score"}]; the document is "" where the span does not say."""
    found: dict[str, dict[str, Any]] = {}
    for span in spans:
        told, i = span.get("attributes") or {}, 0
        while (chunk := told.get(f"retrieval.documents.{i}.document.id")) is not None:
            head = f"retrieval.documents.{i}.document"
            try:
                more = json.loads(told.get(f"{head}.metadata") or "{}")
            except (TypeError, ValueError):
                more = {}
            more = more if isinstance(more, dict) else {}
            one = {"chunk": str(chunk), "document": str(more.get("document") or ""), "title": str(more.get("title") or "")}
            found.setdefault(str(chunk), {**one, "score": told.get(f"{head}.score")})
            i += 1
    return list(found.values())


def resting(tx: Tx, starts: Sequence[str]) -> dict[str, Any]:
    """All that rests on any of some nodes: {"nodes", "edges", "cut", "releases", "live", "decisions"} as `impact` has them."""
    walked = lineage.downstream(tx, starts)
    nodes = [describe(tx, node) for node in walked["nodes"]]
    releases = [node for node in walked["nodes"] if node.startswith("release:")]
    live = []
    for row in tx.rows(sa.select(endpoints).where(endpoints.c.project == tx.project)):
        name = row["spec"].get("release")
        held = catalog.aliases_of(tx, "release", name)
        for part in row["spec"].get("split") or []:
            at = f"release:{name}@{held.get(part['alias'])}"
            if at in releases:
                live.append({"endpoint": row["name"], "alias": part["alias"], "release": at})
    judged = judged_on(tx, [node for node in walked["nodes"] if node.startswith("suite:")])
    return {"nodes": nodes, "edges": walked["edges"], "cut": walked["cut"], "releases": releases, "live": live, "decisions": judged}


def judged_on(tx: Tx, suites: Sequence[str]) -> list[dict[str, Any]]:
    """Gate decisions that asked one of these suites, newest first: [{"id", "ref", "alias", "verdict", "at", "suite"}]."""
    t = decisions.c
    asked = t.spec["suite_ref"].as_string()
    chosen = sa.select(t.id, t.kind, t.name, t.version, t.alias, t.verdict, t.at, asked.label("suite"))
    found = tx.rows(chosen.where(t.project == tx.project, asked.in_(list(suites))).order_by(t.at.desc()).limit(PAGE_ROWS_MAX)) if suites else []
    return [
        {**{k: row[k] for k in ("id", "alias", "verdict", "at", "suite")}, "ref": f"{row['kind']}:{row['name']}@{row['version']}"} for row in found
    ]
