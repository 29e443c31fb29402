"""The worker process: leases tasks over HTTP, runs their functions, says how they ended."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from everloop.core.errors import BadInput, Conflict, EverloopError, Forbidden, MissingDependency, NotFound
from everloop.core.limits import LEASE_SECONDS, WORK_POLL_SECONDS, WORKER_IDLE_SECONDS
from everloop.work.code import load
from everloop.work.step import Step

FINAL = (BadInput, NotFound, Forbidden, MissingDependency)
"""Errors that trying again does not mend."""


class _Stopped(BaseException):
    """SIGTERM came while a step ran."""


@contextlib.contextmanager
def _signed_in(url: str, token: str) -> Iterator[None]:
    """While a step runs, `el.connect()` in its code acts as its pipeline, in its project: never as whoever is at this machine."""
    mine = {"EVERLOOP_URL": url, "EVERLOOP_API_KEY": token}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Worker:
    """Works for the server at `url` until told to stop (or, with `exit_idle`, until there is nothing to do)."""

    def __init__(self, url: str, key: str | None, exit_idle: bool = False) -> None:
        from everloop.client.base import Client
        from everloop.client.http import Http

        self.url, self.exit_idle = url, exit_idle
        self.client = Client(Http(url, key))
        self.owner = f"{os.getpid()}-{os.urandom(8).hex()}"
        self.cache = Path(os.environ.get("EVERLOOP_CODE_CACHE") or Path(tempfile.gettempdir()) / f"everloop-code-{os.getuid()}").resolve()
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.cache.stat().st_uid != os.getuid():
            raise BadInput(f"The folder {self.cache} belongs to another user.", "Name one of your own in EVERLOOP_CODE_CACHE.")
        self.stopping = self.running = False

    def serve(self) -> None:
        """Lease, run, report; until SIGTERM, SIGINT or idleness. A server that is away is waited for."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        last = time.monotonic()
        while not self.stopping:
            try:
                task = self.client._http.post("/api/v1/work/lease", json={"owner": self.owner, "wait": WORK_POLL_SECONDS}, timeout=60.0)["task"]
            except EverloopError as error:
                if error.status in (401, 403):
                    raise
                task = None
                time.sleep(1.0)
            if task is not None:
                self.work(task)
                last = time.monotonic()
            elif self.exit_idle and time.monotonic() - last > WORKER_IDLE_SECONDS:
                return

    def work(self, task: dict[str, Any]) -> None:
        """Run one task to its end, with a heartbeat beside it."""
        from everloop.client.base import Client
        from everloop.client.http import Http

        client = Client(Http(self.url, task["token"]))
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(Client(Http(self.url, task["token"])), task["id"], ended), daemon=True)
        beat.start()
        log = io.StringIO()
        try:
            self._attempt(client, task, log)
        finally:
            ended.set()
            beat.join(5.0)

    def _attempt(self, client: Any, task: dict[str, Any], log: io.StringIO) -> None:
        path, body = "complete", {}
        try:
            self.running = True
            if self.stopping:
                raise _Stopped
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), _signed_in(self.url, task["token"]):
                step = Step(task, client)
                result = load(client, task["call"], task["code"], self.cache)(step)
                step.run.flush()
            self.running = False
            body = {"result": orjson.loads(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))}
        except _Stopped:
            path = "release"
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}" if isinstance(error, EverloopError) else "".join(traceback.format_exception(error)[-3:])
            tail = said[-4000:]
            path, body = "fail", {"error": tail, "retry": not isinstance(error, FINAL)}
            log.write(traceback.format_exc())
        finally:
            self.running = False
        if log.getvalue():
            with contextlib.suppress(EverloopError):
                client.runs.attach(task["step_run"]).log_artifact(log.getvalue().encode(), "log.txt")
        self._say(client, path, {"id": task["id"], "owner": self.owner, **body})

    def _say(self, client: Any, path: str, body: dict[str, Any]) -> None:
        """Report how a task ended, again while the server is away and the lease may still be ours. A lost lease drops the result."""
        until = time.monotonic() + 2 * LEASE_SECONDS
        while True:
            try:
                client._http.post(f"/api/v1/work/{path}", json=body)
                return
            except Conflict as error:
                print(f"result dropped: {error}", flush=True)
                return
            except EverloopError as error:
                if error.status in (400, 413) and path == "complete":
                    path, body = "fail", {"id": body["id"], "owner": body["owner"], "error": str(error), "retry": False}
                elif time.monotonic() > until:
                    print(f"could not report {path}: {error}", flush=True)
                    return
                else:
                    time.sleep(1.0)

    def _beat(self, client: Any, id: str, ended: threading.Event) -> None:
        while not ended.wait(LEASE_SECONDS / 3):
            try:
                client._http.post("/api/v1/work/heartbeat", json={"id": id, "owner": self.owner})
            except Conflict:
                return
            except EverloopError as error:
                print(f"heartbeat: {error}", flush=True)

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True
        if self.running:
            raise _Stopped
