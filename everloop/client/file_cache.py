"""Digests of files seen before, by path, size, times and inode, so that adding a folder again reads only what changed.

Lies in $EVERLOOP_CACHE, else in the user's cache folder; a cache and nothing more: delete it at will.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from everloop.core.limits import FILE_CACHE_ROWS

Stamp = tuple[int, int, int, int]
"""Size, time of change in ns, time of the inode's change in ns, inode."""
FRESH_NS = 50_000_000
"""A file changed this short before it was read may change again under the same stamp; it is not remembered."""
COARSE_NS = 2_000_000_000
"""The same where the file system knows whole seconds only."""


def stamp(found: os.stat_result) -> Stamp:
    """What tells a changed file."""
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def cache_folder() -> Path:
    """Where caches lie: EVERLOOP_CACHE, or everloop in the user's cache folder."""
    given = os.environ.get("EVERLOOP_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everloop"


class FileCache:
    """Digests by path. Where the cache cannot be written, it remembers nothing, and files are read each time."""

    def __init__(self, folder: Path | None = None) -> None:
        self._rows: dict[str, tuple[int, int, int, int, str]] = {}
        try:
            place = folder or cache_folder()
            place.mkdir(parents=True, exist_ok=True)
            self._db: sqlite3.Connection | None = sqlite3.connect(place / "files.db", timeout=5.0)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=off")
            self._db.execute(
                "create table if not exists files(path text primary key, size int, mtime int, ctime int, inode int, digest text) without rowid"
            )
        except (OSError, sqlite3.Error, RuntimeError):
            self._db = None

    def load(self, base: str) -> None:
        """Read what is known of files in the folder `base` (or of that one file)."""
        if self._db is None:
            return
        try:
            found = self._db.execute("select * from files where path = ? or (path >= ? and path < ?)", (base, base + "/", base + "0"))
            self._rows = {path: (size, mtime, ctime, inode, digest) for path, size, mtime, ctime, inode, digest in found}
        except sqlite3.Error:
            self._rows = {}

    def get(self, path: str, at: Stamp) -> str | None:
        """The digest of an unchanged file, else None."""
        row = self._rows.get(path)
        return row[4] if row is not None and row[:4] == at else None

    def put(self, seen: Iterable[tuple[str, Stamp, str]]) -> None:
        """Remember (path, stamp, digest) of files just read, but of those that changed a moment ago."""
        if self._db is None:
            return
        now = time.time_ns()
        kept = [(path, *at, digest) for path, at, digest in seen if now - max(at[1], at[2]) > (FRESH_NS if at[1] % 1_000_000_000 else COARSE_NS)]
        try:
            with self._db:
                self._db.executemany("insert or replace into files values (?, ?, ?, ?, ?, ?)", kept)
                if self._db.execute("select count(*) from files").fetchone()[0] > FILE_CACHE_ROWS:
                    self._db.execute("delete from files")
        except (sqlite3.Error, UnicodeEncodeError):
            self._db = None

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None
