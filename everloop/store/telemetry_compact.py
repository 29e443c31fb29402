"""Making the telemetry's files anew, so that nothing of what was deleted is left in free pages of the tables or among the words of the index.

The index of texts is filled beside the drain, from a snapshot; what is drained meanwhile goes into both. The tables are copied and both files
put in place by the drain's own thread: only for that long are new rows not shown, and questions wait while the files are exchanged.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from everloop.core.limits import DRAIN_ROWS
from everloop.store import telemetry_tables as tables
from everloop.store.files import sync_folder
from everloop.store.telemetry_text import TextIndex, texts_of

if TYPE_CHECKING:
    from everloop.store.telemetry import Telemetry

TABLES, WORDS = "telemetry.duckdb", "telemetry-text.db"
FRESH_TABLES, FRESH_WORDS = "telemetry.fresh.duckdb", "telemetry-text.fresh.db"
_BESIDE = (".wal", "-wal", "-shm")


def compact(store: Telemetry) -> None:
    """Make both files anew; blocking. Needs the room that they take once more; raises what the disk raises, and then nothing has changed."""
    with store.compacting:
        _clear(store)
        text = TextIndex(store.home / FRESH_WORDS, store.log.fsync)
        try:
            cursor = store.change(lambda con: _snapshot(store, con, text), whole=True).result()
            try:
                fill(store, cursor, text)
            finally:
                cursor.close()
            store.change(lambda con: _exchange(store, con, text), whole=True).result()
        finally:
            store.second_text = None
            text.close()
            _clear(store)


_TEXTS = """SELECT * EXCLUDE (moment) FROM (
    SELECT project, trace_id, name, error, inputs, outputs, start_ns AS moment FROM spans
    UNION ALL SELECT project, trace_id, coalesce(event, ''), NULL, body, CASE WHEN contains(attributes, 'gen_ai.') THEN attributes END, at_ns
    FROM logs WHERE trace_id IS NOT NULL) ORDER BY moment"""
"""What is searched: texts of spans, and of log records that belong to a trace (as telemetry_signals.text_of_log makes them)."""


def fill(store: Telemetry, cursor: Any, text: TextIndex) -> None:
    """Put the texts of all spans that a cursor sees, the archive's too, into an index."""
    position = text.position()
    if store.archive is not None and (parts := store.archive.everything()):
        store.archive.widen(cursor, parts)
    cursor.execute(_TEXTS)
    while rows := cursor.fetchmany(DRAIN_ROWS):
        text.add(texts_of(rows), position)


def _snapshot(store: Telemetry, con: Any, text: TextIndex) -> Any:
    """A cursor that sees the tables as they are now; from now on what is drained goes into the new index, too."""
    text.add([], tables.drained(con))
    cursor = con.cursor()
    cursor.execute("BEGIN")
    cursor.execute("SELECT 1 FROM spans LIMIT 1").fetchall()
    store.second_text = text
    return cursor


def _exchange(store: Telemetry, con: Any, text: TextIndex) -> None:
    text.add([], tables.drained(con))
    store.second_text = None
    text.close()
    [base] = con.execute("SELECT current_database()").fetchone()
    con.execute(f"ATTACH '{str(store.home / FRESH_TABLES).replace(chr(39), chr(39) * 2)}' AS fresh")
    try:
        con.execute(f'COPY FROM DATABASE "{base}" TO fresh')
    finally:
        con.execute("DETACH fresh")

    def put_in_place() -> None:
        for fresh, name in ((FRESH_TABLES, TABLES), (FRESH_WORDS, WORDS)):
            os.replace(store.home / fresh, store.home / name)
            for rest in _BESIDE:
                (store.home / f"{name}{rest}").unlink(missing_ok=True)
        if store.log.fsync:
            sync_folder(store.home)

    store.reopen(put_in_place)


def _clear(store: Telemetry) -> None:
    """Remove what an attempt before left."""
    for name in (FRESH_TABLES, FRESH_WORDS):
        for rest in ("", *_BESIDE):
            (store.home / f"{name}{rest}").unlink(missing_ok=True)
