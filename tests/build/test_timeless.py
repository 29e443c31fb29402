"""A table without a time column goes round the loop in row order: trained, watched, trained again, and judged on rows no one learnt from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from everloop.build import tabular
from tests.web.test_data import client  # noqa: F401 - a fixture

PARAMS = {"name": "t", "dataset": "dataset:t", "gate": {"requirements": ["auc >= 0.6", "auc >= champion - 0.05"]}}


def stream(n: int, seed: int, turned: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "group": rng.choice(["u", "v"], n)})
    return frame.assign(y=((-1.5 if turned else 1.5) * frame.a + frame.b + rng.normal(size=n) > 0).astype(int))


def train(client: Any, frame: pd.DataFrame, **more: Any) -> dict[str, Any]:  # noqa: F811
    client.data.add("t", frame, target="y", protected="group")
    run, inputs = client.runs.start("t"), {}
    for name in ("validate", "split", "train", "release", "gate"):
        step = SimpleNamespace(params={**PARAMS, **more}, inputs=inputs, client=client, run=run, log=print)
        inputs[name] = getattr(tabular, name)(step)
    run.finish()
    return inputs


def test_the_loop_closes_without_a_time_column(client) -> None:  # noqa: F811
    old = stream(1500, 1)
    first = train(client, old)
    assert first["gate"]["promoted"] and first["split"]["by"] == "hash"
    again = train(client, old)
    assert (again["release"], again["gate"]["why"]) == (first["release"], "release:t@1 is the champion already.")
    client.endpoints.put("t", "predict", release="t")
    client.monitors.put("t", "t", checks=[{"check": "decay"}], window_days=7)
    run = client.runs.start("v")
    client.data.add("t", old.rename(columns={"b": "c"}), target="y", protected="group")
    looked = tabular.validate(SimpleNamespace(params=PARAMS, inputs={}, client=client, run=run, log=print))
    run.finish()
    assert any("'b' is gone; 'c' is new" in f["what"] for f in looked["findings"])
    day = 86_400.0
    seen = []
    for week, turned in enumerate((False, True)):
        fresh, at = stream(500, 10 + week, turned), 1_800_000_000 + week * 7 * day
        told = client.endpoints.predict("t", fresh.drop(columns="y").to_dict("records"), at=at)["predictions"]
        client.traces.labels({"prediction_id": p["prediction_id"], "label": str(y)} for p, y in zip(told, fresh.y, strict=True))
        seen.append(client.monitors.tick("t", at + 1)["verdict"])
    assert seen == ["pass", "fail"]
    second = train(client, pd.concat([old.tail(100), stream(1500, 20, True)]))
    assert (second["gate"]["verdict"], second["gate"]["approval"], second["gate"]["against"]) == ("pass", "pending", "release:t@1")
    assert second["gate"]["seen_by_champion"] == 0
    client.gates.approve(second["gate"]["decision"], "better")
    assert client.endpoints.get("t")["live"][0]["ref"] == "release:t@2"
    held, learnt = client.data.frame("t-holdout@2"), client.data.frame("t-train@1")
    assert not set(held.a) & set(learnt.a)
    third = train(client, pd.concat([stream(300, 30, True), client.data.frame("t-train@2").tail(300)]), order="rows")
    assert third["gate"]["seen_by_champion"] == 150 and "150 of the suite's rows were among those that release:t@2" in third["gate"]["why"]


def test_a_release_that_learnt_from_the_gates_suite_is_not_promoted_by_itself(client) -> None:  # noqa: F811
    all_rows = stream(800, 3)
    golden = client.data.add("golden", all_rows.head(200), target="y", protected="group")["ref"]
    suite = {"task": "binary", "dataset": golden, "target": "y", "protected": ["group"], "cases": None, "count": 200, "positive": 1}
    client.assets.register("suite", "golden", suite)
    client.gates.declare("release", "t", suite="suite:golden", requirements=["auc >= 0.6"])
    said = train(client, all_rows)["gate"]
    assert said["verdict"] == "pass" and not said["promoted"] and said["seen_by_challenger"] > 100
    assert "rows of suite:golden were among those that release:t@1 learnt from" in said["why"]
    said = train(client, stream(800, 4))["gate"]
    assert said["promoted"] and said["seen_by_challenger"] == 0
