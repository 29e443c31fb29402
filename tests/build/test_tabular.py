"""The tabular steps on real and made data, through the app, up to a release."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from everloop.build import tabular
from tests.web.test_data import client  # noqa: F401 - a fixture


def walk(client, params=None, **roles):  # noqa: F811
    data, params = roles.pop("data"), params or {}
    client.data.add("d", data, **roles)
    run = client.runs.start("t")
    inputs: dict = {}
    for name in ("validate", "split", "train", "release", "gate"):
        step = SimpleNamespace(params={"name": "m", "dataset": "dataset:d", **params}, inputs=inputs, client=client, run=run, log=print)
        inputs[name] = getattr(tabular, name)(step)
    run.finish()
    return inputs


def test_german_credit_becomes_a_release(client, shared_data: Path) -> None:  # noqa: F811
    done = walk(client, data=shared_data / "credit/german_credit.csv", target="credit_risk", protected="personal_status_sex")
    assert done["release"]["release"] == "release:m@1" and max(done["train"]["validation"].values()) > 0.65
    assert "hash of each row" in done["split"]["order"]
    assert "personal_status_sex" not in [c["name"] for c in client.assets.get("model:m@1")["manifest"]["signature"]["inputs"]]


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_other_tasks_follow_the_same_steps(client, task: str) -> None:  # noqa: F811
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400), "b": rng.choice(["u", "v", None], 400)})
    frame["y"] = frame.a * 2 + rng.normal(size=400) / 5 if task == "regression" else np.digitize(frame.a, [-0.5, 0.5])
    done = walk(client, data=frame, target="y")
    assert done["split"]["task"]["task"] == task and max(done["train"]["validation"].values()) > 0.8
