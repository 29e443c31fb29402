"""Selections of traces as files, read back by what will read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from everloop.client import Client
from everloop.client.http import Http
from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app

SECOND = 1_000_000_000
AT = 1_700_000_000 * SECOND
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


class Inside:
    """Requests of the SDK to a server in this process."""

    def __init__(self, site: TestClient) -> None:
        self.site = site

    def __call__(self, method: str, url: str, body: Any, headers: dict[str, str], timeout: float) -> tuple[int, Any, bytes]:
        answer = self.site.request(method, url.removeprefix("http://127.0.0.1:7600"), content=body, headers=headers)
        return answer.status_code, answer.headers, answer.content


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as site:
        yield Client(Http("http://127.0.0.1:7600", transport=Inside(site)))


def sent(client: Client, *spans: dict[str, Any]) -> str:
    """One trace of spans {"kind", "in", "out", "status"?, attributes}; the first is the root."""
    trace, root, made = new_trace_id(), new_span_id(), []
    at = sent.at = getattr(sent, "at", AT) + SECOND  # type: ignore[attr-defined]
    for i, span in enumerate(spans):
        texts = {key: value for key, value in span.items() if key not in ("kind", "in", "out", "status")}
        texts |= {"openinference.span.kind": span["kind"], "input.value": json.dumps(span["in"]), "input.mime_type": "application/json"}
        if "out" in span:
            texts |= {"output.value": json.dumps(span["out"]), "output.mime_type": "application/json"}
        made.append(
            {
                "traceId": trace,
                "spanId": new_span_id() if i else root,
                **({"parentSpanId": root} if i else {}),
                "name": span["kind"].lower(),
                "startTimeUnixNano": str(at + i),
                "endTimeUnixNano": str(at + SECOND // 2),
                "status": {"code": span.get("status", 1)},
                "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in texts.items()],
            }
        )
    client._http.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": made}]}]})
    client.traces.get(trace)  # it waits until the trace can be queried
    return trace


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def asked(client: Client, question: str, answer: str | None, **more: Any) -> str:
    root = {"kind": "CHAIN", "in": [said("user", question)], "out": {"text": answer} if answer else None, **more}
    call = {"kind": "LLM", "in": {"messages": [said("system", "Be kind."), said("user", f"Context: 1\n{question}")]}, **more}
    return sent(client, root, {**call, "out": {"choices": [{"message": said("assistant", answer)}]}} if answer else call)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_hold_every_trace_and_no_formula(client: Client, tmp_path: Path) -> None:
    good = asked(client, "=1+1?", "2", **{"user.id": "=cmd()"})
    bad = asked(client, "Break.", "no", status=2)
    client.traces.add_score(good, "thumbs", 1)
    client.traces.add_score(good, "verdict", "good")
    client.traces.add_score(bad, "verdict", 3)  # text and number under one name: text
    for ending in ("csv", "parquet", "jsonl"):
        told = client.traces.export(tmp_path / f"t.{ending}")
        assert (told["count"], told["left_out"]) == (2, {})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [row["trace_id"] for row in rows] == [bad, good], "the newest first"
    assert rows[1]["user"] == "'=cmd()" and rows[1]["score.thumbs"] == "1"
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["score.verdict"].to_pylist() == ["3", "good"] and table["score.thumbs"].to_pylist() == [None, 1]
    assert table["ms"].to_pylist() == [500.0, 500.0] and table["blocked"].to_pylist() == [False, False]
    whole = lines(tmp_path / "t.jsonl")
    assert whole[1]["inputs"] == [said("user", "=1+1?")] and {s["name"] for s in whole[1]["scores"]} == {"thumbs", "verdict"}
    assert client.traces.export(tmp_path / "s.csv", of="spans")["count"] == 4
    assert client.traces.export(tmp_path / "s.jsonl", status="error")["count"] == 1
    assert [row["trace_id"] for row in lines(tmp_path / "s.jsonl")] == [bad]


def test_predictions_are_rows_with_a_column_a_feature(client: Client, tmp_path: Path) -> None:
    trace = new_trace_id()
    rows = [
        {
            "prediction_id": f"{trace}-{i}",
            "at": 1.7e9,
            "endpoint": "credit",
            "release": "release:credit@1",
            "features": features,
            "outputs": {"p": 0.5},
        }
        for i, features in enumerate(({"age": 31, "job": "cook"}, {"age": 40.5, "job": None}))
    ]
    span = Span(trace, new_span_id(), None, "predict", "PREDICT", AT, AT + SECOND, "ok", {"everloop.endpoint": "credit"})
    site: TestClient = client._http._transport.site
    assert site.portal is not None
    site.portal.call(partial(site.app.state.workspace.traces.add, local_principal(), [span], rows))  # type: ignore[attr-defined]
    client.traces.get(trace)
    client.traces.labels([{"prediction_id": f"{trace}-1", "label": "bad"}])
    assert client.traces.export(tmp_path / "p.parquet", of="predictions")["count"] == 2
    table = pq.read_table(tmp_path / "p.parquet").sort_by("prediction_id")
    assert table["feature.age"].to_pylist() == [31.0, 40.5] and table["feature.job"].to_pylist() == ["cook", None]
    assert table["output.p"].to_pylist() == [0.5, 0.5] and table["label"].to_pylist() == [None, "bad"]


def test_conversations_to_train_on_are_whole_and_went_well(client: Client, tmp_path: Path) -> None:
    up, down = asked(client, "Capital of France?", "Paris"), asked(client, "Capital of Spain?", "Lisbon")
    again = asked(client, "Capital of France?", "Paris")
    asked(client, "Broken?", "x", status=2)
    asked(client, "Silent?", None)
    for one in (up, down, again):
        client.traces.add_score(one, "thumbs", -1 if one == down else 1)
    call = said("assistant", None, tool_calls=[{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}])
    attributes = {"llm.tools.0.tool.json_schema": json.dumps(WEATHER)}
    tool = sent(client, {"kind": "LLM", "in": [said("user", "Weather in Rome?")], "out": {"choices": [{"message": call}]}, **attributes})

    told = client.traces.export(tmp_path / "train.jsonl", "fine-tuning")
    assert told["count"] == 3 and told["left_out"] == {"the same as another": 1, "ended in an error": 1, "no answer": 1}
    by = {line["messages"][-2]["content"]: line for line in lines(tmp_path / "train.jsonl")}
    assert by["Context: 1\nCapital of France?"]["messages"] == [
        said("system", "Be kind."),
        said("user", "Context: 1\nCapital of France?"),
        said("assistant", "Paris"),
    ]
    assert by["Weather in Rome?"] == {"messages": [said("user", "Weather in Rome?"), call], "tools": [WEATHER]}

    told = client.traces.export(tmp_path / "good.jsonl", "fine-tuning", score="thumbs >= 1", level="trace")
    assert lines(tmp_path / "good.jsonl") == [{"messages": [said("user", "Capital of France?"), said("assistant", "Paris")]}]
    assert told["left_out"] == {"not thumbs >= 1": 4, "the same as another": 1}

    client.traces.add_score(down, "correction", "Madrid")
    assert client.traces.export(tmp_path / "evals.jsonl", "openai-evals", traces=[down, tool])["left_out"] == {"no answer in words": 1}
    assert lines(tmp_path / "evals.jsonl") == [{"input": [said("user", "Capital of Spain?")], "ideal": "Madrid", "trace_id": down}]
    client.traces.export(tmp_path / "items.jsonl", "openai-eval-items", traces=[down])
    (item,) = lines(tmp_path / "items.jsonl")
    assert item["item"]["question"] == "Capital of Spain?" and item["item"]["expected"] == "Madrid" and item["sample"]["output_text"] == "Lisbon"


def test_what_cannot_be_is_said_and_no_file_is_left(client: Client, tmp_path: Path) -> None:
    for asked_, word in (
        ({"format": "xls"}, "Formats: csv"),
        ({"format": "fine-tuning", "of": "spans"}, "conversation"),
        ({"score": "thumbs"}, "no condition"),
        ({"score": "thumbs > high"}, "no number"),
        ({"limit": 0}, "leaves nothing"),
        ({"colour": "red"}, "has no colour"),
    ):
        with pytest.raises(Exception, match=word):
            client.traces.export(tmp_path / "x.jsonl", **{"format": None, **asked_})  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*x.jsonl*")) and not list((tmp_path / "home").glob("incoming/*"))
    assert client.traces.export(tmp_path / "none.csv")["count"] == 0
    subjects = [row for row in client._http.get("/api/v1/audit")["items"] if row["action"] == "traces.export"]
    assert [row["details"]["format"] for row in subjects] == ["csv"], "what left the system is in the audit trail"
