"""Gates and their decisions: what had to hold, what was found, who approved; and the form by which a person decides."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import REASON_CHARS
from everloop.web.deps import check_csrf
from everloop.web.ui.page import Page, View

router = APIRouter(include_in_schema=False)
rights = {"approver": ("POST /ui/decisions/{id}/{verb}",)}
"""Who may use which route: see web/rights.py."""
SHOWN = 50
"""Decisions on a page."""
CASES = 25
"""Cases of a decision's evidence on its page."""


@router.get("/ui/gates")
async def gates(page: Page) -> Response:
    """What waits for a person, the gates there are, the decisions made."""
    ws, who = page.ws, page.who
    cursor = page.word("cursor")
    before = _number(cursor) if cursor else page.range.until
    kind, _, name = (page.word("of") or "").partition(":")
    found = await ws.gates.decisions(who, kind or None, name or None, approval=page.word("approval"), limit=SHOWN + 1, before=before)
    verdict = page.word("verdict")
    rows = [d for d in found[:SHOWN] if verdict in (None, d["verdict"]) and (page.range.since is None or d["at"] >= page.range.since)]
    following = str(found[SHOWN - 1]["at"]) if len(found) > SHOWN else None
    declared = await ws.gates.list(who)
    pending = await ws.gates.pending(who)
    return await page.render("gates.html", "Gates", gates=declared, decisions=rows, pending=pending, next=following)


@router.get("/ui/decisions")
async def decisions(page: Page) -> Response:
    """Decisions are listed with the gates."""
    return page.back("/ui/gates")


@router.get("/ui/decisions/{id}")
async def decision(page: Page, id: str) -> Response:
    """One decision."""
    ws, who = page.ws, page.who
    found = await ws.gates.decision(who, id)
    moves = await ws.assets.alias_history(who, found["kind"], found["name"], found["alias"])
    moved = next((m for m in moves if m["decision"] == id), None)
    evidence = await _evidence(page, found)
    changed = await ws.govern.changes(who, found["ref"], found["against"])
    return await page.render(
        "decision.html", f"{found['ref']} as {found['alias']}", [("Gates", "/ui/gates")], d=found, moved=moved, evidence=evidence, changed=changed
    )


@router.post("/ui/decisions/{id}/{verb}")
async def settle(page: Page, request: Request, id: str, verb: str) -> Response:
    """A person approves (the alias moves at once) or rejects; a reason is part of the record."""
    form = await request.form()
    check_csrf(request, form)
    why = str(form.get("why", "")).strip()
    if verb not in ("approve", "reject"):
        raise NotFound(f"A decision cannot be asked to {verb!r}.", "It can be approved or rejected.")
    if not why:
        raise BadInput("The reason is empty.", "Say in a sentence why; it is kept on the record.")
    if len(why) > REASON_CHARS:
        raise BadInput(f"The reason is {len(why)} characters long; at most {REASON_CHARS} are allowed.")
    await (page.ws.gates.approve if verb == "approve" else page.ws.gates.reject)(page.who, id, why)
    return page.back(f"/ui/decisions/{id}", done=verb)


async def _evidence(page: View, found: dict[str, Any]) -> dict[str, Any] | None:
    """The cases behind a decision where they are a chat's; for a table, how many rows and what was answered. None where none was kept."""
    from everloop.evaluate.cases import judged

    try:
        body = await page.ws.gates.evidence(page.who, found["id"])
    except NotFound:
        return None
    candidate, against = body.get("candidate") or {}, body.get("against") or {}
    cases = [c for c in candidate.get("cases") or [] if isinstance(c, dict)]
    at = page.word("case") or "0"
    first = int(at) if at.isdigit() else 0
    told = [{**c, "told": judged(c)} for c in cases]
    wrong = [c for c in told if not c["told"]["right"]]
    shown = wrong if page.word("wrong") else told
    held = {c.get("id"): c for c in against.get("cases") or [] if isinstance(c, dict)}
    return {
        "n": candidate.get("n"),
        "task": candidate.get("task"),
        "cases": [{**c, "held": held.get(c.get("id"))} for c in shown[first : first + CASES]],
        "first": first,
        "size": CASES,
        "total": len(shown),
        "all": len(cases),
        "wrong": len(wrong),
        "confusion": _confusion(candidate),
    }


def _confusion(results: dict[str, Any]) -> dict[str, Any] | None:
    """How often each class was answered as each: {"classes", "rows"}; None for a task without classes."""
    classes, y, said = results.get("classes") or [], results.get("y"), results.get("prediction")
    if not classes or len(classes) > 12 or not isinstance(y, list) or not isinstance(said, list):
        return None
    names = [str(c) for c in classes]
    table = {a: dict.fromkeys(names, 0) for a in names}
    for truth, answer in zip(y, said, strict=False):
        if str(truth) in table and str(answer) in table:
            table[str(truth)][str(answer)] += 1
    return {"classes": names, "rows": [(name, [table[name][b] for b in names]) for name in names]}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a cursor of this list.", "Use the link to the next page.") from None
