"""Annotation queues over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["labels"])
SPEC = ("limit", "columns", "order", "instructions", "annotators", "overlap", "extra", "assignment")
rights = {
    "viewer": (  # who is named among a queue's annotators may label, a viewer too: the facade asks
        "GET /api/v1/queues",
        "GET /api/v1/queues/{name}",
        "GET /api/v1/queues/{name}/items",
        "POST /api/v1/queues/{name}/next",
        "POST /api/v1/queues/{name}/labels",
    ),
    "editor": ("PUT /api/v1/queues/{name}", "PATCH /api/v1/queues/{name}", "POST /api/v1/queues/{name}/dataset"),
}
"""Who may use which route: see web/rights.py."""


@router.get("/queues")
async def list_queues(who: Who, ws: Ws, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
    """Annotation queues by name, with how far each is."""
    return await ws.labels.list(who, limit, cursor)


@router.get("/queues/{name}")
async def queue(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """One queue: its rubric, progress, annotators, and how far they agree."""
    return await ws.labels.get(who, name)


@router.put("/queues/{name}", status_code=201)
async def make_queue(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Make a queue: {source, rubric, limit?, columns?, order?, since?, until?, instructions?, annotators?, overlap?, extra?, assignment?}."""
    strange = sorted(set(body) - {*SPEC, "source", "rubric", "since", "until"})
    if strange:
        raise BadInput(f"A queue has no {strange[0]!r}.", f"It has: source, rubric, since, until, {', '.join(SPEC)}.")
    if not isinstance(body.get("source"), str):
        raise BadInput("The field 'source' is missing: what shall be labelled?", 'Send {"source": "dataset:loans", "rubric": [...]}.')
    if not isinstance(body.get("limit", 1), int):
        raise BadInput(f"limit is {body['limit']!r}; a whole number is needed.")
    given = {key: body[key] for key in SPEC if body.get(key) is not None}
    times = {key: from_iso(str(body[key])) for key in ("since", "until") if body.get(key) is not None}
    return await ws.labels.make(who, name, body["source"], body.get("rubric") or [], **given, **times)


@router.patch("/queues/{name}")
async def change_queue(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Name other annotators, close a queue or open it again: {annotators?, closed?}."""
    return await ws.labels.change(who, name, body.get("annotators"), body.get("closed"))


@router.get("/queues/{name}/items")
async def queue_items(who: Who, ws: Ws, name: str, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
    """Items with their labels; who is not editor sees only their own."""
    return await ws.labels.items(who, name, limit, cursor)


@router.post("/queues/{name}/next")
async def next_item(who: Who, ws: Ws, name: str) -> dict[str, Any]:
    """The next item for whoever asks; it is kept from others for a while."""
    return await ws.labels.next(who, name)


@router.post("/queues/{name}/labels", status_code=201)
async def add_label(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body()) -> dict[str, Any]:
    """Label an item: {item, answers: {question: answer}, comment?}, or {item, skip: true}."""
    if "item" not in body:
        raise BadInput("The field 'item' is missing.", 'Send {"item": "12", "answers": {"quality": "good"}}.')
    comment, skip = str(body.get("comment") or ""), bool(body.get("skip"))
    return await ws.labels.label(who, name, str(body["item"]), body.get("answers") or {}, comment=comment, skip=skip)


@router.post("/queues/{name}/dataset", status_code=201)
async def make_dataset(who: Who, ws: Ws, name: str, body: dict[str, Any] = Body(default={})) -> dict[str, Any]:
    """The labels as a dataset version: {dataset?, least?, target?}."""
    least = body.get("least", 1)
    if isinstance(least, bool) or not isinstance(least, int):
        raise BadInput(f"least is {least!r}; a whole number of labels is needed.")
    return await ws.labels.dataset(who, name, body.get("dataset"), least=least, target=body.get("target"))
