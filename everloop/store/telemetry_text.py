"""Full-text search over what went in and came out: a SQLite FTS5 file of its own, fed by the drain.

The index keeps words, not texts; each project's entries carry a word of its own that every query must contain. Where the file is lost,
it is made anew from the spans. Its position in the log commits with its entries.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from everloop.core.limits import TEXT_INDEX_CHARS, TEXT_MATCHES
from everloop.store.frames import SPAN_COLUMNS, Row
from everloop.store.log import Position
from everloop.store.objects import digest_of

_AT = {name: SPAN_COLUMNS.index(name) for name in ("project", "trace_id", "name", "error", "inputs", "outputs")}
_WORD = re.compile(r'"[^"]*"|[^\s"]+')
_LETTERS = re.compile(r"\w+", re.UNICODE)


class TextIndex:
    """The index in one SQLite file; one thread writes at a time, others search."""

    def __init__(self, file: Path, fsync: bool = True) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._con = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._con.execute("PRAGMA journal_mode=WAL")
        self._con.execute(f"PRAGMA synchronous={'NORMAL' if fsync else 'OFF'}")
        self._con.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, trace_id TEXT NOT NULL)")
        self._con.execute("CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, content='', tokenize=\"unicode61 remove_diacritics 2\")")
        self._con.execute("CREATE TABLE IF NOT EXISTS drained (segment INTEGER, byte INTEGER)")

    def position(self) -> Position:
        """The position in the log up to which everything is indexed."""
        row = self._con.execute("SELECT segment, byte FROM drained").fetchone()
        return Position(*row) if row else Position(0, 0)

    def add(self, spans: Sequence[Row], position: Position, gone: Sequence[str] = ()) -> None:
        """Index the texts of spans (rows as in SPAN_COLUMNS), forget the traces `gone`, and note the position, all or nothing."""
        with self._lock:
            self._con.execute("BEGIN IMMEDIATE")
            try:
                start = self._con.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()[0]
                texts = [(row[_AT["trace_id"]], text) for row in spans if (text := _text_of(row))]
                self._con.executemany("INSERT INTO entries VALUES (?, ?)", ((start + i, trace) for i, (trace, _) in enumerate(texts, 1)))
                self._con.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", ((start + i, text) for i, (_, text) in enumerate(texts, 1)))
                if gone:  # the number stays taken: its words stay in the index and must lead nowhere
                    self._con.execute(
                        "UPDATE entries SET trace_id = '' WHERE trace_id IN (SELECT value FROM json_each(?))", (orjson.dumps(list(gone)).decode(),)
                    )
                self._con.execute("DELETE FROM drained")
                self._con.execute("INSERT INTO drained VALUES (?, ?)", position)
                self._con.execute("COMMIT")
            except BaseException:
                self._con.execute("ROLLBACK")
                raise

    def forget(self, traces: Sequence[str]) -> None:
        """Let the words of these traces lead nowhere; they stay in the file until it is made anew."""
        with self._lock:
            self._con.execute(
                "UPDATE entries SET trace_id = '' WHERE trace_id IN (SELECT value FROM json_each(?))", (orjson.dumps(list(traces)).decode(),)
            )

    def search(self, project: str, query: str) -> list[str]:
        """Trace ids, newest first, at most TEXT_MATCHES spans deep, whose texts have all words of the query.

        "words in quotes" stand for a phrase; the last word also matches longer words that begin with it.
        """
        match = _match(project, query)
        if match is None:
            return []
        reader = sqlite3.connect(self.file, isolation_level=None)
        try:
            rows = reader.execute(
                "SELECT e.trace_id FROM words w JOIN entries e ON e.id = w.rowid WHERE words MATCH ? AND e.trace_id <> '' ORDER BY w.rowid DESC LIMIT ?",
                (match, TEXT_MATCHES),
            )
            return list(dict.fromkeys(row[0] for row in rows))
        finally:
            reader.close()

    def count(self) -> int:
        """How many spans have text in the index."""
        reader = sqlite3.connect(self.file)
        try:
            return int(reader.execute("SELECT count(*) FROM entries").fetchone()[0])
        finally:
            reader.close()

    def close(self) -> None:
        """Close the file."""
        self._con.close()


def texts_of(rows: Iterable[Any]) -> list[Row]:
    """Rows (project, trace_id, name, error, inputs, outputs) from the spans table, as rows that `add` reads."""
    full: list[Row] = []
    for row in rows:
        wide: list[Any] = [None] * len(SPAN_COLUMNS)
        for place, value in zip(_AT.values(), row, strict=True):
            wide[place] = value
        full.append(tuple(wide))
    return full


@lru_cache(1024)
def _scope(project: str) -> str:
    return "p" + digest_of(project.encode())[:24]


def _text_of(row: Row) -> str:
    parts = [row[_AT[name]] for name in ("name", "error", "inputs", "outputs")]
    if not (parts[1] or parts[2] or parts[3]):
        return ""
    body = " ".join(part[:TEXT_INDEX_CHARS].replace("\\n", " ") for part in parts if part)
    return f"{_scope(row[_AT['project']])} {body}"


def _match(project: str, query: str) -> str | None:
    """The query in FTS5's language, every word quoted; None where it has no word."""
    terms = [" ".join(_LETTERS.findall(word)) for word in _WORD.findall(query)[:32]]
    terms = [term for term in terms if term]
    if not terms:
        return None
    quoted = [f'"{term}"' for term in terms]
    if not query.rstrip().endswith('"'):
        quoted[-1] += "*"
    return " AND ".join([_scope(project), *quoted])
