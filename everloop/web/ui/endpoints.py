"""Endpoints: what is live behind each, how it goes, and a form to try it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput, EverloopError, NotFound
from everloop.core.limits import TRY_CHARS
from everloop.core.types import Batch, Chat
from everloop.web.deps import check_csrf
from everloop.web.ui import charts
from everloop.web.ui import spans as tree
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
rights = {"call": ("POST /ui/endpoints/{name}/try",)}
"""Who may use which route: see web/rights.py."""


@router.get("/ui/endpoints")
async def endpoints(page: Page) -> Response:
    """All endpoints with what is live."""
    found = (await page.ws.endpoints.list(page.who))["items"]
    wanted = (page.word("q") or "").lower()
    shown = [e for e in found if wanted in e["name"].lower() and page.word("kind") in (None, e["kind"])]
    return await page.render("endpoints.html", "Endpoints", endpoints=shown, total=len(found))


@router.get("/ui/endpoints/{name}")
async def endpoint(page: Page, name: str) -> Response:
    """One endpoint."""
    return await _endpoint(page, name)


@router.post("/ui/endpoints/{name}/try")
async def try_it(page: Page, request: Request, name: str) -> Response:
    """One call through the normal path, from the page's form; the page again with the answer."""
    form = await request.form()
    check_csrf(request, form)
    given = {k: v for k, v in form.items() if isinstance(v, str)}
    tried: dict[str, Any] = {"given": given, "answer": None, "error": None}
    try:
        tried["answer"] = await _ask(page, name, given)
    except NotFound:
        raise
    except EverloopError as error:
        tried["error"] = error
    return await _endpoint(page, name, tried)


async def _ask(page: View, name: str, given: dict[str, str]) -> dict[str, Any]:
    ws, who = page.ws, page.who
    endpoint = await ws.endpoints.get(who, name)
    if endpoint["kind"] == "chat":
        question = given.get("question", "").strip()
        if not question:
            raise BadInput("There is no question.", "Type one, then send it.")
        if len(question) > TRY_CHARS:
            raise BadInput(f"The question is {len(question)} characters long; this form takes {TRY_CHARS}.", "Send longer ones by the API.")
        answer, trace = await ws.endpoints.chat(who, name, Chat([{"role": "user", "content": question}]))
        message = answer.outputs
        notes = dict(answer.notes)
        shown = {"text": getattr(message, "text", str(message)), "citations": list(getattr(message, "citations", ()))}
        return {**shown, "notes": notes, "usage": answer.usage, "release": str(answer.release), "trace_id": trace}
    signature = (await ws.overview.signature(who, endpoint)) or []
    row = {column["name"]: _typed(column, given.get(f"x-{column['name']}", "")) for column in signature}
    if not row:
        raise BadInput("The live model says nothing about its inputs, so this form cannot ask it.", "Call it by the API.")
    return await ws.endpoints.predict(who, name, Batch({k: [v] for k, v in row.items()}, 1))


def _typed(column: dict[str, Any], text: str) -> Any:
    """A form's text as the type that the signature names; an empty field is a missing value."""
    text, kind = text.strip(), column.get("type")
    if not text:
        return None
    if kind in ("number", "integer"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            raise BadInput(f"{column['name']} is {text!r}; it must be {'a whole number' if kind == 'integer' else 'a number'}.") from None
    return text.lower() in ("true", "1", "yes", "on") if kind == "boolean" else text


async def _endpoint(page: View, name: str, tried: dict[str, Any] | None = None) -> Response:
    ws, who = page.ws, page.who
    endpoint = await ws.endpoints.get(who, name)
    about = await ws.overview.endpoint(who, endpoint, await ws.monitors.list(who), page.range.since, page.range.until)
    recent = (await ws.traces.list(who, endpoint=name, since=page.range.since, until=page.range.until, limit=10))["items"]
    signature = await ws.overview.signature(who, endpoint) if endpoint["kind"] == "predict" else None
    fields = [{**column, "value": _before(column["name"], tried, recent)} for column in signature or []]
    return await page.render(
        "endpoint.html",
        name,
        [("Endpoints", "/ui/endpoints")],
        e=about,
        charts=charts.traffic({"items": about["stats"], "bucket_s": about["bucket_s"]}),
        recent=[{**t, "asked": tree.preview(t["inputs"])} for t in recent],
        fields=fields,
        tried=tried,
    )


def _before(name: str, tried: dict[str, Any] | None, recent: list[dict[str, Any]]) -> Any:
    """What a field of the form starts with: what was tried, else the value of a recent call."""
    if tried is not None:
        return tried["given"].get(f"x-{name}", "")
    inputs = recent[0]["inputs"] if recent else None
    values = inputs.get(name) if isinstance(inputs, dict) else None
    first = values[0] if isinstance(values, list) and values else values
    return "" if first is None or isinstance(first, dict | list) else first
