"""Tables as they are, end to end against a running server: trained, judged with a reason, served by the Open Inference Protocol, scored by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from everloop.build import tabular
from tests.conftest import running_server

pytestmark = pytest.mark.check


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """(SDK client, URL) of a server with a worker."""
    import everloop as el

    with running_server(tmp_path_factory.mktemp("home"), workers=1) as url:
        yield el.connect(url, start=False), url


def bundled(name: str, folder: Path) -> Path:
    """One of scikit-learn's own tables as a CSV file."""
    from sklearn import datasets

    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


CASES = {
    "german": (
        "credit/german_credit.csv",
        {"target": "credit_risk", "positive": 0, "protected": ["personal_status_sex"]},
        "binary",
        "hash of each row",
    ),
    "adult": ("credit/adult_test.csv", {"target": "class", "protected": ["sex"]}, "binary", "hash of each row"),
    "elec2": ("drift/elec2_first_half.csv", {"target": "class", "time": "period"}, "binary", "in row order"),
    "diabetes": (None, {"target": "target"}, "regression", "hash of each row"),
    "wine": (None, {"target": "target"}, "multiclass", "hash of each row"),
    "iris": (None, {"target": "target"}, "multiclass", "hash of each row"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_table_goes_all_the_way(server: tuple[Any, str], shared_data: Path, tmp_path: Path, name: str) -> None:
    (client, url), (file, roles, task, order) = server, CASES[name]
    path = shared_data / file if file else bundled(name, tmp_path)
    client.data.add(name, path, **roles)
    client.pipelines.put(name, tabular.PIPELINE)
    started = time.monotonic()
    done = client.pipelines.wait(client.pipelines.run(name, {"dataset": f"dataset:{name}", "name": name})["id"], 600)
    said = {t["step"]: t["result"] for t in done["tasks"]}
    gate, trained = said["gate"], said["train"]
    print(f"\n{name}: {time.monotonic() - started:.0f} s, {trained['chosen']}, {trained['engine']}, {said['split']['order']}")
    print({k: (round(v["value"], 4), v["low"] and round(v["low"], 4), v["high"] and round(v["high"], 4)) for k, v in trained["holdout"].items()})
    print(f"validation {trained['validation']}, threshold {trained['threshold']}, {trained['calibration']['why']}\n{gate['verdict']}: {gate['why']}")
    assert said["split"]["task"]["task"] == task and order in said["split"]["order"]
    assert gate["verdict"] in ("pass", "fail", "inconclusive") and len(gate["why"]) > 100 and gate["promoted"] == (gate["verdict"] == "pass")
    card = client.assets.get_object(trained["card"]).decode()
    assert all(part in card for part in ("## Data", "## Figures on the holdout", "## Limits", "## How to make it again"))
    if not gate["promoted"]:
        client.gates.declare("release", name, suite=f"suite:{name}", requirements=["latency_p95_ms <= 500"])
        client.assets.move_alias(client.gates.evaluate(gate["release"])["ref"], "champion")
    client.endpoints.put(name, "predict", release=name)
    _infers(client, url, name)
    _scores(client, url, name, path, tmp_path)


def _infers(client: Any, url: str, name: str) -> None:
    import urllib3

    model = client.assets.get(client.assets.get(f"release:{name}@champion")["manifest"]["pins"]["model"])["manifest"]
    rows = client.data.frame(f"dataset:{name}-holdout").head(5)
    sent = []
    for column in model["signature"]["inputs"]:
        text = column["type"] == "string"
        values = rows[column["name"]].astype(str if text else float).tolist()
        sent.append({"name": column["name"], "datatype": "BYTES" if text else "FP64", "shape": [5], "data": values})
    answer = urllib3.request("POST", f"{url}/v2/models/{name}/infer", body=json.dumps({"inputs": sent}), headers={"content-type": "application/json"})
    assert answer.status == 200, answer.data
    by_name = {o["name"]: o["data"] for o in answer.json()["outputs"]}
    asked = client.endpoints.predict(name, json.loads(rows[[c["name"] for c in model["signature"]["inputs"]]].to_json(orient="records")))
    assert by_name["prediction"] == pytest.approx([p["prediction"] for p in asked["predictions"]])


def _scores(client: Any, url: str, name: str, path: Path, folder: Path) -> None:
    out, started = folder / "out.parquet", time.monotonic()
    command = [sys.executable, "-m", "everloop", "predict", name, "--file", str(path), "--out", str(out)]
    told = subprocess.run(command, env={**os.environ, "EVERLOOP_URL": url}, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    scored = pd.read_parquet(out)
    print(f"{told.stdout.strip()} in {time.monotonic() - started:.1f} s")
    assert len(scored) == client.data.get(name)["manifest"]["rows"] and scored.prediction_id.is_unique
    assert f"release:{name}@1" in json.dumps(client.why(scored.prediction_id.iloc[-1]))
