"""A database's own errors as ours: what is full, damaged or away, and what to do."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

import sqlalchemy as sa

from everloop.core.errors import BadInput, Busy, Corrupt, EverloopError, NoSpace

_logger = logging.getLogger("everloop.records")
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_FULL, _POSTGRES_READ_ONLY, _POSTGRES_DAMAGED = {"53100"}, {"25006", "42501"}, {"XX001", "XX002"}


def database_error(error: sa.exc.DBAPIError, where: str) -> EverloopError:
    """An error of the records' database at `where` (a URL or a file, without a password)."""
    before: BaseException | None = error
    while before is not None:  # undoing what failed fails as well: the first error is the one that counts
        error = before if isinstance(before, sa.exc.DBAPIError) else error
        before = before.__context__
    found: Any = error.orig
    code = getattr(found, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    state = getattr(found, "sqlstate", None)
    if primary in _FULL or state in _POSTGRES_FULL:
        return NoSpace(
            f"The disk of the records at {where} is full.", "Free some space and try again; nothing of this write was kept.", retry_after=10.0
        )
    if primary in _READ_ONLY or state in _POSTGRES_READ_ONLY:
        return NoSpace(f"The records at {where} cannot be written: {found}.", "Make them writable; nothing of this write was kept.", retry_after=10.0)
    if primary in _DAMAGED or state in _POSTGRES_DAMAGED:
        return Corrupt(f"The records at {where} are damaged: {found}.", "Stop the server and put back a backup of the home (or of records.db in it).")
    if isinstance(error, sa.exc.OperationalError):
        return Busy(f"The records at {where} do not answer: {found}.", "Try again in a second; nothing of this write was kept.")
    _logger.error("the records refused a statement", exc_info=error)
    return EverloopError(f"The records at {where} refused a statement: {type(found).__name__}.", "The server's log has the details.")


def opening_error(error: sa.exc.DBAPIError, where: str) -> EverloopError:
    """Why the records cannot be opened: BadInput, so that a server does not start (exit code 2); NoSpace where the disk is full."""
    found = database_error(error, where)
    if isinstance(found, NoSpace):
        return found
    if isinstance(found, Corrupt):
        return BadInput(
            f"The records at {where} cannot be opened: {error.orig}.",
            "Put back a backup of that file; or, to begin with nothing, move the whole home away or choose another with --home DIR.",
        )
    return BadInput(
        f"The records at {where} cannot be opened: {error.orig}.",
        "Check that the folder exists, is writable and has space, or that the database is up.",
    )
