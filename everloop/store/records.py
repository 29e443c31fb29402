"""Records: the relational store, with one writer and group commit.

Every write is a function of a transaction. Writes that wait at the same moment share one transaction and so one fsync; each
runs in a savepoint of its own, so one's failure rolls back that one alone. A write is acknowledged after the commit
(SQLite: WAL with `synchronous=FULL`). Reads run beside the writer, in threads, on a snapshot.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa

from everloop.core.clock import Clock, SystemClock
from everloop.core.errors import BadInput, Busy
from everloop.core.limits import WRITE_BATCH, WRITE_QUEUE
from everloop.core.principal import Principal
from everloop.store.faults import database_error, opening_error

T = TypeVar("T")
READERS = 4


@dataclass
class Tx:
    """A transaction in one project, by one principal. `now` is the same for all statements of it."""

    conn: sa.Connection
    who: Principal
    now: float
    clock: Clock

    @property
    def project(self) -> str:
        """The project that all rows read and written belong to."""
        return self.who.project

    def rows(self, statement: sa.Executable) -> list[dict[str, Any]]:
        """All rows of a select, as dicts."""
        return [dict(row) for row in self.conn.execute(statement).mappings()]

    def row(self, statement: sa.Executable) -> dict[str, Any] | None:
        """The first row, or None."""
        found = self.conn.execute(statement).mappings().first()
        return dict(found) if found is not None else None

    def value(self, statement: sa.Executable) -> Any:
        """The first column of the first row, or None."""
        return self.conn.execute(statement).scalar()

    def run(self, statement: sa.Executable, many: list[dict[str, Any]] | None = None) -> int:
        """Execute a statement, for many parameter sets if given; answers how many rows it touched (where the engine knows)."""
        return self.conn.execute(statement, many).rowcount if many is not None else self.conn.execute(statement).rowcount

    def upsert(self, table: sa.Table, values: dict[str, Any] | list[dict[str, Any]], update: list[str] | None = None) -> None:
        """Insert rows; where the primary key exists, set the columns of `update` (default: all others; []: leave it alone)."""
        rows = values if isinstance(values, list) else [values]
        if not rows:
            return
        keys = [c.name for c in table.primary_key.columns]
        if self.conn.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        statement = insert(table)
        change = [c for c in rows[0] if c not in keys] if update is None else update
        if change:
            statement = statement.on_conflict_do_update(index_elements=keys, set_={c: statement.excluded[c] for c in change})
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        self.conn.execute(statement, rows)


@dataclass
class _Write:
    work: Callable[[Tx], Any]
    who: Principal
    done: Future[Any]


class Records:
    """The records store at a SQLAlchemy URL. `write` and `read` are coroutines; `write_sync` and `read_sync` block."""

    def __init__(self, url: str, clock: Clock | None = None, fsync: bool = True) -> None:
        self.clock = clock or SystemClock()
        self.url = url
        self._engine = _engine(url, fsync)
        self._queue: queue.Queue[_Write | None] = queue.Queue(WRITE_QUEUE)
        self._readers = ThreadPoolExecutor(READERS, "records-read")
        self._writer: threading.Thread | None = None
        self._closed = False
        self.commits = 0
        self._where = str(self._engine.url.database) if url.startswith("sqlite") else self._engine.url.render_as_string()

    @classmethod
    def at(cls, home: Path, **more: Any) -> Records:
        """The embedded store in a home folder."""
        home.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{home / 'records.db'}", **more)

    def open(self) -> Records:
        """Bring the schema up to date and start the writer; BadInput if the place cannot be written."""
        from everloop.store.migrate import upgrade

        try:
            upgrade(self._engine)
        except sa.exc.DBAPIError as error:
            raise opening_error(error, self._where) from error
        self._writer = threading.Thread(target=self._write_loop, name="records-write", daemon=True)
        self._writer.start()
        return self

    def close(self) -> None:
        """Finish the writes that wait, then close. Writes after this raise Busy."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
        self._readers.shutdown()
        self._engine.dispose()

    def drop(self) -> None:
        """Drop every table (of a store that is not open), and close. Only a reset for tests asks for it."""
        from everloop.store.schema import metadata

        with self._engine.begin() as conn:
            metadata.drop_all(conn)
            conn.execute(sa.text("drop table if exists alembic_version"))
        self.close()

    async def write(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """Run `work` in the next shared transaction; its value is answered after the commit is on disk."""
        return await asyncio.wrap_future(self._submit(who, work))

    def write_sync(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """`write`, blocking."""
        return self._submit(who, work).result()

    async def read(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """Run `work` on a snapshot of what is committed, in a reader thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_sync, who, work)

    def read_sync(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """`read`, blocking, in this thread."""
        try:
            with self._engine.connect() as conn:
                return _run(work, Tx(conn, who, self.clock.now(), self.clock))
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            raise database_error(error, self._where) from error

    def _submit(self, who: Principal, work: Callable[[Tx], T]) -> Future[T]:
        done: Future[T] = Future()
        if self._closed:
            raise Busy("The server is stopping.", "Try again when it is up.")
        try:
            self._queue.put_nowait(_Write(work, who, done))
        except queue.Full:
            raise Busy(f"{WRITE_QUEUE} writes are waiting.", "Try again in a second.") from None
        return done

    def _write_loop(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, stop = [first], False
            while len(batch) < WRITE_BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    stop = True
                    break
                batch.append(item)
            self._commit(batch)
            if stop:
                return

    def _commit(self, batch: list[_Write]) -> None:
        outcomes: list[tuple[_Write, Any, BaseException | None]] = []
        try:
            with self._engine.begin() as conn:
                for item in batch:
                    if not item.done.set_running_or_notify_cancel():
                        continue
                    if len(batch) == 1:  # alone it needs no savepoint: where it fails, the transaction is rolled back
                        outcomes.append((item, _run(item.work, Tx(conn, item.who, self.clock.now(), self.clock)), None))
                        break
                    try:
                        with conn.begin_nested():
                            value = _run(item.work, Tx(conn, item.who, self.clock.now(), self.clock))
                        outcomes.append((item, value, None))
                    except Exception as error:
                        if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.IntegrityError):
                            if not _alive(conn):
                                raise  # the engine has rolled back everything: nobody's write stands
                            error = database_error(error, self._where)
                        outcomes.append((item, None, error))
            self.commits += 1
        except Exception as error:
            failure: Exception = error
            if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.IntegrityError):
                failure = database_error(error, self._where)
            for item in batch:
                if not item.done.done():
                    item.done.set_exception(failure)
            return
        for item, value, failed in outcomes:
            if failed is None:
                item.done.set_result(value)
            else:
                item.done.set_exception(failed)


def _run(work: Callable[[Tx], T], tx: Tx) -> T:
    try:
        return work(tx)
    except StopIteration as error:  # a future cannot carry it: whoever waits would wait for ever
        raise RuntimeError("a function of a transaction let StopIteration out") from error


def _alive(conn: sa.Connection) -> bool:
    """Whether the transaction still stands: on a full disk or a damaged page SQLite rolls back the whole of it by itself."""
    raw = conn.connection.dbapi_connection
    return bool(getattr(raw, "in_transaction", True))


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _loads(text: Any) -> Any:
    """JSON from SQLite, whose JSON columns turn a bare number into a number of its own."""
    return text if isinstance(text, int | float) else orjson.loads(text)


def _engine(url: str, fsync: bool) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_size=READERS + 2, pool_pre_ping=True, json_serializer=_dumps, json_deserializer=orjson.loads)
    if ":memory:" in url or url == "sqlite://":
        raise BadInput("Records cannot live in memory: an acknowledged write must be durable.", "Give a file: sqlite:///records.db")
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=READERS + 2,
        max_overflow=20,
        connect_args={"timeout": 30, "check_same_thread": False},
        json_serializer=_dumps,
        json_deserializer=_loads,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # so that BEGIN below is ours
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={'FULL' if fsync else 'OFF'}",
            "foreign_keys=ON",
            "busy_timeout=30000",
            "cache_size=-32768",
            "temp_store=MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(conn: sa.Connection) -> None:
        conn.exec_driver_sql("BEGIN")

    return engine
