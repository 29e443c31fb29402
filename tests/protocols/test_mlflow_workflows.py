"""Whole workflows of MLflow's unmodified client against a real server, looked at through everloop's own client: its runs are ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop.client import Client, connect
from tests.conftest import running_server

pytestmark = [pytest.mark.client, pytest.mark.check]
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def mlflow(url: str) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("workflows")
    yield mlflow
    mlflow.autolog(disable=True)
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def ours(url: str) -> Client:
    return connect(url, start=False)


def table() -> tuple[Any, Any]:
    from sklearn.datasets import make_classification

    return make_classification(120, 5, random_state=0)


def files(ours: Client, run: str) -> set[str]:
    return {one["path"] for one in ours.runs.artifacts(run)}


def test_xgboost_trains_under_autolog(mlflow: Any, ours: Client) -> None:
    import xgboost

    features, labels = table()
    mlflow.xgboost.autolog()
    with mlflow.start_run() as run:
        data = xgboost.DMatrix(features, labels)
        xgboost.train({"objective": "binary:logistic", "max_depth": 2}, data, 5, evals=[(data, "train")], verbose_eval=False)
    found = ours.runs.get(run.info.run_id)
    assert (found["status"], found["params"]["max_depth"]) == ("finished", "2")
    assert [point["step"] for point in ours.runs.history(run.info.run_id, "train-logloss")] == [0, 1, 2, 3, 4]
    assert any("feature_importance" in path for path in files(ours, run.info.run_id))
    model = mlflow.search_logged_models(filter_string=f"source_run_id = '{run.info.run_id}'", output_format="list")[0]
    assert mlflow.xgboost.load_model(model.model_uri).predict(data).shape == (120,)


def test_lightgbm_trains_under_autolog(mlflow: Any, ours: Client) -> None:
    import lightgbm

    features, labels = table()
    mlflow.lightgbm.autolog()
    with mlflow.start_run() as run:
        data = lightgbm.Dataset(features, labels)
        lightgbm.train({"objective": "binary", "verbose": -1}, data, 4, valid_sets=[data], valid_names=["train"])
    found = ours.runs.get(run.info.run_id)
    assert (found["status"], found["params"]["objective"]) == ("finished", "binary")
    assert len(ours.runs.history(run.info.run_id, "train-binary_logloss")) == 4


def test_a_torch_model_is_logged_registered_and_loaded(mlflow: Any, ours: Client) -> None:
    import torch

    net = torch.nn.Linear(3, 1)
    with mlflow.start_run() as run:
        for step in range(3):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        info = mlflow.pytorch.log_model(net, name="net", registered_model_name="net", input_example=torch.ones(2, 3).numpy())
    again = mlflow.pytorch.load_model("models:/net/1")
    given = torch.ones(2, 3)
    assert torch.equal(again(given), net(given))
    asset = ours.assets.get("model:net@1")
    assert asset["manifest"]["mlflow"]["model"] == info.model_id
    assert run.info.run_id in str(ours.why("model:net@1"))


def test_lightning_trains_under_torch_autolog(mlflow: Any, ours: Client, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="mlflow.pytorch.autolog works with lightning alone, which is not installed")
    import torch

    class Net(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(5, 1)

        def forward(self, rows: Any) -> Any:
            return self.layer(rows)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = torch.nn.functional.mse_loss(self(batch[0])[:, 0], batch[1])
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.05)

    features, labels = (torch.as_tensor(part, dtype=torch.float32) for part in table())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, labels), batch_size=30)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": True, "accelerator": "cpu"}
    mlflow.pytorch.autolog(checkpoint=True, checkpoint_save_best_only=False)
    with mlflow.start_run() as run:
        net = Net()
        lightning.Trainer(max_epochs=3, default_root_dir=str(tmp_path), **quiet).fit(net, loader)
    found = ours.runs.get(run.info.run_id)
    assert (found["status"], found["params"]["optimizer_name"], found["params"]["lr"]) == ("finished", "Adam", "0.05")
    assert len(ours.runs.history(run.info.run_id, "train_loss_epoch")) == 3
    there = files(ours, run.info.run_id)
    assert "model_summary.txt" in there and any(path.startswith("checkpoints/") for path in there), there
    model = mlflow.search_logged_models(filter_string=f"source_run_id = '{run.info.run_id}'", output_format="list")[0]
    assert torch.equal(mlflow.pytorch.load_model(model.model_uri)(features), net(features))


def test_files_of_every_sort_and_nested_runs_and_data(mlflow: Any, ours: Client) -> None:
    import matplotlib as mpl
    import numpy as np
    import pandas as pd

    mpl.use("Agg")
    from matplotlib import pyplot

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with mlflow.start_run(run_name="parent") as parent:
        mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://bucket/frame.parquet", name="frame"), context="training")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "conf.json")
        figure, axes = pyplot.subplots()
        axes.plot([1, 2])
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), "black.png")
        mlflow.log_table(frame, "table.json")
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_params({"depth": 3, "rate": 0.1})
            mlflow.log_metric("auc", 0.75)
    assert files(ours, parent.info.run_id) >= {"notes/hello.txt", "conf.json", "plots/line.png", "black.png", "table.json"}
    assert ours.runs.get(child.info.run_id)["parent"] == parent.info.run_id
    found = mlflow.search_runs(filter_string="metrics.auc > 0.7 and params.depth = '3' and attributes.run_name LIKE 'ch%'")
    assert list(found["run_id"]) == [child.info.run_id]
    assert list(mlflow.search_runs(filter_string="datasets.name = 'frame'")["run_id"]) == [parent.info.run_id]
    assert mlflow.artifacts.load_dict(f"runs:/{parent.info.run_id}/conf.json") == {"a": 1}
    assert list(mlflow.load_table("table.json", run_ids=[parent.info.run_id])["b"]) == ["x", "y"]
