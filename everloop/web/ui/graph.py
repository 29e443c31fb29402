"""Layered graphs as SVG, made on the server: left to right, each node a link that the keyboard reaches. Used for lineage and for pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from everloop.web.ui.show import ref_path, tone

WIDTH, HEIGHT, GAP_X, GAP_Y, PAD = 196, 52, 48, 16, 10
NODES_DRAWN = 120
"""Nodes that a picture has at most; the list beside it has all."""
SWEEPS = 6
SHRINK = 0.75
"""How far a picture may shrink to fit its place before it scrolls."""
TITLE_CHARS = 30
REACH, SMALL = 4, 14
"""Steps from its subject that a lineage of more than SMALL nodes is drawn; what lies beyond is one node that leads to all of it."""


def lineage(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]], subject: str, url: Any, whole: bool = False) -> Markup:
    """The lineage of `subject` as a picture: nodes are {"ref", "kind", "title"}, edges {"source", "target", "relation"}; `url` makes links.

    With `whole` all is drawn (up to NODES_DRAWN), else what is near its subject.
    """
    kept = {str(n["ref"]): n for n in nodes}
    lines = [(str(e["source"]), str(e["target"]), str(e.get("relation", ""))) for e in edges]
    lines = [line for line in lines if line[0] in kept and line[1] in kept]
    through = {(s, t) for s, r, _ in lines if r.startswith("run:") for r2, t, _ in lines if r2 == r}
    pairs = list(dict.fromkeys((s, t) for s, t, relation in lines if relation != "derived" or (s, t) not in through))
    near = set(list(kept)[:NODES_DRAWN]) if whole or len(kept) <= SMALL else _near(pairs, subject)
    drawn = [_drawn(ref, node, subject, url) for ref, node in kept.items() if ref in near]
    beyond = [(s, t) for s, t in pairs if (s in near) != (t in near)]
    for s, t in beyond:
        back = t in near
        stub = f"more:{t if back else s}:{back}"
        if stub not in {d["id"] for d in drawn}:
            label, href = f"{len(kept) - len(near)} nodes more", url("/ui/lineage", ref=subject.removeprefix("trace:"), all=1)
            drawn.append({"id": stub, "label": label, "kind": "further back" if back else "further on", "note": "", "href": href})
        pairs.append((stub, t) if back else (s, stub))
    return picture(drawn, pairs, f"Lineage of {subject}, {len(near)} of {len(kept)} nodes; all are listed on its page")


def _near(pairs: Sequence[tuple[str, str]], subject: str) -> set[str]:
    """The nodes at most REACH steps from the subject, whichever way."""
    beside: dict[str, list[str]] = {}
    for s, t in pairs:
        beside.setdefault(s, []).append(t)
        beside.setdefault(t, []).append(s)
    found = edge = {subject}
    for _ in range(REACH):
        edge = {n for id in edge for n in beside.get(id, [])} - found
        if len(found) + len(edge) > NODES_DRAWN:
            break
        found = found | edge
    return found


def _drawn(ref: str, node: Mapping[str, Any], subject: str, url: Any) -> dict[str, Any]:
    path, title = ref_path(ref), str(node.get("title") or "")
    name = title if ref.startswith(("run:", "trace:", "decision:")) else ref.partition(":")[2]
    return {
        "id": ref,
        "label": name or ref,
        "kind": str(node.get("kind") or ""),
        "note": "" if ref.startswith("run:") else title,
        "href": url(path) if path else "",
        "here": ref == subject,
        "state": node.get("status") or "",
    }


def picture(nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, str]], label: str) -> Markup:
    """Nodes {"id", "label", "kind", "note", "href", "here"?, "state"?} and edges as SVG."""
    if not nodes:
        return Markup("")
    ids = [str(n["id"]) for n in nodes]
    edges = list(dict.fromkeys((s, t) for s, t in edges if s in ids and t in ids and s != t))
    columns = _ordered(_layers(ids, edges), edges)
    tallest = max(len(c) for c in columns)
    height = PAD * 2 + tallest * (HEIGHT + GAP_Y) - GAP_Y
    width = PAD * 2 + len(columns) * (WIDTH + GAP_X) - GAP_X
    place: dict[str, tuple[float, float]] = {}
    for i, column in enumerate(columns):
        top = PAD + (height - 2 * PAD - (len(column) * (HEIGHT + GAP_Y) - GAP_Y)) / 2
        for j, id in enumerate(column):
            place[id] = (PAD + i * (WIDTH + GAP_X), top + j * (HEIGHT + GAP_Y))
    lines = Markup("").join(_edge(place[s], place[t]) for s, t in edges)
    by_id = {str(n["id"]): n for n in nodes}
    boxes = Markup("").join(_node(by_id[id], *place[id]) for column in columns for id in column)
    return Markup(
        '<svg class="graph" width="{0:.0f}" height="{1:.0f}" viewBox="0 0 {0:.0f} {1:.0f}" role="group" aria-label="{2}" style="min-width:{5:.0f}px">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        "<g>{3}</g>{4}</svg>"
    ).format(width, height, label, lines, boxes, width * SHRINK)


def _layers(ids: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Columns of nodes so that edges go right: each as far left as its sources let it, sources as near to their first reader as they can be."""
    after: dict[str, list[str]] = {id: [] for id in ids}
    waiting = dict.fromkeys(ids, 0)
    for s, t in edges:
        after[s].append(t)
        waiting[t] += 1
    layer = dict.fromkeys(ids, 0)
    ready = [id for id in ids if not waiting[id]]
    done: set[str] = set()
    while ready:
        id = ready.pop(0)
        done.add(id)
        for t in after[id]:
            layer[t] = max(layer[t], layer[id] + 1)
            waiting[t] -= 1
            if not waiting[t]:
                ready.append(t)
    entered = {t for _, t in edges}
    for id in ids:
        if id not in entered and after[id] and id in done:
            layer[id] = max(0, min(layer[t] for t in after[id]) - 1)
    used = sorted(set(layer.values()))
    return [[id for id in ids if layer[id] == n] for n in used]


