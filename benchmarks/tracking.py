"""P2, P3: metrics a second through MLflow's own client: one call at a time, from 8 threads, and in batches of 1,000; create_run.

    python -m benchmarks.tracking [--seconds 5] [--mlflow PYTHON]

The same script drives the servers, each in its own process on a fresh SQLite file, in turn: everloop, MLflow with one worker and with its default of workers.
After each part the server is asked how many points it has, and that must be what was sent. Before them the client alone is measured, against a process that
answers every request with `{}` (what no server can beat), and beside the client's figures stand those of a bare loader on kept connections (the server's own
speed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.start import everloop, free_port, healthy, mlflow, tree

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


NULL = """
import asyncio, uvloop, sys
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 2\\r\\n\\r\\n{}"
class Null(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.got = transport, b""
    def data_received(self, data):
        self.got += data
        while (end := self.got.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.got[:end].lower(); at = head.find(b"content-length:")
            size = int(head[at + 15:].split(b"\\r\\n", 1)[0]) if at >= 0 else 0
            if len(self.got) < end + 4 + size: return
            self.got = self.got[end + 4 + size:]
            self.transport.write(ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
uvloop.run(main())
"""


def floor(seconds: float) -> dict[str, float]:
    """What the client alone manages: calls a second against a server that does nothing, and the client's own CPU."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    port = free_port()
    null = subprocess.Popen([sys.executable, "-c", NULL, str(port)])
    try:
        time.sleep(1.0)
        client, found = MlflowClient(f"http://127.0.0.1:{port}"), {}
        client.log_metric("r", "one", 0.0)
        used = time.process_time()
        found["log_metric"], n = rate(seconds, lambda i: client.log_metric("r", "one", float(i), step=i))
        found["log_metric, client's CPU ms"] = (time.process_time() - used) * 1000 / n
        found["log_metric, 8 threads"], _ = threads(seconds, 8, lambda t, i: client.log_metric("r", f"t{t}", float(i), step=i))
        used = time.process_time()
        batch = [Metric("batch", float(j), 1, j) for j in range(BATCH)]
        found["log_batch, metrics"], n = rate(seconds, lambda i: client.log_batch("r", metrics=batch), BATCH)
        found["log_batch, client's CPU ms"] = (time.process_time() - used) * 1000 * BATCH / n
        return found
    finally:
        null.terminate()
        null.wait()


async def load(port: int, seconds: float, connections: int, request: Callable[[int], tuple[str, bytes]]) -> float:
    """Requests a second over kept connections: `request(n)` gives path and body; any answer but 200 ends it."""
    done, until = 0, time.perf_counter() + seconds

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            done += 1
            path, body = request(done)
            head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            told = await reader.readuntil(b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 200"), told
            await reader.readexactly(int(told.lower().split(b"content-length:")[1].split(b"\r\n", 1)[0]))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return done / (time.perf_counter() - began)


def bare(url: str, run: str, seconds: float) -> dict[str, float]:
    """The server without MLflow's client: calls and metrics a second."""
    port, api = int(url.rpartition(":")[2]), "/api/2.0/mlflow/runs"

    def metric(n: int) -> tuple[str, bytes]:
        return f"{api}/log-metric", json.dumps(
            {"run_id": run, "key": "bare", "value": n * 0.5, "timestamp": 1_700_000_000_000 + n, "step": n}
        ).encode()

    rows = [{"key": "many", "value": j * 0.5, "timestamp": 1_700_000_000_000 + j, "step": j} for j in range(BATCH)]
    text = json.dumps({"run_id": run, "metrics": rows})

    def batch(n: int) -> tuple[str, bytes]:
        return f"{api}/log-batch", text.replace('"timestamp": 17', f'"timestamp": {17 + n}').encode()

    return {
        "bare log_metric, 1 connection": asyncio.run(load(port, seconds, 1, metric)),
        "bare log_metric, 16 connections": asyncio.run(load(port, seconds, 16, metric)),
        "bare log_batch, 4 connections, metrics": asyncio.run(load(port, seconds, 4, batch)) * BATCH,
    }


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
    return found | bare(url, run, seconds)


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seconds", type=float, default=5.0)
    words.add_argument("--mlflow")
    given = words.parse_args()
    print(
        f"the client alone (load {os.getloadavg()[0]:.1f}): " + ", ".join(f"{what} {value:,.2f}" for what, value in floor(given.seconds).items()),
        flush=True,
    )
    for name in ("everloop", "mlflow, 1 worker", "mlflow, default workers") if given.mlflow else ("everloop",):
        home = Path(tempfile.mkdtemp(prefix="everloop-tracking-"))
        command, port = everloop(home) if name == "everloop" else mlflow(given.mlflow, home)
        if "default" in name:
            at = command.index("--workers")
            del command[at : at + 2]
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
