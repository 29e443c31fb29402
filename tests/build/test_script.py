"""A script's MLflow model becomes servable: what is refused, what is served; and the whole way with MLflow's own client."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from everloop.build import script
from everloop.build.tabular import split
from everloop.client.base import Client
from everloop.core.errors import BadInput
from everloop.engines.convert import to_skops
from tests.cli.test_init import everloop, server  # noqa: F401 - a fixture
from tests.web.test_data import client  # noqa: F401 - a fixture


@pytest.fixture
def steps(client: Client):  # noqa: F811
    """A step that comes after `split`, and the rows to train on."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400), "b": rng.normal(size=400)})
    frame["y"] = np.where(frame.a + rng.normal(size=400) > 0, "yes", "no")
    client.data.add("d", frame, target="y")
    with client.runs.start("t") as run:
        made = SimpleNamespace(name="adopt", params={"name": "m", "dataset": "dataset:d"}, inputs={}, client=client, run=run, log=print)
        made.inputs["split"] = split(made)
        made.rows = client.data.frame(made.inputs["split"]["train"])
        yield made


def logged(client: Client, model: object, form: str) -> str:  # noqa: F811
    """A version as MLflow's client leaves it."""
    flavor = f"flavors:\n  sklearn:\n    pickled_model: model.bin\n    serialization_format: {form}\n    sklearn_version: 1.0\n"
    data = to_skops(model) if form == "skops" else pickle.dumps(model)
    files = client.assets.put_files({"MLmodel": flavor.encode(), "model.bin": data})
    return client.assets.register("model", "m", {"format": "mlflow", "files": files})["ref"]


@pytest.mark.parametrize("form", ["skops", "cloudpickle"])
def test_a_logged_model_becomes_servable(client: Client, steps, form: str) -> None:  # noqa: F811
    model = LogisticRegression().fit(steps.rows[["b", "a"]], steps.rows.y)
    steps.inputs["run"] = {"model": logged(client, model, form)}
    made = script.adopt(steps)
    manifest = client.assets.get(made["model"])["manifest"]
    assert (made["model"], made["engine"], made["from"]) == ("model:m-servable@1", "onnx", "model:m@1")
    assert (
        [i["name"] for i in manifest["signature"]["inputs"]] == ["b", "a"] and manifest["classes"] == ["no", "yes"] and manifest["positive"] == "yes"
    )
    release = client.assets.release("m", "predict", {"model": made["model"]})
    client.endpoints.put("m", "predict")
    client.assets.move_alias(release["ref"], "champion")
    told = client.endpoints.predict("m", [{"a": 0.5, "b": -1.0}])["predictions"][0]
    asked = pd.DataFrame([{"b": -1.0, "a": 0.5}])
    assert told["prediction"] == model.predict(asked)[0]
    assert told["probability_yes"] == pytest.approx(model.predict_proba(asked)[0][1], abs=1e-5)
    assert {"model:m@1", steps.inputs["split"]["train"]} <= {n["ref"] for n in client.why(made["model"])["nodes"]}


def test_a_model_that_takes_no_missing_values_gets_them_filled(client: Client, steps) -> None:  # noqa: F811
    rows = steps.rows.assign(c=np.where(steps.rows.a > 0, "u", "v"))
    client.data.add("m-train", rows.assign(a=rows.a.where(rows.index % 9 > 0), c=rows.c.where(rows.index % 7 > 0, None)), target="y")
    steps.inputs["split"]["train"] = "dataset:m-train"
    prepare = ColumnTransformer([("c", OneHotEncoder(), ["c"])], remainder="passthrough")
    model = Pipeline([("prepare", prepare), ("classify", LogisticRegression())]).fit(rows[["a", "b", "c"]], rows.y)
    steps.inputs["run"] = {"model": logged(client, model, "skops")}
    made = script.adopt(steps)
    filled = client.assets.get(made["model"])["manifest"]["training"]["filled"]
    assert made["filled"] == "a, b, c" and filled["c"] in ("u", "v")
    release = client.assets.release("m", "predict", {"model": made["model"]})
    client.endpoints.put("m", "predict")
    client.assets.move_alias(release["ref"], "champion")
    told = client.endpoints.predict("m", [{"a": None, "b": 0.5, "c": None}])["predictions"][0]
    by_hand = model.predict_proba(pd.DataFrame([{"a": filled["a"], "b": 0.5, "c": filled["c"]}]))[0][1]
    assert told["probability_yes"] == pytest.approx(by_hand, abs=1e-5)


