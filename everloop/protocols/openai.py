"""OpenAI's API: a chat endpoint's name is a `model`. Chat completions, whole and streamed, and the list of models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from everloop.core.errors import BadInput, EverloopError, NotFound, TooLarge
from everloop.core.limits import CHAT_CHARS
from everloop.core.types import Answer, Chat, Usage

router = APIRouter(tags=["openai"])
rights = {"any": ("GET /v1/models",), "call": ("POST /v1/chat/completions",)}
"""Who may use which route: see web/rights.py."""
OWN = {"model", "messages", "stream", "stream_options", "user", "session"}


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Chat endpoints as models; in Anthropic's shape for its clients."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    items = [e for e in (await ws.endpoints.list(who))["items"] if e["kind"] == "chat"]
    if "anthropic-version" in request.headers:
        from everloop.core.clock import iso

        data = [{"type": "model", "id": e["name"], "display_name": e["name"], "created_at": iso(e["created_at"])} for e in items]
        ends = {"first_id": items[0]["name"] if items else None, "last_id": items[-1]["name"] if items else None}
        return _json({"data": data, "has_more": False, **ends})
    shown = [{"id": e["name"], "object": "model", "created": int(e["created_at"]), "owned_by": who.project} for e in items]
    return _json({"object": "list", "data": shown})


@router.post("/v1/chat/completions")
async def completions(request: Request) -> Response:
    """A chat; with `stream`, server-sent events. A blocked answer ends with finish_reason content_filter."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    try:
        body = _parse(await request.body())
        params = {k: v for k, v in body.items() if k not in OWN}
        asked = Chat(body["messages"], params, bool(body.get("stream")))
        user, session = str(body.get("user") or ""), str(body.get("session") or "")
        answer, trace_id = await ws.endpoints.chat(who, body["model"], asked, user=user, session=session)
        head = {"id": f"chatcmpl-{trace_id}", "created": int(ws.clock.now()), "model": body["model"], "system_fingerprint": str(answer.release)}
        if answer.streams:
            wanted = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_events(answer, head, wanted), media_type="text/event-stream", headers={"cache-control": "no-cache"})
    except EverloopError as error:
        return _json(_error(error), error.status)
    said = answer.outputs
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    if said.citations:
        message["citations"] = [dict(c) for c in said.citations]
    choice = {"index": 0, "message": message, "finish_reason": said.finish_reason, "logprobs": None}
    return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer.usage)})


async def _events(answer: Answer, head: dict[str, Any], wanted: bool) -> AsyncIterator[bytes]:
    base = {**head, "object": "chat.completion.chunk"}
    usage = answer.usage
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    try:
        async for chunk in answer.outputs:
            usage = chunk.usage or usage
            delta = {"content": chunk.text} if chunk.text else {}
            yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": chunk.finish_reason}]})
    except EverloopError as error:
        yield _event(_error(error))
        return
    finally:
        await answer.outputs.aclose()
    if wanted:
        yield _event({**base, "choices": [], "usage": _usage(usage)})
    yield b"data: [DONE]\n\n"


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}.") from None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise BadInput("The field 'messages' must be a list of messages.", '[{"role": "user", "content": "..."}]')
    if not isinstance(body.get("model"), str):
        raise BadInput("The field 'model' is missing.", "Name a chat endpoint; GET /v1/models lists them.")
    if sum(len(str(m.get("content") or "")) for m in messages) > CHAT_CHARS:
        raise TooLarge(f"The messages have over {CHAT_CHARS} characters.")
    return dict(body)


def _usage(usage: Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out, "total_tokens": usage.tokens_in + usage.tokens_out}


def _error(error: EverloopError) -> dict[str, Any]:
    missing = isinstance(error, NotFound)
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "error": {"message": str(error), "type": kind, "param": "model" if missing else None, "code": "model_not_found" if missing else error.code}
    }


error_shapes = dict.fromkeys(("/v1/chat", "/v1/models", "/v1/embeddings", "/v1/responses"), _error)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
