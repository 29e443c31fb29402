"""Home, and the search over everything."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from everloop.web.ui.page import Page
from everloop.web.ui.show import ref_path

router = APIRouter(include_in_schema=False)


@router.get("/ui")
async def home(page: Page) -> Response:
    """What waits for a person, how each endpoint goes, what monitors saw."""
    return await page.render("home.html", "Home", home=await page.ws.overview.home(page.who, page.range.since, page.range.until))


@router.get("/ui/")
async def home_with_slash(page: Page) -> Response:
    """The same page under its other address."""
    return RedirectResponse(page.url("/ui"), 308)


@router.get("/ui/search")
async def search(page: Page) -> Response:
    """An id or a reference goes to its page; other text lists what fits."""
    q = page.word("q") or ""
    found = await page.ws.overview.find(page.who, q[:500])
    if found["node"]:
        kind, _, id = found["node"].partition(":")
        if kind == "trace" and "-" in id:
            trace, _, row = id.partition("-")
            return RedirectResponse(page.url(f"/ui/traces/{trace}", row=row), 303)
        return RedirectResponse(page.url(ref_path(found["node"])), 303)
    return await page.render("search.html", f"Search: {q}" if q else "Search", q=q, found=found)
