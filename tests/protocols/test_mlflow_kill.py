"""`kill -9` while clients log over MLflow's API: every metric, param and tag that was acknowledged is there afterwards, once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port

ROUNDS, WRITERS = 3, 4


def call(url: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def start(home: Path, port: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "EVERLOOP_WORKERS": "0"}
    server = subprocess.Popen([sys.executable, "-m", "everloop", "up", "--home", str(home), "--port", str(port)], env=env, stdout=subprocess.DEVNULL)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return server
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server was not ready within a minute")


@pytest.mark.check
def test_all_that_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start(tmp_path, port)
    runs = [call(url, "POST", "runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"] for _ in range(WRITERS)]
    steps: list[list[int]] = [[] for _ in runs]
    params: list[list[str]] = [[] for _ in runs]
    counters = [itertools.count() for _ in runs]

    def write(number: int) -> None:
        run = runs[number]
        try:
            while True:
                step = next(counters[number])
                if step % 5 == 4:
                    rows = [{"key": "m", "value": float(step), "timestamp": 10 + step, "step": step * 1000 + i} for i in range(20)]
                    call(url, "POST", "runs/log-batch", {"run_id": run, "metrics": rows, "params": [{"key": f"p{step}", "value": "x"}]})
                    steps[number] += [row["step"] for row in rows]
                    params[number].append(f"p{step}")
                else:
                    call(url, "POST", "runs/log-metric", {"run_id": run, "key": "m", "value": 1.0, "timestamp": 10 + step, "step": step * 1000})
                    steps[number].append(step * 1000)
        except OSError:
            return  # killed: what was not answered may or may not be there

    for _ in range(ROUNDS):
        writers = [threading.Thread(target=write, args=(i,)) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        time.sleep(1.0)
        server.send_signal(signal.SIGKILL)
        server.wait()
        for writer in writers:
            writer.join(30)
        server = start(tmp_path, port)
    try:
        for number, run in enumerate(runs):
            there = [point["step"] for point in call(url, "GET", f"metrics/get-history?run_id={run}&metric_key=m")["metrics"]]
            kept = {param["key"] for param in call(url, "GET", f"runs/get?run_id={run}")["run"]["data"]["params"]}
            assert len(steps[number]) > 10 and set(steps[number]) <= set(there) and len(there) == len(set(there))
            assert set(params[number]) <= kept
            assert len(set(there) - set(steps[number])) <= ROUNDS * 20  # at most one request a round was under way
    finally:
        server.terminate()
        server.wait(60)
