"""What `run.log` costs a training loop: a million points, offline (spool only) or to a server.

    python -m benchmarks.sdk [--points 1000000] [--url URL]

Printed: microseconds a call in the loop's own thread (CPU and wall), the whole CPU of the process with the thread behind it, seconds until all is spooled
or sent, and, for a loop whose step works for a millisecond, the share of the step that logging adds.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from typing import Any

os.environ.setdefault("EVERLOOP_STATE", tempfile.mkdtemp(prefix="everloop-sdk-"))


def busy(seconds: float) -> float:
    """Work for some CPU time."""
    until, x = time.thread_time() + seconds, 0.0
    while time.thread_time() < until:
        x += 1.0
    return x


def steps(run: Any, count: int) -> float:
    """Wall seconds of `count` steps of a millisecond, logging five values each where there is a run."""
    began = time.perf_counter()
    for step in range(count):
        x = busy(0.001)
        if run is not None:
            run.log({"loss": x, "accuracy": 0.5, "lr": 0.1, "norm": 2.0, "time": 1.5}, step=step)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--points", type=int, default=1_000_000)
    words.add_argument("--url")
    given = words.parse_args()
    from everloop.client import connect
    from everloop.client.runs import Runs

    runs = connect(given.url, start=False).runs if given.url else Runs(None)
    run = runs.start("bench", offline=not given.url)
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall, cpu = time.perf_counter(), time.thread_time()
    for step in range(given.points):
        run.log({"loss": step * 0.5}, step=step)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    began = time.perf_counter()
    run.flush(600.0)
    settled = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{given.points:,} points (load {os.getloadavg()[0]:.1f}): {cpu / given.points * 1e6:.2f} us CPU and {wall / given.points * 1e6:.2f} us wall a call;"
    )
    print(
        f"  whole process {whole / given.points * 1e6:.2f} us CPU a point, all settled {settled:.1f} s after the loop, peak RSS {after.ru_maxrss / 1024:.0f} MB"
    )
    plain, logged = min(steps(None, 300) for _ in range(3)), min(steps(run, 300) for _ in range(3))
    print(f"  a step of 1 ms with five values: {logged / plain - 1:+.1%}")
    run.finish()


if __name__ == "__main__":
    main()
