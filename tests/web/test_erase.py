"""A user is forgotten: nothing of theirs is left in any file of the home, also after a restart, and a receipt says that it was done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Span
from everloop.web.app import create_app

MARK, USER = "zqmarmalade", "zquser-4711"
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


def send(client: TestClient, text: str, user: str | None = USER, session: str = "s-their-own", days: float = 0.0) -> str:
    trace, start = new_trace_id(), int((client.app.state.workspace.clock.now() - days * DAY) * 1e9)  # type: ignore[attr-defined]
    attributes = {"everloop.endpoint": "tutor", "everloop.release": "release:tutor@1", "session.id": session, **({"user.id": user} if user else {})}
    root = Span(trace, new_span_id(), None, "ask", "CHAIN", start, start + 10**9, "ok", attributes, [], text, f"you said {text}")
    child = Span(trace, new_span_id(), root.span_id, "llm", "LLM", start, start + 10**8, "ok", {"input.value": text}, [], text, None)
    rows = [{"prediction_id": f"{trace}-0", "at": start / 1e9, "endpoint": "tutor", "user": user, "features": {"note": text}, "outputs": {"p": 0.5}}]
    client.app.state.workspace.traces.record(local_principal(), [root, child], rows)  # type: ignore[attr-defined]
    return trace


def on_disk(home: Path, *marks: str) -> list[str]:
    """Files of the home that hold a mark, as bytes or in the columns of a Parquet file."""
    found = []
    for file in (f for f in home.rglob("*") if f.is_file()):
        data = file.read_bytes()
        if data[:4] == b"PAR1":
            data += orjson.dumps(pq.read_table(pa.BufferReader(data)).to_pylist(), default=str)
        found += [f"{mark} in {file.relative_to(home)}" for mark in marks if mark.encode() in data]
    return found


def ok(answer: Any) -> Any:
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


def made_of(client: TestClient, theirs: str, others: str) -> None:
    """A queue, a dataset and two versions of a suite that hold a trace of the user's and one of somebody else's."""
    rubric = [{"name": "good", "classes": ["no", "yes"]}]
    ok(client.put("/api/v1/queues/look", json={"source": "endpoint:tutor", "rubric": rubric, "annotators": ["local"]}))
    ok(client.post("/api/v1/queues/look/labels", json={"item": theirs, "answers": {"good": "no"}, "comment": f"they said {MARK}"}))
    csv = f"trace_id,question\n{theirs},{MARK} one\n{others},what is a bond?\n"
    ok(client.post("/api/v1/datasets", data={"name": "questions", "roles": "{}"}, files={"file": ("q.csv", csv.encode())}))
    rows = {"task": "binary", "dataset": "dataset:questions@1", "target": "question", "protected": [], "cases": None, "count": 2}
    ok(client.post("/api/v1/assets", json={"kind": "suite", "name": "on-rows", "manifest": rows}))
    for more in ("", "!"):
        cases = [{"id": "a", "question": f"{MARK}{more}", "trace": theirs}, {"id": "b", "question": "what is a bond?", "trace": others}]
        put = ok(client.post("/api/v1/objects", content=b"\n".join(map(orjson.dumps, cases))))
        ok(client.post("/api/v1/assets", json={"kind": "suite", "name": "asked", "manifest": {"task": "chat", "cases": put}}))


def test_nothing_is_left_of_an_erased_user_anywhere(tmp_path: Path) -> None:
    with app(tmp_path) as client:
        hot, nameless = send(client, f"{MARK} today"), send(client, f"{MARK} without a name", user=None)
        old, others_old = send(client, f"{MARK} long ago", days=100), send(client, "an okapi long ago", user="bea", session="s2", days=100)
        others = send(client, "what is a bond?", user="bea", session="s2")
        ok(client.post("/api/v1/scores", json={"subject": hot, "name": "thumbs", "value": -1, "why": f"{MARK} was wrong"}))
        ok(client.post("/api/v1/scores", json={"subject": "s-their-own", "name": "thumbs", "value": -1, "why": f"{MARK} all day"}))
        flush(client)
        made_of(client, hot, others)
        ok(client.put("/api/v1/retention/old", json={"older": "90d"}))
        assert ok(client.post("/api/v1/retention/run", json={}))["rules"][0]["traces"] == 2
        (tmp_path / "log" / "rejected").mkdir(exist_ok=True)
        (tmp_path / "log" / "rejected" / "x.frame").write_bytes(f"...{USER}...{MARK}".encode())
        assert on_disk(tmp_path, MARK, USER)

        counted = ok(client.post("/api/v1/erasures", json={"user": USER, "dry_run": True}))
        assert counted["traces"] == 3 and counted["rows"]["spans"] == 6 and client.get(f"/api/v1/traces/{hot}").status_code == 200
        done = ok(client.post("/api/v1/erasures", json={"user": USER, "why": "asked for, ticket 812"}))
        assert done["traces"] == 3 and done["archived"] == 1 and done["queues"] == {"look": 3} and done["set_aside"] == 1
        assert done["remade"][0] == {"ref": "dataset:questions@1", "new": "dataset:questions@2", "left_out": 1}
        assert (
            set(done["purged"]) == {"dataset:questions@1", "suite:on-rows@1", "suite:asked@1", "suite:asked@2"}
            and done["kept"] == []
            and done["mentions"] == []
        )
        assert done["user"].startswith("h-") and USER not in orjson.dumps(done).decode()

        assert on_disk(tmp_path, MARK, USER) == []
        for trace in (hot, nameless, old):
            assert client.get(f"/api/v1/traces/{trace}").status_code == 404
        assert (
            ok(client.get("/api/v1/traces", params={"text": MARK}))["items"] == [] == ok(client.get("/api/v1/traces", params={"user": USER}))["items"]
        )
        assert [i["trace_id"] for i in ok(client.get("/api/v1/traces"))["items"]] == [others, others_old]
        assert [i["trace_id"] for i in ok(client.get("/api/v1/traces", params={"text": "okapi"}))["items"]] == [others_old]
        assert ok(client.get("/api/v1/assets/suite/on-rows/2"))["manifest"]["dataset"] == "dataset:questions@2"
        send(client, "a new one", user="bea")
        flush(client)
    with app(tmp_path) as client:
        assert on_disk(tmp_path, MARK, USER) == [] and len(ok(client.get("/api/v1/traces"))["items"]) == 3
        [receipt] = ok(client.get("/api/v1/erasures"))["items"]
        assert receipt["why"] == "asked for, ticket 812" and receipt["by"] == "local" and receipt["traces"] == 3
        assert ok(client.get("/api/v1/audit/verify"))["ok"] and ok(client.get("/api/v1/datasets/questions/2/rows"))["rows"]


def test_a_session_shared_with_others_goes_only_where_the_user_spoke(client: TestClient) -> None:
    mine, theirs = send(client, "mine", session="room"), send(client, "theirs", user="bea", session="room")
    flush(client)
    done = ok(client.post("/api/v1/erasures", json={"user": USER, "session": "room", "why": "ticket 9"}))
    assert (
        done["traces"] == 1 and client.get(f"/api/v1/traces/{mine}").status_code == 404 and client.get(f"/api/v1/traces/{theirs}").status_code == 200
    )
    assert ok(client.post("/api/v1/erasures", json={"session": "room", "why": "ticket 10"}))["traces"] == 1


@pytest.mark.parametrize("body", [{"why": "because"}, {"user": USER}, {"user": USER, "why": f"{USER} asked"}, {"user": 7, "why": "because"}])
def test_an_erasure_needs_somebody_and_a_reason_that_does_not_name_them(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/api/v1/erasures", json=body).status_code == 400


KILLED = """
import os, sys
from pathlib import Path
from starlette.testclient import TestClient
from tests.web.test_erase import MARK, USER, app, flush, send
with app(Path(sys.argv[1])) as client:
    send(client, MARK)
    flush(client)
    client.app.state.workspace.telemetry.compact = lambda: os._exit(9)
    client.post("/api/v1/erasures", json={"user": USER, "why": "ticket 11"})
