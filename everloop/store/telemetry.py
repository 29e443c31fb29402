"""Telemetry: spans, predictions and their scores, first in the durable log, then drained into DuckDB in large batches.

    add / add_soon -> log (fsync) -> drain thread -> telemetry.duckdb (rows and offset in one transaction) -> telemetry-text.db (words)

Only this object opens the database. DuckDB is imported and opened by the drain thread, so that starting a server does not wait for it.
Delivery to the tables is at least once and rows are unique, so each write is there exactly once, whatever dies when.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from everloop.core.clock import Clock, SystemClock
from everloop.core.errors import BadInput, Busy, EverloopError
from everloop.core.limits import DRAIN_ROWS, LOG_FRAME_BYTES
from everloop.core.types import Span
from everloop.store import telemetry_tables as tables
from everloop.store.files import make_folder, sync_folder, temp_name, write_error, write_parts
from everloop.store.frames import PARTS, Price, pack, unpack
from everloop.store.intake import Intake
from everloop.store.log import Log, Position
from everloop.store.telemetry_archive import Archive, Part
from everloop.store.telemetry_compact import compact, fill
from everloop.store.telemetry_jobs import Gate, Jobs
from everloop.store.telemetry_signals import text_of_log
from everloop.store.telemetry_text import TextIndex, texts_of

T = TypeVar("T")
Parts = tuple[Sequence[Any], ...]
"""Spans, predictions, scores, changes of traces, metric points, log records: as in frames.PARTS."""
Clean = Callable[[str, Parts], Parts]
"""What a project's records lose before they are written: (project, parts) to parts."""
DRAIN_SECONDS = 0.2
READERS = 2
SPANS_A_FRAME = 512
_logger = logging.getLogger("everloop.telemetry")


