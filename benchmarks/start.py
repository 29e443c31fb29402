"""P1: how long `everloop up` takes until it is healthy, what it holds in memory when idle, what is installed, what `import everloop` costs.

    python -m benchmarks.start [--n 5] [--idle 10] [--mlflow PYTHON]

With --mlflow (the Python of an environment that has it) MLflow's server is started in turn, with one worker, on a SQLite file. Memory is that of
all processes of the server: RSS counts shared pages for each, PSS (Linux) shares them out. Installed size is the files of everloop and of all it
needs by default, as their wheels' records list them, compiled Python included where it is there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def healthy(url: str) -> bool:
    """Whether GET /health answers 200."""
    try:
        with urllib.request.urlopen(url + "/health", timeout=1) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += tree(int(folder.name))
    return found


def memory(pids: list[int]) -> tuple[float, float]:
    """(RSS, PSS) of processes in MB."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for name in totals:
            totals[name] += int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
    return totals["Rss"] / 1024, totals["Pss"] / 1024


def start(command: list[str], port: int, idle: float, env: dict[str, str]) -> dict[str, float]:
    """Start a server once; seconds until healthy, then memory after `idle` seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, start_new_session=True)
    try:
        while not healthy(f"http://127.0.0.1:{port}"):
            if process.poll() is not None or time.perf_counter() - began > 120:
                raise SystemExit(f"{command} did not come up")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        time.sleep(idle)
        pids = tree(process.pid)
        rss, pss = memory(pids)
        return {"seconds": seconds, "rss_mb": rss, "pss_mb": pss, "processes": float(len(pids))}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def everloop(home: Path) -> tuple[list[str], int]:
    """The command that starts our server on a home, and its port."""
    port = free_port()
    return [sys.executable, "-m", "everloop", "up", "--home", str(home), "--port", str(port)], port


def mlflow(python: str, home: Path) -> tuple[list[str], int]:
    """The command that starts MLflow's server with one worker, and its port."""
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--default-artifact-root", str(home / "artifacts")]
    return [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store], port


def installed() -> tuple[float, list[tuple[str, float]]]:
    """(MB of everloop and all that it needs by default, the ten largest)."""
    sizes: dict[str, float] = {}
    wanted = ["everloop"]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in sizes:
            continue
        if name == "everloop":  # an editable install lists no files of its own, and what it needs may have changed since
            root = Path(__file__).parents[1]
            files: list[Any] = [p for p in (root / "everloop").rglob("*") if p.is_file()]
            needs = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
        else:
            try:
                dist = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue  # for another platform
            files, needs = [dist.locate_file(f) for f in dist.files or ()], dist.requires or []
        sizes[name] = sum(os.path.getsize(f) for f in files if os.path.isfile(f)) / 1e6
        for need in needs:
            text, _, marker = need.partition(";")
            extra = "extra" in marker
            if not extra:
                wanted.append(re.split(r"[\s\[<>=!~(]", text.strip(), maxsplit=1)[0])
    return sum(sizes.values()), sorted(sizes.items(), key=lambda pair: -pair[1])[:10]


def import_seconds(n: int) -> list[float]:
    """Seconds of `import everloop` in a fresh process each."""
    code = "import time; t = time.perf_counter(); import everloop; print(time.perf_counter() - t)"
    return [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(n)]


def told(values: list[float]) -> str:
    """Median with the lowest and the highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--n", type=int, default=5)
    words.add_argument("--idle", type=float, default=10.0)
    words.add_argument("--mlflow")
    given = words.parse_args()
    imports = import_seconds(given.n)
    print(f"import everloop: {told(imports)} s, least {min(imports):.3f}")
    size, largest = installed()
    print(f"installed: {size:.0f} MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in largest))
    seen: dict[str, list[dict[str, float]]] = {"everloop": [], "mlflow": []}
    for _ in range(given.n):
        for name in ("everloop", "mlflow") if given.mlflow else ("everloop",):
            home = Path(tempfile.mkdtemp(prefix="everloop-start-"))
            command, port = everloop(home) if name == "everloop" else mlflow(given.mlflow, home)
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])} if name == "everloop" else dict(os.environ)
            seen[name].append(start(command, port, given.idle, env))
            shutil.rmtree(home, ignore_errors=True)
    for name, runs in seen.items():
        if runs:
            figures = ", ".join(f"{key} {told([run[key] for run in runs])}" for key in runs[0])
            print(f"{name} (load {os.getloadavg()[0]:.1f}): {figures}")


if __name__ == "__main__":
    main()
