"""A model registered, released and served: over REST and the Open Inference Protocol, recorded, switched under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.core.types import Batch
from everloop.web.app import create_app
from everloop.workspace.workspace import Workspace

WHO = local_principal()


async def make_release(ws: Workspace, flip: bool = False) -> str:
    """A release of a logistic regression on a, b (`flip` turns its labels round)."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    trained = LogisticRegression().fit(x, ((x[:, 0] > x[:, 1]) != flip).astype(int))
    data = to_onnx(trained, x[:1], options={"zipmap": False}).SerializeToString()
    file = await ws.assets.put_object(WHO, data)
    inputs = [{"name": n, "type": "number", "required": True} for n in ("a", "b")]
    signature = {"inputs": inputs, "outputs": [{"name": "prediction", "type": "integer"}]}
    manifest = {"format": "sklearn", "engine": "onnx", "files": [{"path": "model.onnx", **file}], "task": "binary", "classes": [0, 1], "positive": 1}
    model = await ws.assets.register(WHO, "model", "credit", {**manifest, "signature": signature})
    return str((await ws.assets.release(WHO, "credit", "predict", {"model": model["ref"]}))["ref"])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path, workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600", client=("127.0.0.1", 50000)) as client:
        ws = client.app.state.workspace

        async def prepare() -> None:
            ref = await make_release(ws)
            await ws.assets.move_alias(WHO, ref, "champion")
            await ws.endpoints.put(WHO, "credit", "predict", {"release": "credit"})

        client.portal.call(prepare)
        yield client


def tensors(**columns: list[float]) -> list[dict[str, Any]]:
    return [{"name": k, "shape": [len(v)], "datatype": "FP64", "data": v} for k, v in columns.items()]


def test_predictions_over_rest_are_recorded_with_an_id(client: TestClient) -> None:
    answer = client.post("/api/v1/endpoints/credit/predict", json={"rows": [{"a": 1, "b": 0}, {"a": 0, "b": 1}], "at": 1_700_000_000})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [p["prediction"] for p in body["predictions"]] == [1, 0] and body["release"] == "release:credit@1"
    trace = client.portal.call(client.app.state.workspace.traces.get, WHO, body["trace_id"])
    assert [p["prediction_id"] for p in trace["predictions"]] == [p["prediction_id"] for p in body["predictions"]]
    assert trace["spans"][0]["attributes"]["everloop.release"] == "release:credit@1"
    assert client.post("/api/v1/endpoints/credit/predict", json={"rows": [{"a": "x", "b": 0}]}).status_code == 400
    assert client.post("/api/v1/endpoints/none/predict", json={"rows": [{"a": 1}]}).status_code == 404


def test_infer_in_json_by_column_and_as_one_matrix(client: TestClient) -> None:
    body = {"id": "mine", "inputs": tensors(a=[1, 0], b=[0, 1])}
    answer = client.post("/v2/models/credit/infer", json=body).json()
    assert answer["id"] == "mine" and answer["model_version"] == "1" and answer["parameters"]["release"] == "release:credit@1"
    assert answer["outputs"][0] == {"name": "prediction", "shape": [2], "datatype": "INT64", "data": [1, 0]}
    matrix = {"inputs": [{"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [[1, 0], [0, 1]]}]}
    assert client.post("/v2/models/credit/versions/1/infer", json=matrix).json()["outputs"] == answer["outputs"]


def test_binary_tensors_both_ways(client: TestClient) -> None:
    raw = np.asarray([1.0, 0.0], "<f4").tobytes() + np.asarray([0.0, 1.0], "<f4").tobytes()
    inputs = [{"name": n, "shape": [2, 1], "datatype": "FP32", "parameters": {"binary_data_size": 8}} for n in ("a", "b")]
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    answer = client.post("/v2/models/credit/infer", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))})
    cut = int(answer.headers["inference-header-content-length"])
    shown = orjson.loads(answer.content[:cut])
    assert np.frombuffer(answer.content[cut : cut + shown["outputs"][0]["parameters"]["binary_data_size"]], "<i8").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("credit", b"{", 400),
        ("credit", b'{"inputs": []}', 400),
        ("credit", orjson.dumps({"inputs": tensors(a=[1])}), 400),
        ("credit", orjson.dumps({"inputs": [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1]}]}), 400),
        ("credit", orjson.dumps({"inputs": tensors(a=[1], b=[1]), "outputs": [{"name": "none"}]}), 400),
        ("none", orjson.dumps({"inputs": tensors(a=[1], b=[1])}), 404),
        ("credit/versions/9", orjson.dumps({"inputs": tensors(a=[1], b=[1])}), 404),
    ],
)
def test_mistakes_are_answered_as_the_protocol_says(client: TestClient, path: str, body: bytes, status: int) -> None:
    answer = client.post(f"/v2/models/{path}/infer", content=body)
    assert answer.status_code == status and set(answer.json()) == {"error"}


