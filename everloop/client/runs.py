"""`client.runs` and `el.run()`: tracked runs from a user's program.

Logging appends to a list in memory and returns; a thread sends what has gathered. What has not been sent when the program ends, by
whatever way it can still notice (end, exception, SIGTERM, SIGINT), is sent then; where the server cannot be reached it is written to a
file that `client.runs.resend` sends later.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import EverloopError

FLUSH_SECONDS = 0.5
"""How long a logged point waits at most before it is sent."""
FLUSH_POINTS = 5_000
"""Points in one request."""
EXIT_SECONDS = 15.0
"""How long the end of a program waits for the server."""


class Run:
    """A tracked run that is open. Use it as a context manager, or call `finish`."""

    def __init__(self, http: Any, body: dict[str, Any], own: bool = True) -> None:
        self._http = http
        self.info = body
        self.id: str = body["id"]
        self._own = own
        self._lock = threading.RLock()  # re-entrant: a signal handler ends the run on top of whatever the main thread was doing
        self._sending = threading.RLock()
        self._wake = threading.Event()
        self._points: list[tuple[str, Any, int, float]] = []
        self._done = False
        self._thread = threading.Thread(target=self._loop, name=f"everloop-run-{self.id[-6:]}", daemon=True)
        self._thread.start()
        _open_runs.add(self)
        _watch_the_end()

    def log_metric(self, key: str, value: float, step: int = 0, at: float | None = None) -> None:
        """Add one point to a series; `at` is epoch seconds (now when not told). Returns at once; nan and infinities are kept."""
        point = (key, float(value), int(step), time.time() if at is None else at)
        with self._lock:
            self._points.append(point)
            if len(self._points) == FLUSH_POINTS:
                self._wake.set()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, at: float | None = None) -> None:
        """Add a point to each of several series."""
        at = time.time() if at is None else at
        points = [(key, float(value), int(step), at) for key, value in metrics.items()]
        with self._lock:
            self._points.extend(points)
            if len(self._points) >= FLUSH_POINTS:
                self._wake.set()

    def log_param(self, key: str, value: Any) -> None:
        """Set one parameter; it cannot be changed later."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set parameters; they cannot be changed later. Conflict if one has another value already."""
        self._http.post(f"/api/v1/runs/{self.id}/log", json={"params": {str(k): _text(v) for k, v in params.items()}})

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag, replacing its value."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, replacing their values."""
        self._http.post(f"/api/v1/runs/{self.id}/log", json={"tags": {str(k): _text(v) for k, v in tags.items()}})

    def log_input(self, *refs: str) -> list[str]:
        """Say which asset versions the run read (`dataset:credit@3`), so that `why` and `impact` know; answers the exact references."""
        return self._http.post(f"/api/v1/runs/{self.id}/inputs", json={"refs": [str(one) for one in refs]})["refs"]

    def log_artifact(self, data: bytes | str | os.PathLike[str], name: str | None = None) -> None:
        """Keep a file with the run: a path (then `name` defaults to the file's own), a folder (all files in it), or bytes with a name."""
        if isinstance(data, bytes):
            if not name:
                raise ValueError("bytes need a name: run.log_artifact(data, 'report.html')")
            self._http.put(f"/api/v1/runs/{self.id}/artifacts/{quote(name)}", data=data)
            return
        path = Path(data)
        if path.is_dir():
            for one in sorted(p for p in path.rglob("*") if p.is_file()):
                self.log_artifact(one, f"{name or path.name}/{one.relative_to(path).as_posix()}")
            return
        with path.open("rb") as file:
            self._http.put(f"/api/v1/runs/{self.id}/artifacts/{quote(name or path.name)}", data=file.read())

    def flush(self) -> None:
        """Send all that was logged so far; raises what the server says where it cannot be sent."""
        with self._sending:
            while True:
                with self._lock:
                    batch = self._points[:FLUSH_POINTS]
                if not batch:
                    return
                self._http.post(f"/api/v1/runs/{self.id}/log", json={"metrics": _metrics(batch)})
                with self._lock:
                    del self._points[: len(batch)]

    def finish(self, status: str = "finished", error: str = "") -> None:
        """End the run: finished, failed or killed. A run ended twice stays as it was."""
        if self._done:
            return
        self._done = True
        self._wake.set()
        _open_runs.discard(self)
        until = time.monotonic() + EXIT_SECONDS
        while True:
            try:
                self.flush()
                if self._own:
                    self._http.patch(f"/api/v1/runs/{self.id}", json={"status": status, "error": error[-20_000:]})
                return
            except (EverloopError, OSError) as problem:
                final = isinstance(problem, EverloopError) and problem.status < 500
                if final or time.monotonic() > until:
                    self._leave(problem, status)
                    return
                time.sleep(0.5)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("killed", "KeyboardInterrupt")
        else:
            self.finish("failed", "".join(traceback.format_exception(kind, error, trace)))

    def _loop(self) -> None:
        if self._own:
            self._describe()
        while not self._done:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            if self._done:
                return
            try:
                self.flush()
            except EverloopError as problem:
                if problem.status < 500:
                    self._leave(problem, None)
                else:
                    time.sleep(1.0)
            except OSError:
                time.sleep(1.0)

    def _describe(self) -> None:
        from everloop.client.environment import code, environment

        try:
            self._http.patch(f"/api/v1/runs/{self.id}", json={"code": code(), "environment": environment()})
        except (EverloopError, OSError) as problem:
            print(f"everloop: the environment of run {self.id} was not recorded: {problem}", file=sys.stderr)

    def _leave(self, problem: BaseException, status: str | None) -> None:
        """What cannot be sent goes to a file beside the program, and the user is told."""
        with self._lock:
            points, self._points = self._points, []
        if not points and status is None:
            return
        name = Path(f"everloop-unsent-{self.id}.jsonl")
        with name.open("a") as file:
            file.write(json.dumps({"run": self.id, "metrics": _metrics(points), "status": status}) + "\n")
        print(
            f"everloop: {problem}\n{len(points)} points of run {self.id} are in {name}; send them with client.runs.resend({str(name)!r})",
            file=sys.stderr,
        )


