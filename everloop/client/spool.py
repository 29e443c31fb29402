"""The spool: what a run logs and what `el.trace` records lies in an append-only file of the user's state folder before it is sent, so that no end of
the program loses it.

One line a message: its kind (create, log, patch, artifact, span) and JSON, as it will be sent. Beside it stands how far sending has come. The file of a run that
ended well and is sent whole is removed; any other is sent by the next program that logs to the same server, or by `everloop sync`; one that was
logged offline by `everloop sync` alone, for only its user knows where it belongs. Spans name no project, so theirs is sent only with the key that they were meant to go
with. Sending a line twice changes nothing: points and spans that are there already are not counted again, params, tags and files are set to what they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import Conflict, EverloopError, NotFound

CREATE, LOG, PATCH, ARTIFACT, SPAN = b"C", b"L", b"P", b"A", b"S"
SPANS = 512
"""Spans in one request."""
SUFFIX = ".spool"
NEW_SECONDS = 60.0
"""An empty spool that is younger may be one that a program is making right now."""


def folder() -> Path:
    """Where spools lie: EVERLOOP_STATE, or everloop in the user's state folder."""
    given = os.environ.get("EVERLOOP_STATE")
    base = Path(given) if given else Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "everloop"
    return base / "runs"


def encoded(message: Any) -> bytes:
    """A message as JSON; a text in it that is no UTF-8 (as names of files may be) has `?` in place of what cannot be read."""
    import orjson

    try:
        return orjson.dumps(message)
    except TypeError:
        return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")


def refused(problem: BaseException) -> bool:
    """Whether the server will answer the same for ever (a deleted run, a param that is another), so that trying again is no use."""
    return isinstance(problem, EverloopError) and problem.status < 500 and problem.status not in (401, 403, 408, 429)


class Spool:
    """One run's file, or one of spans. `head` is its first line: {"server", "id"}, of spans {"server", "sender", "resource"}. BlockingIOError where a
    living program has it."""

    def __init__(self, path: Path, head: dict[str, Any] | None = None) -> None:
        import orjson

        self.path = path
        self.files = path.with_suffix(".files")
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if head is not None else 0), 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (fcntl.LOCK_NB if head is None else 0))  # who looks for leftovers may hold a new one for a moment
        except OSError:
            os.close(self._fd)
            raise
        if head is not None and os.fstat(self._fd).st_size == 0:
            _write(self._fd, orjson.dumps(head) + b"\n")
        self._mark = os.open(path.with_suffix(".sent"), os.O_RDWR | os.O_CREAT, 0o600)
        self._reader = path.open("rb")
        first = self._reader.readline()
        self.head: dict[str, Any] = orjson.loads(first) if first.endswith(b"\n") else {}
        done = os.pread(self._mark, 20, 0)
        self.offset = int(done) if done.isdigit() else len(first)
        self.sent = 0

    def add(self, kind: bytes, body: bytes) -> None:
        """Append one message. It outlives the program from here on."""
        _write(self._fd, kind + body + b"\n")

    def keep(self, name: str, data: bytes | Path) -> None:
        """Append a file of the run: a copy of it lies beside the spool until it is sent."""
        import orjson

        self.files.mkdir(mode=0o700, exist_ok=True)
        copy = self.files / f"{len(list(self.files.iterdir()))}-{os.urandom(4).hex()}"
        if isinstance(data, Path):
            shutil.copyfile(data, copy)
        else:
            copy.write_bytes(data)
        self.add(ARTIFACT, orjson.dumps({"name": name, "file": copy.name}))

    def send(self, http: Any) -> int:
        """Send what waits, in order; how many messages. Stops at the first that cannot be sent, and raises why."""
        count = 0
        for kind, bodies, end in self._batches():
            if kind == SPAN:
                self._send_spans(http, bodies)
            else:
                self._send(http, kind, bodies[0])
            self.offset = end
            os.pwrite(self._mark, b"%020d" % end, 0)
            count += len(bodies)
            self.sent += len(bodies)
        return count

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return os.fstat(self._fd).st_size <= self.offset

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return max(0, os.fstat(self._fd).st_size - self.offset)

    def close(self, remove: bool = False) -> None:
        """Let go of the file; with `remove`, all of it is sent."""
        if remove:
            shutil.rmtree(self.files, ignore_errors=True)
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(".sent").unlink(missing_ok=True)
        self._reader.close()
        for fd in (self._mark, self._fd):
            with contextlib.suppress(OSError):
                os.close(fd)

    def set_aside(self) -> Path:
        """Keep the file under another name: the server refuses it for good."""
        return self.path.rename(self.path.with_suffix(".refused"))

    def _batches(self) -> Iterator[tuple[bytes, list[bytes], int]]:
        """What waits, in order, as (kind, messages, where they end): spans together, all else one at a time."""
        spans: list[bytes] = []
        after = self.offset
        for kind, body, end in self._waiting():
            if kind == SPAN:
                spans.append(body)
                after = end
            if spans and (kind != SPAN or len(spans) == SPANS):
                yield SPAN, spans, after
                spans = []
            if kind != SPAN:
                yield kind, [body], end
        if spans:
            yield SPAN, spans, after

    def _waiting(self) -> Iterator[tuple[bytes, bytes, int]]:
        at = self.offset
        while True:
            self._reader.seek(at)
            line = self._reader.readline()
            if not line.endswith(b"\n"):  # nothing, or one that is being written (or was, when the program was killed)
                return
            at += len(line)
            yield line[:1], line[1:-1], at

    def _send_spans(self, http: Any, spans: list[bytes]) -> None:
        """Spans in OTLP's JSON. What the server refuses for good goes into a file beside, so that it does not hold up the others; raises what it may take later."""
        import orjson

        about = orjson.dumps({"attributes": self.head.get("resource") or []})
        body = b'{"resourceSpans":[{"resource":%b,"scopeSpans":[{"scope":{"name":"everloop"},"spans":[%b]}]}]}' % (about, b",".join(spans))
        try:
            http.request("POST", "/v1/traces", data=body, headers={"content-type": "application/json"})
        except EverloopError as problem:
            if not refused(problem):
                raise
            aside = self.path.with_suffix(".refused")
            with aside.open("ab") as file:
                file.write(b"".join(span + b"\n" for span in spans))
            print(f"everloop: {len(spans)} spans were refused, and are kept in {aside}: {problem}", file=sys.stderr)

    def _send(self, http: Any, kind: bytes, body: bytes) -> None:
        import orjson

        run = f"/api/v1/runs/{self.head['id']}"
        as_json = {"content-type": "application/json"}
        if kind == LOG:
            http.request("POST", f"{run}/log", data=body, headers=as_json)
        elif kind == PATCH:
            http.request("PATCH", run, data=body, headers=as_json)
        elif kind == CREATE:
            with contextlib.suppress(Conflict):  # an earlier try came through
                http.request("POST", "/api/v1/runs", data=body, headers=as_json)
        elif kind == ARTIFACT:
            told = orjson.loads(body)
            copy = self.files / told["file"]
            if not copy.exists():  # it was sent, and the program killed before it could note that
                return
            with copy.open("rb") as file:
                http.put(f"{run}/artifacts/{quote(told['name'])}", data=file)
            copy.unlink()


