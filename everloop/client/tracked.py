"""An open run: what `el.run()` answers. Logging appends to a queue in memory and returns; a thread moves what has gathered into the spool (spool.py) and sends it.

So a training loop never waits for disk or network, a server that is away for a while costs nothing, and what a killed program had in its spool is sent by the
next one. A signal's handler takes no lock that the interrupted code could hold.
"""

from __future__ import annotations

import atexit
import collections
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

from everloop.client import spool as spools
from everloop.client.http import Unreachable
from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import RUN_KEY_CHARS

TURN_SECONDS = 0.05
"""How often the thread looks for what has gathered: what a `kill -9` can lose."""
BATCH_POINTS = 10_000
"""Points in one message."""
QUEUE_POINTS = 200_000
"""Points in memory; who logs faster than the disk takes them waits here."""
RETRY_SECONDS = 1.0
"""Pause after a server did not answer."""
DESCRIBE_SECONDS = 5.0
"""How long the end of a program waits for its own description (git, packages)."""
EXIT_SECONDS = 10.0
"""How long the end of a program waits for the server; what is left is sent later."""
STEP_MAX = 2**63 - 1
KEY_CHARS = RUN_KEY_CHARS
Point = tuple[str, float, int, float]


class Run:
    """A tracked run that is open. Use it as a context manager, or call `finish`. `offline`: nothing is sent, `everloop sync` does it later."""

    def __init__(
        self, http: Any, body: dict[str, Any], own: bool = True, offline: bool = False, system: float = 0.0, seed: int | None = None
    ) -> None:
        self._http, self._own, self._offline = http, own, offline
        self._system, self._seed = system, seed
        self.info = body
        self.id: str = body["id"]
        self._points: collections.deque[Point] = collections.deque()
        self._keys: set[str] = set()
        self._waiters: collections.deque[threading.Event] = collections.deque()
        self._draining = threading.RLock()  # re-entrant: a signal's handler may drain on top of whatever the main thread was doing
        self._steps = 0
        self._done = False
        self._stop = False
        self._problem: BaseException | None = None
        self._refusal: BaseException | None = None
        self._told = False
        self._described = threading.Event()
        self._open_spool(body if offline else None)
        threading.Thread(target=self._begin, name="everloop-run-begin", daemon=True).start()
        _open_runs.add(self)
        _watch_the_end()

    def log(self, values: Mapping[str, Any], step: int | None = None, at: float | None = None) -> None:
        """Log several values at one step: numbers become points of series, pictures, figures and tables become files `KEY/STEP.EXT`.

        `step` counts up by itself where it is not told. Returns at once for numbers; TypeError for what can be neither.
        """
        step, at = self._place(step, at)
        self._steps = step + 1
        add, known = self._points.append, self._keys
        for key, value in values.items():
            if key not in known:
                self._meet(key)
            if value.__class__ is float:
                add((key, value, step, at))
            else:
                self._log_value(key, value, step, at)
        if len(self._points) > QUEUE_POINTS:
            self._give_way()

    def log_metric(self, key: str, value: float, step: int = 0, at: float | None = None) -> None:
        """Add one point to a series; `at` is epoch seconds (now when not told). Returns at once; nan and infinities are kept."""
        step, at = self._place(step, at)
        if key not in self._keys:
            self._meet(key)
        self._points.append((key, float(value), step, at))
        if len(self._points) > QUEUE_POINTS:
            self._give_way()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, at: float | None = None) -> None:
        """Add a point to each of several series."""
        step, at = self._place(step, at)
        for key in metrics:
            if key not in self._keys:
                self._meet(key)
        self._points.extend([(key, float(value), step, at) for key, value in metrics.items()])
        if len(self._points) > QUEUE_POINTS:
            self._give_way()

    def log_param(self, key: str, value: Any) -> None:
        """Set one parameter; it cannot be changed later."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set parameters; they cannot be changed later. Conflict if one has another value already."""
        self._now_or_later({"params": {str(k): text_of(v) for k, v in params.items()}})

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag, replacing its value."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, replacing their values."""
        self._now_or_later({"tags": {str(k): text_of(v) for k, v in tags.items()}})

    def log_input(self, *refs: str) -> list[str]:
        """Say which asset versions the run read (`dataset:credit@3`), so that `why` and `impact` know; answers the exact references.

        NotFound for a version that is not there, BadInput while offline: only the server knows the versions.
        """
        if self._offline:
            raise BadInput("A run that is offline cannot name what it read: the server, which knows the versions, is not asked.", "Log it online.")
        return list(self._http.post(f"/api/v1/runs/{self.id}/inputs", json={"refs": [str(one) for one in refs]})["refs"])

    def log_artifact(self, data: bytes | str | os.PathLike[str], name: str | None = None) -> None:
        """Keep a file with the run: a path (then `name` defaults to the file's own), a folder (all files in it), or bytes with a name.

        Where the server is away, a copy waits in the spool.
        """
        if isinstance(data, bytes):
            if not name:
                raise ValueError("bytes need a name: run.log_artifact(data, 'report.html')")
            self._put(name, data)
            return
        path = Path(data)
        if path.is_dir():
            for one in sorted(p for p in path.rglob("*") if p.is_file()):
                self._put(f"{name or path.name}/{one.relative_to(path).as_posix()}", one)
            return
        self._put(name or path.name, path)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as a file."""
        self._put(name, text.encode())

    def log_json(self, value: Any, name: str) -> None:
        """Keep plain values as a JSON file; numpy's are taken too."""
        import orjson

        self._put(name, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2))

    def log_table(self, table: Any, name: str) -> None:
        """Keep a table (pandas, Polars, Arrow, or a list of dicts) as NAME.parquet or .csv or .json, as `name` ends; without an end, Parquet."""
        from everloop.client import media

        self._put(*media.table(table, name))

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep a figure: matplotlib's as a picture (.png, .svg, .pdf as `name` ends), Plotly's as .html or .json."""
        from everloop.client import media

        self._put(*media.figure(figure, name))

    def log_image(self, image: Any, name: str) -> None:
        """Keep a picture as PNG: PIL's, a numpy array (height x width, or x 3 or 4; floats in 0..1 or bytes), or bytes of a picture file."""
        from everloop.client import media

        self._put(*media.image(image, name))

    def flush(self, seconds: float = 60.0) -> None:
        """Send all that was logged so far; raises what the server says, or Unreachable, where it cannot be sent (it stays in the spool).

        A refusal is raised by the flush that follows it, even where it came while nobody was waiting.
        """
        self._drain()
        if self._offline:
            return
        arrived = threading.Event()
        self._waiters.append(arrived)
        came = arrived.wait(seconds)
        refusal, self._refusal = self._refusal, None
        if problem := refusal or self._problem:
            raise problem
        if not came:
            raise Unreachable(self._http.url, f"what was logged was not taken within {seconds:.0f} s", sent=True)

    def finish(self, status: str = "finished", error: str = "") -> None:
        """End the run: finished, failed or killed. A run ended twice stays as it was. Waits EXIT_SECONDS at most; the rest is sent later."""
        if self._done:
            return
        self._done = True
        _open_runs.discard(self)
        self._drain()
        self._described.wait(DESCRIBE_SECONDS)
        if self._own:
            self._add(spools.PATCH, {"status": status, "error": error[-20_000:], "ended_at": time.time()})
        self._stop = True
        self._thread.join(0.1 if self._offline else EXIT_SECONDS)
        if not self._offline and self._thread.is_alive():
            self._say(f"{self._problem or 'the server is slow'}: {self._spool.size} bytes of run {self.id} wait in {self._spool.path}")

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("killed", "KeyboardInterrupt")
        else:
            self.finish("failed", "".join(traceback.format_exception(kind, error, trace)))

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _open_spool(self, create: dict[str, Any] | None) -> None:
        import orjson

        place = spools.folder()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = {"id": self.id, "server": None if self._offline else self._http.url}
        self._spool = spools.Spool(place / f"{self.id}-{os.getpid()}-{os.urandom(2).hex()}{spools.SUFFIX}", head)
        if create is not None:
            self._spool.add(spools.CREATE, orjson.dumps({key: value for key, value in create.items() if value is not None}))
        self._thread = threading.Thread(target=self._loop, name=f"everloop-run-{self.id[-6:]}", daemon=True)
        self._thread.start()

    def _place(self, step: int | None, at: float | None) -> tuple[int, float]:
        """The step and time of what is logged now; ValueError for such as no server takes, here where they were written."""
        step = self._steps if step is None else int(step)
        if not -STEP_MAX <= step <= STEP_MAX:
            raise ValueError(f"the step {step} does not fit 64 bits")
        if at is None:
            return step, time.time()
        if not math.isfinite(at):
            raise ValueError(f"{at} is no time; give epoch seconds")
        return step, float(at)

    def _meet(self, key: str) -> None:
        """A key for the first time."""
        if not isinstance(key, str) or not 0 < len(key) <= KEY_CHARS:
            raise ValueError(f"{str(key)[:80]!r} cannot be the key of a metric: use text of 1 to {KEY_CHARS} characters")
        self._keys.add(key)

    def _log_value(self, key: str, value: Any, step: int, at: float) -> None:
        """A value that is no plain number."""
        if hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0:
            self._points.append((key, float(value), step, at))
            return
        from everloop.client import media

        self._put(*media.any_file(value, f"{key}/{step}"))

    def _give_way(self) -> None:
        """More waits in memory than should: help the thread."""
        self._drain()

    def _drain(self) -> None:
        """Move what has gathered into the spool."""
        import orjson

        with self._draining:
            while self._points:
                batch = []
                try:
                    for _ in range(min(len(self._points), BATCH_POINTS)):
                        batch.append(self._points.popleft())
                except IndexError:  # a signal's handler drained meanwhile
                    pass
                if batch:
                    self._spool.add(spools.LOG, orjson.dumps({"series": _columns(batch)}))

    def _loop(self) -> None:
        again, sampled = 0.0, time.monotonic()
        while True:
            stop = self._stop
            waiting = [self._waiters.popleft() for _ in range(len(self._waiters))]
            if self._system and not stop and time.monotonic() - sampled >= self._system:
                sampled = time.monotonic()
                self._sample()
            self._drain()
            if not self._offline and (waiting or stop or time.monotonic() >= again):
                again = 0.0 if self._send() else time.monotonic() + RETRY_SECONDS
            for one in waiting:
                one.set()
            if stop and (self._offline or self._spool.empty):
                self._spool.close(remove=not self._offline)
                return
            time.sleep(TURN_SECONDS if not stop else 0.2)

    def _send(self) -> bool:
        """Whether all that waits was sent. What the server refuses for good is set aside, and the user told."""
        try:
            self._spool.send(self._http)
        except (EverloopError, OSError) as problem:
            self._problem = problem
            if spools.refused(problem):
                self._problem, self._refusal = None, problem
                with self._draining:  # nobody may write to a file that is being closed
                    kept = self._spool.set_aside()
                    self._spool.close()
                    self._open_again()
                self._say(f"{problem}\nWhat was logged to run {self.id} since is kept in {kept}")
            elif not self._told:
                self._told = True
                self._say(f"{problem} Logging to run {self.id} goes on; what waits is sent when the server is back.")
            return False
        self._told, self._problem = False, None
        return True

    def _open_again(self) -> None:
        head = {"id": self.id, "server": self._http.url}
        self._spool = spools.Spool(spools.folder() / f"{self.id}-{os.getpid()}-{os.urandom(2).hex()}{spools.SUFFIX}", head)

    def _send_leftovers(self) -> None:
        if self._offline:
            return
        try:
            sent = spools.sync(self._http, offline=False)
        except (EverloopError, OSError):
            return  # the next start tries again
        if sent["runs"]:
            self._say(f"what earlier programs could not send was sent: {len(sent['runs'])} runs")
        for one in sent["refused"]:
            self._say(f"what an earlier program logged to run {one['run']} was refused: {one['why']} It is kept in {one['file']}")

    def _begin(self) -> None:
        """What takes a moment and is in nobody's way: where the program runs, and what earlier ones have left."""
        try:
            if self._own:
                self._describe()
        finally:
            self._described.set()
        self._send_leftovers()

    def _describe(self) -> None:
        from everloop.client import environment

        self._add(spools.PATCH, {"code": environment.code(), "environment": environment.environment(self._seed)})
        for name, data in environment.sources():
            with self._draining:
                self._spool.keep(name, data)

    def _sample(self) -> None:
        from everloop.client import system

        at, step = time.time(), self._steps
        self._points.extend((f"system/{key}", value, step, at) for key, value in system.sample().items())

    def _now_or_later(self, body: dict[str, Any]) -> None:
        """Send at once, so that what is wrong is told where it was written; where the server is away, later."""
        if not self._offline:
            try:
                self._http.post(f"/api/v1/runs/{self.id}/log", json=body)
                return
            except EverloopError as problem:
                if problem.status < 500:
                    raise
        self._add(spools.LOG, body)

    def _put(self, name: str, data: bytes | Path) -> None:
        if not self._offline:
            try:
                if isinstance(data, bytes):
                    self._http.put(f"/api/v1/runs/{self.id}/artifacts/{quote(name)}", data=data)
                else:
                    with data.open("rb") as file:
                        self._http.put(f"/api/v1/runs/{self.id}/artifacts/{quote(name)}", data=file)
                return
            except EverloopError as problem:
                if problem.status < 500:
                    raise
        with self._draining:
            self._spool.keep(name, data)

    def _add(self, kind: bytes, body: dict[str, Any]) -> None:
        """One message into the spool."""
        import orjson

        with self._draining:
            self._spool.add(kind, orjson.dumps(body))

    def _say(self, text: str) -> None:
        print(f"everloop: {text}", file=sys.stderr)

    def _after_fork(self) -> None:
        """In a child process: a spool and a thread of its own; what the parent had gathered is the parent's to send."""
        self._points.clear()
        self._draining = threading.RLock()
        self._own = False
        self._open_spool(None)


