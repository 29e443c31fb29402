"""`el.run` against a real server: buffered points arrive, a failure is kept with the run, a killed program's points too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.client import Client, connect
from tests.conftest import running_server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield connect(url, start=False)


def test_a_run_arrives_whole(client: Client) -> None:
    with client.runs.start("forest", experiment="credit", params={"depth": 3}) as run:
        for step in range(7000):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_metrics({"auc": 0.8, "odd": float("nan")})
        run.log_artifact(b"hello", "notes/a.txt")
    found = client.runs.get(run.id)
    assert (found["status"], found["params"], found["metrics"]["auc"], found["metrics"]["odd"]) == ("finished", {"depth": "3"}, 0.8, "NaN")
    assert [point["step"] for point in client.runs.history(run.id, "loss")] == list(range(7000))
    assert client.runs.get_artifact(run.id, "notes/a.txt") == b"hello"
    with pytest.raises(ZeroDivisionError), client.runs.start("breaks") as broken:
        print(1 / 0)
    assert client.runs.get(broken.id)["status"] == "failed" and "ZeroDivisionError" in client.runs.get(broken.id)["error"]


def test_a_terminated_program_leaves_its_points(client: Client, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import time\nfrom everloop.client import connect\nrun = connect({client.url!r}, start=False).runs.start('cut')\n"
        "run.log_metric('loss', 1.0)\nrun.log_metric('loss', 0.5, step=1)\nprint(run.id, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    found = client.runs.get(id)
    assert found["status"] == "killed" and found["metrics"]["loss"] == 0.5
