"""A chat release before an OpenAI-compatible server: whole, streamed, guarded, recorded, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from starlette.testclient import TestClient

from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Answer, Call, Chat, Message, Score, TraceContext, Utterance
from everloop.serve.guard import guard
from everloop.web.app import create_app

WHO = local_principal()


async def echo(request: web.Request) -> web.StreamResponse:
    """An upstream that says back what it was sent."""
    body = await request.json()
    said = " | ".join(f"{m['role']}: {m['content']}" for m in body["messages"])
    if not body.get("stream"):
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await reply.prepare(request)
    for word in said.split(" "):
        await reply.write(b"data: " + orjson.dumps({"choices": [{"delta": {"content": word + " "}}]}) + b"\n\n")
    await reply.write(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
    await reply.write(b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}\n\ndata: [DONE]\n\n')
    return reply


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        ws = client.app.state.workspace

        async def prepare() -> web.AppRunner:
            server = web.Application()
            server.router.add_post("/v1/chat/completions", echo)
            runner = web.AppRunner(server)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            prompt = {"messages": [{"role": "system", "content": "Answer: {{ question }}"}], "syntax": "jinja2", "variables": ["question"]}
            await ws.assets.register(WHO, "prompt", "tutor", prompt)
            engine = {"name": "openai", "model": "echo", "base_url": f"http://127.0.0.1:{port}/v1"}
            release = await ws.assets.release(WHO, "tutor", "chat", {"prompt": "prompt:tutor"}, {"engine": engine})
            await ws.assets.move_alias(WHO, release["ref"], "champion")
            await ws.endpoints.put(WHO, "tutor", "chat", {"release": "tutor"})
            return runner

        runner = client.portal.call(prepare)
        yield client
        client.portal.call(runner.cleanup)


ASK = {"model": "tutor", "messages": [{"role": "user", "content": "why?"}]}


def test_a_whole_answer_is_recorded(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json=ASK).json()
    assert answer["choices"][0]["message"]["content"] == "system: Answer: why? | user: why?" and answer["usage"]["total_tokens"] == 12
    trace = client.portal.call(client.app.state.workspace.traces.get, WHO, answer["id"].removeprefix("chatcmpl-"))
    assert {s["kind"] for s in trace["spans"]} == {"CHAIN", "LLM"}


def test_a_streamed_answer(client: TestClient) -> None:
    reply = client.post("/v1/chat/completions", json={**ASK, "stream": True, "stream_options": {"include_usage": True}})
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    events = [orjson.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]" and events[-1]["usage"]["completion_tokens"] == 5
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events if e["choices"])
    assert text.strip() == "system: Answer: why? | user: why?"


def test_models_and_errors(client: TestClient) -> None:
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["tutor"]
    assert client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["first_id"] == "tutor"
    answer = client.post("/v1/chat/completions", json={**ASK, "model": "none"})
    assert answer.status_code == 404 and "tutor" in answer.json()["error"]["message"]
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400


class Word:
    """A check that fails where a word occurs."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, subject: Utterance) -> Score:
        at = subject.text.find(self.word)
        details = {"spans": [{"start": at, "end": at + len(self.word), "label": "word"}]} if at >= 0 else {}
        return Score("word", at >= 0, "fail" if at >= 0 else "pass", details=details)


@pytest.mark.parametrize(
    ("stage", "action", "text", "blocked"),
    [
        ("input", "block", "No.", True),
        ("input", "redact", "said [word]", False),
        ("output", "redact", "said [word]", False),
        ("output", "block", "No.", True),
    ],
)
def test_a_policy_holds_back_redacts_and_says_so(stage: str, action: str, text: str, blocked: bool) -> None:
    async def inner(call: Call) -> Answer:
        return Answer(Message("said " + call.inputs.messages[-1]["content"]))

    policy = {"rules": [{"name": "r", "check": "word", "stage": stage, "action": action, "params": {}}], "refusal": "No."}
    serve = guard(inner, policy, lambda name, params: Word("secret"))
    for stream in (False, True):
        call = Call("t", Chat([{"role": "user", "content": "secret"}], stream=stream), WHO, TraceContext("a" * 32, "b" * 16))

        async def read(call: Call = call) -> tuple[str, Any]:
            answer = await serve(call)
            said = "".join([c.text async for c in answer.outputs]) if answer.streams else answer.outputs.text
            return said, answer.notes

        said, notes = asyncio.run(read())
        assert said == text and notes["blocked"] is blocked and notes["flags"][0]["action"] == action
        assert call.trace.spans[0].kind == "GUARDRAIL"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "a secret"}, {"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "content": "a secret"},
        {"role": "system", "content": "a secret"},
    ],
)
def test_no_text_of_a_callers_messages_goes_round_the_policy(message: dict[str, Any]) -> None:
    async def inner(call: Call) -> Answer:
        assert "secret" not in str(call.inputs.messages)
        return Answer(Message("fine"))

    for action, blocked in (("block", True), ("redact", False)):
        policy = {"rules": [{"name": "r", "check": "word", "stage": "input", "action": action, "params": {}}], "refusal": "No."}
        serve = guard(inner, policy, lambda name, params: Word("secret"))
        call = Call("t", Chat([message, {"role": "user", "content": "go on"}]), WHO, TraceContext("a" * 32, "b" * 16))
        answer = asyncio.run(serve(call))  # type: ignore[arg-type]
        assert answer.notes["blocked"] is blocked and answer.outputs.text == ("No." if blocked else "fine")
