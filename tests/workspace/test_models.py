"""Pickles: refused with the reason, loaded for a trusted producer alone, let go when the trust ends; every step on the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.principal import local_principal
from everloop.core.settings import Settings
from everloop.store.schema import run_artifacts
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


SAID = b"""flavors:
  python_function:
    loader_module: mlflow.pyfunc.model
    python_model: python_model.pkl
signature:
  inputs: '[{"type": "double", "name": "a", "required": true}]'
"""
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


class Team:
    """A server, a trusted key `ci` and a stranger's; both are editors."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        keys = {name: client.post("/api/v1/keys", json={"name": name, "role": "editor"}).json()["key"] for name in ("stranger", "ci")}
        self.as_ = {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}
        assert send(client, "PUT", "/trusted/key:ci", {"why": "our own builds"})[0] == 200

    def mlflow(self, name: str, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(f"/api/2.0/mlflow/{path}", json=body, headers=self.as_[name])
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, name: str, path: str, data: bytes) -> None:
        assert self.client.put(f"{PROXY}/{path}", content=data, headers=self.as_[name]).status_code == 200

    def register(self, name: str, **source: Any) -> None:
        self.mlflow("ci", "registered-models/create", {"name": name})
        self.mlflow("ci", "model-versions/create", {"name": name, **source})

    def promote(self, name: str) -> tuple[int, str]:
        """Try to serve a model's first version, as ci: the status, and the reason where it is refused."""
        made = send(self.client, "POST", "/releases", {"name": name, "kind": "predict", "pins": {"model": f"model:{name}@1"}}, self.as_["ci"])[1]
        status, told = send(self.client, "PUT", f"/assets/release/{name}/aliases/champion", {"version": made["version"]}, self.as_["ci"])
        return status, told.get("detail", "")


def test_a_file_that_a_stranger_put_into_a_trusted_run_is_the_strangers(tmp_path: Path) -> None:
    good, bad = (cloudpickle.dumps(value) for value in ("good", "bad"))
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False))) as client:
        team = Team(client)
        run = team.mlflow("ci", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        logged = team.mlflow("ci", "logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run})["model"]["info"]["model_id"]
        sources = {f"0/{run}/artifacts/m": {"source": f"runs:/{run}/m", "run_id": run}}
        sources[f"0/models/{logged}/artifacts"] = {"source": f"models:/{logged}", "model_id": logged}
        for i, (folder, source) in enumerate(sources.items()):
            team.put("ci", f"{folder}/MLmodel", SAID)
            team.put("ci", f"{folder}/python_model.pkl", good)
            team.put("stranger", f"{folder}/MLmodel", SAID)  # the same bytes again: they stay ci's
            team.register(f"clean{i}", **source)
            team.put("stranger", f"{folder}/python_model.pkl", bad)
            team.register(f"odd{i}", **source)
            team.put("ci", f"{folder}/python_model.pkl", good)  # the registered version keeps the stranger's file, and its name
            status, why = team.promote(f"odd{i}")
            assert status == 403 and "key:stranger, who is not trusted" in why, why
            assert "not trusted" not in team.promote(f"clean{i}")[1]
        files = {one["path"]: one["by"] for one in send(client, "GET", f"/runs/{run}/artifacts")[1]["items"]}
        assert files == {"m/MLmodel": "key:ci", "m/python_model.pkl": "key:ci"}
        assert "by key:ci." in client.get(f"/ui/runs/{run}?tab=artifacts&path=m/python_model.pkl").text
        assert "Files written by" in client.get("/ui/assets/model/odd0/1").text


def test_files_of_which_nobody_noted_the_writer_are_nobodys_until_an_admin_says_so(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False))) as client:
        team = Team(client)
        run = team.mlflow("ci", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        for path, data in (("MLmodel", SAID), ("python_model.pkl", cloudpickle.dumps("old"))):
            team.put("ci", f"0/{run}/artifacts/m/{path}", data)
        client.app.state.workspace.records.write_sync(local_principal(), lambda tx: tx.run(run_artifacts.update().values(by=None)))  # type: ignore[attr-defined]
        team.register("old", source=f"runs:/{run}/m", run_id=run)
        status, why = team.promote("old")
        assert status == 403 and "somebody unknown" in why, why
        assert send(client, "PUT", "/trusted/unknown", {"why": "only we could write then"})[0] == 200
        assert "not trusted" not in team.promote("old")[1]


def test_what_another_kind_of_asset_brings_is_its_makers(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False))) as client:
        team = Team(client)
        files = []
        for path, data in (("MLmodel", SAID), ("python_model.pkl", cloudpickle.dumps("odd"))):
            files.append({"path": path, **client.post("/api/v1/objects", content=data, headers=team.as_["stranger"]).json()})
        made = send(client, "POST", "/assets", {"kind": "code", "name": "odd", "manifest": {"files": files}}, team.as_["stranger"])
        assert made[0] == 201, made
        team.register("copy", source="mlflow-artifacts:/everloop/code/odd/1")
        status, why = team.promote("copy")
        assert status == 403 and "key:stranger, who is not trusted" in why, why
