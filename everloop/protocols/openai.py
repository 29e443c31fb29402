"""OpenAI's API: a chat endpoint's name is a `model`. Chat completions whole and streamed, models, and embeddings by an index's embedder.

Answers carry one field more, `everloop`: {trace_id, release, citations, blocked, refused, flags}; in a stream it is on the chunk with the
finish_reason. Headers x-everloop-trace-id and x-everloop-release name both. A whole answer's message has its citations too.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.routing import Route

from everloop.core.clock import iso
from everloop.core.errors import BadInput, EverloopError, Forbidden, NotFound, TooMany, Unauthorized
from everloop.core.limits import EMBED_TEXTS
from everloop.core.types import Answer, Chat, Usage
from everloop.protocols.exchange import ClientLeft, Exchange, check_size, failure, headers_of, ours

router = APIRouter(tags=["openai"])
rights = {"any": ("GET /v1/models", "GET /v1/models/{model}"), "call": ("POST /v1/chat/completions", "POST /v1/embeddings")}
"""Who may use which route: see web/rights.py."""
OWN = frozenset({"model", "messages", "stream", "stream_options", "user", "session", "n", "store", "metadata", "safety_identifier"})
"""Parameters that go no further than here."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def mount(app: Any, ws: Any) -> None:
    """Serve the chat below the framework, before all other routes."""
    app.router.routes.insert(0, Route("/v1/chat/completions", Completions(ws), methods=["POST"]))