class _Batch:
    """Rows that enter the tables together; `split` are ids of traces whose spans came in several frames of it."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {part: [] for part in PARTS}
        self.split: set[str] = set()
        self._seen: set[str] = set()

    @property
    def size(self) -> int:
        return sum(map(len, self.rows.values()))

    def add(self, rows: Mapping[str, list[Any]]) -> None:
        """Take the rows of one frame."""
        for part, more in rows.items():
            self.rows[part].extend(more)
        ids = {row[1] for row in rows["spans"]}
        self.split |= ids & self._seen
        self._seen |= ids


class Telemetry:
    """The telemetry of one home. `open` before use, `close` at the end. Thread-safe.

    `price` fills in what a call cost where its spans do not say. `clean`, where it is set, redacts everything before it is written, `cleans(project)`
    says whether it does anything (then it runs in a thread where the caller can wait). `rejected` counts frames that could not become rows (kept in `log/rejected`).
    """

    def __init__(
        self, home: Path, clock: Clock | None = None, fsync: bool = True, price: Price | None = None, archive: Archive | None = None
    ) -> None:
        self.home = Path(home)
        self.archive = archive
        self.clock: Clock = clock or SystemClock()
        self.log = Log(self.home / "log", fsync)
        self.intake = Intake()
        self.text: TextIndex | None = None
        self.rejected = 0
        self.clean: Clean | None = None
        self.cleans: Callable[[str], bool] = lambda project: False
        self._price = price
        self._con: Any = None
        self._opened = threading.Event()
        self._ready = threading.Event()
        self._failed: EverloopError | None = None
        self._position = Position(0, 0)
        self._moved = threading.Condition()
        self._hurry = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(READERS, "telemetry-read")
        self._cursors = threading.local()
        self._open_cursors: list[Any] = []
        self._jobs, self._gate = Jobs(), Gate()
        self.second_text: TextIndex | None = None
        """An index that is being made, which gets what the first one gets."""
        self.compacting = threading.Lock()

    def open(self) -> Telemetry:
        """Open the log and start the drain; Conflict if another server has this home, NoSpace if it cannot be written."""
        try:
            make_folder(self.home, self.log.fsync)
        except OSError as error:
            raise write_error(error, self.home) from error
        self.log.open(after=self._last_segment())
        self._thread = threading.Thread(target=self._run, name="telemetry-drain", daemon=True)
        self._thread.start()
        return self

    def wait_open(self) -> None:
        """Wait until the database is open; raises why it cannot be (BadInput). So a server that could not show a trace does not start."""
        self._opened.wait(60)
        if self._failed is not None:
            raise self._failed

    def close(self) -> None:
        """fsync and drain what was written, then close. Later writes raise Busy."""
        if self._thread is None:
            return
        self.log.close()
        self._stop = True
        self._hurry.set()
        self._thread.join()
        self._thread = None
        self._readers.shutdown()

    def add(
        self,
        project: str,
        spans: Sequence[Span] = (),
        predictions: Sequence[Mapping[str, Any]] = (),
        scores: Sequence[Mapping[str, Any]] = (),
        infos: Sequence[Mapping[str, Any]] = (),
        metrics: Sequence[Mapping[str, Any]] = (),
        logs: Sequence[Mapping[str, Any]] = (),
    ) -> list[Future[Position]]:
        """Write; each future resolves after an fsync. Wait for all of them before acknowledging. Raises Busy, TooLarge, NoSpace."""
        return self._append(project, self._cleaned(project, (spans, predictions, scores, infos, metrics, logs)))

    def _append(self, project: str, parts: Parts) -> list[Future[Position]]:
        return [self.log.append(frame) for frame in self._frames(project, parts)]

    def _cleaned(self, project: str, parts: Parts) -> Parts:
        return self.clean(project, parts) if self.clean is not None and self.cleans(project) else parts

    def add_soon(self, project: str, spans: Sequence[Span] = (), predictions: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write to the operating system before returning (it survives `kill -9`), fsynced within 100 ms: the hot path."""
        spans, predictions, *_ = self._cleaned(project, (spans, predictions))
        if len(spans) <= SPANS_A_FRAME and len(predictions) <= SPANS_A_FRAME:
            self.log.append_soon(pack(project, self.clock.now(), spans, predictions))
        else:
            for frame in self._frames(project, (spans, predictions)):
                self.log.append_soon(frame)

    async def add_durable(
        self,
        project: str,
        spans: Sequence[Span] = (),
        predictions: Sequence[Mapping[str, Any]] = (),
        scores: Sequence[Mapping[str, Any]] = (),
        infos: Sequence[Mapping[str, Any]] = (),
        metrics: Sequence[Mapping[str, Any]] = (),
        logs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`add`, then wait for the fsync."""
        parts: Parts = (spans, predictions, scores, infos, metrics, logs)
        if self.clean is not None and self.cleans(project):
            parts = await asyncio.to_thread(self.clean, project, parts)
        await asyncio.gather(*map(asyncio.wrap_future, self._append(project, parts)))

    async def flush(self, seconds: float = 60.0) -> None:
        """Wait until everything written before this call can be queried; Busy after `seconds`."""
        await asyncio.to_thread(self.flush_sync, seconds)

    def flush_sync(self, seconds: float = 60.0) -> None:
        """`flush`, blocking."""
        goal = self.log.end
        self._hurry.set()
        with self._moved:
            done = self._moved.wait_for(lambda: self._failed is not None or self._position >= goal, seconds)
        if self._failed is not None:
            raise self._failed
        if not done:
            raise Busy("Telemetry is still being moved into the database.", "Try again in some seconds.")

    async def query(
        self,
        work: Callable[[Any], T],
        project: str | None = None,
        since: float | None = None,
        until: float | None = None,
        traces: Sequence[str] | None = None,
        parts: Sequence[Part] | None = None,
    ) -> T:
        """Run `work(cursor)` on a snapshot of the database, in a reader thread.

        With `project` the archive is there too, as far as the range of time (epoch seconds) or the ids in `traces` reach it, or as the `parts` given. Raises Corrupt where a
        file of the archive cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.query_sync, work, project, since, until, traces, parts)

    def query_sync(
        self,
        work: Callable[[Any], T],
        project: str | None = None,
        since: float | None = None,
        until: float | None = None,
        traces: Sequence[str] | None = None,
        parts: Sequence[Part] | None = None,
    ) -> T:
        """`query`, blocking, in this thread."""
        self._wait_ready()
        with self._gate.shared():
            cursor = getattr(self._cursors, "cursor", None)
            if cursor is None:
                cursor = self._cursors.cursor = self._con.cursor()
                self._open_cursors.append(cursor)
            if parts is None and project is not None and self.archive is not None:
                parts = self.archive.parts(project, since, until) if traces is None else self.archive.holding(cursor, project, traces)
            if not parts or self.archive is None:
                return work(cursor)
            wide = self._con.cursor()
            try:
                with self.archive.told():
                    self.archive.widen(wide, parts)
                    return work(wide)
            finally:
                wide.close()

    def change(self, work: Callable[[Any], T], whole: bool = False) -> Future[T]:
        """Have `work(connection)` done in a transaction by the one thread that writes to the tables, between two batches of the log."""
        self._wait_ready()
        done = self._jobs.submit(work, whole)
        self._hurry.set()
        return done

    def search(self, project: str, query: str) -> list[str]:
        """Trace ids whose texts match, newest first (see TextIndex.search); those archived too. Blocking."""
        self._wait_ready()
        with self._gate.shared():
            if self.text is None:
                raise self._failed or Busy("The text index is still being opened.", "Try again in some seconds.")
            return self.text.search(project, query)

    def _wait_ready(self) -> None:
        if not self._ready.wait(60):
            raise Busy("The telemetry database is still being opened.", "Try again in some seconds.")
        if self._failed is not None:
            raise self._failed

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _frames(self, project: str, parts: Sequence[Sequence[Any]]) -> list[bytes]:
        """The frames of one write (spans, predictions, scores, changes of traces): cut at SPANS_A_FRAME, and further where one is too large."""
        most = max(map(len, parts))
        if most > SPANS_A_FRAME:
            cuts = [slice(i, i + SPANS_A_FRAME) for i in range(0, most, SPANS_A_FRAME)]
            return [f for cut in cuts for f in self._frames(project, [part[cut] for part in parts])]
        frame = pack(project, self.clock.now(), *parts)
        if len(frame) <= LOG_FRAME_BYTES or most <= 1:
            return [frame]
        half = (most + 1) // 2
        return [f for cut in (slice(None, half), slice(half, None)) for f in self._frames(project, [part[cut] for part in parts])]

    def _last_segment(self) -> int:
        """The highest segment that ever was, so that a new one is never numbered like one that was drained and removed."""
        try:
            return int((self.home / "log" / "last").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _run(self) -> None:
        try:
            self._con = tables.connect(self.home / "telemetry.duckdb")
            self.text = self._open_text(self.home / "telemetry-text.db")
            tables.drained(self._con)
            if self.archive is not None:
                self.archive.load(self._con)
            self._opened.set()
            position = self._resume(self.text)
        except Exception as error:
            self._fail(error)
            return
        self._ready.set()
        try:
            while True:
                try:
                    position = self._drain(position)
                except Exception as error:
                    _logger.warning("telemetry could not be moved into the database, trying again: %s", error)
                    if self._stop:
                        return
                    self._hurry.wait(2.0)
                    self._hurry.clear()
                    continue
                while self._jobs.run_one(self._con):
                    pass
                if self._stop and self._position >= self.log.end:
                    return
                self._hurry.wait(DRAIN_SECONDS if self.log.end > position else 1.0)
                self._hurry.clear()
        finally:
            self._jobs.close()
            self.text.close()
            self._con.close()

    def _open_text(self, file: Path) -> TextIndex:
        """The index of texts; one that is damaged is put aside, and made anew from the tables (see `_resume`)."""
        try:
            text = TextIndex(file, self.log.fsync)
            text.position()
            return text
        except sqlite3.DatabaseError as error:
            if not (isinstance(error.sqlite_errorcode, int) and error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)):
                raise
            aside = file.with_suffix(".damaged")
            _logger.error("the index of texts %s is damaged (%s): it is made anew; the old one is kept as %s", file, error, aside.name)
            os.replace(file, aside)
            for rest in ("-wal", "-shm"):
                file.with_name(file.name + rest).unlink(missing_ok=True)
            return TextIndex(file, self.log.fsync)

    def _fail(self, error: Exception) -> None:
        _logger.error("the telemetry database in %s cannot be opened: %s", self.home, error)
        self._failed = (
            error
            if isinstance(error, EverloopError)
            else BadInput(
                f"The telemetry database in {self.home} cannot be opened: {str(error).rstrip('.!')}.",
                "Is it open in another program, or written by a newer everloop? If it is damaged, put back a backup of the home, or move "
                "telemetry.duckdb away: then the traces in it are gone, and all else stays.",
            )
        )
        self._opened.set()
        self._ready.set()
        with self._moved:
            self._moved.notify_all()

    def _resume(self, text: TextIndex) -> Position:
        """Where to read on: what is not yet both in the tables and in the index. A lost index is made anew from the tables."""
        done, indexed = tables.drained(self._con), text.position()
        if indexed < done and not self.log.segments()[0] <= indexed.segment:
            text.add([], done)
            cursor = self._con.cursor()
            fill(self, cursor, text)
            cursor.close()
            indexed = done
        return min(done, indexed)

    def compact(self) -> None:
        """Make the files of the tables and of the index of texts anew, so that nothing of what was deleted is left in them; blocking (see
        telemetry_compact)."""
        compact(self)

    def reopen(self, exchange: Callable[[], None]) -> None:
        """Close the database and the index of texts, have the files exchanged, and open them again, while no question is under way. By the drain's
        thread alone."""
        with self._gate.alone():
            for cursor in self._open_cursors:
                cursor.close()
            self._open_cursors, self._cursors = [], threading.local()
            self._con.close()
            assert self.text is not None
            self.text.close()
            try:
                exchange()
            finally:
                self._con = tables.connect(self.home / "telemetry.duckdb")
                self.text = self._open_text(self.home / "telemetry-text.db")

    def forget_texts(self, traces: Sequence[str]) -> None:
        """Let the words of these traces lead nowhere (see TextIndex.forget). By the drain's thread alone."""
        for text in (self.text, self.second_text):
            if text is not None:
                text.forget(traces)

    def _drain(self, position: Position) -> Position:
        """Move everything that is in the log beyond `position`; answers the new position."""
        while True:
            self._jobs.run_one(self._con)
            batch = _Batch()
            start, frames = position, []
            while batch.size < DRAIN_ROWS:
                payloads, after = self.log.read(position)
                position = after
                if not payloads:
                    break
                frames += payloads
                for payload in payloads:
                    self._unpack(payload, batch)
            if frames:
                try:
                    self._store(batch, position)
                except (TypeError, ValueError, OverflowError) as error:
                    _logger.error("a batch of telemetry has something that no column takes (%s): its records are stored one by one", error)
                    self._store_each(frames, start, position)
            with self._moved:
                self._position = position
                self._moved.notify_all()
            if position.segment != start.segment:
                self._drop(position.segment)
            if not frames:
                return position

    def _unpack(self, payload: bytes, batch: _Batch) -> None:
        try:
            rows = unpack(payload, self._price)
        except Exception as error:
            self._reject(payload, error)
            return
        batch.add(rows)

    def _store(self, batch: _Batch, position: Position) -> None:
        assert self.text is not None
        tables.insert(self._con, batch.rows, position, batch.split)
        told = [*batch.rows["spans"], *texts_of(said for row in batch.rows["logs"] if (said := text_of_log(row)) is not None)]
        for text in (self.text, self.second_text):
            if text is not None:
                text.add(told, position, [one["trace_id"] for one in batch.rows["infos"] if one.get("delete")])

    def _store_each(self, frames: list[bytes], start: Position, position: Position) -> None:
        """Store frames one at a time and put aside those that cannot be, so that one bad record does not stop all others. The position moves when
        all are done: what is stored twice after a crash between is there once."""
        for payload in frames:
            one = _Batch()
            try:
                one.add(unpack(payload, self._price))
                self._store(one, start)
            except (TypeError, ValueError, OverflowError) as error:
                self._reject(payload, error)
        self._store(_Batch(), position)

    def _reject(self, payload: bytes, error: Exception) -> None:
        """Put a frame aside that cannot become rows, so that it does not stop the others."""
        self.rejected += 1
        folder = self.home / "log" / "rejected"
        folder.mkdir(exist_ok=True)
        (folder / f"{self.clock.new_id()}.frame").write_bytes(payload)
        _logger.error("a telemetry record could not be read and was put aside in %s: %s", folder, error)

    def _drop(self, segment: int) -> None:
        folder = self.home / "log"
        fresh = temp_name(self.home)  # not among the segments
        write_parts(fresh, [str(segment).encode()], self.log.fsync)
        os.replace(fresh, folder / "last")
        if self.log.fsync:
            sync_folder(folder)
        self.log.drop_before(segment)
