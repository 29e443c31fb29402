"""What code starts inside a pipeline's step belongs under it: parent, code and data of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.core.settings import Settings
from everloop.web.app import create_app


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    """The app, in-process."""
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as made:
        yield made


def signed_in(http: TestClient, key: str | None = None) -> Client:
    """The SDK as whoever the key names."""

    def transport(method: str, url: str, body: Any, headers: Any, timeout: float) -> Any:
        answer = http.request(method, url, content=body, headers=headers)
        return answer.status_code, answer.headers, answer.content

    return Client(Http("http://127.0.0.1:7600", key, transport=transport))


def test_runs_that_a_step_starts_know_parent_code_and_data(http: TestClient) -> None:
    admin = signed_in(http)
    for name in ("read", "other"):
        admin.data.add(name, pd.DataFrame({"x": [1.0, 2.0 if name == "read" else 3.0]}))
    files = admin.assets.put_files({"train.py": b"def go(step): ..."})
    admin.assets.register("code", "c", {"files": files, "entry": "train", "requirements": []})
    admin.pipelines.put("p", {"steps": [{"name": "go", "call": "train:go", "after": []}], "code": "code:c@1", "params": {}})
    admin.pipelines.run("p")
    task = http.post("/api/v1/work/lease", json={"owner": "w", "wait": 0}).json()["task"]

    step = signed_in(http, task["token"])
    assert step.runs.attach(task["step_run"]).log_input("dataset:read") == ["dataset:read@1"]
    with step.runs.start("own") as own:
        pass
    headers = {"Authorization": f"Bearer {task['token']}"}
    tags = [{"key": "mlflow.source.name", "value": "train.py"}]
    made = http.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "tags": tags}, headers=headers).json()["run"]["info"]["run_id"]
    inputs = [{"dataset": {"name": name, "digest": "abc", "source_type": "local", "source": "{}"}} for name in ("dataset:other@1", "elsewhere")]
    assert http.post("/api/2.0/mlflow/runs/log-inputs", json={"run_id": made, "datasets": inputs}, headers=headers).status_code == 200

    for id in (own.id, made):
        run = admin.runs.get(id)
        assert (run["parent"], run["pipeline"], run["code"]["asset"]) == (task["step_run"], "p", "code:c@1")
        assert f"run:{id}" in {node["ref"] for node in admin.impact("dataset:read@1")["nodes"]}
        assert {"dataset:read@1", "code:c@1"} <= {node["ref"] for node in admin.why(f"run:{id}")["nodes"]}
    assert f"run:{made}" in {node["ref"] for node in admin.impact("dataset:other@1")["nodes"]}
    assert "input:elsewhere#abc" in {node["ref"] for node in admin.why(f"run:{made}")["nodes"]}
    alone = admin.runs.start("alone")
    alone.finish()
    assert (admin.runs.get(alone.id)["parent"], admin.runs.get(alone.id)["pipeline"]) == (None, None)