def _ordered(columns: list[list[str]], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The columns with their nodes moved towards the middle of their neighbours, so that fewer edges cross."""
    near: dict[str, list[str]] = {}
    for s, t in edges:
        near.setdefault(s, []).append(t)
        near.setdefault(t, []).append(s)
    for sweep in range(SWEEPS):
        spot = {id: (i + 0.5) / len(column) for column in columns for i, id in enumerate(column)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            mean = {id: sum(spot[n] for n in near[id]) / len(near[id]) if near.get(id) else spot[id] for id in column}
            column.sort(key=lambda id: mean[id])
            spot.update({id: (i + 0.5) / len(column) for i, id in enumerate(column)})
    return columns


def _edge(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0] - 2, end[1] + HEIGHT / 2
    bend = max(24.0, (x2 - x1) / 2)
    return Markup('<path class="edge" d="M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}" marker-end="url(#tip)"/>').format(
        x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
    )


def _node(node: Mapping[str, Any], x: float, y: float) -> Markup:
    kind, label, note, state = str(node["kind"]), str(node["label"]), str(node.get("note") or ""), str(node.get("state") or "")
    first = f"{kind}{', ' + state if state else ''}"
    full = f"{kind} {label}{', ' + note if note else ''}{', ' + state if state else ''}"
    body = Markup(
        '<title>{}</title><rect x="{:.0f}" y="{:.0f}" width="{}" height="{}" rx="6"/><text class="kind" x="{:.0f}" y="{:.0f}">{}</text>'
        '<text class="name" x="{:.0f}" y="{:.0f}">{}</text>'
    ).format(full, x, y, WIDTH, HEIGHT, x + 12, y + 20, first, x + 12, y + 39, _cut(label))
    classes = f"node {'here' if node.get('here') else ''} kind-{kind if kind.isalnum() else 'other'} {tone(state) if state else ''}"
    if node.get("href"):
        return Markup('<a class="{}" href="{}" aria-label="{}">{}</a>').format(classes, node["href"], full, body)
    return Markup('<g class="{}">{}</g>').format(classes, body)


def _cut(label: str) -> str:
    return label if len(label) <= TITLE_CHARS - 5 else label[: TITLE_CHARS - 6] + "\u2026"
