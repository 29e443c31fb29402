"""An MLflow store filled by the real client, brought over and read back by the real client: the same, however often the import was cut off."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.build.mlflow_import import Import
from everloop.build.mlflow_source import Source, address
from everloop.client import Client, connect
from everloop.core.errors import BadInput
from tests.conftest import running_server

pytestmark = [pytest.mark.client, pytest.mark.check]
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home"), EVERLOOP_TEST_RESET="1") as url:
        yield url


@pytest.fixture
def client(url: str) -> Client:
    made = connect(url, start=False)
    made._http.post("/api/v1/test/reset", json={})
    return made


def fill(mlflow: Any, where: str, artifacts: str | None, traces: bool) -> None:
    """Something of everything, by MLflow's own client."""
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    mlflow.set_tracking_uri(where)
    mlflow.set_registry_uri(where)
    api = mlflow.MlflowClient(where, where)
    kept = mlflow.create_experiment("kept", artifact_location=artifacts, tags={"team": "risk"})
    gone = mlflow.create_experiment("gone", artifact_location=artifacts)
    mlflow.set_experiment("kept")
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"])
    with mlflow.start_run(run_name="parent") as run:
        mlflow.log_params({"depth": 3, "model": "forest"})
        points = [mlflow.entities.Metric("loss", 1 / (step + 1), 1_000 + step, step) for step in range(2_300)]
        for start in range(0, len(points), 1_000):
            api.log_batch(run.info.run_id, metrics=points[start : start + 1_000])
        mlflow.log_metrics({"odd": math.nan, "big": math.inf})
        mlflow.log_text("hello", "notes/a.txt")
        mlflow.log_input(mlflow.data.from_pandas(x, name="train"), context="training")
        info = mlflow.sklearn.log_model(LogisticRegression().fit(x, x.a > 0), name="model", pip_requirements=["scikit-learn"], input_example=x[:3])
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("auc", 0.7, model_id=info.model_id)
    api.delete_run(child.info.run_id)
    for _ in range(3):
        mlflow.register_model(f"models:/{info.model_id}", "credit")
    api.delete_model_version("credit", "2")
    api.transition_model_version_stage("credit", "1", "Staging")
    api.set_registered_model_alias("credit", "champion", "3")
    api.update_model_version("credit", "1", "the first")
    mlflow.genai.register_prompt("greeting", "Hi {{name}}", commit_message="one", tags={"lang": "en"})
    mlflow.genai.register_prompt("greeting", [{"role": "user", "content": "Hello {{name}}"}])
    mlflow.genai.set_prompt_alias("greeting", "prod", 1)
    api.delete_experiment(gone)
    if traces:
        mlflow.trace(lambda question: f"a {question}", name="answer")("why")
        mlflow.flush_trace_async_logging()
        for trace in mlflow.search_traces(locations=[kept], return_type="list"):
            mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, source=mlflow.entities.AssessmentSource("HUMAN", "ann"))


