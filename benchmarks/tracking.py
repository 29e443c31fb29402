"""P2, P3: metrics a second through MLflow's own client: one call at a time, from 8 threads, and in batches of 1,000; create_run.

    python -m benchmarks.tracking [--seconds 5] [--mlflow PYTHON]

The same script drives both servers, each in its own process on a fresh SQLite file, in turn; MLflow's has one worker. After each part the server is asked
how many points it has, and that must be what was sent.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.start import everloop, healthy, mlflow, tree

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
BATCH = 1000


def rate(seconds: float, work: Callable[[int], Any], each: int = 1) -> tuple[float, int]:
    """(how many a second, how many in all) of `work(i)` called again and again."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work(done)
        done += 1
    return done * each / (time.perf_counter() - began), done * each


def threads(seconds: float, count: int, work: Callable[[int, int], Any]) -> tuple[float, int]:
    """`rate` over several threads together; `work(thread, i)`."""
    found: list[tuple[float, int]] = []
    runners = [threading.Thread(target=lambda t=t: found.append(rate(seconds, lambda i: work(t, i)))) for t in range(count)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return sum(r for r, _ in found), sum(n for _, n in found)


def cpu_seconds(pid: int) -> float:
    """CPU that a server's processes have used so far."""
    ticks = 0
    for one in tree(pid):
        stat = Path(f"/proc/{one}/stat")
        if not stat.exists():
            continue  # it has ended since
        ticks += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(url: str, seconds: float, pid: int) -> dict[str, float]:
    """All figures of one server: calls a second, and the server's CPU in ms a call (or a thousand metrics)."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(url)
    experiment = client.create_experiment(f"bench-{time.time_ns()}")
    run = client.create_run(experiment).info.run_id
    found: dict[str, float] = {}
    used = cpu_seconds(pid)
    found["log_metric"], one = rate(seconds, lambda i: client.log_metric(run, "one", float(i), step=i))
    found["log_metric, CPU ms"] = (cpu_seconds(pid) - used) * 1000 / one
    found["log_metric, 8 threads"], many = threads(seconds, 8, lambda t, i: client.log_metric(run, f"t{t}", float(i), step=i))

    def batch(i: int) -> None:
        client.log_batch(run, metrics=[Metric("batch", float(j), 1, i * BATCH + j) for j in range(BATCH)])

    used = cpu_seconds(pid)
    found["log_batch, metrics"], batched = rate(seconds, batch, BATCH)
    found["log_batch, CPU ms"] = (cpu_seconds(pid) - used) * 1000 * BATCH / batched
    found["create_run"], _ = rate(seconds, lambda i: client.create_run(experiment))
    there = len(client.get_metric_history(run, "one")), sum(len(client.get_metric_history(run, f"t{t}")) for t in range(8))
    assert there == (one, many), f"sent {one} and {many}, there are {there}"
    assert len(client.get_metric_history(run, "batch")) == batched
    return found


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=5.0)
    words.add_argument("--mlflow")
    given = words.parse_args()
    for name in ("everloop", "mlflow") if given.mlflow else ("everloop",):
        home = Path(tempfile.mkdtemp(prefix="everloop-tracking-"))
        command, port = everloop(home) if name == "everloop" else mlflow(given.mlflow, home)
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 180
            while not healthy(url):
                if time.monotonic() > until:
                    raise SystemExit(f"{name} did not come up")
                time.sleep(0.1)
            figures = measure(url, given.seconds, server.pid)
            print(f"{name} (load {os.getloadavg()[0]:.1f}): " + ", ".join(f"{what} {value:,.2f}" for what, value in figures.items()), flush=True)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
