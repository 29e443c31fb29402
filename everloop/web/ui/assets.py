"""Assets: names by kind, and one version with its manifest in readable form, the versions beside it, its aliases and their history."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.assets.registry import STAGE, STAGES
from everloop.core.errors import BadInput
from everloop.core.limits import REASON_CHARS
from everloop.core.refs import KINDS
from everloop.web.deps import check_csrf
from everloop.web.ui import graph
from everloop.web.ui.manifests import mapping, readable
from everloop.web.ui.page import Page
from everloop.web.ui.show import piece

router = APIRouter(include_in_schema=False)
rights = {
    "editor": (
        "POST /ui/assets/{kind}/{name}/{version}/alias",
        "POST /ui/assets/{kind}/{name}/{version}/about",
        "POST /ui/assets/{kind}/{name}/{version}/delete",
        "POST /ui/assets/{kind}/{name}/{version}/restore",
    )
}
"""Who may use which route: see web/rights.py."""
SHOWN = 50
VERSIONS = 50
USES = 30
ABOUT_CHARS = 20_000
"""Names on a page of the list; versions on a page of a name."""


@router.get("/ui/assets")
async def assets(page: Page) -> Response:
    """Names by last change, of one kind or of all."""
    kind, q = page.word("kind"), page.word("q") or ""
    found = await page.ws.assets.list(page.who, kind, q, SHOWN, page.word("cursor"))
    kinds = await page.ws.assets.kinds(page.who)
    gone = [one for one in await page.ws.assets.deleted(page.who, kind) if q in one["name"]] if page.word("view") == "deleted" else None
    return await page.render("assets.html", "Assets", assets=found["items"], next=found["next"], kinds=kinds, kind=kind, q=q, gone=gone)


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
        uses=await _uses(page, found),
        stage=found["tags"].get(STAGE, "None") if kind == "model" else None,
        stages=STAGES,
    )


async def _uses(page: Page, found: dict[str, Any]) -> dict[str, Any]:
    """What uses a version: releases that pin it, endpoints that serve those, decisions of gates about them, versions made of it, what keeps it from deletion."""
    ws, who = page.ws, page.who
    impact = await ws.govern.impact(who, found["ref"])
    releases = [ref for ref in impact["releases"] if ref != found["ref"]][:USES]
    decisions = []
    for ref in releases[:3] if found["kind"] == "model" else ():
        name, _, at = ref.removeprefix("release:").rpartition("@")
        decisions += await ws.gates.decisions(who, "release", name, int(at), limit=5)
    made = [
        n["ref"]
        for n in impact["nodes"]
        if n["ref"] != found["ref"] and n["ref"] not in releases and not n["ref"].startswith(("run:", "decision:", "trace:"))
    ]
    return {
        "releases": releases,
        "live": impact["live"],
        "decisions": decisions,
        "made": made[:USES],
        "needed": await ws.assets.needed_by(who, found["ref"]),
    }


@router.post("/ui/assets/{kind}/{name}/{version}/about")
async def about(page: Page, request: Request, kind: str, name: str, version: str) -> Response:
    """Change a version's description, a tag of it (an empty value takes it away), and a model's stage."""
    form = await request.form()
    check_csrf(request, form)
    if kind not in KINDS:
        raise BadInput(f"There is no kind of asset called {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
    ref = f"{kind}:{name}@{version}"
    key = str(form.get("key", "")).strip()
    description = str(form["description"]).strip() if "description" in form else None
    if len(description or "") > ABOUT_CHARS:
        raise BadInput(f"The description is {len(description or '')} characters long; at most {ABOUT_CHARS} are allowed.")
    tags: dict[str, str | None] = {key: str(form.get("value", "")).strip() or None} if key else {}
    if description is not None or tags:
        await page.ws.assets.annotate(page.who, ref, description, tags or None)
    stage = str(form.get("stage", ""))
    if stage and kind == "model":
        await page.ws.registry.transition(page.who, name, version, stage)
    return page.back(f"/ui/assets/{kind}/{piece(name)}/{piece(version)}", saved=1)


@router.post("/ui/assets/{kind}/{name}/{version}/delete")
async def delete(page: Page, request: Request, kind: str, name: str, version: str) -> Response:
    """Put a version out of sight, once its reference was written as confirmation."""
    form = await request.form()
    check_csrf(request, form)
    ref = f"{kind}:{name}@{version}"
    if str(form.get("confirm", "")).strip() != ref:
        raise BadInput("The version was not deleted: what was written is not its reference.", f"Write {ref} to confirm.")
    await page.ws.assets.delete(page.who, ref)
    return page.back("/ui/assets", kind=kind, gone=ref)


@router.post("/ui/assets/{kind}/{name}/{version}/restore")
async def restore(page: Page, request: Request, kind: str, name: str, version: str) -> Response:
    """Bring a deleted version back."""
    check_csrf(request, await request.form())
    await page.ws.assets.restore(page.who, f"{kind}:{name}@{version}")
    return page.back(f"/ui/assets/{kind}/{piece(name)}/{piece(version)}", saved=1)


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
