"""Lineage edges: `source` was read to make, is pinned by, or is part of `target`. Both are exact references or `run:ID`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everloop.core.limits import LINEAGE_NODES
from everloop.store.records import Tx
from everloop.store.schema import edges

RELATIONS = ("read", "made", "pins", "part_of", "derived")


def link(tx: Tx, source: str, target: str, relation: str) -> None:
    """Add an edge once; adding it again changes nothing."""
    assert relation in RELATIONS, relation
    if source != target:
        tx.upsert(edges, {"project": tx.project, "source": source, "target": target, "relation": relation, "at": tx.now}, update=[])


def upstream(tx: Tx, start: str, depth: int = 50) -> dict[str, Any]:
    """All that `start` rests on: {"nodes": [ref...], "edges": [{"source", "target", "relation"}], "cut": bool}, nearest first."""
    return _walk(tx, start, depth, back=True)


def downstream(tx: Tx, start: str | Sequence[str], depth: int = 50) -> dict[str, Any]:
    """All that rests on `start` (or on any of several), in the same shape as `upstream`."""
    return _walk(tx, start, depth, back=False)


def beside(tx: Tx, runs: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What runs (each as `run:ID`) read and what they made, one step away: ({id: references}, {id: references}), sorted."""
    read: dict[str, list[str]] = {}
    made: dict[str, list[str]] = {}
    wanted = list(runs)
    for row in tx.rows(
        sa.select(edges.c.source, edges.c.target).where(edges.c.project == tx.project, edges.c.target.in_(wanted), edges.c.relation == "read")
    ):
        read.setdefault(row["target"][4:], []).append(row["source"])
    for row in tx.rows(
        sa.select(edges.c.source, edges.c.target).where(edges.c.project == tx.project, edges.c.source.in_(wanted), edges.c.relation == "made")
    ):
        made.setdefault(row["source"][4:], []).append(row["target"])
    return {k: sorted(v) for k, v in read.items()}, {k: sorted(v) for k, v in made.items()}


def _walk(tx: Tx, start: str | Sequence[str], depth: int, back: bool) -> dict[str, Any]:
    here, there = (edges.c.target, edges.c.source) if back else (edges.c.source, edges.c.target)
    frontier = [start] if isinstance(start, str) else list(start)
    seen, order, found = set(frontier), list(frontier), []
    for _ in range(depth):
        rows = tx.rows(
            sa.select(edges.c.source, edges.c.target, edges.c.relation)
            .where(edges.c.project == tx.project, here.in_(frontier[:500]))
            .order_by(edges.c.at, edges.c.source, edges.c.target)
        )
        found.extend(rows)
        frontier = [*frontier[500:], *dict.fromkeys(row[there.name] for row in rows if row[there.name] not in seen)]
        order.extend(node for node in frontier if node not in seen)
        seen.update(frontier)
        if not frontier or len(seen) > LINEAGE_NODES:
            break
    unique = list({(e["source"], e["target"], e["relation"]): e for e in found}.values())
    return {"nodes": order[:LINEAGE_NODES], "edges": unique, "cut": len(seen) > LINEAGE_NODES}