class Completions:
    """POST /v1/chat/completions as an ASGI app. A blocked answer ends with finish_reason content_filter."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            body = await exchange.ask()
            chat = _chat(body)
            more = {"user": str(body.get("user") or body.get("safety_identifier") or ""), "session": _session(body)}
            answer, trace_id = await exchange.while_there(self.ws.endpoints.chat(scope["everloop.who"], body["model"], chat, **more))
            head = {"id": f"chatcmpl-{trace_id}", "created": int(self.ws.clock.now()), "model": body["model"]}
            head["system_fingerprint"] = str(answer.release)
            if answer.streams:
                wanted = bool((body.get("stream_options") or {}).get("include_usage"))
                await exchange.events(_events(answer, trace_id, head, wanted), headers_of(answer, trace_id))
            else:
                await exchange.json(_whole(answer, trace_id, head), headers=headers_of(answer, trace_id))
        except ClientLeft:
            return
        except EverloopError as error:
            await exchange.refuse(error, error_body(error))


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """Chat endpoints as models; in Anthropic's shape for its clients."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    items = [e for e in (await ws.endpoints.list(who))["items"] if e["kind"] == "chat"]
    data = [_model(e, who.project, request) for e in items]
    if "anthropic-version" in request.headers:
        return _json({"data": data, "has_more": False, "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None})
    return _json({"object": "list", "data": data})


@router.get("/v1/models/{model}")
async def model(model: str, request: Request) -> Response:
    """One chat endpoint as a model; 404 for another."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    found = await ws.endpoints.get(who, model)
    if found["kind"] != "chat":
        raise NotFound(f"The endpoint {model!r} predicts; it is no chat model.", "GET /v1/models lists the chat models.")
    return _json(_model(found, who.project, request))


@router.post("/v1/embeddings")
async def embeddings(request: Request) -> Response:
    """Texts as vectors of an index's embedder: model is `index:NAME`, with @version or @alias if not the newest."""
    ws, who = request.app.state.workspace, request.scope["everloop.who"]
    body = await Exchange(request.scope, request.receive, None).ask()
    given, form = body.get("input"), body.get("encoding_format") or "float"
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise BadInput("The field 'input' must be a text or a list of texts, none of them empty.", "Tokens are not taken: send text.", param="input")
    if len(texts) > EMBED_TEXTS:
        raise BadInput(f"{len(texts)} texts in one request; at most {EMBED_TEXTS} are taken.", "Send them in parts.", param="input")
    if form not in ("float", "base64"):
        raise BadInput(f"The encoding_format {form!r} is not known.", "Use float or base64.", param="encoding_format")
    if not isinstance(body.get("model"), str):
        raise BadInput("The field 'model' is missing.", "Name an index: index:NAME.", param="model")
    vectors, ref, tokens = await ws.endpoints.embed(who, body["model"], texts, body.get("dimensions"))
    encode = (lambda v: base64.b64encode(v.astype("<f4").tobytes()).decode()) if form == "base64" else (lambda v: v.tolist())
    data = await asyncio.to_thread(lambda: [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)])
    return _json({"object": "list", "data": data, "model": ref, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


def _model(endpoint: dict[str, Any], project: str, request: Request) -> dict[str, Any]:
    name = endpoint["name"]
    if "anthropic-version" in request.headers:
        return {"type": "model", "id": name, "display_name": name, "created_at": iso(endpoint["created_at"])}
    return {"id": name, "object": "model", "created": int(endpoint["created_at"]), "owned_by": project}


def _chat(body: dict[str, Any]) -> Chat:
    """The request as a Chat; BadInput names the field that cannot be."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadInput("The field 'model' is missing.", "Name a chat endpoint; GET /v1/models lists them.", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput("The field 'messages' must be a list of messages.", '[{"role": "user", "content": "..."}]', param="messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadInput(f"Message {i} needs a role: one of {', '.join(ROLES)}.", param=f"messages[{i}].role")
        content = message.get("content")
        if not (content is None or isinstance(content, str) or (isinstance(content, list) and all(isinstance(p, dict) for p in content))):
            raise BadInput(f"The content of message {i} must be a text or a list of parts.", param=f"messages[{i}].content")
    params = {k: v for k, v in body.items() if k not in OWN}
    check_size(messages, params)
    if body.get("n") not in (None, 1):
        raise BadInput(f"n is {body['n']!r}; one answer is given for a request.", "Leave n out, or ask several times.", param="n")
    if body.get("logprobs") or body.get("top_logprobs"):
        raise BadInput("Log probabilities are not passed on.", "Leave logprobs and top_logprobs out.", param="logprobs")
    return Chat(messages, params, bool(body.get("stream")))


def _session(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    return str(body.get("session") or (metadata.get("session_id") or metadata.get("session") or "" if isinstance(metadata, dict) else ""))


def _whole(answer: Answer, trace_id: str, head: dict[str, Any]) -> dict[str, Any]:
    said: Any = answer.outputs
    message: dict[str, Any] = {"role": "assistant", "content": said.text or (None if said.tool_calls else ""), "refusal": None, "annotations": []}
    if said.tool_calls:
        message["tool_calls"] = list(said.tool_calls)
    if answer.notes.get("citations"):
        message["citations"] = list(answer.notes["citations"])
    choice = {"index": 0, "message": message, "finish_reason": said.finish_reason, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage_of(answer.usage), "everloop": ours(answer, trace_id)}


async def _events(answer: Answer, trace_id: str, head: dict[str, Any], wanted: bool) -> AsyncIterator[bytes]:
    base = {**head, "object": "chat.completion.chunk", **({"usage": None} if wanted else {})}
    usage, outputs = answer.usage, answer.outputs
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    try:
        yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]})
        async for chunk in outputs:
            usage = chunk.usage or usage
            delta = {"content": chunk.text} if chunk.text else {}
            if chunk.tool_calls:
                delta["tool_calls"] = list(chunk.tool_calls)
            event = {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": chunk.finish_reason, "logprobs": None}]}
            if chunk.finish_reason:
                event["everloop"] = ours(answer, trace_id)
            yield _event(event)
    except EverloopError as error:
        yield _event(error_body(error))
        return
    finally:
        await outputs.aclose()
    if wanted:
        yield _event({**base, "choices": [], "usage": usage_of(usage)})
    yield b"data: [DONE]\n\n"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Token counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.tokens_cached},
        "completion_tokens_details": {"reasoning_tokens": usage.tokens_reasoning},
    }


def error_body(error: EverloopError) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    status, _ = failure(error)
    kind, code = "invalid_request_error" if status < 500 else "server_error", error.code.replace("-", "_")
    if isinstance(error, Unauthorized):
        code = "invalid_api_key"
    elif isinstance(error, Forbidden):
        kind = "permission_error"
    elif isinstance(error, NotFound):
        code = "model_not_found"
    elif isinstance(error, TooMany) or status == 429:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    param = error.details.get("param") or ("model" if isinstance(error, NotFound) else None)
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


error_shapes = dict.fromkeys(("/v1/chat/", "/v1/models", "/v1/embeddings"), error_body)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
