"""Indexes over REST: look something up, to see what a chat release would find."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from everloop.web.deps import Who, Ws

router = APIRouter(prefix="/api/v1", tags=["indexes"])


@router.get("/indexes/{name}/{at}/search")
async def search(who: Who, ws: Ws, name: str, at: str, query: str, k: int = 4, mode: str = "hybrid", min_score: float = 0.0) -> dict[str, Any]:
    """The best k passages for a question: {ref, items: [{n, chunk, document, path, title, heading, text, score, page?}]}; mode: hybrid, text, vector."""
    return await ws.data.search(who, f"index:{name}@{at}", query, k, mode, min_score)


rights = {"viewer": ("GET /api/v1/indexes/{name}/{at}/search",)}
"""Who may use which route: see web/rights.py."""