class Runs:
    """Find runs and experiments, start runs, read series and files."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def start(
        self,
        name: str = "",
        *,
        kind: str = "training",
        experiment: str = "default",
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run and answer it, open."""
        body = {"name": name, "kind": kind, "experiment": experiment, "parent": parent}
        body |= {"params": {k: _text(v) for k, v in (params or {}).items()}, "tags": {k: _text(v) for k, v in (tags or {}).items()}}
        return Run(self._http, self._http.post("/api/v1/runs", json=body))

    def attach(self, id: str) -> Run:
        """An open handle on a run that someone else started and will end: it logs, `finish` only flushes."""
        return Run(self._http, self.get(id), own=False)

    def get(self, id: str) -> dict[str, Any]:
        """One run with params, latest metrics and tags."""
        return self._http.get(f"/api/v1/runs/{quote(id)}")

    def search(self, filter: str = "", experiment: str | None = None, limit: int = 100, cursor: str | None = None, **more: Any) -> dict[str, Any]:
        """Runs that fit, newest first: {"items", "next"}; `filter` as in MLflow. `more`: order_by, kind, parent, text, view."""
        params = {"filter": filter, "experiment": experiment, "limit": limit, "cursor": cursor, **more}
        return self._http.get("/api/v1/runs", params={key: value for key, value in params.items() if value is not None})

    def history(self, id: str, key: str) -> list[dict[str, Any]]:
        """The whole series of a metric by time: [{"value", "step", "at"}]."""
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self._http.get(f"/api/v1/runs/{quote(id)}/metrics/{quote(key)}", params={"cursor": cursor} if cursor else None)
            items += [{**item, "value": float(item["value"])} for item in page["items"]]
            cursor = page["next"]
            if not cursor:
                return items

    def finish(self, id: str, status: str = "finished", error: str = "") -> dict[str, Any]:
        """End a run by its id."""
        return self._http.patch(f"/api/v1/runs/{quote(id)}", json={"status": status, "error": error})

    def artifacts(self, id: str, under: str = "") -> list[dict[str, Any]]:
        """Files of a run: [{"path", "digest", "size", "at"}]."""
        return self._http.get(f"/api/v1/runs/{quote(id)}/artifacts", params={"under": under})["items"]

    def get_artifact(self, id: str, path: str) -> bytes:
        """The bytes of one file of a run."""
        return self._http.get_bytes(f"/api/v1/runs/{quote(id)}/artifacts/{quote(path)}")

    def delete(self, id: str) -> None:
        """Put a run out of sight."""
        self._http.delete(f"/api/v1/runs/{quote(id)}")

    def experiments(self, filter: str = "") -> list[dict[str, Any]]:
        """Experiments, last changed first."""
        return self._http.get("/api/v1/experiments", params={"filter": filter, "limit": 1000})["items"]

    def resend(self, file: str | os.PathLike[str]) -> int:
        """Send a file of points that could not be sent before, then remove it; how many points."""
        path, count = Path(file), 0
        for line in path.read_text().splitlines():
            body = json.loads(line)
            for start in range(0, len(body["metrics"]), FLUSH_POINTS):
                self._http.post(f"/api/v1/runs/{body['run']}/log", json={"metrics": body["metrics"][start : start + FLUSH_POINTS]})
            count += len(body["metrics"])
            if body["status"]:
                self.finish(body["run"], body["status"])
        path.unlink()
        return count


def run(
    name: str = "",
    *,
    kind: str = "training",
    experiment: str = "default",
    parent: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    client: Any = None,
) -> Run:
    """Start a tracked run: `with el.run("forest", experiment="credit") as run: run.log_metric("auc", 0.8, step=1)`.

    `client` is one from `el.connect()`; without it one is made (EVERLOOP_URL, EVERLOOP_API_KEY, or a local server that is started).
    """
    if client is None:
        from everloop.client import connect

        client = connect()
    return client.runs.start(name, kind=kind, experiment=experiment, parent=parent, params=params, tags=tags)


_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_watching = False


def _watch_the_end() -> None:
    """Once a process: open runs are ended at exit, and when SIGTERM would have killed the program (a handler of the user's stays)."""
    global _watching
    if _watching:
        return
    _watching = True
    atexit.register(_end_all, "killed", "The program ended with the run still open.")
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_term)


def _on_term(number: int, frame: Any) -> None:
    _end_all("killed", f"Ended by {signal.Signals(number).name}.")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_all(status: str, error: str) -> None:
    for one in list(_open_runs):
        one.finish(status, error)


def _metrics(points: list[tuple[str, Any, int, float]]) -> list[dict[str, Any]]:
    return [{"key": k, "value": v if math.isfinite(v) else str(v), "step": step, "at": at} for k, v, step, at in points]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
