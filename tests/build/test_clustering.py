"""Groups in a table without labels: found, tested on rows held out, gated, served, and compared with the champion."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.build import clustering, release
from everloop.checks import checks
from everloop.core.errors import BadInput
from everloop.core.types import Results
from tests.web.test_data import client  # noqa: F401 - a fixture

STEPS = {"split": clustering.split, "train": clustering.train, "release": release.predict, "gate": clustering.gate}


def customers(n: int = 400, apart: float = 6.0) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    group = rng.integers(0, 3, n)
    frame = pd.DataFrame({"visits": rng.normal(size=n) + apart * (group == 1), "spend": rng.normal(size=n) + apart * (group == 2)})
    frame.loc[rng.random(n) < 0.05, "spend"] = np.nan
    return frame.assign(kind=np.where(group == 0, "new", "old"), customer=[f"C{i}" for i in range(n)])


def run(client: Any, frame: pd.DataFrame, **params: Any) -> dict[str, Any]:  # noqa: F811
    client.data.add("c", frame, id="customer", roles={})
    inputs: dict[str, Any] = {}
    with client.runs.start("t") as made:
        for name, step in STEPS.items():
            asked = {"name": "c", "dataset": "dataset:c", **params}
            inputs[name] = step(SimpleNamespace(name=name, params=asked, inputs=inputs, client=client, run=made, log=print))
    return inputs


def test_groups_that_lie_apart_are_found_gated_and_served(client) -> None:  # noqa: F811
    done = run(client, customers())
    assert done["train"]["clusters"] == 3 and done["train"]["silhouette"] > 0.5
    assert done["gate"]["promoted"] and "silhouette >= 0.1" in done["gate"]["why"]
    client.endpoints.put("c", "predict", release="c")
    said = client.endpoints.predict(
        "c", [{"visits": 6, "spend": 0, "kind": "old"}, {"visits": 6.2, "spend": None, "kind": "old"}, {"visits": 0, "spend": 6}]
    )
    one, two, three = (p["prediction"] for p in said["predictions"])
    assert one == two != three
    card = client.assets.get_object(client.assets.get("model:c")["manifest"]["card"]).decode()
    assert "| cluster | rows | visits | spend | kind |" in card
    again = run(client, customers(500), clusters=3)["gate"]
    assert (again["against"], again["approval"]) == ("release:c@1", "pending")


def test_no_groups_no_promotion_and_wrong_params_are_said(client) -> None:  # noqa: F811
    rng = np.random.default_rng(0)
    noise = pd.DataFrame(rng.normal(size=(300, 12)), columns=[f"x{i}" for i in range(12)]).assign(customer=range(300))
    gate = run(client, noise)["gate"]
    assert not gate["promoted"] and "silhouette >= 0.1" in gate["why"]
    for params, says in (({"clusters": 1}, "clusters is 1"), ({"clusters": [2, 99]}, "from 2 to"), ({"order": "time"}, "no time column")):
        with pytest.raises(BadInput, match=says):
            run(client, noise, **params)
    with pytest.raises(BadInput, match="at least 50"):
        run(client, noise.head(20))


def test_silhouette_is_scikit_learns_and_the_smallest_share_is_counted() -> None:
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 2)) + np.repeat([[0, 0], [5, 5], [0, 5]], [50, 30, 10], axis=0)
    x = (x - x.mean(0)) / x.std(0)
    said = np.repeat(["a", "b", "c"], [50, 30, 10])
    results = Results(90, "clustering", prediction=said, features={"u": x[:, 0], "v": x[:, 1]})
    found = checks.get("silhouette")().estimate(results)
    assert found.value == pytest.approx(silhouette_score(x, said)) and found.interval.low < found.value < found.interval.high
    assert checks.get("smallest_cluster")().estimate(results).value == pytest.approx(10 / 90)
