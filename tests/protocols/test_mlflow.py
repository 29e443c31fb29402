"""The unmodified MLflow client against a real server: runs, models, registry, prompts."""

from __future__ import annotations

import math
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.client import Client, connect
from everloop.core.errors import GateRefused
from tests.conftest import running_server

pytestmark = pytest.mark.client
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home"), workers=1) as url:
        yield url


@pytest.fixture
def mlflow(url: str) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("everloop tests")
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client(url: str) -> Client:
    return connect(url, start=False)


def test_a_run_of_mlflows_is_a_run_of_ours(mlflow: Any, client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with mlflow.start_run(run_name="forest") as run:
        mlflow.log_params({"depth": 3, "model": "forest"})
        for step in range(3):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"auc": 0.8, "odd": math.nan, "big": math.inf})
        mlflow.set_tag("team", "risk")
        mlflow.log_artifact(str(tmp_path / "notes.txt"), "docs")
        mlflow.log_dict({"a": 1}, "conf.json")
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("auc", 0.7)
    ours = client.runs.get(run.info.run_id)
    assert (ours["name"], ours["status"], ours["experiment"], ours["params"]) == (
        "forest",
        "finished",
        "everloop tests",
        {"depth": "3", "model": "forest"},
    )
    assert ours["metrics"] == {"auc": 0.8, "loss": pytest.approx(1 / 3), "odd": "NaN", "big": "Infinity"}
    assert [f["path"] for f in client.runs.artifacts(run.info.run_id)] == ["conf.json", "docs/notes.txt"]
    assert client.runs.get(child.info.run_id)["parent"] == run.info.run_id
    theirs = mlflow.get_run(run.info.run_id)
    assert math.isnan(theirs.data.metrics["odd"]) and theirs.data.metrics["big"] == math.inf and theirs.data.tags["team"] == "risk"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(m.step, round(m.value, 3)) for m in history] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/docs/notes.txt") == "hello"
    assert [f.path for f in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)] == ["conf.json", "docs"]
    found = mlflow.search_runs(filter_string="metrics.auc > 0.75 and params.model = 'forest' and tags.team LIKE 'r%'", output_format="list")
    assert [r.info.run_id for r in found] == [run.info.run_id]


def test_what_mlflow_refuses_is_refused_in_its_words(mlflow: Any) -> None:
    api = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_param("lr", 0.1)
        with pytest.raises(mlflow.exceptions.MlflowException, match="Changing param values is not allowed") as told:
            mlflow.log_param("lr", 0.2)
        assert told.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(mlflow.exceptions.MlflowException) as told:
        api.get_run("0" * 32)
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(mlflow.exceptions.MlflowException) as told:
        api.create_experiment("everloop tests")
    assert told.value.error_code == "RESOURCE_ALREADY_EXISTS"
    with pytest.raises(mlflow.exceptions.MlflowException, match="Invalid filter"):
        api.search_runs([run.info.experiment_id], "metrics.auc > 'high'")
    api.delete_run(run.info.run_id)
    assert api.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    api.restore_run(run.info.run_id)
    other = api.create_experiment("short lived", tags={"a": "b"})
    api.set_experiment_tag(other, "c", "d")
    api.rename_experiment(other, "renamed")
    assert [e.name for e in api.search_experiments(filter_string="tags.c = 'd'")] == ["renamed"]
    api.delete_experiment(other)
    assert api.get_experiment(other).lifecycle_stage == "deleted" and api.get_experiment_by_name("Default").experiment_id == "0"


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "0/r/artifacts/..%2f..%2fx", "%2e%2e/x"])
def test_a_path_cannot_leave_the_store(url: str, path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        request = urllib.request.Request(f"{url}/api/2.0/mlflow-artifacts/artifacts/{path}", method=method, data=b"x" if method == "PUT" else None)
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(request)
        assert told.value.code in (400, 404)


def test_a_model_is_logged_registered_aliased_and_loaded(mlflow: Any, client: Client) -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    model = LogisticRegression().fit(x, y)
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(model, name="model", registered_model_name="mlflow-credit", input_example=x[:2])
    api = mlflow.MlflowClient()
    version = api.get_model_version("mlflow-credit", "1")
    assert version.run_id == run.info.run_id and version.status == "READY"
    asset = client.assets.get("model:mlflow-credit@1")
    assert (asset["manifest"]["format"], asset["manifest"]["engine"]) == ("sklearn", "onnx") and "MLmodel" in [
        f["path"] for f in asset["manifest"]["files"]
    ]
    api.set_registered_model_alias("mlflow-credit", "champion", "1")
    assert client.assets.get("model:mlflow-credit@champion")["version"] == 1
    for uri in ("models:/mlflow-credit@champion", "models:/mlflow-credit/1", "models:/mlflow-credit/latest", info.model_uri):
        assert (mlflow.sklearn.load_model(uri).predict(x) == model.predict(x)).all()
    api.set_registered_model_tag("mlflow-credit", "team", "risk")
    api.set_model_version_tag("mlflow-credit", "1", "note", "ok")
    api.update_model_version("mlflow-credit", "1", "the first")
    assert [m.name for m in api.search_registered_models("name LIKE 'mlflow-%' and tags.team = 'risk'")] == ["mlflow-credit"]
    assert [(v.version, v.description) for v in api.search_model_versions("name = 'mlflow-credit'")] == [("1", "the first")]
    found = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], filter_string="name = 'model'", output_format="list")
    assert [m.model_id for m in found] == [info.model_id]
    api.delete_registered_model_alias("mlflow-credit", "champion")
    api.delete_model_version("mlflow-credit", "1")
    with pytest.raises(mlflow.exceptions.MlflowException):
        api.get_model_version("mlflow-credit", "1")


