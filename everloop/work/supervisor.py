"""Worker processes that the server starts when tasks wait, and stops with itself. Idle, there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

CRASH_WAIT = 1.0


class Supervisor:
    """Keeps up to `limit` workers while there is work. `mint` makes a worker's key; `now` is the clock."""

    def __init__(self, url: str, limit: int, mint: Callable[[], str], now: Callable[[], float], log: str) -> None:
        self.url, self.limit, self.mint, self.now, self.log = url, limit, mint, now, log
        self._workers: list[subprocess.Popen[bytes]] = []
        self._not_before = 0.0
        self._crashes = 0

    def tick(self, ready: bool) -> None:
        """Forget those that ended; start one more if tasks are ready. One that crashed makes the next wait, twice as long each time."""
        for worker in [w for w in self._workers if w.poll() is not None]:
            self._workers.remove(worker)
            self._crashes = self._crashes + 1 if worker.returncode else 0
            self._not_before = self.now() + min(30.0, CRASH_WAIT * 2**self._crashes) if worker.returncode else 0.0
        if ready and len(self._workers) < self.limit and self.now() >= self._not_before:
            command = [sys.executable, "-m", "everloop", "worker", "--url", self.url, "--exit-idle"]
            with open(self.log, "ab") as log:
                env = {**os.environ, "EVERLOOP_API_KEY": self.mint()}
                self._workers.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def stop(self, seconds: float = 5.0) -> None:
        """Ask all to stop (they give their task back), wait, and end those that do not."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(seconds)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._workers.clear()
