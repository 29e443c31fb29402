"""What an annotation queue holds: rows of a table, documents, or an endpoint's traces, in the order in which labels tell most.

An order is {"by": ...}: `given` (as they come), `random` ("seed"), `uncertainty` (nearest to "threshold", 0.5 unless told, first: of a probability in
the table's "column", or of what a "release" answers; for several classes the smaller the lead of the likeliest one), `score` (traces with the lowest
score called "score" first, those without one last) or `disagreement` (items whose labels do not agree first, while they want more labels).
Uncertainty sampling: Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, 1994.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput
from everloop.core.limits import PAGE_ROWS_MAX, PREDICTIONS_MAX, QUEUE_ITEMS, QUEUE_TEXT_CHARS, SUITE_CHUNK
from everloop.core.principal import Principal
from everloop.core.refs import Ref

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

BY = ("given", "random", "uncertainty", "score", "disagreement")
SEED = 7
Items = list[dict[str, Any]]


def checked_order(order: Any) -> dict[str, Any]:
    """An order, complete; BadInput for one that is not known."""
    full = {"by": order} if isinstance(order, str) else dict(order or {"by": "given"})
    if full.get("by") not in BY:
        raise BadInput(f"Items cannot be ordered by {full.get('by')!r}.", f"Orders: {', '.join(BY)}.")
    if full["by"] == "uncertainty":
        threshold = full.setdefault("threshold", 0.5)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise BadInput(f"The threshold is {threshold!r}; probabilities go from 0 to 1.")
    if full["by"] == "score" and not full.get("score"):
        raise BadInput("The order by score does not say which score.", 'For example: {"by": "score", "score": "thumbs"}')
    return full


async def gather(
    ws: Workspace,
    who: Principal,
    source: str,
    order: Mapping[str, Any],
    limit: int,
    columns: Sequence[str] | None,
    since: float | None,
    until: float | None,
) -> tuple[str, str, Items]:
    """(what the items are, the exact source, items [{"item", "shown", "why"}] in their order, at most `limit`)."""
    if not 1 <= limit <= QUEUE_ITEMS:
        raise BadInput(f"A queue of {limit} items cannot be.", f"limit must be from 1 to {QUEUE_ITEMS}.")
    kind, _, name = source.partition(":")
    if kind == "endpoint" and name:
        of, exact, found = "traces", source, await _traces(ws, who, name, order, since, until)
    elif kind == "dataset":
        asset = await ws.assets.get(who, Ref.parse(source, "dataset"))
        exact = asset["ref"]
        documents = asset["manifest"].get("format") == "documents"
        of, found = "documents" if documents else "rows", await (_documents(ws, who, exact) if documents else _rows(ws, who, asset, order, columns))
    else:
        raise BadInput(f"{source!r} cannot be labelled.", "Give dataset:NAME (a table or documents) or endpoint:NAME (its traces).")
    if order["by"] == "uncertainty" and not any(one.get("why") is not None for one in found):
        raise BadInput(
            f"The items of {exact} have no probability to order them by.",
            'Name a column with one: {"by": "uncertainty", "column": "probability"}, or a release to ask: {"by": "uncertainty", "release": "release:NAME"}.',
        )
    if order["by"] == "score" and of != "traces":
        raise BadInput("Only traces have scores to order them by.", f"Order {of} by: given, random, uncertainty or disagreement.")
    if order["by"] == "random":
        random.Random(order.get("seed", SEED)).shuffle(found)
    elif order["by"] in ("uncertainty", "score"):
        found.sort(key=lambda one: (one.get("why") is None, one.get("why") or 0.0))
    return of, exact, found[:limit]


async def _rows(ws: Workspace, who: Principal, asset: Mapping[str, Any], order: Mapping[str, Any], columns: Sequence[str] | None) -> Items:
    """The rows of a table; `why` is how far each is from the decision."""
    table = await ws.data.columns(who, asset["ref"])
    for name in columns or ():
        if name not in table:
            raise BadInput(f"{asset['ref']} has no column {name!r}.", f"Columns: {', '.join(table)}.")
    shown = list(columns or table)
    n = asset["manifest"]["rows"]
    unsure: Sequence[float | None] = [None] * n
    if order["by"] == "uncertainty" and order.get("column"):
        if order["column"] not in table:
            raise BadInput(f"{asset['ref']} has no column {order['column']!r}.", f"Columns: {', '.join(table)}.")
        unsure = [_from(value, order["threshold"]) for value in table[order["column"]]]
        shown = [name for name in shown if name != order["column"]]
    elif order["by"] == "uncertainty" and order.get("release"):
        unsure = await _asked(ws, who, str(order["release"]), table, n, order["threshold"])
    return [{"item": str(i), "shown": {c: _cell(table[c][i]) for c in shown}, "why": unsure[i]} for i in range(n)]


async def _asked(ws: Workspace, who: Principal, ref: str, table: Mapping[str, list[Any]], n: int, threshold: float) -> list[float | None]:
    """How far each row is from a release's decision, by the probabilities that it answers."""
    from everloop.core.types import Batch
    from everloop.evaluate.suites import call_for

    serve = await ws.endpoints.run_release(who, ref)
    found: list[float | None] = []
    for start in range(0, n, SUITE_CHUNK):
        part = {name: values[start : start + SUITE_CHUNK] for name, values in table.items()}
        answer = await serve(call_for(Batch(part, min(SUITE_CHUNK, n - start)), who))
        outputs = answer.outputs.columns
        found += [_margin({name: values[i] for name, values in outputs.items()}, threshold) for i in range(min(SUITE_CHUNK, n - start))]
    return found


