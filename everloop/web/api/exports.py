"""Exports of traces over REST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import APIRouter, Body, Request
from starlette.responses import StreamingResponse

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput
from everloop.web.deps import Who, Ws
from everloop.workspace.exports import Export

router = APIRouter(prefix="/api/v1", tags=["traces"])
PIECE = 1 << 18
WORDS = ("format", "of", "level", "score", "limit", "traces", "endpoint", "status", "release", "user", "session", "since", "until", "text", "query")


@router.get("/exports/traces")
async def export(who: Who, ws: Ws, request: Request) -> StreamingResponse:
    """Traces as a file: format (csv, jsonl, parquet, openai-evals, openai-eval-items, fine-tuning), of (traces, spans, predictions), level, score, limit,
    and the filters of /traces. The headers x-everloop-exported and x-everloop-left-out say how many, and why not others."""
    return answer(await ws.exports.traces(who, **_asked(dict(request.query_params))))


@router.post("/exports/traces")
async def export_chosen(who: Who, ws: Ws, body: dict[str, Any] = Body()) -> StreamingResponse:
    """The same, asked in a body: {"format"?, "traces": [ids]?, and filters}."""
    return answer(await ws.exports.traces(who, **_asked(body)))


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(given) - set(WORDS)):
        raise BadInput(f"An export has no {', '.join(unknown)}.", f"It has: {', '.join(WORDS)}.")
    asked = {key: value for key, value in given.items() if value not in (None, "")}
    for key in ("since", "until"):
        if key in asked:
            asked[key] = from_iso(str(asked[key]))
    if isinstance(asked.get("traces"), str):
        asked["traces"] = asked["traces"].split(",")
    if "traces" in asked and not (isinstance(asked["traces"], list) and all(isinstance(one, str) for one in asked["traces"])):
        raise BadInput("traces is not a list of trace ids.")
    if "limit" in asked:
        if not str(asked["limit"]).isdigit():
            raise BadInput(f"limit={asked['limit']!r} is no whole number.")
        asked["limit"] = int(asked["limit"])
    if wrong := [key for key, value in asked.items() if key not in ("traces", "limit", "since", "until") and not isinstance(value, str)]:
        raise BadInput(f"{', '.join(wrong)} must be text.")
    return asked


def answer(export: Export) -> StreamingResponse:
    """A made export as a download."""
    headers = {
        "content-disposition": f'attachment; filename="{export.name}"',
        "content-length": str(export.size),
        "x-everloop-exported": str(export.count),
        "x-everloop-left-out": orjson.dumps(dict(export.left_out)).decode("ascii", "replace"),
        "cache-control": "no-store",
    }

    def pieces() -> Iterator[bytes]:
        with export.file as file:
            file.seek(0)
            while piece := file.read(PIECE):
                yield piece

    return StreamingResponse(pieces(), headers=headers, media_type=export.media)


rights = {"viewer": ("GET /api/v1/exports/traces", "POST /api/v1/exports/traces")}
"""Who may use which route: see web/rights.py."""
