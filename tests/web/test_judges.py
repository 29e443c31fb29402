"""Live traces judged as they come: which, how often, at what cost, also over a restart; the LLM that judges is a real server on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.client import Client
from everloop.client.http import Http
from everloop.core import limits
from everloop.core.errors import BadInput
from everloop.core.settings import Settings
from everloop.evaluate.judging import sampled
from everloop.web.app import create_app
from everloop.workspace import judges
from tests.web.test_actions import chat
from tests.web.test_exports import Inside

PRICES = {"input": 1000.0, "output": 0.0}


@pytest.fixture
def llm() -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """An engine whose server gives every answer a score, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body["messages"])
            said = 'Sure: {"score": 0.25, "why": "too short"}' if "nonsense" not in str(body) else "I will not"
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            data = json.dumps({"id": "x", "object": "chat.completion", "model": "grader", "choices": [message], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"name": "openai", "model": "grader", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "prices": PRICES}, asked
    server.shutdown()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "JUDGE_SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(judges, "LOOK_SECONDS", 0.1)


def open_site(home: Path) -> TestClient:
    return TestClient(create_app(Settings(home=home, workers=0, fsync=False)), base_url="http://127.0.0.1:7600")


def sdk(site: TestClient) -> Client:
    return Client(Http("http://127.0.0.1:7600", transport=Inside(site)))


def wait(done: Any, seconds: float = 20.0) -> Any:
    end = time.time() + seconds
    while not (found := done()):
        assert time.time() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


def test_a_share_is_judged_once_and_over_a_restart(tmp_path: Path, llm: tuple[dict[str, Any], list[Any]]) -> None:
    engine, asked = llm
    with open_site(tmp_path) as site:
        client = sdk(site)
        early = chat(client, "before?", "not judged")
        client.judges.put("grade", ["pii", {"llm": {"engine": engine, "name": "quality"}}], rate=0.5)
        traces = [chat(client, f"what is {i}?", "Write to ann@example.com" if i == 0 else f"It is {i}.") for i in range(12)]
        taken = [trace for trace in traces if sampled(trace, 0.5)]
        wait(lambda: client.judges.get("grade")["today"]["judged"] == len(taken))
        found = client.judges.get("grade")
        assert len(asked) == len(taken) and found["today"]["errors"] == 0
        assert found["today"]["cost"] == pytest.approx(0.1 * len(taken)) and found["today"]["tokens_in"] == 100 * len(taken)
        told = {one["name"]: one for one in found["scores"]}
        assert told["quality"]["n"] == len(taken) and told["quality"]["mean"] == 0.25 and told["pii"]["interval"][1] <= 1.0
        for trace in [early, *traces]:
            assert {s["name"] for s in client.traces.scores(trace) if s["source"] == "online:grade"} == (
                {"pii", "quality"} if trace in taken else set()
            )
        own = client.traces.list(endpoint="judge:grade")["items"]
        assert len(own) == len(taken) and sum(one["cost"] for one in own) == pytest.approx(0.1 * len(taken))
    with open_site(tmp_path) as site:
        client = sdk(site)
        new = next(trace for i in range(99) if sampled(trace := chat(client, f"later {i}?", "yes"), 0.5))
        wait(lambda: client.traces.scores(new))
        time.sleep(0.5)
        assert len(asked) == len(taken) + 1  # what was judged before the restart is not judged again, nor are the judge's own traces


def test_a_budget_stops_it_and_an_error_is_told(tmp_path: Path, llm: tuple[dict[str, Any], list[Any]]) -> None:
    engine, asked = llm
    with open_site(tmp_path) as site:
        client = sdk(site)
        client.judges.put("dear", [{"llm": {"engine": engine}}], rate=1.0, budget=0.25)
        for i in range(6):
            chat(client, f"q{i}?", "a")
        found = wait(lambda: (one := client.judges.get("dear"))["today"]["over_budget"] and one)
        wait(lambda: (one := client.judges.get("dear")["today"])["over_budget"] + one["judged"] == 6)
        assert len(asked) == 3 and "budget" in client.judges.get("dear")["stopped"], found
        client.judges.put("odd", [{"llm": {"engine": engine, "instructions": "nonsense"}}, "pii"], rate=1.0)
        odd = chat(client, "q?", "a")
        wait(lambda: client.judges.get("odd")["error"])
        assert "did not answer with a score" in client.judges.get("odd")["error"]["what"]
        wait(lambda: [s["name"] for s in client.traces.scores(odd)] == ["pii"])
        client.judges.put("bounded", ["pii"], rate=1.0, per_day=2)
        for i in range(4):
            chat(client, f"r{i}?", "a")
        wait(lambda: client.judges.get("bounded")["today"]["over_budget"] == 2)


def test_what_it_cannot_keep_up_with_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "JUDGE_BACKLOG", 2)
    monkeypatch.setattr(judges, "LOOK_SECONDS", 1.5)
    with open_site(tmp_path) as site:
        client = sdk(site)
        client.judges.put("slow", ["pii"], rate=1.0)
        traces = [chat(client, f"q{i}?", "a") for i in range(8)]
        wait(lambda: (today := client.judges.get("slow")["today"])["judged"] + today["dropped"] == 8)
        assert client.judges.get("slow")["today"]["dropped"] > 0
        wait(lambda: client.traces.scores(traces[-1]))


def test_what_cannot_judge_is_said(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        client = sdk(site)
        for checks, rule in (
            ([], {}),
            (["drift"], {}),
            (["pii"], {"rate": 2}),
            ([{"llm": {}}], {}),
            (["pii"], {"color": 1}),
            (["pii"], {"budget": -1}),
        ):
            with pytest.raises(BadInput):
                client.judges.put("bad", checks, **rule)
        assert client.judges.list() == []
        from everloop.client.declare import Project

        project = Project("tutor")
        project.judge("watch", ["groundedness"], rate=0.2)
        assert [one["change"] for one in client.declare.apply(project)["items"]] == ["created"]
        assert [one["change"] for one in client.declare.apply(project)["items"]] == ["unchanged"]
        assert client.judges.get("watch")["spec"]["endpoint"] == "tutor" and limits.JUDGES_MAX > 1
        client.judges.delete("watch")
        assert client.judges.list() == []
