"""The audit record: who did what, and whether its chain is whole."""

from __future__ import annotations

from fastapi import APIRouter, Response

from everloop.core.errors import BadInput
from everloop.web.ui.page import Page

router = APIRouter(include_in_schema=False)
SHOWN = 100


@router.get("/ui/audit")
async def audit(page: Page) -> Response:
    """Rows, newest first, of one subject or of all; `verify` walks the whole chain."""
    before = page.word("cursor")
    if before is not None and not before.isdigit():
        raise BadInput(f"{before!r} is not a cursor of this list.", "Use the link to the next page.")
    rows = await page.ws.govern.audit(page.who, page.word("subject"), SHOWN + 1, int(before) if before else None)
    following = str(rows[SHOWN - 1]["seq"]) if len(rows) > SHOWN else None
    chain = await page.ws.govern.verify(page.who) if page.word("verify") else None
    since, until = page.range.since, page.range.until
    shown = [r for r in rows[:SHOWN] if (since is None or r["at"] >= since) and (until is None or r["at"] < until)]
    return await page.render("audit.html", "Audit", rows=shown, next=following, chain=chain)
