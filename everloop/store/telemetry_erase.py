"""Finding all that one user, or one session, left in the telemetry, and looking whether files still tell of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from everloop.core.limits import ERASE_NEEDLES
from everloop.store.frames import SESSION, USER

_BLOCK = 8 * 1024 * 1024
_SHORT = 12
"""Ids of fewer characters are looked for as words of their own."""


class Theirs(NamedTuple):
    """What belongs to whom is to be erased: ids of traces, and of the sessions that are nobody else's."""

    traces: list[str]
    sessions: list[str]


def theirs(con: Any, project: str, users: Sequence[str], sessions: Sequence[str]) -> Theirs:
    """Traces of any of `users`, of any of `sessions`, or, where both are given, of both. A trace that names no user belongs to the user whose
    session it is, where the session names nobody else."""
    own: set[str] = set(sessions)
    if users and not sessions:
        rows = con.execute(
            """SELECT session FROM (SELECT session, "user" FROM spans WHERE project = ? UNION ALL SELECT session, "user" FROM infos WHERE project = ?)
               WHERE session IS NOT NULL AND session <> '' GROUP BY session
               HAVING bool_or("user" IN (SELECT unnest(?::VARCHAR[])))
                  AND NOT bool_or(coalesce("user", '') <> '' AND "user" NOT IN (SELECT unnest(?::VARCHAR[])))""",
            [project, project, list(users), list(users)],
        ).fetchall()
        own = {session for (session,) in rows}
    by_user, by_session = (_traces(con, project, column, ids) for column, ids in (("user", users), ("session", sorted(own))))
    found = by_user & by_session if users and sessions else by_user | by_session
    if users and sessions:
        own = set()  # the session may be others' too
    return Theirs(sorted(found), sorted(own))


def _traces(con: Any, project: str, column: str, ids: Sequence[str]) -> set[str]:
    if not ids:
        return set()
    found: set[str] = set()
    for table in ("spans", "predictions", "infos"):
        rows = con.execute(
            f'SELECT DISTINCT trace_id FROM {table} WHERE project = ? AND trace_id IS NOT NULL AND "{column}" IN (SELECT unnest(?::VARCHAR[]))',
            [project, list(ids)],
        ).fetchall()
        found.update(trace for (trace,) in rows)
    return found


def forget_subjects(con: Any, project: str, sessions: Sequence[str], users: Sequence[str]) -> dict[str, int]:
    """Delete what names these users or sessions and belongs to no trace: scores of the sessions, predictions of the users, metric points and log
    records with either among their attributes. Inside the caller's transaction; answers how many rows by table."""
    [scores] = con.execute("DELETE FROM scores WHERE project = ? AND subject IN (SELECT unnest(?::VARCHAR[]))", [project, list(sessions)]).fetchone()
    [rows] = con.execute('DELETE FROM predictions WHERE project = ? AND "user" IN (SELECT unnest(?::VARCHAR[]))', [project, list(users)]).fetchone()
    counts = {"scores": scores, "predictions": rows}
    for table in _attributed(con):
        parts = [(name, ids) for names, ids in ((USER, users), (SESSION, sessions)) for name in names]
        where = " OR ".join("json_extract_string(attributes, ?) IN (SELECT unnest(?::VARCHAR[]))" for _ in parts)
        values = [value for name, ids in parts for value in (f'$."{name}"', list(ids))]
        [counts[table]] = con.execute(f'DELETE FROM "{table}" WHERE project = ? AND ({where})', [project, *values]).fetchone()
    return {name: int(count) for name, count in counts.items() if count}


def _attributed(con: Any) -> list[str]:
    """Tables, beside spans, whose rows have attributes."""
    rows = con.execute(
        "SELECT table_name FROM duckdb_columns() WHERE NOT internal AND database_name = current_database() AND schema_name = 'main' "
        "AND column_name IN ('project', 'attributes') GROUP BY table_name HAVING count(*) = 2 ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in rows if name != "spans"]


def pattern(needles: Iterable[str]) -> Any:
    """An expression (RE2, linear in what it reads) that finds any of these ids in bytes; short ones only as words of their own. At most ERASE_NEEDLES."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors, options.max_mem = False, 64 * 1024 * 1024
    parts = []
    for needle in list(dict.fromkeys(n for n in needles if n))[:ERASE_NEEDLES]:
        quoted = re2.escape(needle.encode("utf-8", "replace"))
        parts.append(quoted if len(needle) >= _SHORT else b"(?:^|[^A-Za-z0-9_])" + quoted + b"(?:$|[^A-Za-z0-9_])")
    return re2.compile(b"|".join(parts) if parts else rb"[^\x00-\xff]", options)


def mentions(folder: Path, needle: Any) -> list[str]:
    """The files below a folder in which the expression finds something, as paths in it. Compressed files are not opened."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root) / name
            try:
                if file.is_file() and not file.is_symlink() and _holds(file, needle):
                    found.append(os.path.relpath(file, folder))
            except FileNotFoundError:
                continue  # gone meanwhile
    return sorted(found)


def drop_aside(log: Path, needle: Any) -> int:
    """Delete damaged segments and refused records that were put aside and hold what the expression finds; answers how many."""
    gone = 0
    for part in ("rejected", "damaged"):
        for name in mentions(log / part, needle):
            (log / part / name).unlink(missing_ok=True)
            gone += 1
    return gone


def _holds(file: Path, needle: Any) -> bool:
    before = b""
    with open(file, "rb") as source:
        while block := source.read(_BLOCK):
            if needle.search(before + block):
                return True
            before = block[-1024:]
    return False
