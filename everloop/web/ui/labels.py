"""Annotation queues: which there are, and the page on which people label, made for the keyboard (static/queues.js; it works without too)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.assets import rubrics
from everloop.core.errors import BadInput, EverloopError
from everloop.core.principal import Role
from everloop.web.deps import check_csrf
from everloop.web.ui.page import Page, View
from everloop.web.ui.show import piece

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/queues",), "viewer": ("POST /ui/queues/{name}",)}  # who is named among a queue's annotators: the facade asks
"""Who may use which route: see web/rights.py."""
SHOWN = 50
"""Items of a queue's list on a page."""
ORDERS = {
    "given": "as they come",
    "random": "at random",
    "uncertainty": "where the model is least sure",
    "score": "traces with the lowest score",
    "disagreement": "where labels differ",
}
"""Orders of items, in words."""
SCALE = 11
"""A score with at most so many steps is a row of buttons, else a field."""


@router.get("/ui/queues")
async def queues(page: Page) -> Response:
    """The queues and how far each is, and a form that makes one; `source` fills it in."""
    return await _queues(page, {"source": page.word("source")} if page.word("source") else {})


@router.post("/ui/queues")
async def make(page: Page, request: Request) -> Response:
    """Make the queue that the form describes and show it; where it cannot be, the form again with the reason."""
    form = await request.form()
    check_csrf(request, form)
    values = {key: str(value).strip() for key, value in form.items()}
    try:
        made = await page.ws.labels.make(page.who, values.get("name", ""), values.get("source", ""), **_asked(values))
    except EverloopError as error:
        if error.status not in (400, 404, 409):
            raise
        return await _queues(page, values, error)
    return page.back(f"/ui/queues/{piece(made['name'])}", items=1, done="made")


async def _queues(page: View, values: dict[str, str], error: EverloopError | None = None) -> Response:
    found = await page.ws.labels.list(page.who, SHOWN, page.word("cursor"))
    sources: list[str] = []
    if page.who.role >= Role.editor:
        datasets = (await page.ws.assets.list(page.who, "dataset", limit=SHOWN))["items"]
        endpoints = (await page.ws.endpoints.list(page.who))["items"]
        sources = [f"dataset:{one['name']}" for one in datasets] + [f"endpoint:{one['name']}" for one in endpoints]
    told = {"queues": found["items"], "next": found["next"], "sources": list(dict.fromkeys(sources)), "values": values, "error": error}
    return await page.render("queues.html", "Labels", status=error.status if error else 200, orders=ORDERS, **told)


def _asked(values: dict[str, str]) -> dict[str, Any]:
    """What a form says of a queue, as `labels.make` takes it. BadInput for a number that is none."""
    numbers = {}
    for key, name, default in (("overlap", "Labels of each item", 1), ("extra", "More where those differ", 0), ("limit", "Items at most", 1000)):
        text = values.get(key) or str(default)
        if not text.isdigit():
            raise BadInput(f"{name}: {text!r} is no whole number.")
        numbers[key] = int(text)
    order: dict[str, Any] = {"by": values.get("order") or "given"}
    figure = values.get("figure", "")
    if figure and order["by"] == "score":
        order["score"] = figure
    elif figure and order["by"] == "uncertainty":
        order["release" if figure.startswith("release:") else "column"] = figure
    columns = _listed(values.get("columns", ""))
    return {
        "rubric": [rubrics.question(line) for line in values.get("rubric", "").splitlines() if line.strip()],
        "instructions": values.get("instructions", ""),
        "annotators": _listed(values.get("annotators", "")),
        "assignment": "dealt" if values.get("dealt") else "open",
        "order": order,
        **({"columns": columns} if columns else {}),
        **numbers,
    }


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