async def _documents(ws: Workspace, who: Principal, ref: str) -> Items:
    found: Items = []
    offset: int | None = 0
    while offset is not None:
        page = await ws.data.documents(who, ref, limit=PAGE_ROWS_MAX, offset=offset)
        for one in page["items"]:
            found.append({"item": str(one["id"]), "shown": {"path": one["path"], "title": one["title"], "text": _text(one["text"])}})
        offset = page["next"]
    return found


async def _traces(ws: Workspace, who: Principal, endpoint: str, order: Mapping[str, Any], since: float | None, until: float | None) -> Items:
    """An endpoint's traces, newest first; `why` is their lowest score of the order's name, or how far they are from the decision."""
    await ws.telemetry.flush()
    unsure = await _predicted(ws, who, endpoint, since, until, order["threshold"]) if order["by"] == "uncertainty" else {}
    found: Items = []
    cursor: str | None = None
    while len(found) < QUEUE_ITEMS:
        page = await ws.traces.list(who, endpoint=endpoint, since=since, until=until, limit=PAGE_ROWS_MAX, cursor=cursor)
        for one in page["items"]:
            values = [s["value"] for s in one["scores"] if s["name"] == order.get("score") and isinstance(s["value"], int | float)]
            why = unsure.get(one["trace_id"]) if unsure else float(min(values)) if values else None
            found.append(trace_item(one, why))
        cursor = page["next"]
        if cursor is None:
            break
    return found


def trace_item(one: Mapping[str, Any], why: float | None = None) -> dict[str, Any]:
    """A trace of a list as annotators see it."""
    told = {"question": _said(one["inputs"]), "answer": _said(one["outputs"]), "release": one["release"], "at": one["at"]}
    return {"item": one["trace_id"], "shown": told, "why": why}


async def _predicted(ws: Workspace, who: Principal, endpoint: str, since: float | None, until: float | None, threshold: float) -> dict[str, float]:
    rows = await ws.traces.predictions(who, endpoint, since or 0.0, until or ws.clock.now() + 1, limit=PREDICTIONS_MAX)

    def least() -> dict[str, float]:
        found: dict[str, float] = {}
        for row in rows:
            trace, margin = row["prediction_id"].rpartition("-")[0], _margin(row["outputs"], threshold)
            if margin is not None:
                found[trace] = min(margin, found.get(trace, margin))
        return found

    return await asyncio.to_thread(least)


def _margin(outputs: Mapping[str, Any], threshold: float) -> float | None:
    """How far an answer is from another one: of two classes the distance of the last one's probability from the threshold, of more the lead of the likeliest."""
    known = sorted((float(v) for k, v in outputs.items() if k.startswith("probability") and isinstance(v, int | float)), reverse=True)
    if not known:
        return None
    named = [k for k in outputs if k.startswith("probability")]
    return abs(float(outputs[named[-1]]) - threshold) if len(known) <= 2 else known[0] - known[1]


def _from(value: Any, threshold: float) -> float | None:
    return abs(float(value) - threshold) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cell(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


def _said(value: Any) -> Any:
    """A chat's messages as a text, the one question alone as it was asked; what is no chat's stays as it is."""
    plain = isinstance(value, list) and value and all(isinstance(m, Mapping) and isinstance(m.get("content"), str) for m in value)
    if not plain:
        return _text(value)
    if len(value) == 1:
        return _text(value[0]["content"])
    return _text("\n\n".join(f"{m.get('role') or 'message'}: {m['content']}" for m in value))


def _text(value: Any) -> Any:
    """A text, cut where it is too long to be shown; what is no text stays as it is."""
    if isinstance(value, str) and len(value) > QUEUE_TEXT_CHARS:
        return f"{value[:QUEUE_TEXT_CHARS]} … ({len(value) - QUEUE_TEXT_CHARS:,} characters more)"
    return value