def test_health_metadata_and_repository(client: TestClient) -> None:
    assert client.get("/v2/health/ready").json()["ready"] is True and client.get("/v2").json()["name"] == "everloop"
    assert client.get("/v2/models/credit/ready").json() == {"name": "credit", "ready": True}
    found = client.get("/v2/models/credit").json()
    assert [i["name"] for i in found["inputs"]] == ["a", "b"] and [o["datatype"] for o in found["outputs"]] == ["INT64", "FP64", "FP64"]
    assert client.post("/v2/repository/index").json()[0]["state"] == "READY"


def test_no_request_fails_while_the_alias_moves(client: TestClient) -> None:
    ws = client.app.state.workspace

    async def run() -> set[str]:
        ref = await make_release(ws, flip=True)
        seen: set[str] = set()
        done = asyncio.Event()

        async def traffic() -> None:
            while not done.is_set():
                answer = await ws.endpoints.predict(WHO, "credit", Batch({"a": [1.0], "b": [0.0]}, 1))
                expected = 1 if answer["release"] == "release:credit@1" else 0
                assert answer["predictions"][0]["prediction"] == expected
                seen.add(answer["release"])
                await asyncio.sleep(0)

        workers = [asyncio.ensure_future(traffic()) for _ in range(8)]
        await asyncio.sleep(0.05)
        await ws.assets.move_alias(WHO, ref, "champion")
        await asyncio.sleep(0.05)
        done.set()
        await asyncio.gather(*workers)
        return seen

    assert client.portal.call(run) == {"release:credit@1", "release:credit@2"}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 0], [0, 1]]}}'),
        ("application/json", b'{"dataframe_records": [{"a": 1, "b": 0}, {"a": 0, "b": 1}]}'),
        ("application/json", b'{"inputs": {"a": [1, 0], "b": [0, 1]}}'),
        ("text/csv", b"a,b\n1,0\n0,1\n"),
    ],
)
def test_invocations_in_each_format(client: TestClient, kind: str, body: bytes) -> None:
    assert client.post("/invocations", content=body, headers={"content-type": kind}).json() == {"predictions": [1, 0]}
    bad = client.post("/invocations", content=b"{}", headers={"content-type": "application/json"})
    assert bad.status_code == 400 and bad.json()["error_code"] == "BAD_REQUEST"


def test_a_call_reads_no_records_and_follows_an_alias_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = {"inputs": tensors(a=[1.0], b=[0.0])}
    first = client.post("/v2/models/credit/infer", json=ask).json()
    ws = client.app.state.workspace
    reads = 0
    read = ws.records.read

    async def counted(*given: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*given)

    monkeypatch.setattr(ws.records, "read", counted)
    for _ in range(5):
        assert client.post("/v2/models/credit/infer", json=ask).json()["outputs"] == first["outputs"]
    assert reads == 0

    async def move() -> None:
        await ws.assets.move_alias(WHO, await make_release(ws, flip=True), "champion")

    client.portal.call(move)
    after = client.post("/v2/models/credit/infer", json=ask).json()
    assert after["model_version"] == "2" and after["outputs"] != first["outputs"]