def sender_of(http: Any) -> str:
    """Who sends: a mark of the key and the project that go with each request, from which neither can be read."""
    told = {name.lower(): value for name, value in http.headers.items()}
    return hashlib.sha256("\n".join(told.get(name, "") for name in ("authorization", "x-everloop-project")).encode()).hexdigest()[:16]


def leftovers(server: str | None = None, offline: bool = True) -> Iterator[Spool]:
    """Spools that no living program has, oldest first: those for `server`, or all; `offline` ones are for any. The caller closes each."""
    for path in sorted(folder().glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime if p.exists() else 0.0):
        try:
            spool = Spool(path)
        except OSError:  # a living program's, or just sent by another one
            continue
        if not spool.head:  # the program was killed before it had logged anything, or is about to
            spool.close(remove=os.fstat(spool._fd).st_mtime < time.time() - NEW_SECONDS)
        elif offline if spool.head.get("server") is None else server in (None, spool.head["server"]):
            yield spool
        else:
            spool.close()


def sync(http: Any, everything: bool = False, offline: bool = True) -> dict[str, Any]:
    """Send all leftovers of this server (with `everything`, of any; with `offline`, what was meant for none yet): {"runs", "spans" (how many), "messages",
    "refused": [{"run", "file", "why"}], "elsewhere": [the same]}. Raises where it does not answer.

    A run that the server does not find may be another project's: its file stays, for whoever signs in there.
    """
    found: dict[str, Any] = {"runs": [], "spans": 0, "messages": 0, "refused": [], "elsewhere": []}
    for spool in leftovers(None if everything else http.url, offline):
        if "sender" in spool.head:
            _sync_spans(http, spool, everything, found)
            continue
        try:
            found["messages"] += spool.send(http)
            found["runs"].append(spool.head["id"])
            spool.close(remove=True)
        except NotFound as problem:
            spool.close()
            found["elsewhere"].append({"run": spool.head["id"], "file": str(spool.path), "why": str(problem)})
        except (EverloopError, OSError) as problem:
            final = refused(problem)
            kept = spool.set_aside() if final else spool.path
            spool.close()
            if not final:
                raise
            found["refused"].append({"run": spool.head["id"], "file": str(kept), "why": str(problem)})
    return found


def _sync_spans(http: Any, spool: Spool, everything: bool, found: dict[str, Any]) -> None:
    """Send the spans that a program left, where they were meant to go with this key (or the user says: all)."""
    if not everything and spool.head["sender"] != sender_of(http):
        if not spool.empty:
            found["elsewhere"].append(
                {"run": None, "file": str(spool.path), "why": "Its spans were to be sent with another key or to another project."}
            )
        spool.close()
        return
    try:
        found["spans"] += spool.send(http)
    except BaseException:
        spool.close()
        raise
    spool.close(remove=True)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
