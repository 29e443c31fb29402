"""Datasets through REST and the SDK: versions, roles kept, refusals that leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.core.errors import BadInput, NotFound
from everloop.core.settings import Settings
from everloop.web.app import create_app

CSV = "id,when,age,sex,bad\n1,2026-01-01,30,f,0\n2,2026-01-02,,m,1\n3,2026-01-03,41,f,0\n"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """The SDK against the app, in-process."""
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:

        def transport(method, url, body, headers, timeout):
            answer = http.request(method, url, content=body, headers=headers)
            return answer.status_code, answer.headers, answer.content

        yield Client(Http("http://127.0.0.1:7600", transport=transport))


def test_a_file_becomes_a_version_with_schema_statistics_and_roles(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "loans.csv"
    file.write_text(CSV)
    asset = client.data.add("loans", file, target="bad", time="when", protected="sex", id="id", description="January")
    manifest = asset["manifest"]
    assert asset["ref"] == "dataset:loans@1" and asset["tags"] == {"filename": "loans.csv"} and manifest["rows"] == 3
    assert manifest["roles"] == {"target": "bad", "time": "when", "positive": "1", "protected": ["sex"], "id": "id"}
    assert [c["type"] for c in manifest["schema"]] == ["integer", "datetime", "integer", "string", "integer"]
    assert manifest["stats"]["age"]["missing"] == 1 and manifest["task"]["task"] == "binary"
    again = client.data.add("loans", file)
    assert again["ref"] == "dataset:loans@1"
    rows = client.data.rows("loans", limit=2)
    assert rows["columns"][1] == "when" and rows["rows"][1][:3] == [2, "2026-01-02T00:00:00.000Z", None] and (rows["total"], rows["next"]) == (3, 2)
    frame = client.data.frame("loans@1")
    assert frame.when.dtype == "datetime64[us]" and list(frame.age.isna()) == [False, True, False]


def test_a_frame_is_a_new_version_and_roles_and_contract_stay(client: Client) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, None], "y": ["a", "b", "a"]})
    client.data.add("f", frame, target="y", contract={"columns": {"x": {"max": 5}}})
    second = client.data.add("f", frame.assign(x=[4.0, 3.0, 1.0]))
    assert second["ref"] == "dataset:f@2" and second["manifest"]["roles"]["target"] == "y"
    with pytest.raises(BadInput, match="row 2: 'x' is over 5") as error:
        client.data.add("f", frame.assign(x=[4.0, 9.0, 1.0]))
    assert error.value.details["counts"] == {"x: max": 1}
    assert client.data.get("f")["version"] == 2 and client.data.list()[0]["latest"] == 2


def test_refusals_leave_nothing_behind(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "loans.csv"
    file.write_text(CSV)
    for roles in ({"target": "credit"}, {"target": "age", "time": "sex"}, {"target": "bad", "positive": "2"}):
        with pytest.raises(BadInput):
            client.data.add("loans", file, **roles)
    with pytest.raises(BadInput, match="There is no file"):
        client.data.add("loans", tmp_path / "nothing.csv")
    with pytest.raises(BadInput, match="not JSON"):
        client._http.upload("/api/v1/datasets", {"name": "loans", "roles": "{target"}, [("file", "a.csv", CSV.encode())])
    with pytest.raises(NotFound):
        client.data.get("loans")
    assert client.data.list() == []


def test_a_large_file_streams(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.client.data.UPLOAD_MEMORY_BYTES", 10)
    file = tmp_path / "loans.csv"
    file.write_text(CSV)
    assert client.data.add("loans", file, target="bad")["manifest"]["rows"] == 3


def test_lineage_and_projects(client: Client, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    client.data.add("raw", frame)
    client.data.add("clean", frame * 2, reads=["dataset:raw@1"])
    with pytest.raises(NotFound):
        client.data.add("clean", frame * 3, reads=["dataset:none@1"])
    assert client.data.get("clean")["version"] == 1


def test_documents_are_read_back_by_page_and_folders_load(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "docs"
    (folder / "guides").mkdir(parents=True)
    (folder / "index.md").write_text("# Home\n\nWelcome.")
    (folder / "guides" / "start.html").write_text("<h1>Start</h1><p>Go.</p>")
    (folder / "broken.pdf").write_bytes(b"%PDF-")
    (folder / ".hidden").write_text("no")
    asset = client.data.add_documents("handbook", folder)
    assert [d["path"] for d in asset["manifest"]["documents"]] == ["guides/start.html", "index.md"]
    assert [s["path"] for s in asset["manifest"]["skipped"]] == ["broken.pdf"]
    monkeypatch.setattr("everloop.workspace.data.DOCUMENTS_PAGE_CHARS", 1)
    texts = client.data.documents("dataset:handbook@1")
    assert [(d["id"], d["text"]) for d in texts] == [("guides/start.html", "Start\n\nGo."), ("index.md", "Home\n\nWelcome.")]
    both = client.data.add_documents("both", [folder / "guides", folder / "index.md"])
    assert [d["path"] for d in both["manifest"]["documents"]] == ["guides/start.html", "index.md"]
    client.data.add("table", pd.DataFrame({"x": [1]}))
    with pytest.raises(BadInput, match="holds a table, not documents"):
        client.data.documents("table")
    with pytest.raises(BadInput, match="x.pdf cannot be read: it is empty"):
        client.data.add_documents("none", {"x.pdf": b""})
    with pytest.raises(NotFound):
        client.data.get("none")


def test_only_uploads_may_be_large() -> None:
    from everloop.core.limits import BODY_BYTES, UPLOAD_BYTES
    from everloop.web.limits import body_limit

    for path in (
        "/api/v1/objects",
        "/api/v1/datasets",
        "/api/v1/runs/1/artifacts/a/b.bin",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/f",
    ):
        assert body_limit(path) == UPLOAD_BYTES, path
    for path in ("/api/v1/runs/1/log", "/api/v1/runs", "/v2/models/m/infer", "/api/2.0/mlflow/runs/log-batch", "/v1/traces"):
        assert body_limit(path) == BODY_BYTES, path


def test_two_versions_are_compared_by_key_by_content_and_by_column(client: Client) -> None:
    old = pd.DataFrame({"id": [1, 2, 3, 4], "x": [1.0, 2.0, None, 4.0], "y": ["a", "b", "c", "d"], "gone": [1, 1, 1, 1]})
    new = pd.DataFrame({"id": [2, 3, 4, 5], "x": [2.0, 3.0, 4.0, 5.0], "y": ["b", "c", "dd", "e"], "here": [True] * 4})
    client.data.add("t", old, id="id")
    client.data.add("t", new)
    found = client.data.diff("t@1")
    assert (found["from"]["ref"], found["to"]["ref"], found["same"]) == ("dataset:t@1", "dataset:t@2", False)
    assert [c["name"] for c in found["schema"]["added"] + found["schema"]["removed"]] == ["here", "gone"]
    rows = found["rows"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["same"], rows["key"]) == (1, 1, 2, 1, ["id"])
    assert rows["columns"] == {"x": 1, "y": 1} and rows["examples"]["added"][0]["id"] == 5
    assert rows["examples"]["changed"] == [
        {"key": {"id": 3}, "changes": {"x": {"from": None, "to": 3.0}}},
        {"key": {"id": 4}, "changes": {"y": {"from": "d", "to": "dd"}}},
    ]
    assert next(c for c in found["columns"] if c["name"] == "x")["to"]["max"] == 5.0
    client.data.add("t", new.assign(gone=1))
    client.data.add("t", new.assign(gone=2))
    with pytest.raises(BadInput, match="True stands 4 times in the older version"):
        client.data.diff("t@3", "t@4", key="here")
    client.data.add("n", pd.DataFrame({"v": [1, 1, 2]}))
    client.data.add("n", pd.DataFrame({"v": [1, 2, 2, 3]}))
    rows = client.data.diff("n@1", "n@2")["rows"]
    assert (rows["added"], rows["removed"], rows["changed"], rows["same"], rows["key"]) == (2, 1, None, 2, None) and rows["notes"]


def test_splits_are_recorded_and_read_by_name(client: Client) -> None:
    frame = pd.DataFrame({"i": range(1000), "y": [int(i % 10 == 0) for i in range(1000)], "g": [i // 7 for i in range(1000)]})
    frame["when"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(frame.i // 2, unit="h")
    client.data.add("s", frame, splits={"parts": {"train": 8, "test": 2}, "seed": 1, "stratify": "y"})
    data = client.data.dataset("s@1")
    train, test = data.split("train").pandas(), client.data.dataset("s@1#test").pandas()
    assert data.splits == {"train": 800, "test": 200} and sorted([*train.i, *test.i]) == list(range(1000)) and int(test.y.sum()) == 20
    assert sum(len(b) for b in data.split("test").batches(64)) == 200 and client.data.rows("s@1#test")["total"] == 200
    assert client.data.get("s@1#test")["version"] == 1
    assert client.data.add("s", frame, splits={"parts": {"train": 0.8, "test": 0.2}, "seed": 1, "stratify": "y"})["version"] == 1
    assert client.data.add("s", frame.assign(z=1))["manifest"]["splits"]["spec"]["stratify"] == "y"
    by_group = client.data.split("s@1", {"a": 0.5, "b": 0.3, "c": 0.2}, seed=3, group="g")
    parts = {n: set(client.data.dataset(f"{by_group['ref']}#{n}").pandas().g) for n in "abc"}
    assert not parts["a"] & parts["b"] and not parts["b"] & parts["c"] and abs(by_group["manifest"]["splits"]["names"]["a"] - 500) < 20
    by_time = client.data.split("s@1", {"old": 0.7, "new": 0.3}, time="when")["ref"]
    old, new = (client.data.dataset(f"{by_time}#{n}").pandas() for n in ("old", "new"))
    assert old.when.max() < new.when.min() and len(old) == 700
    with pytest.raises(NotFound, match="has no split 'dev'"):
        client.data.dataset("s@1#dev")
    for wrong in ({"parts": {}}, {"parts": {"a": -1}}, {"parts": {"a": 1}, "by": "y"}, {"parts": {"a": 1}, "group": "nothing"}):
        with pytest.raises(BadInput):
            client.data.add("s", frame, splits=wrong)


def test_a_contract_is_refused_or_recorded_with_every_violation(client: Client) -> None:
    frame = pd.DataFrame({"id": [1, 1, 2], "mail": ["a@b", "nothing", None], "when": pd.to_datetime(["2020-01-01"] * 3)})
    contract = {
        "columns": {"id": {"type": "integer"}, "mail": {"pattern": "[^@]+@[^@]+", "missing": 0.1}},
        "unique": [["id", "when"]],
        "rows": {"min": 5},
        "extra": False,
        "fresh": {"column": "when", "hours": 24},
    }
    with pytest.raises(BadInput, match="breaks its data contract in 7 places") as error:
        client.data.add("c", frame, contract=contract)
    counts = {"mail: pattern": 1, "mail: missing": 1, "id: unique id, when": 2, "rows min": 1, "when: extra": 1, "when: fresh": 1}
    assert error.value.details["counts"] == counts
    lines = client._http.get_bytes(f"/api/v1/objects/{error.value.details['list']['digest']}").splitlines()
    assert len(lines) == 7 and b'"nothing"' in b"".join(lines)
    made = client.data.add("c", frame, contract={**contract, "on_violation": "record"})
    assert made["manifest"]["contract_report"]["total"] == 7 and not made["manifest"]["contract_report"]["ok"]
    with pytest.raises(BadInput, match="pattern of column 'mail' cannot be read"):
        client.data.add("c", frame, contract={"columns": {"mail": {"pattern": "(?=x)"}}})
