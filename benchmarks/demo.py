"""What the demo costs, and how its credit case goes with other seeds.

python benchmarks/demo.py cost              first and second `everloop demo` on a new home: wall and CPU seconds, peak memory by process
python benchmarks/demo.py seeds 11 12 13    the credit case a seed: alarms before and after the change, what the gate said, recovery
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from everloop.cli.demo_feed import SHIFT_WEEK
from everloop.client.server import free_port

FIRST_OUTCOME = SHIFT_WEEK + 4
"""The first week by whose end an outcome from the changed world is known (four weeks late at the earliest)."""


def demo(home: Path, port: int, *words: str) -> subprocess.Popen[bytes]:
    """A demo under way."""
    command = [sys.executable, "-m", "everloop", "demo", *words, "--home", str(home), "--port", str(port)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def processes(home: Path, port: int) -> dict[str, tuple[float, float]]:
    """{demo, server, worker: (CPU seconds so far, resident MB)} of the processes of one home, from /proc."""
    found: dict[str, tuple[float, float]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text().split("\0")
            if "everloop" not in words or not (str(home) in words or f"http://127.0.0.1:{port}" in words):
                continue
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        name = "worker" if "worker" in words else "server" if "up" in words else "demo"
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        found[name] = ((int(stat[11]) + int(stat[12])) / ticks, int(stat[21]) * page / 2**20)
    return found


def cost() -> None:
    """Two demos, one after the other, on one home."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder) / "home", free_port()
        for turn in ("first", "second"):
            before, begun, last = processes(home, port), time.monotonic(), {}
            peak: dict[str, float] = {}
            run = demo(home, port)
            while run.poll() is None:
                now = processes(home, port)
                last |= now
                for name, (_, mb) in now.items():
                    peak[name] = max(peak.get(name, 0.0), mb)
                time.sleep(0.2)
            spent = sum(seconds - before.get(name, (0.0, 0.0))[0] for name, (seconds, _) in last.items())
            shown = ", ".join(f"{name} {mb:.0f} MB" for name, mb in sorted(peak.items()))
            print(
                f"{turn}: exit {run.returncode}, {time.monotonic() - begun:.0f} s wall, {spent:.0f} s CPU; peak {shown}; load {os.getloadavg()[0]:.1f}"
            )
        subprocess.run([sys.executable, "-m", "everloop", "down", "--home", str(home)], check=False)


def seeds(given: list[str]) -> None:
    """A line a seed."""
    for seed in given:
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "demo.json"
            code = demo(Path(folder) / "home", free_port(), "credit", "--seed", seed, "--exit", "--json", str(told)).wait()
            print(f"seed {seed}: exit {code}, {line(json.loads(told.read_text()))}", flush=True)


def line(told: dict[str, Any]) -> str:
    """What happened, from the demo's JSON."""
    stages = {s["name"]: s for s in told["cases"]["credit"]["stages"]}
    looks = [f for name in ("observe", "adapt") for f in stages.get(name, {}).get("figures", [])]
    said = [text for name in ("observe", "adapt") for text in stages.get(name, {}).get("said", [])]
    drift = [_week(f) for f in looks if f["name"].startswith("drift_week") and f["verdict"] == "fail"]
    decay = [_week(f) for f in looks if f["name"].startswith("decay_week") and f["verdict"] == "fail" and f.get("basis") == "labels"]
    live = {f["name"]: round(f["value"], 3) for f in looks if f["name"].startswith("live_auc")}
    counts = {word: sum(word in text for text in said) for word in ("starts a retraining", "is refused", "is the champion;")}
    early = f"false: drift in {[w for w in drift if w < SHIFT_WEEK]}, decay in {[w for w in decay if w < FIRST_OUTCOME]}"
    return f"{early}; first drift {min(drift, default=None)}, first decay {min(decay, default=None)}; {counts}; {live}"


def _week(figure: dict[str, Any]) -> int:
    return int(figure["name"].rpartition("_")[2])


if __name__ == "__main__":
    cost() if sys.argv[1:2] == ["cost"] else seeds(sys.argv[2:]) if sys.argv[1:2] == ["seeds"] else sys.exit(__doc__)
