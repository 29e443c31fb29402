"""A server that plays LLM providers in tests: OpenAI's and Anthropic's dialects on a socket, in a thread of its own.

It says back what the last user message asks: "count to N" streams words, "call the tool" calls the first tool, "leak" says a secret, "break" ends a
stream in its middle, anything else is echoed. A model called `fail-STATUS` answers with that status.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from aiohttp import web

SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


class Provider:
    """Runs while the block lasts: `with Provider() as provider`; `asked` has every request's (path, headers, body), `left` counts clients that went."""

    def __init__(self, pause: float = 0.0) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.left = 0
        self.pause = pause
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Provider:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_post("/v1/messages", self._anthropic)
        runner = web.AppRunner(app, handler_cancellation=True)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _take(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.asked.append((request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        return body

    def _words(self, messages: list[dict[str, Any]]) -> list[str]:
        content = messages[-1].get("content")
        text = content if isinstance(content, str) else " ".join(p.get("text") or str(p.get("content") or "") for p in content or ())
        if text.startswith("count to "):
            return [f"{n} " for n in range(1, int(text.split()[2]) + 1)]
        if "leak" in text:
            return ["The key is ", SECRET[:9], SECRET[9:22], SECRET[22:], ", keep it."]
        return ["You ", "said: ", text]

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await self._take(request)
        model = str(body["model"])
        if model.startswith("fail-"):
            error = {"message": f"the provider says {model[5:]}", "type": "x", "code": "y"}
            return web.json_response({"error": error}, status=int(model[5:]), headers={"retry-after": "0"})
        tools = body.get("tools") if "call the tool" in str(body["messages"][-1].get("content")) else None
        words = self._words(body["messages"])
        usage = {"prompt_tokens": 11, "completion_tokens": len(words), "total_tokens": 11 + len(words)}
        call = (
            {"id": "call_1", "type": "function", "function": {"name": tools[0]["function"]["name"], "arguments": '{"city": "Paris"}'}}
            if tools
            else None
        )
        reason = "tool_calls" if call else "stop"
        if not body.get("stream"):
            try:
                await asyncio.sleep(self.pause)
            except asyncio.CancelledError:
                self.left += 1
                raise
            message: dict[str, Any] = {"role": "assistant", "content": None if call else "".join(words)}
            if call:
                message["tool_calls"] = [call]
            return web.json_response(
                {"id": "x", "model": model, "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}
            )
        deltas: list[dict[str, Any]] = [{"content": w} for w in words]
        if call:
            half = call["function"]["arguments"]
            deltas = [{"tool_calls": [{"index": 0, **call, "function": {**call["function"], "arguments": half[:6]}}]}]
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": half[6:]}}]})
        if "break" in words[-1]:
            return await self._stream(request, [f"data: {json.dumps({'choices': [{'delta': {'content': 'half'}}]})}\n\n"])
        events = [{"model": model, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        events.append({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        events.append({"model": model, "choices": [], "usage": usage})
        return await self._stream(request, [f"data: {json.dumps(e)}\n\n" for e in events] + ["data: [DONE]\n\n"])

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        body = await self._take(request)
        words = self._words(body["messages"])
        usage = {"input_tokens": 7, "output_tokens": len(words)}
        if not body.get("stream"):
            content = [{"type": "text", "text": "".join(words)}]
            return web.json_response({"model": body["model"], "content": content, "stop_reason": "end_turn", "usage": usage})
        events: list[dict[str, Any]] = [{"type": "message_start", "message": {"model": body["model"], "usage": usage}}]
        events += [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}} for w in words]
        events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}, {"type": "message_stop"}]
        return await self._stream(request, [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events])

    async def _stream(self, request: web.Request, pieces: list[str]) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        try:
            for piece in pieces:
                await reply.write(piece.encode())
                if self.pause:
                    await asyncio.sleep(self.pause)
        except (ConnectionError, asyncio.CancelledError):
            self.left += 1
            raise
        return reply
