"""Records: the relational store, with one writer and group commit.

Every write is a function of a transaction. Writes that wait at the same moment share one transaction and so one fsync; each
runs in a savepoint of its own, so one's failure rolls back that one alone. A write is acknowledged after the commit
(SQLite: WAL with `synchronous=FULL`). Reads run beside the writer, in threads, on a snapshot.

Small writes of one kind (a metric each) may be `gather`ed: those that wait at the same moment are handed over as a list, so that many of
them cost little more than one. Who waits in an event loop is woken once a commit, not once a write.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
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


Gathered = Callable[[Tx, list[Any]], list[Any]]
"""Does several writes of one kind at once: for each item its answer, or the exception that it alone ends with."""


@dataclass(slots=True, eq=False)
class _Write:
    """A write that waits: a function of a transaction, or an item for `together`; who waits for it, in a loop or in a thread."""

    who: Principal
    done: Future[Any] | asyncio.Future[Any]
    work: Callable[[Tx], Any] | None = None
    together: Gathered | None = None
    item: Any = None
    loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> bool:
        """Whether it is still wanted."""
        if isinstance(self.done, Future):
            return self.done.set_running_or_notify_cancel()
        return not self.done.cancelled()


_Outcome = tuple[_Write, Any, BaseException | None]


class Records:
    """The records store at a SQLAlchemy URL. `write` and `read` are coroutines; `write_sync` and `read_sync` block."""

    def __init__(self, url: str, clock: Clock | None = None, fsync: bool = True) -> None:
        self.clock = clock or SystemClock()
        self.url = url
        self._engine = _engine(url, fsync)
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, "records-read")
        self._writer: threading.Thread | None = None
        self._kept: sa.Connection | None = None
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

    def checkpoint(self) -> None:
        """Bring all that is committed into the database file and empty SQLite's log, so that nothing of what was deleted stays in it; blocking."""
        if self._engine.dialect.name == "sqlite":
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()

    async def write(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """Run `work` in the next shared transaction; its value is answered after the commit is on disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._submit(_Write(who, done, work, loop=loop))
        return await done

    async def gather(self, who: Principal, together: Callable[[Tx, list[Any]], list[Any]], item: Any) -> Any:
        """`write` for many small writes of one kind: `together(tx, items)` gets all that wait for the same principal.

        It answers one value or exception for each item, and must leave nothing behind of an item that it answers an exception for. Where it
        raises, nothing of its list stands, and each item is tried alone. Items may be done after `write`s that were asked for later.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._submit(_Write(who, done, together=together, item=item, loop=loop))
        return await done

    def write_sync(self, who: Principal, work: Callable[[Tx], T]) -> T:
        """`write`, blocking."""
        done: Future[T] = Future()
        self._submit(_Write(who, done, work))
        return done.result()

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

    def _submit(self, write: _Write) -> None:
        if self._closed:
            raise Busy("The server is stopping.", "Try again when it is up.")
        if self._queue.qsize() >= WRITE_QUEUE:
            raise Busy(f"{WRITE_QUEUE} writes are waiting.", "Try again in a second.")
        self._queue.put(write)

    def _write_loop(self) -> None:
        try:
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
                self._commit([one for one in batch if one.begin()])
                if stop:
                    return
        finally:
            self._let_go()

    def _commit(self, batch: list[_Write]) -> None:
        outcomes: list[_Outcome] = []
        units = _units(batch)
        if not units:
            return
        try:
            with self._transaction() as conn:
                if len(units) == 1 and len(units[0]) == 1:  # alone it needs no savepoint: where it fails, the transaction is rolled back
                    outcomes = self._do(conn, units[0])
                    if outcomes[0][2] is not None:
                        raise outcomes[0][2]
                else:
                    for unit in units:
                        outcomes += self._guarded(conn, unit)
            self.commits += 1
        except Exception as error:
            self._let_go()
            failure: Exception = error
            if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.IntegrityError):
                failure = database_error(error, self._where)
            outcomes = [(item, None, failure) for item in batch]
        _answer(outcomes)

    def _guarded(self, conn: sa.Connection, unit: list[_Write]) -> list[_Outcome]:
        """One unit in a savepoint: its failure is its own. Several items that fail together are tried one by one."""
        try:
            with conn.begin_nested():
                return self._do(conn, unit)
        except Exception as error:
            if isinstance(error, sa.exc.DBAPIError) and not isinstance(error, sa.exc.IntegrityError):
                if not _alive(conn):
                    raise  # the engine has rolled back everything: nobody's write stands
                error = database_error(error, self._where)
            if len(unit) > 1:
                return [outcome for item in unit for outcome in self._guarded(conn, [item])]
            return [(unit[0], None, error)]

    def _do(self, conn: sa.Connection, unit: list[_Write]) -> list[_Outcome]:
        first = unit[0]
        tx = Tx(conn, first.who, self.clock.now(), self.clock)
        if first.together is None:
            assert first.work is not None
            return [(first, _run(first.work, tx), None)]
        answers = first.together(tx, [one.item for one in unit])
        return [(one, None, a) if isinstance(a, BaseException) else (one, a, None) for one, a in zip(unit, answers, strict=True)]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """A transaction of the writer's. On SQLite its connection stays open: taking one out of the pool costs more than a small write."""
        if self._engine.dialect.name != "sqlite":
            with self._engine.begin() as conn:
                yield conn
            return
        if self._kept is None:
            self._kept = self._engine.connect()
        with self._kept.begin():
            yield self._kept

    def _let_go(self) -> None:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.close()


def _units(batch: list[_Write]) -> list[list[_Write]]:
    """What is done in one piece: each write alone, in order, then items of one kind and principal together."""
    alone: list[list[_Write]] = []
    gathered: dict[tuple[Gathered, Principal], list[_Write]] = {}
    for one in batch:
        if one.together is None:
            alone.append([one])
        else:
            gathered.setdefault((one.together, one.who), []).append(one)
    return alone + list(gathered.values())


def _answer(outcomes: list[_Outcome]) -> None:
    """Tell everyone how their write ended; those who wait in one loop by one call into it."""
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        one, value, failed = outcome
        if one.loop is not None:
            loops.setdefault(one.loop, []).append(outcome)
        elif failed is None:
            one.done.set_result(value)
        else:
            one.done.set_exception(failed)
    for loop, theirs in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(_resolve, theirs)


def _resolve(outcomes: list[_Outcome]) -> None:
    for one, value, failed in outcomes:
        if one.done.done():
            continue
        if failed is None:
            one.done.set_result(value)
        else:
            one.done.set_exception(failed)


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
            "secure_delete=ON",  # what is deleted is overwritten, so that erasing is
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(conn: sa.Connection) -> None:
        conn.exec_driver_sql("BEGIN")

    return engine