"""


def test_an_erasure_that_was_killed_is_finished_at_the_next_start(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False)
    assert killed.returncode == 9 and on_disk(tmp_path, MARK)
    with app(tmp_path) as client:
        for _ in range(100):
            if not ok(client.get("/api/v1/erasures"))["waiting"]:
                break
            client.portal.call(__import__("asyncio").sleep, 0.1)  # type: ignore[union-attr]
        assert len(ok(client.get("/api/v1/erasures"))["items"]) == 1
    assert on_disk(tmp_path, MARK, USER) == []


def test_what_comes_while_an_erasure_makes_the_files_anew_is_kept_and_found(client: TestClient) -> None:
    for i in range(40):
        send(client, f"{MARK} {i}")
    before = [send(client, f"a walrus {i}", user="bea", session="s2") for i in range(40)]
    flush(client)
    store, during = telemetry(client), []
    first = store.change

    def slow(work: Any, whole: bool = False) -> Any:
        done = first(work, whole)
        if whole:  # the snapshot was taken, or the files are exchanged
            done.result()
            during.append(send(client, f"a walrus came in between {len(during)}", user="bea", session="s2"))
            store.flush_sync()
        return done

    store.change = slow
    ok(client.post("/api/v1/erasures", json={"user": USER, "why": "ticket 12"}))
    assert len(during) == 2
    found = [item["trace_id"] for item in ok(client.get("/api/v1/traces", params={"text": "walrus", "limit": 100}))["items"]]
    assert set(found) == {*before, *during} and len(found) == 42


def test_versions_that_are_not_looked_into_are_named(client: TestClient) -> None:
    put = client.post("/api/v1/objects", content=f"{USER} wrote this".encode()).json()
    manifest = {"format": "files", "files": [{"path": "letter.txt", **put}]}
    made = client.post("/api/v1/assets", json={"kind": "dataset", "name": "letters", "manifest": manifest})
    assert made.status_code == 201, made.text
    send(client, MARK)
    done = ok(client.post("/api/v1/erasures", json={"user": USER, "why": "ticket 7"}))
    assert [(one["ref"], "not looked into" in one["why"]) for one in done["kept"]] == [("dataset:letters@1", True)]