_open_runs: weakref.WeakSet[Run] = weakref.WeakSet()
_watching = False


def _watch_the_end() -> None:
    """Once a process: open runs are ended at exit, and when SIGTERM would have killed the program (a handler of the user's stays)."""
    global _watching
    if _watching:
        return
    _watching = True
    atexit.register(_end_all, "killed", "The program ended with the run still open.")
    os.register_at_fork(after_in_child=lambda: [one._after_fork() for one in list(_open_runs)])
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_term)


def _on_term(number: int, frame: Any) -> None:
    _end_all("killed", f"Ended by {signal.Signals(number).name}.")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_all(status: str, error: str) -> None:
    for one in list(_open_runs):
        one.finish(status, error)


def _columns(points: list[Point]) -> dict[str, dict[str, list[Any]]]:
    """Points by key, as the server takes them: {key: {"value", "step", "at"}}. What JSON has no number for is a text."""
    found: dict[str, dict[str, list[Any]]] = {}
    for key, value, step, at in points:
        columns = found.get(key)
        if columns is None:
            columns = found[key] = {"value": [], "step": [], "at": []}
        columns["value"].append(value)
        columns["step"].append(step)
        columns["at"].append(at)
    for columns in found.values():
        values = columns["value"]
        if not math.isfinite(sum(values)):
            columns["value"] = [v if math.isfinite(v) else str(float(v)) for v in values]
    return found


def text_of(value: Any) -> str:
    """A param's or tag's value as text."""
    return value if isinstance(value, str) else str(value)
