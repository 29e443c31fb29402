"""From traces to rows, cases, queues and other releases, through the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.client import Client
from everloop.client.http import Http
from everloop.core.errors import BadInput, Conflict
from everloop.core.settings import Settings
from everloop.web.app import create_app
from tests.web import walk
from tests.web.test_exports import Inside, sent

RUBRIC = [{"name": "quality", "classes": ["good", "bad"]}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("home"), workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600") as site:
        yield site


@pytest.fixture
def client(site: TestClient) -> Client:
    return Client(Http("http://127.0.0.1:7600", transport=Inside(site)))


def chat(client: Client, question: str, said: str, **more: Any) -> str:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    return sent(client, {"kind": "CHAIN", "in": asked, "out": {"text": said}, **more})


def test_chats_become_cases_and_rows_once(client: Client) -> None:
    wrong, same = chat(client, "Can I get a refund?", "No."), chat(client, "can I get a  refund?", "Never.")
    other, blind = chat(client, "Where is my key?", "Under Access."), sent(client, {"kind": "TOOL", "in": {"x": 1}, "out": {"y": 2}})
    client.traces.add_score(wrong, "correction", "Within 14 days.")
    made = client.traces.add_to_suite("found", [wrong, same, other, blind], tags=["users"])
    assert (made["added"], made["cases"], made["left_out"]) == (2, 2, {"asked in it already": 1, "no question": 1})
    cases = {case["question"].lower(): case for case in client.suites.get("found")["cases"]}
    known = cases["can i get a refund?"]
    assert (
        known["expected_answer"] == "Within 14 days."
        and cases["where is my key?"]["expected_answer"] is None
        and cases["where is my key?"]["tags"] == ["users"]
        and "messages" not in known
    )
    third = chat(client, "What does it cost?", "Nothing.")
    assert client.traces.add_to_suite("found", [third, other])["cases"] == 3
    with pytest.raises(BadInput, match="asked in it already"):
        client.traces.add_to_suite("found", [third])
    rows = client.traces.add_to_dataset("asked", [wrong, other])
    again = client.traces.add_to_dataset("asked", [other, third])
    assert (rows["rows"], again["rows"], again["added"], again["left_out"]) == (2, 3, 1, {"in it already": 1})
    page = client._http.get("/api/v1/datasets/asked/latest/rows")
    listed = [row if isinstance(row, dict) else dict(zip(page["columns"], row, strict=True)) for row in page["rows"]]
    shown = {row["question"]: row for row in listed}
    assert shown["Can I get a refund?"]["expected"] == "Within 14 days." and shown["Where is my key?"]["answer"] == "Under Access."
    assert rows["ref"] in str(client.why(again["ref"]))


def test_traces_go_before_annotators(client: Client) -> None:
    one, two = chat(client, "a?", "b"), chat(client, "c?", "d")
    with pytest.raises(Exception, match="no queue"):
        client.traces.add_to_queue("doubtful", [one])
    assert client.traces.add_to_queue("doubtful", [one], rubric=RUBRIC) == {"queue": "doubtful", "added": 1, "left_out": {}}
    assert client.traces.add_to_queue("doubtful", [one, two])["added"] == 1
    shown = {item["item"]: item["shown"]["answer"] for item in client.labels.items("doubtful")}
    assert set(shown) == {one, two}
    client.labels.label("doubtful", one, {"quality": "bad"})
    assert [s["value"] for s in client.traces.scores(one)] == ["bad"]


def test_predictions_become_rows_a_suite_and_a_replay(site: TestClient, client: Client) -> None:
    made = walk.seed(site, "mine")
    mine = Client(Http("http://127.0.0.1:7600", key=made.headers["authorization"].removeprefix("Bearer "), transport=Inside(site)))
    rows = [{"a": a, "b": b} for a, b in ((3, 1), (0, 2), (1, 5), (4, 0))]
    asked = [mine._http.post(f"/api/v1/endpoints/{walk.NAME}/predict", json={"rows": [row]}) for row in rows]
    traces = [one["trace_id"] for one in asked]
    for trace in traces:
        mine.traces.get(trace)
    before = len(mine.traces.list(500)["items"])
    with pytest.raises(BadInput, match="label"):
        mine.traces.add_to_suite("late", traces)
    mine.traces.labels({"prediction_id": one["predictions"][0]["prediction_id"], "label": "10"[i > 1]} for i, one in enumerate(asked[:3]))
    suite = mine.traces.add_to_suite("late", traces)
    assert (suite["added"], suite["left_out"], suite["manifest"]["task"]) == (3, {"no label yet": 1}, "binary")
    told = mine.traces.replay(f"release:{walk.NAME}@1", traces)
    assert told["summary"]["changed"] == 0 and told["summary"]["failed"] == 0 and told["summary"]["right"]["before"]["n"] == 3
    assert told["summary"]["right"]["before"] == told["summary"]["right"]["after"]
    assert len(mine.traces.list(500)["items"]) == before  # a replay is no traffic


def test_what_cannot_be_selected_is_said(client: Client) -> None:
    for body in ({"suite": "x"}, {"suite": "x", "traces": []}, {"suite": "x", "traces": ["0" * 32]}, {"suite": "x", "status": "ok", "color": "red"}):
        with pytest.raises(BadInput):
            client._http.post("/api/v1/traces/actions/suite", json=body)
    with pytest.raises((BadInput, Conflict)):
        client.traces.add_to_suite("", status="ok")


def test_a_tail_shows_what_comes(tmp_path: Path) -> None:
    import threading

    from tests.conftest import running_server

    with running_server(tmp_path / "home") as url:
        client = Client(Http(url))
        old, found = chat(client, "old?", "yes"), []
        watching = threading.Thread(target=lambda: found.extend(t["trace_id"] for t in client.traces.tail(4.0)))
        watching.start()
        import time

        time.sleep(1.0)
        sent.at = time.time_ns() - 1_000_000_000  # type: ignore[attr-defined]
        new = chat(Client(Http(url)), "new?", "yes")
        watching.join(20)
    assert found == [new] and old not in found