def test_filled_inside_a_column_transformer_it_is_onnx_and_takes_missing_text(client: Client, steps) -> None:  # noqa: F811
    rows = steps.rows.assign(c=np.where(steps.rows.a > 0, "u", "v"))
    client.data.add("m-train", rows, target="y")
    steps.inputs["split"]["train"] = "dataset:m-train"
    prepare = ColumnTransformer([("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"])])
    model = Pipeline([("prepare", prepare), ("classify", LogisticRegression())]).fit(rows[["a", "b", "c"]], rows.y)
    steps.inputs["run"] = {"model": logged(client, model, "skops")}
    made = script.adopt(steps)
    assert made["engine"] == "onnx", made
    filled = client.assets.get(made["model"])["manifest"]["training"]["filled"]
    client.assets.move_alias(client.assets.release("m", "predict", {"model": made["model"]})["ref"], "champion")
    client.endpoints.put("m", "predict")
    told = client.endpoints.predict("m", [{"a": None, "b": 0.5, "c": None}])["predictions"][0]
    by_hand = model.predict_proba(pd.DataFrame([{"a": filled["a"], "b": 0.5, "c": filled["c"]}]))[0][1]
    assert told["probability_yes"] == pytest.approx(by_hand, abs=1e-5)


def test_a_pickle_from_elsewhere_is_not_opened(client: Client, steps) -> None:  # noqa: F811
    steps.params["model"] = logged(client, LogisticRegression().fit(steps.rows[["a"]], steps.rows.y), "cloudpickle")
    with pytest.raises(BadInput, match="can run any code when it is opened"):
        script.adopt(steps)
    steps.params["trust_pickle"] = True
    assert script.adopt(steps)["model"] == "model:m-servable@1"


@pytest.mark.parametrize(
    ("columns", "target", "told"),
    [(["a", "made"], "y", "columns that the data do not have: made"), (["a"], "number", "answers 0, 1; the target of the data has no, yes")],
)
def test_what_cannot_be_served_is_said(client: Client, steps, columns: list[str], target: str, told: str) -> None:  # noqa: F811
    rows = steps.rows.assign(made=1.0, number=(steps.rows.y == "yes").astype(int))
    steps.inputs["run"] = {"model": logged(client, LogisticRegression().fit(rows[columns], rows[target]), "skops")}
    with pytest.raises(BadInput, match=told):
        script.adopt(steps)


@pytest.mark.check
@pytest.mark.client
def test_a_script_with_mlflow_calls_becomes_a_gated_endpoint(server: Client, tmp_path: Path) -> None:  # noqa: F811
    everloop("init", "x", "--template", "script", folder=tmp_path)
    everloop("apply", folder=tmp_path / "x", url=server.url)
    everloop("pipelines", "run", "churn", folder=tmp_path / "x", url=server.url)
    assert server.endpoints.get("churn")["live"][0]["ref"] == "release:churn@1"
    adopted = server.assets.get("model:churn-servable@1")["manifest"]
    assert adopted["training"]["model"] == "Pipeline" and adopted["engine"] == "onnx"
    run = server.runs.get(server.assets.get("model:churn@1")["run"])
    assert run["params"] == {"n_estimators": "60", "min_samples_leaf": "10"} and run["metrics"]["auc"] > 0.6
    step = server.runs.get(run["parent"])
    assert (step["kind"], step["name"], run["pipeline"]) == ("step", "run", "churn")
    assert run["code"]["asset"] == step["code"]["asset"] and run["code"]["entry"] == "train.py", run["code"]
    rests = {node["ref"] for node in server.impact("dataset:churn@1")["nodes"]}
    behind = {node["ref"] for node in server.why("model:churn@1")["nodes"]}
    assert f"run:{run['id']}" in rests and {"dataset:churn@1", run["code"]["asset"], f"run:{run['id']}"} <= behind
    everloop("predict", "churn", "--in", "data/customers.csv", "--out", "answers.jsonl", folder=tmp_path / "x", url=server.url)
    assert "churn: " in everloop("monitors", "tick", "churn", folder=tmp_path / "x", url=server.url)
    (tmp_path / "x" / "train.py").write_text("raise SystemExit('no data today')\n")
    everloop("apply", folder=tmp_path / "x", url=server.url)
    assert "no data today" in everloop("pipelines", "run", "churn", folder=tmp_path / "x", url=server.url, code=2)
