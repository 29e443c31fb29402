"""What happens to the telemetry tables beside the drain: changes that come from no log, done by the drain's thread between two batches, and the
gate that keeps questions out while the database file itself is made anew."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from everloop.core.errors import Busy, EverloopError

T = TypeVar("T")


@dataclass
class _Job:
    work: Callable[[Any], Any]
    done: Future[Any]
    whole: bool


class Jobs:
    """Changes that wait for the drain's thread. `submit` from any thread, `run_one` from that one."""

    def __init__(self) -> None:
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._closed: EverloopError | None = None

    def submit(self, work: Callable[[Any], T], whole: bool = False) -> Future[T]:
        """Have `work(connection)` done in a transaction of its own; `whole`: without one, for work that replaces the connection."""
        done: Future[T] = Future()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            self._waiting.append(_Job(work, done, whole))
        return done

    def run_one(self, con: Any) -> bool:
        """Do the one that waits longest; answers whether there was one. Its error is the caller's of `submit`."""
        with self._lock:
            job = self._waiting.popleft() if self._waiting else None
        if job is None:
            return False
        if not job.done.set_running_or_notify_cancel():
            return True
        try:
            if job.whole:
                result = job.work(con)
            else:
                con.execute("BEGIN")
                try:
                    result = job.work(con)
                    con.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(Exception):  # a failed COMMIT has rolled back by itself
                        con.execute("ROLLBACK")
                    raise
        except Exception as error:
            job.done.set_exception(error)
        else:
            job.done.set_result(result)
        return True

    def close(self) -> None:
        """Refuse what comes, and what still waits."""
        error = Busy("The server is stopping.", "Try again when it is up.")
        with self._lock:
            self._closed = error
            waiting, self._waiting = list(self._waiting), deque()
        for job in waiting:
            job.done.set_exception(error)


class Gate:
    """Many may pass together (`shared`), or one alone, who waits for them and keeps others out."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Pass together with others."""
        with self._free:
            self._free.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._free:
                self._inside -= 1
                self._free.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others out, and wait until those inside are gone."""
        with self._free:
            self._free.wait_for(lambda: not self._alone)
            self._alone = True
            self._free.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._free:
                self._alone = False
                self._free.notify_all()
