"""Requests that are answered without FastAPI: signed in, bounded and refused like all others, and what is not plain goes on to the route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.protocols.mlflow import TABLE
from everloop.web.app import create_app
from tests.web.walk import key

API = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("home"), workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        yield client


@pytest.fixture(scope="module")
def run(client: TestClient) -> str:
    made = client.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 5, "tags": [{"key": "a", "value": "b"}]})
    id = str(made.json()["run"]["info"]["run_id"])
    client.post(f"{API}/runs/log-parameter", json={"run_id": id, "key": "depth", "value": "3"})  # whichever cases a worker gets, in whatever order
    return id


def both(client: TestClient, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    """The direct answer and the route's: the same status and body."""
    table = client.app.state.direct  # type: ignore[attr-defined]
    direct = client.post(path, json=body, headers=headers)
    taken = table.pop(("POST", path))
    try:
        route = client.post(path, json=body, headers=headers)
    finally:
        table["POST", path] = taken
    assert (direct.status_code, direct.json()) == (route.status_code, route.json())
    assert {k for k in direct.headers if k != "x-request-id"} == {k for k in route.headers if k != "x-request-id"}
    return direct


def test_each_direct_request_has_a_route_too(client: TestClient) -> None:
    table = client.app.state.direct  # type: ignore[attr-defined]
    known = {(method, path) for method, path, _ in TABLE}
    assert len(table) >= 36 and all((method, path.split("/mlflow/")[1]) in known for method, path in table)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("log-metric", {"key": "m", "value": 1.5, "timestamp": 1000, "step": 3}, 200),
        ("log-metric", {"key": "m", "value": "NaN", "timestamp": "1000", "step": "4"}, 200),
        ("log-metric", {"key": "m", "value": 1.5, "timestamp": 1000, "step": 2**70}, 400),
        ("log-metric", {"key": "m", "timestamp": 1000}, 400),
        ("log-metric", {"key": "", "value": 1.0, "timestamp": 1}, 400),
        ("log-metric", {"key": "k" * 10_000, "value": 1.0, "timestamp": 1}, 400),
        ("log-parameter", {"key": "depth", "value": "3"}, 200),
        ("log-parameter", {"key": "depth", "value": "4"}, 400),
        ("set-tag", {"key": "mlflow.runName", "value": "renamed"}, 200),
        ("log-batch", {"metrics": [{"key": "m", "value": 2, "timestamp": 7, "step": 1}], "params": [{"key": "p", "value": "1"}], "tags": []}, 200),
        ("log-batch", {"metrics": [{"key": "m", "value": 2, "timestamp": 7, "step": 1}], "params": [{"key": "depth", "value": "9"}]}, 400),
        ("log-batch", {"metrics": [{"key": f"m{i}", "value": 1, "timestamp": 1} for i in range(1001)]}, 400),
        ("update", {"status": "NONSENSE"}, 400),
        ("update", {"status": "FINISHED", "end_time": 9}, 200),
    ],
)
def test_the_direct_answer_is_the_routes(client: TestClient, run: str, path: str, body: dict[str, Any], status: int) -> None:
    assert both(client, f"{API}/runs/{path}", {"run_id": run, **body}).status_code == status
    assert both(client, f"{API}/runs/{path}", {"run_id": "nowhere", **body}).status_code >= 400


def test_what_was_logged_directly_is_read_back(client: TestClient, run: str) -> None:
    sent = {"run_id": run, "key": "direct/one", "value": 0.25, "timestamp": 1_700_000_000_123, "step": 7}
    assert client.post(f"{API}/runs/log-metric", json=sent).json() == {}
    found = client.get(f"{API}/metrics/get-history", params={"run_id": run, "metric_key": "direct/one"}).json()
    assert found == {"metrics": [{"key": "direct/one", "value": 0.25, "timestamp": 1_700_000_000_123, "step": 7}]}
    assert client.post(f"{API}/runs/set-tag", json={"run_id": run, "key": "mlflow.runName", "value": "again"}).json() == {}
    assert client.get(f"{API}/runs/get", params={"run_id": run}).json()["run"]["info"]["run_name"] == "again"


def test_who_may_not_is_refused_there_too(client: TestClient, run: str) -> None:
    body = {"run_id": run, "key": "m", "value": 1.0, "timestamp": 1}
    viewer, elsewhere = key(client, "default", "viewer", "direct-viewer"), key(client, "elsewhere", "editor", "direct-editor")
    assert both(client, f"{API}/runs/log-metric", body, viewer).status_code == 403
    assert both(client, f"{API}/runs/log-metric", body, elsewhere).status_code == 404
    assert both(client, f"{API}/runs/log-metric", body, {"authorization": "Bearer ev_wrong"}).status_code == 401
    assert both(client, f"{API}/runs/log-metric", body, {"origin": "https://evil.example"}).status_code == 403


def test_a_body_in_pieces_is_one_body(client: TestClient, run: str) -> None:
    pieces = iter([b'{"run_id": "' + run.encode(), b'", "key": "pieces", "value": 3, ', b'"timestamp": 5}'])
    assert client.post(f"{API}/runs/log-metric", content=pieces).status_code == 200
    assert client.get(f"{API}/metrics/get-history", params={"run_id": run, "metric_key": "pieces"}).json()["metrics"][0]["value"] == 3.0
