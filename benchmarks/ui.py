"""How long the pages of runs take, and how many bytes they are, with many runs and long series.

    python -m benchmarks.ui [--runs 5000] [--points 50000] [--n 15] [--home DIR]

A home is filled with runs of 20 params and 15 metrics, four of them with three series of many points each, and a server is started on it. Each view
is asked for `n` times, one after the other, from this machine: the time is until the last byte, with the server's processor time beside it (what
a busy machine does not change). The limit is 200 ms a view, at the 95th percentile.
With --home a home that was filled before is used again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.start import free_port, healthy
from everloop.core.principal import Principal, Role
from everloop.core.settings import Settings
from everloop.workspace.workspace import Workspace

WHO = Principal("user:bench", "default", Role.admin)
LIMIT_MS = 200.0


async def fill(home: Path, runs: int, points: int) -> None:
    """Make the runs; their ids are in ids.json."""
    ws = Workspace(Settings(home=home, workers=0, fsync=False))
    await ws.start()
    rng, now = random.Random(7), time.time()

    async def one(i: int) -> str:
        params = {"model": "abcd"[i % 4], "lr": f"{10 ** rng.uniform(-4, -1):.5g}", **{f"option_{k:02d}": str(rng.randint(0, 99)) for k in range(18)}}
        packages = {f"package-{k}": f"1.{k}" for k in range(100)}
        made = await ws.runs.create(
            WHO, f"run-{i}", "training", f"sweep-{i % 5}", params=params, tags={"team": "ab"[i % 2]}, environment={"packages": packages}
        )
        metrics = [{"key": f"metric_{k:02d}", "value": rng.random(), "step": 1, "at": now + i} for k in range(15)]
        await ws.runs.log(WHO, made["id"], metrics=metrics)
        await ws.runs.finish(WHO, made["id"])
        return str(made["id"])

    ids: list[str] = []
    for start in range(0, runs, 250):
        ids += await asyncio.gather(*(one(i) for i in range(start, min(runs, start + 250))))
    for id in ids[-4:]:
        for key in ("loss", "val_loss", "grad_norm"):
            series = [{"key": key, "value": math.exp(-t / points * 5) + rng.gauss(0, 0.02), "step": t, "at": now + t} for t in range(points)]
            for start in range(0, points, 25_000):
                await ws.runs.log(WHO, id, metrics=series[start : start + 25_000])
    await ws.stop()
    (home / "ids.json").write_text(json.dumps(ids[-4:]))


def views(ids: list[str]) -> dict[str, str]:
    """What is asked for."""
    four = "&".join(f"run={id}" for id in ids)
    return {
        "table, newest 50": "/ui/runs",
        "table, filtered": "/ui/runs?filter=metrics.metric_00+%3E+0.5+and+params.model+%3D+%27a%27",
        "table, by a metric": "/ui/runs?order=metrics.metric_00+DESC",
        "table, the 40th page": f"/ui/runs?cursor={_cursor(2000)}",
        "groups by a param": "/ui/runs?group=params.model",
        "column picker": "/ui/runs/columns",
        "plot of 2,000 runs": "/ui/runs/plot",
        "four runs compared": f"/ui/runs/compare?{four}",
        "a chart of four long series": f"/ui/runs/series?{four}&key=loss&points=600",
        "a run": f"/ui/runs/{ids[0]}",
        "a run's charts": f"/ui/runs/{ids[0]}?tab=metrics",
        "a chart of one long series": f"/ui/runs/series?run={ids[0]}&key=loss&points=1000",
    }


def _cursor(offset: int) -> str:
    import base64

    return base64.urlsafe_b64encode(f"[{offset}]".encode()).decode()


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(address: str, path: str, n: int, pid: int) -> tuple[list[float], float, int]:
    """(milliseconds of each request after one that warms up, milliseconds of the server's processor time a request, bytes of the answer)."""
    took, size, before = [], 0, 0.0
    for i in range(n + 1):
        if i == 1:
            before = cpu(pid)
        start = time.perf_counter()
        with urllib.request.urlopen(urllib.request.Request(address + path, headers={"accept": "text/html"})) as answer:
            size = len(answer.read())
        took.append((time.perf_counter() - start) * 1000)
    return took[1:], (cpu(pid) - before) * 1000 / n, size


def main() -> int:
    """Fill, serve, ask, print a table; 1 where a view is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 5000), ("points", 50_000), ("n", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--home", type=Path)
    told = parser.parse_args()
    home = told.home or Path(tempfile.mkdtemp(prefix="everloop-ui-"))
    if not (home / "ids.json").exists():
        start = time.perf_counter()
        asyncio.run(fill(home, told.runs, told.points))
        print(f"filled {home} with {told.runs:,} runs in {time.perf_counter() - start:.0f} s")
    ids: list[str] = json.loads((home / "ids.json").read_text())
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server: Any = subprocess.Popen(
        [sys.executable, "-m", "everloop", "up", "--home", str(home), "--port", str(port), "--workers", "0"], stdout=subprocess.DEVNULL
    )
    try:
        while not healthy(address):
            time.sleep(0.1)
        print(f"{'view':30} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8} {'kB':>8}")
        slow = []
        for label, path in views(ids).items():
            took, work, size = measure(address, path, told.n, server.pid)
            p95 = statistics.quantiles(took, n=20)[-1]
            print(f"{label:30} {statistics.median(took):8.1f} {p95:8.1f} {work:8.1f} {size / 1000:8.1f}")
            slow += [label] if p95 > LIMIT_MS else []
    finally:
        server.terminate()
        server.wait(30)
    print(f"over {LIMIT_MS:.0f} ms: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