def everything(mlflow: Any, where: str, traces: bool) -> dict[Any, Any]:
    """All that MLflow's client shows of a store, without its addresses."""
    mlflow.set_tracking_uri(where)
    mlflow.set_registry_uri(where)
    api, found = mlflow.MlflowClient(where, where), {}
    for experiment in api.search_experiments(view_type=3):
        if experiment.name == "Default":
            continue
        found["experiment", experiment.name] = (experiment.tags, experiment.lifecycle_stage, experiment.creation_time)
        for run in api.search_runs([experiment.experiment_id], run_view_type=3):
            info, id = run.info, run.info.run_id
            told = (info.run_name, info.status, info.start_time, info.end_time, info.lifecycle_stage, info.user_id, run.data.params, run.data.tags)
            inputs = [(one.dataset.name, one.dataset.digest, one.dataset.schema) for one in run.inputs.dataset_inputs]
            found["run", id] = (*told, inputs, [one.model_id for one in run.outputs.model_outputs] if run.outputs else [])
            for key in run.data.metrics:
                found["metric", id, key] = sorted(
                    {(p.timestamp, p.step, str(p.value)) for p in api.get_metric_history(id, key)}
                )  # a folder keeps equal points twice
            if info.lifecycle_stage == "active":
                found["files", id] = sorted((one.path, one.is_dir) for one in api.list_artifacts(id))
        for model in api.search_logged_models([experiment.experiment_id]):
            metrics = sorted({(one.key, str(one.value), one.run_id) for one in model.metrics or []})
            found["logged", model.model_id] = (model.name, str(model.status), model.creation_timestamp, model.source_run_id, model.tags, metrics)
        for trace in api.search_traces(locations=[experiment.experiment_id]) if traces else ():
            spans = sorted((span.span_id, span.name, str(span.inputs), str(span.outputs)) for span in trace.data.spans)
            judged = sorted((one.name, str(one.value), one.source.source_id, one.create_time_ms) for one in trace.info.assessments)
            found["trace", trace.info.trace_id] = (str(trace.info.state), trace.info.request_time, spans, judged)
    for asked in (None, PROMPTS):
        for name in api.search_registered_models(asked):
            aliases = {alias: str(version) for alias, version in name.aliases.items()}
            found["name", name.name] = (name.description or "", name._tags, aliases, name.creation_timestamp, name.last_updated_timestamp)
            for one in api.search_model_versions(f"name = '{name.name}'" + (f" AND {asked}" if asked else "")):
                times = (one.creation_timestamp, one.last_updated_timestamp)
                found["version", name.name, str(one.version)] = (
                    one.description or "",
                    one._tags,
                    one.current_stage,
                    one.run_id or "",
                    one.source,
                    times,
                )
    return found


class Cut(Exception):
    """The import was cut off."""


class Fragile:
    """An HTTP client that is cut off at its n-th write, before or after the server had it."""

    def __init__(self, http: Any, writes: int) -> None:
        self._inner, self._left = http, writes

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)

        def counted(*args: Any, **more: Any) -> Any:
            self._left -= name in ("post", "put", "request")
            if self._left == 0:
                raise Cut
            answer = call(*args, **more)
            if self._left == 1 and name in ("post", "put", "request"):
                self._left = 0
                raise Cut
            return answer

        return counted


@pytest.mark.parametrize("kind", ["database", "folder"])
def test_all_is_brought_once_however_often_it_was_cut_off(kind: str, tmp_path: Path, url: str, client: Client) -> None:
    import mlflow

    database = kind == "database"
    where = f"sqlite:///{tmp_path / 'store.db'}" if database else (tmp_path / "mlruns").as_uri()
    fill(mlflow, where, (tmp_path / "files").as_uri() if database else None, traces=database)
    wanted = everything(mlflow, where, traces=database)
    given = where if database else str(tmp_path)
    for writes in (2, 5, 9, 14, 22, 31):
        cut = Import(client, Source(given))
        cut._http = Fragile(client._http, writes)
        with pytest.raises(Cut):
            cut.run()
    told = Import(client, Source(given)).run()
    assert [one for one in told["left"] if not one.startswith("traces")] == []
    found = everything(mlflow, url, traces=database)
    assert {key: found.get(key) for key in wanted} == wanted and found.keys() == wanted.keys()
    again = Import(client, Source(given)).run()
    assert not any(again["brought"].values()) and everything(mlflow, url, traces=database) == found
    assert mlflow.sklearn.load_model("models:/credit@champion").predict([[1.0, 0.0]]).tolist() == [True]
    assert mlflow.genai.load_prompt("prompts:/greeting@prod").format(name="you") == "Hi you"


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no folder"):
        address(str(tmp_path / "nowhere"))
    (tmp_path / "mlruns").mkdir()
    assert address(str(tmp_path)) == (tmp_path / "mlruns").resolve().as_uri()
    (tmp_path / "x.db").touch()
    assert address(str(tmp_path / "x.db")) == f"sqlite:///{(tmp_path / 'x.db').resolve()}"
