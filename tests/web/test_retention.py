"""Retention and the archive, from the outside: what is older goes, or is read from the archive as if it had not gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.errors import NoSpace
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app

DAY = 86_400.0


def app(home: Path) -> TestClient:
    return TestClient(create_app(Settings(home=home, workers=0, fsync=False)), base_url="http://127.0.0.1:7600")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with app(tmp_path) as client:
        yield client


def telemetry(client: TestClient) -> Any:
    return client.app.state.workspace.telemetry  # type: ignore[attr-defined]


def flush(client: TestClient) -> None:
    client.portal.call(telemetry(client).flush)  # type: ignore[union-attr]


def now(client: TestClient) -> float:
    return client.app.state.workspace.clock.now()  # type: ignore[attr-defined, no-any-return]


def send(client: TestClient, days: float, question: str = "what is a loan?", endpoint: str | None = "tutor", kind: str = "CHAIN", **more: Any) -> str:
    trace, start = new_trace_id(), int((now(client) - days * DAY) * 1e9)
    attributes = {"user.id": more.pop("user", "ann"), "session.id": "s1", "llm.token_count.prompt": 10, "llm.model_name": "gpt-4o-mini"}
    if endpoint:
        attributes |= {"everloop.endpoint": endpoint, "everloop.release": f"release:{endpoint}@1"}
    root = Span(trace, new_span_id(), None, "ask", kind, start, start + 10**9, more.pop("status", "ok"), attributes, [], question, "yes")
    child = Span(trace, new_span_id(), root.span_id, "inner", "TOOL", start + 1, start + 2, "ok")
    rows = (
        [{"prediction_id": f"{trace}-0", "at": start / 1e9, "endpoint": endpoint, "features": {"a": 1}, "outputs": {"p": 0.5}}]
        if kind == "PREDICT"
        else []
    )
    client.app.state.workspace.traces.record(local_principal(), [root, child], rows)  # type: ignore[attr-defined]
    return trace


def rule(client: TestClient, name: str, **given: Any) -> None:
    answer = client.put(f"/api/v1/retention/{name}", json=given)
    assert answer.status_code == 200, answer.text


def run(client: TestClient, **given: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/retention/run", json=given)
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["rules"]}


def listed(client: TestClient, **params: Any) -> list[str]:
    return [item["trace_id"] for item in client.get("/api/v1/traces", params=params).json()["items"]]


def hot(client: TestClient, table: str = "spans") -> int:
    return int(telemetry(client).query_sync(lambda con: con.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


def test_archived_traces_are_listed_shown_searched_and_counted_as_before(client: TestClient, tmp_path: Path) -> None:
    old = [send(client, 100 + i, f"zebra number {i}", kind="PREDICT" if i == 0 else "CHAIN") for i in range(5)]
    young = send(client, 1, "a young zebra")
    client.post("/api/v1/scores", json={"subject": old[1], "name": "thumbs", "value": 1, "why": "clear"})
    flush(client)
    before = {trace: client.get(f"/api/v1/traces/{trace}").json() for trace in old}
    figures = client.get("/api/v1/stats", params={"since": now(client) - 200 * DAY, "until": now(client), "bucket_s": DAY * 400}).json()
    rule(client, "old", older="90d")
    assert run(client, dry_run=True)["old"]["traces"] == 5 and hot(client) == 12
    done = run(client)["old"]
    assert done["traces"] == 5 and done["archived_bytes"] > 0 and hot(client) == 2 and hot(client, "predictions") == 0
    files = list((tmp_path / "objects" / "default" / "archive").rglob("*.parquet"))
    assert len({file.parent.name for file in files}) == 5 and any(".predictions." in file.name for file in files)

    assert listed(client) == [young, *old]
    assert listed(client, limit=2) == [young, old[0]]
    page = client.get("/api/v1/traces", params={"limit": 3}).json()
    assert listed(client, limit=10, cursor=page["next"]) == old[2:]
    assert listed(client, since=now(client) - 50 * DAY) == [young]
    assert listed(client, until=now(client) - 101.5 * DAY) == old[2:]
    assert listed(client, text="zebra number 3") == [old[3]] and listed(client, user="ann", status="ok") == [young, *old]
    assert {trace: client.get(f"/api/v1/traces/{trace}").json() for trace in old} == before
    assert (
        client.get("/api/v1/stats", params={"since": now(client) - 200 * DAY, "until": now(client), "bucket_s": DAY * 400}).json()["items"][0][
            "count"
        ]
        == figures["items"][0]["count"]
    )
    assert client.get("/api/v1/scores", params={"subject": old[1]}).json()["items"][0]["why"] == "clear"
    assert client.get(f"/ui/traces/{old[2]}").status_code == 200 and old[4] in client.get("/ui/traces", params={"range": "all"}).text
    row = client.get("/api/v1/audit", params={"action": "retention.run"}).json()["items"][0]
    assert row["details"]["rules"][0]["traces"] == 5 and client.get("/api/v1/retention").json()["last"]["rules"][0]["traces"] == 5
    assert run(client)["old"]["traces"] == 0


def test_rules_take_what_they_say_and_leave_the_rest(client: TestClient) -> None:
    chat, predict, sent = send(client, 10), send(client, 10, kind="PREDICT", endpoint="credit"), send(client, 10, endpoint=None)
    failed, young = send(client, 10, status="error", endpoint="other"), send(client, 1)
    rule(client, "calls", older="5d", kind="predict", action="delete")
    assert run(client)["calls"]["traces"] == 1 and set(listed(client)) == {chat, sent, failed, young}
    rule(client, "broken", older="5d", status="error", action="delete")
    rule(client, "sent", older="5d", kind="client", action="delete")
    assert {name: one["traces"] for name, one in run(client).items()} == {"calls": 0, "broken": 1, "sent": 1}
    assert set(listed(client)) == {chat, young} and client.get(f"/api/v1/traces/{predict}").status_code == 404
    rule(client, "tutor", older="5d", endpoint="tutor", action="archive")
    rule(client, "gone", older="365d", action="delete")
    assert run(client, rule="tutor")["tutor"]["traces"] == 1 and listed(client) == [young, chat]
    rule(client, "gone", older="7d", action="delete")  # also what is archived
    assert run(client, rule="gone")["gone"]["traces"] == 1 and listed(client) == [young] and listed(client, text="loan") == [young]


@pytest.mark.parametrize(
    "given", [{}, {"older": "soon"}, {"older": "9d", "action": "burn"}, {"older": "9d", "of": "scores"}, {"older": "9d", "colour": 1}]
)
def test_a_rule_that_cannot_be_is_refused_in_words(client: TestClient, given: dict[str, Any]) -> None:
    answer = client.put("/api/v1/retention/bad", json=given)
    assert answer.status_code == 400 and answer.json()["detail"]


def test_a_step_that_fails_loses_nothing_and_the_next_run_goes_on(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [send(client, 100 + i) for i in range(3)]
    flush(client)
    rule(client, "old", older="90d")
    place = client.app.state.workspace.objects.place  # type: ignore[attr-defined]
    write, calls = place.write, []

    def full(key: str, parts: Any) -> None:
        calls.append(key)
        if len(calls) == 3:
            raise NoSpace("The disk is full.")
        write(key, parts)

    with monkeypatch.context() as patched:
        patched.setattr(place, "write", full)
        assert client.post("/api/v1/retention/run", json={}).status_code == 507
    assert listed(client) == traces and 0 < hot(client) < 6
    with monkeypatch.context() as patched:  # what was written is damaged before it is read back
        patched.setattr(place, "write", lambda key, parts: write(key, [b"".join(parts)[:-9] + b"x" * 9]))
        assert client.post("/api/v1/retention/run", json={}).status_code >= 500
    assert listed(client) == traces
    run(client)
    assert listed(client) == traces and hot(client) == 0
    assert all(client.get(f"/api/v1/traces/{trace}").status_code == 200 for trace in traces)


def test_the_archive_outlives_a_restart_and_a_lost_index_of_texts(tmp_path: Path) -> None:
    with app(tmp_path) as client:
        trace = send(client, 100, "an okapi asks")
        flush(client)
        rule(client, "old", older="90d")
        run(client)
    (tmp_path / "telemetry-text.db").unlink()
    with app(tmp_path) as client:
        assert listed(client, text="okapi") == [trace] and len(client.get(f"/api/v1/traces/{trace}").json()["spans"]) == 2


def test_a_span_sent_again_after_its_trace_was_archived_is_there_once(client: TestClient) -> None:
    trace = send(client, 100)
    flush(client)
    rule(client, "old", older="90d")
    run(client)
    spans = client.get(f"/api/v1/traces/{trace}").json()["spans"]
    names = ("trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "status", "attributes", "events", "inputs", "outputs")
    again = [Span(**{name: one[name] for name in names}) for one in spans]
    client.app.state.workspace.traces.record(local_principal(), again)  # type: ignore[attr-defined]
    flush(client)
    assert run(client)["old"]["traces"] == 1
    assert len(client.get(f"/api/v1/traces/{trace}").json()["spans"]) == 2 and listed(client) == [trace]


def test_a_project_file_declares_it(client: TestClient) -> None:
    items = [{"what": "retention", "name": "old", "spec": {"older": "90d", "kind": "chat"}}]
    assert client.post("/api/v1/apply", json={"items": items}).json()["items"][0]["change"] == "created"
    assert client.post("/api/v1/apply", json={"items": items}).json()["items"][0]["change"] == "unchanged"
    items[0]["spec"]["older"] = "30d"  # type: ignore[index]
    assert client.post("/api/v1/apply", json={"items": items}).json()["items"][0]["differences"] == [{"field": "older", "from": "90d", "to": "30d"}]
    assert client.delete("/api/v1/retention/old").status_code == 204 and client.delete("/api/v1/retention/old").status_code == 404


def test_what_is_told_of_an_archived_trace_counts(client: TestClient) -> None:
    experiment = client.post("/api/2.0/mlflow/experiments/create", json={"name": "mine"}).json()["experiment_id"]
    id = f"tr-{new_trace_id()}"
    info = {"trace_id": id, "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}, "state": "OK"}
    info |= {"request_time": "2020-01-01T00:00:00Z", "tags": {"first": "1"}, "trace_metadata": {"mlflow.trace.user": "ann"}}
    assert client.post("/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}).status_code == 200
    rule(client, "old", older="90d")
    assert run(client)["old"]["traces"] == 1 and hot(client, "infos") == 0
    for _ in range(2):
        assert client.patch(f"/api/3.0/mlflow/traces/{id}/tags", json={"key": "second", "value": "2"}).status_code == 200
        told = client.get(f"/api/3.0/mlflow/traces/{id}").json()["trace"]["trace_info"]
        assert told["tags"]["first"] == "1" and told["tags"]["second"] == "2" and told["trace_metadata"]["mlflow.trace.user"] == "ann"
        run(client)
    found = client.post("/api/3.0/mlflow/traces/search", json={"locations": [info["trace_location"]], "filter": "tags.second = '2'"})
    assert [one["trace_id"] for one in found.json()["traces"]] == [id]


def test_an_archive_in_a_bucket_is_read_through_copies_that_go_with_it(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [send(client, 100 + i) for i in range(2)]
    flush(client)
    rule(client, "old", older="90d")
    run(client)
    monkeypatch.setattr(client.app.state.workspace.objects.place, "file", lambda key: None)  # type: ignore[attr-defined]
    assert listed(client) == traces and client.get(f"/api/v1/traces/{traces[1]}").status_code == 200
    assert list((tmp_path / "archive-cache").iterdir())
    rule(client, "gone", older="90d", action="delete")
    assert run(client)["gone"]["traces"] == 2
    assert listed(client) == [] and not list((tmp_path / "archive-cache").iterdir()) and not list((tmp_path / "objects").rglob("*.parquet"))


KILLED = """
import os, sys
from pathlib import Path
from tests.web.test_retention import app, flush, rule, send
with app(Path(sys.argv[1])) as client:
    print([send(client, 100 + i) for i in range(3)][-1])
    flush(client)
    rule(client, "old", older="90d")
    change, steps = client.app.state.workspace.telemetry.change, []
    def dies(work, whole=False):
        steps.append(1)
        if len(steps) == 2:
            sys.stdout.flush()
            os._exit(9)
        return change(work, whole)
    client.app.state.workspace.telemetry.change = dies
    client.post("/api/v1/retention/run", json={})
"""


def test_a_run_that_was_killed_between_file_and_rows_is_gone_on_with(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True)
    assert killed.returncode == 9, killed.stderr.decode()
    with app(tmp_path) as client:
        assert len(listed(client)) == 3 and hot(client) == 4
        assert run(client)["old"]["traces"] == 2 and hot(client) == 0
        assert len(listed(client)) == 3 and len(client.get(f"/api/v1/traces/{killed.stdout.decode().strip()}").json()["spans"]) == 2
