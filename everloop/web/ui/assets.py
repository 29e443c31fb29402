"""Assets: names by kind, and one version with its manifest in readable form, the versions beside it, its aliases and their history."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput
from everloop.core.limits import REASON_CHARS
from everloop.core.refs import KINDS
from everloop.web.deps import check_csrf
from everloop.web.ui import graph
from everloop.web.ui.manifests import mapping, readable
from everloop.web.ui.page import Page
from everloop.web.ui.show import piece

router = APIRouter(include_in_schema=False)
rights = {"editor": ("POST /ui/assets/{kind}/{name}/{version}/alias",)}
"""Who may use which route: see web/rights.py."""
SHOWN = 50
VERSIONS = 50
"""Names on a page of the list; versions on a page of a name."""


@router.get("/ui/assets")
async def assets(page: Page) -> Response:
    """Names by last change, of one kind or of all."""
    kind, q = page.word("kind"), page.word("q") or ""
    found = await page.ws.assets.list(page.who, kind, q, SHOWN, page.word("cursor"))
    kinds = await page.ws.assets.kinds(page.who)
    return await page.render("assets.html", "Assets", assets=found["items"], next=found["next"], kinds=kinds, kind=kind, q=q)


@router.get("/ui/assets/{kind}/{name}")
async def latest(page: Page, kind: str, name: str) -> Response:
    """The latest version of a name."""
    return await asset(page, kind, name, "")


@router.get("/ui/assets/{kind}/{name}/{at}")
async def asset(page: Page, kind: str, name: str, at: str) -> Response:
    """One version, by number or alias."""
    ws, who = page.ws, page.who
    found = await ws.assets.get(who, f"{kind}:{name}{'@' + at if at else ''}")
    before = page.word("before")
    versions = await ws.assets.versions(who, kind, name, VERSIONS + 1, int(before) if before and before.isdigit() else None)
    history = await ws.assets.alias_history(who, kind, name)
    why = await ws.govern.why(who, found["ref"])
    gates = [g for g in await ws.gates.list(who) if (g["kind"], g["name"]) == (kind, name)]
    return await page.render(
        "asset.html",
        f"{name}@{found['version']}",
        [("Assets", "/ui/assets"), (kind, f"/ui/assets?kind={kind}"), (name, f"/ui/assets/{kind}/{piece(name)}")],
        a=found,
        manifest=mapping(found["manifest"]),
        versions=versions[:VERSIONS],
        more=versions[VERSIONS - 1]["version"] if len(versions) > VERSIONS else None,
        latest=not at,
        history=history[:100],
        gates=gates,
        picture=graph.lineage(why["nodes"], why["edges"], found["ref"], page.url) if len(why["nodes"]) > 1 else None,
        shown=await readable(page, found),
    )


@router.post("/ui/assets/{kind}/{name}/{version}/alias")
async def move_alias(page: Page, request: Request, kind: str, name: str, version: str) -> Response:
    """Move an alias to this version, through the gate where there is one."""
    form = await request.form()
    check_csrf(request, form)
    given: dict[str, Any] = {key: str(form.get(key, "")).strip() for key in ("alias", "why")}
    if kind not in KINDS or not given["alias"]:
        raise BadInput("The alias is empty.", "Give a word such as: champion, staging, canary.")
    if len(given["why"]) > REASON_CHARS:
        raise BadInput(f"The reason is {len(given['why'])} characters long; at most {REASON_CHARS} are allowed.")
    await page.ws.assets.move_alias(page.who, f"{kind}:{name}@{version}", given["alias"], why=given["why"])
    return page.back(f"/ui/assets/{kind}/{piece(name)}/{piece(version)}", done=given["alias"])
