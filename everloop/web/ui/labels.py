"""Annotation queues: which there are, and the page on which people label, made for the keyboard (static/queues.js; it works without too)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput
from everloop.web.deps import check_csrf
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
rights = {"viewer": ("POST /ui/queues/{name}",)}  # who is named among a queue's annotators: the facade asks
"""Who may use which route: see web/rights.py."""
SHOWN = 50
"""Items of a queue's list on a page."""
SCALE = 11
"""A score with at most so many steps is a row of buttons, else a field."""


@router.get("/ui/queues")
async def queues(page: Page) -> Response:
    """The queues and how far each is."""
    found = await page.ws.labels.list(page.who, SHOWN, page.word("cursor"))
    return await page.render("queues.html", "Labels", queues=found["items"], next=found["next"])


@router.get("/ui/queues/{name}")
async def queue(page: Page, name: str) -> Response:
    """The next item with the rubric's questions; `item` shows one that one has labelled again, `items=1` lists them with their labels."""
    ws, who = page.ws, page.who
    found = await ws.labels.get(who, name)
    above = [("Labels", "/ui/queues")]
    if page.word("items") or not found["may_label"]:
        items = await ws.labels.items(who, name, SHOWN, page.word("cursor"))
        return await page.render("queue_items.html", name, above, q=found, items=items["items"], next=items["next"])
    again = await ws.labels.mine(who, name, page.word("item")) if page.word("item") else None
    given = again or (await ws.labels.next(who, name))["item"]
    mine = next((p for p in found["people"] if p["annotator"] == who.name), {"labels": 0, "skipped": 0})
    last = await _last(page, name, again)
    asked = [{**question, "choices": choices(question)} for question in found["spec"]["rubric"]]
    values = {"q": found, "item": given, "label": (again or {}).get("label"), "questions": asked, "mine": mine, "last": last}
    return await page.render("queue.html", name, above, scripts=["queues.js"], **values)


@router.post("/ui/queues/{name}")
async def label(page: Page, request: Request, name: str) -> Response:
    """Keep what the form says of an item and go on to the next."""
    form = await request.form()
    check_csrf(request, form)
    item = str(form.get("item", ""))
    if not item:
        raise BadInput("The form names no item.", f"Open /ui/queues/{name} again.")
    answers = {key.removeprefix("q:"): str(value) for key, value in form.items() if key.startswith("q:") and str(value) != ""}
    skip = form.get("do") == "skip"
    await page.ws.labels.label(page.who, name, item, answers, comment=str(form.get("comment", "")).strip(), skip=skip)
    return page.back(f"/ui/queues/{name}", done="skipped" if skip else "saved")


async def _last(page: View, name: str, again: dict[str, Any] | None) -> str | None:
    """The item that one labelled before: before the one at hand, where that is labelled already."""
    found = await page.ws.labels.mine(page.who, name, before=again["label"]["at"] if again else None)
    return found["item"] if found else None


def choices(question: dict[str, Any]) -> list[Any]:
    """What a question offers as buttons: its classes, or its scores where they are few; else nothing."""
    if question["type"] == "class":
        return list(question["classes"])
    if question["type"] == "score":
        steps = round((question["max"] - question["min"]) / question["step"])
        if steps < SCALE:
            made = [question["min"] + i * question["step"] for i in range(steps + 1)]
            return [int(value) if value == int(value) else value for value in made]
    return []