def test_an_alias_with_a_gate_does_not_move_for_mlflow_either(mlflow: Any, client: Client) -> None:
    api = mlflow.MlflowClient()
    api.create_registered_model("guarded")
    with mlflow.start_run() as run:
        mlflow.log_text("x", "model/MLmodel")
    api.create_model_version("guarded", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.gates.declare("model", "guarded", "champion", suite="", requirements=["auc >= 0.7"])
    with pytest.raises(mlflow.exceptions.MlflowException, match="may not become champion"):
        api.set_registered_model_alias("guarded", "champion", "1")
    with pytest.raises(GateRefused):
        client.assets.move_alias("model:guarded@1", "champion")
    api.set_registered_model_alias("guarded", "staging", "1")
    with pytest.raises(mlflow.exceptions.MlflowException, match="source"):
        api.create_model_version("guarded", "/etc")


def test_a_prompt_of_mlflows_is_a_prompt_of_ours(mlflow: Any, client: Client) -> None:
    first = mlflow.genai.register_prompt("tutor", "Answer {{question}} in {{style}}.", commit_message="first", tags={"lang": "en"})
    second = mlflow.genai.register_prompt(
        "tutor", [{"role": "system", "content": "You teach {{topic}}."}, {"role": "user", "content": "{{question}}"}]
    )
    assert (first.version, second.version) == (1, 2)
    mlflow.genai.set_prompt_alias("tutor", "production", 1)
    assert mlflow.genai.load_prompt("prompts:/tutor@production").format(question="why", style="short") == "Answer why in short."
    assert mlflow.genai.load_prompt("prompts:/tutor/2").template[0]["role"] == "system"
    ours = client.assets.get("prompt:tutor@2")
    assert ours["manifest"]["variables"] == ["topic", "question"] and ours["manifest"]["messages"][0]["content"] == "You teach {{topic}}."
    assert client.assets.get("prompt:tutor@production")["version"] == 1
    assert [p.name for p in mlflow.genai.search_prompts()] == ["tutor"]
    assert "tutor" not in [m.name for m in mlflow.MlflowClient().search_registered_models()]
    client.assets.register(
        "prompt", "native", {"messages": [{"role": "user", "content": "Hello {{name}}"}], "syntax": "jinja2", "variables": ["name"]}
    )
    assert mlflow.genai.load_prompt("prompts:/native/1").template[0]["content"] == "Hello {{name}}"


def test_autolog_logs_a_whole_training(mlflow: Any, client: Client) -> None:
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    x, y = np.random.default_rng(0).normal(size=(80, 3)), np.arange(80) % 2
    mlflow.sklearn.autolog(log_models=True, silent=True)
    try:
        with mlflow.start_run() as run:
            RandomForestClassifier(n_estimators=5, max_depth=2).fit(x, y)
    finally:
        mlflow.sklearn.autolog(disable=True)
    ours = client.runs.get(run.info.run_id)
    assert ours["params"]["max_depth"] == "2" and ours["metrics"]["training_score"] > 0.5
    theirs = mlflow.get_run(run.info.run_id)
    assert theirs.outputs.model_outputs and theirs.inputs.dataset_inputs


def test_a_file_of_100_mb_goes_up_and_down(mlflow: Any, tmp_path: Path) -> None:
    """Artifacts stream to disk, so they are not held to the limit of other requests' bodies."""
    data = os.urandom(1 << 20) * 100
    (tmp_path / "weights.bin").write_bytes(data)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(tmp_path / "weights.bin"))
    got = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/weights.bin", dst_path=str(tmp_path / "down"))
    assert Path(got).read_bytes() == data
