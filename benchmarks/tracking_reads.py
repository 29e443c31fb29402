"""P4 and the limits of tracking, through MLflow's own client: search over 5,000 runs, a history of 50,000 points; 8 writers at once; a million points.

    python -m benchmarks.tracking_reads [--runs 5000] [--writers 60] [--million] [--mlflow PYTHON]

The same script drives both servers in turn: everloop, MLflow with one worker, MLflow with its default of workers. Their answers must be equal. MLflow's runs are
written into its database by its own store, without HTTP (it would take minutes); everloop's come over HTTP.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.start import everloop, healthy, memory, mlflow, tree

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
FILTER, ORDER = "metrics.acc > 0.5 and params.lr = '3'", ["metrics.acc DESC"]


def median(work: Callable[[], Any], n: int) -> tuple[float, float, float, Any]:
    """(median, least, most ms, last answer) of `n` calls."""
    times = []
    for _ in range(n):
        began = time.perf_counter()
        answer = work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), min(times), max(times), answer


def fill(client: Any, runs: int) -> tuple[str, str]:
    """Runs of three metrics, three params and a tag, and one run with 50,000 points of one metric: (experiment, that run)."""
    from mlflow.entities import Metric, Param

    experiment = client.create_experiment("search")
    for i in range(runs):
        run = client.create_run(experiment, start_time=1_700_000_000_000 + i, tags={"fam": f"f{i % 7}"}, run_name=f"r{i}").info.run_id
        metrics = [Metric("acc", (i * 7919 % runs) / runs, 1, 0), Metric("loss", i * 0.01, 1, 0), Metric("f1", 0.5, 1, 0)]
        client.log_batch(run, metrics=metrics, params=[Param("lr", str(i % 10)), Param("depth", str(i % 5)), Param("algo", "rf")])
    long = client.create_run(client.create_experiment("history")).info.run_id
    for b in range(50):
        client.log_batch(long, metrics=[Metric("loss", (b * 1000 + i) * 0.1, 1_700_000_000_000 + b * 1000 + i, b * 1000 + i) for i in range(1000)])
    return experiment, long


def reads(url: str, experiment: str, long: str) -> tuple[list[str], int]:
    """Print P4's figures; answers what they must agree on."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    client.search_runs([experiment], max_results=1)
    p50, least, most, found = median(lambda: client.search_runs([experiment], FILTER, order_by=ORDER, max_results=100), 9)
    print(f"  search_runs, filter and order: {p50:.1f} ms ({least:.1f} to {most:.1f}), {len(found)} runs", flush=True)
    p50, least, most, points = median(lambda: client.get_metric_history(long, "loss"), 3)
    print(f"  history of {len(points):,} points: {p50:.0f} ms ({least:.0f} to {most:.0f})", flush=True)
    import requests

    ask = {"experiment_ids": [experiment], "filter": FILTER, "order_by": ORDER, "max_results": 100}
    p50, least, *_ = median(lambda: requests.post(f"{url}/api/2.0/mlflow/runs/search", json=ask).raise_for_status(), 9)
    print(f"  the same search without the client's reading: {p50:.1f} ms (least {least:.1f})", flush=True)
    named = {"run_id": long, "metric_key": "loss"}
    p50, least, *_ = median(lambda: requests.get(f"{url}/api/2.0/mlflow/metrics/get-history", params=named).raise_for_status(), 3)
    print(f"  the same history without the client's reading: {p50:.0f} ms (least {least:.0f})", flush=True)
    return [run.info.run_name for run in found], len(points)


def writers(url: str, seconds: float) -> None:
    """Eight clients log metrics, params and tags for a while; every error counts, and every point must be there."""
    from mlflow import MlflowClient

    errors: list[str] = []
    counts = [0] * 8
    client = MlflowClient(url)
    runs = [client.create_run("0").info.run_id for _ in range(8)]

    def write(number: int) -> None:
        mine, until = MlflowClient(url), time.time() + seconds
        while time.time() < until:
            try:
                mine.log_metric(runs[number], "m", 1.0, step=counts[number])
                counts[number] += 1
                if counts[number] % 50 == 0:
                    mine.log_param(runs[number], f"p{counts[number]}", "x")
                    mine.set_tag(runs[number], "t", str(counts[number]))
            except Exception as error:
                errors.append(str(error)[:200])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = [len(client.get_metric_history(run, "m")) for run in runs]
    print(f"  8 writers for {seconds:.0f} s: {sum(counts):,} metrics, {len(errors)} errors {errors[:1]}, all there: {there == counts}", flush=True)


def million(url: str, pid: int) -> None:
    """A million points in batches of 1,000; the server's memory before, during and after, and a chart of it."""
    import requests

    session = requests.Session()
    run = session.post(f"{url}/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "start_time": 1}).json()["run"]["info"]["run_id"]
    seen, began = [memory(tree(pid))[0]], time.perf_counter()
    for b in range(1000):
        rows = [{"key": "m", "value": i * 0.5, "timestamp": 1_700_000_000_000 + b * 1000 + i, "step": b * 1000 + i} for i in range(1000)]
        session.post(f"{url}/api/2.0/mlflow/runs/log-batch", json={"run_id": run, "metrics": rows}).raise_for_status()
        if b % 100 == 99:
            seen.append(memory(tree(pid))[0])
    took = time.perf_counter() - began
    print(f"  1 M points in {took:.1f} s ({1e6 / took:,.0f}/s); server RSS MB: " + " ".join(f"{mb:.0f}" for mb in seen), flush=True)
    p50, least, _, answer = median(lambda: session.get(f"{url}/api/v1/runs/{run}/metrics/m", params={"points": 1000}).json(), 5)
    print(f"  chart of it, 1,000 pieces: {p50:.0f} ms (least {least:.0f}), {answer['total']:,} points; RSS {memory(tree(pid))[0]:.0f}", flush=True)


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--runs", type=int, default=5000)
    words.add_argument("--writers", type=float, default=0.0)
    words.add_argument("--million", action="store_true")
    words.add_argument("--mlflow")
    given = words.parse_args()
    from mlflow import MlflowClient

    answers = []
    for name in ("everloop", "mlflow, 1 worker", "mlflow, default workers") if given.mlflow else ("everloop",):
        ours, home = name == "everloop", Path(tempfile.mkdtemp(prefix="everloop-tracking-"))
        made = None if ours else fill(MlflowClient(f"sqlite:///{home}/mlflow.db"), given.runs)
        command, port = everloop(home) if ours else mlflow(given.mlflow, home)
        if "default" in name:
            at = command.index("--workers")
            del command[at : at + 2]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        url = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 180
            while not healthy(url):
                if time.monotonic() > until:
                    raise SystemExit(f"{name} did not come up")
                time.sleep(0.1)
            made = made or fill(MlflowClient(url), given.runs)
            print(f"{name} (load {os.getloadavg()[0]:.1f}):", flush=True)
            answers.append(reads(url, *made))
            if ours and given.writers:
                writers(url, given.writers)
            if ours and given.million:
                million(url, server.pid)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
            shutil.rmtree(home, ignore_errors=True)
    assert all(answer == answers[0] for answer in answers), "the servers do not agree"


if __name__ == "__main__":
    main()
