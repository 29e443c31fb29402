"""Models logged with MLflow's own client, served by REST, the Open Inference Protocol and `/invocations` in whichever form is safe."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from everloop.client import Client, connect
from everloop.core.errors import Forbidden
from tests.conftest import running_server

pytestmark = [pytest.mark.client, pytest.mark.check]
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
MORE: dict[str, Any] = {"name": "model", "pip_requirements": ["scikit-learn"]}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture(scope="module")
def mlflow(url: str) -> Any:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("formats")
    return mlflow


@pytest.fixture
def client(url: str) -> Client:
    return connect(url, start=False)


@pytest.fixture(scope="module")
def rows() -> Any:
    import numpy as np
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))


def live(client: Client, name: str) -> str:
    """Release and serve the newest version of a model; answers the engine that serves it."""
    asset = client.assets.get(f"model:{name}")
    release = client.assets.release(name, "predict", {"model": asset["ref"]})
    client.assets.move_alias(release["ref"], "champion")
    client.endpoints.put(name, "predict", release=name)
    return str(asset["manifest"]["engine"])


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def check(url: str, client: Client, name: str, frame: Any, column: str, expected: Any) -> None:
    """The same answers by all three protocols."""
    records = frame.to_dict("records")
    found = [row[column] for row in client.endpoints.predict(name, records)["predictions"]]
    assert found == pytest.approx(list(expected), abs=1e-5)
    inputs = [{"name": c, "shape": [len(frame), 1], "datatype": "FP64", "data": frame[c].tolist()} for c in frame]
    outputs = post(f"{url}/v2/models/{name}/infer", {"inputs": inputs})["outputs"]
    assert next(o["data"] for o in outputs if o["name"] == column) == pytest.approx(list(expected), abs=1e-5)
    answer = post(f"{url}/invocations?endpoint={name}", {"dataframe_records": records})["predictions"]
    assert len(answer) == len(frame)


def test_boosted_trees_by_their_own_files(mlflow: Any, url: str, client: Client, rows: Any) -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    y = rows.a > 0
    trees = xgboost.XGBClassifier(n_estimators=4).fit(rows, y)
    mlflow.xgboost.log_model(trees, registered_model_name="trees", **MORE)
    assert live(client, "trees") == "xgboost"
    check(url, client, "trees", rows[:5], "probability_1", trees.predict_proba(rows[:5])[:, 1])
    leaves = lightgbm.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 2}, lightgbm.Dataset(rows, y), 4)
    mlflow.lightgbm.log_model(leaves, registered_model_name="leaves", **MORE)
    assert live(client, "leaves") == "lightgbm"
    check(url, client, "leaves", rows[:5], "probability_1", leaves.predict(rows[:5]))
    wrapped = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=2).fit(rows, y)
    mlflow.lightgbm.log_model(wrapped, registered_model_name="wrapped", **MORE)
    assert live(client, "wrapped") == "skops"
    check(url, client, "wrapped", rows[:5], "probability_true", wrapped.predict_proba(rows[:5])[:, 1])


def test_scikit_learn_is_converted_where_the_answers_agree(mlflow: Any, url: str, client: Client, rows: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, (rows.a > 0).astype(int))
    mlflow.sklearn.log_model(model, registered_model_name="boosted", input_example=rows[:5], **MORE)
    assert live(client, "boosted") == "onnx" and client.assets.get("model:boosted")["manifest"]["conversion"]["n"] >= 300
    check(url, client, "boosted", rows[:5], "probability_1", model.predict_proba(rows[:5])[:, 1])
    again = mlflow.sklearn.load_model("models:/boosted/1")
    assert (again.predict(rows) == model.predict(rows)).all()


def test_pytorch_by_its_exported_program(mlflow: Any, url: str, client: Client, rows: Any) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 1)
    table = rows.to_numpy().astype("float32")
    mlflow.pytorch.log_model(model, registered_model_name="net", input_example=table[:3], **MORE)
    assert live(client, "net") == "pytorch"
    with torch.no_grad():
        expected = model(torch.tensor(table[:5]))[:, 0].tolist()
    check(url, client, "net", rows[:5].set_axis(["x0", "x1", "x2"], axis=1), "prediction", expected)


def test_pyfunc_only_from_a_trusted_producer(mlflow: Any, url: str, client: Client, rows: Any) -> None:
    class Twice(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["a"] * 2

    mlflow.pyfunc.log_model(python_model=Twice(), registered_model_name="twice", input_example=rows[:3], **MORE)
    with pytest.raises(Forbidden, match="local, who is not trusted"):
        live(client, "twice")
    client.models.trust("local", "this test")
    assert live(client, "twice") == "isolated"
    check(url, client, "twice", rows[:5], "prediction", rows.a[:5] * 2)
