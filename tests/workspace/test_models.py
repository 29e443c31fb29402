"""Pickles: refused with the reason, loaded for a trusted producer alone, let go when the trust ends; every step on the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app

cloudpickle = pytest.importorskip("cloudpickle")


def send(client: TestClient, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    answer = client.request(method, f"/api/v1{path}", json=body, headers=headers or {})
    return answer.status_code, answer.json() if answer.content else None


def test_a_pickle_is_loaded_for_a_trusted_producer_alone(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False))) as client:
        key = client.post("/api/v1/keys", json={"name": "ci", "role": "editor"}).json()["key"]
        ci = {"authorization": f"Bearer {key}"}
        data = cloudpickle.dumps(lambda frame: frame.a * 2)
        file = {"path": "model.pkl", **client.post("/api/v1/objects", content=data, headers=ci).json()}
        status, made = send(client, "POST", "/models", {"name": "twice", "format": "callable", "files": [file], "sample": {"a": [1.0, 2.0]}}, ci)
        assert status == 201 and made["manifest"]["engine"] == "isolated" and made["created_by"] == "key:ci"
        release = send(client, "POST", "/releases", {"name": "twice", "kind": "predict", "pins": {"model": made["ref"]}}, ci)[1]
        status, told = send(client, "PUT", "/assets/release/twice/aliases/champion", {"version": release["version"]}, ci)
        assert status == 403 and "key:ci, who is not trusted" in told["detail"] and "everloop models trust key:ci" in told["hint"]
        assert send(client, "PUT", "/trusted/key:ci", {}, ci)[0] == 403
        assert send(client, "PUT", "/trusted/key:ci", {"why": "our own builds"})[0] == 200
        assert send(client, "PUT", "/assets/release/twice/aliases/champion", {"version": release["version"]}, ci)[0] == 200
        assert send(client, "PUT", "/endpoints/twice", {"kind": "predict", "spec": {"release": "twice"}})[0] == 200
        status, found = send(client, "POST", "/endpoints/twice/predict", {"rows": [{"a": 4}]})
        assert status == 200 and found["predictions"][0]["prediction"] == 8
        assert [one["producer"] for one in send(client, "GET", "/trusted")[1]["items"]] == ["key:ci"]
        assert send(client, "DELETE", "/trusted/key:ci")[0] == 204
        assert send(client, "POST", "/endpoints/twice/predict", {"rows": [{"a": 4}]})[0] == 403
        actions = [row["action"] for row in send(client, "GET", "/audit?subject=key:ci")[1]["items"]]
        assert actions[:2] == ["trust.remove", "trust.add"]
        assert send(client, "DELETE", "/trusted/key:ci")[0] == 404 and send(client, "PUT", "/trusted/*", {})[0] == 400


def test_a_copy_is_as_doubtful_as_what_it_was_copied_of(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False))) as client:
        as_ = {}
        for name in ("stranger", "ci"):
            as_[name] = {"authorization": f"Bearer {client.post('/api/v1/keys', json={'name': name, 'role': 'editor'}).json()['key']}"}
        assert send(client, "PUT", "/trusted/key:ci", {"why": "our own builds"})[0] == 200
        said = b"flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
        said += b'signature:\n  inputs: \'[{"type": "double", "name": "a", "required": true}]\'\n'
        names = (("MLmodel", said), ("python_model.pkl", cloudpickle.dumps(lambda frame: frame)))
        files = [{"path": path, **client.post("/api/v1/objects", content=data, headers=as_["stranger"]).json()} for path, data in names]
        body = {"kind": "model", "name": "odd", "manifest": {"format": "mlflow", "engine": "isolated", "files": files}}
        assert send(client, "POST", "/assets", body, as_["stranger"])[0] == 201
        for source in ("models:/odd/1", "mlflow-artifacts:/everloop/model/odd/1"):
            name = f"copy-{len(source)}"
            for path, asked in (("registered-models", {"name": name}), ("model-versions", {"name": name, "source": source})):
                answer = client.post(f"/api/2.0/mlflow/{path}/create", json=asked, headers=as_["ci"])
                assert answer.status_code == 200, answer.text
            made = send(client, "POST", "/releases", {"name": name, "kind": "predict", "pins": {"model": f"model:{name}@1"}}, as_["ci"])[1]
            status, told = send(client, "PUT", f"/assets/release/{name}/aliases/champion", {"version": made["version"]}, as_["ci"])
            assert status == 403 and "key:stranger, who is not trusted" in told["detail"], told
