"""Rows of a SQL query for `ingest.load`: any SQLAlchemy URL, by reference, in a transaction that is rolled back."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from everloop.core.clock import from_iso, iso
from everloop.core.errors import BadInput, MissingDependency, TooLarge
from everloop.core.limits import INGEST_ROWS

FETCH = 10_000
BINDS = ("datetime", "text", "epoch")


def rows(step: Any, before: Any) -> tuple[list[tuple[str, Any]], dict[str, Any], str]:
    """([("the query", table)], origin, what they are); no table where the query answers no row."""
    params = step.params
    query = str(params.get("query") or "").strip().rstrip(";")
    if not query:
        raise BadInput("The param 'query' is missing.", "For example: select * from loans where applied_at >= :since and applied_at < :until")
    source = before["manifest"]["source"] if before else {}
    until = _moment(params.get("until") or params.get("scheduled_at") or time.time(), "until")
    since = _moment(params.get("since") or (source.get("until") if source.get("kind") == "sql" else None) or 0.0, "since")
    spans = ":since" in query
    names = [n for n in ("since", "until") if f":{n}" in query]
    table, database = fetch(str(params["url"]), query, {n: {"since": since, "until": until}[n] for n in names}, str(params.get("bind") or "datetime"))
    origin = {"kind": "sql", "url": shown_reference(str(params["url"])), "database": database, "query": query}
    origin |= {"mode": "new" if spans else "all", "until": iso(until), "since": iso(since) if spans else None}
    span = f" from {iso(since)} until {iso(until)}" if spans else ""
    if not table.num_rows:
        return [], origin, f"the query on {database} gave no rows{span}."
    return [("the query", table)], origin, f"a query on {database}{span}"


def url_of(reference: str) -> str:
    """The URL behind env:NAME or file:/path; sqlite:// stands for itself. BadInput for a URL in clear or a reference to nothing."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        found = os.environ.get(where, "")
        if not found:
            raise BadInput(f"The environment variable {where} is not set where the worker runs.", "Set it before `everloop up`, or use file:/path.")
        return found
    if kind == "file":
        try:
            return Path(where).expanduser().read_text().strip()
        except OSError as error:
            raise BadInput(f"The file {where} with the database's URL cannot be read: {error.strerror}.") from None
    if reference.startswith("sqlite:"):
        return reference
    raise BadInput("The database's URL must not stand in clear in a pipeline.", "Write env:NAME or file:/path, and put the URL there.")


def shown_reference(reference: str) -> str:
    """The reference as it may be kept."""
    return reference if reference.startswith(("env:", "file:", "sqlite:")) else "hidden"


def fetch(reference: str, query: str, moments: Mapping[str, float], bind: str) -> tuple[Any, str]:
    """(Arrow table with our types, the database's name without credentials) of a query; BadInput tells what the database said."""
    import sqlalchemy as sa

    if bind not in BINDS:
        raise BadInput(f"bind is {bind!r}.", f"One of: {', '.join(BINDS)}.")
    engine, shown = _engine(url_of(reference), reference)
    statement = sa.text(query)
    values = {name: _bound(at, bind) for name, at in moments.items()}
    if bind == "datetime":
        statement = statement.bindparams(*[sa.bindparam(name, type_=sa.DateTime()) for name in moments])
    columns: list[list[Any]] = []
    names: list[str] = []
    try:
        with engine.connect() as connection:
            found = connection.execution_options(stream_results=True).execute(statement, values)
            if not found.returns_rows:
                raise BadInput("The query answers no rows: it is no SELECT.", "Write a SELECT; nothing it changes would be kept anyway.")
            names = list(found.keys())
            columns = [[] for _ in names]
            while part := found.fetchmany(FETCH):
                for column, more in zip(columns, zip(*part, strict=True), strict=True):
                    column.extend(more)
                if columns and len(columns[0]) > INGEST_ROWS:
                    raise TooLarge(f"The query gives more than {INGEST_ROWS:,} rows.", "Ask for a shorter span, with :since and :until.")
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0][:300]
        raise BadInput(f"The query on {shown} failed: {said}", "Try it in the database's own shell. Nothing was loaded.") from None
    finally:
        engine.dispose()
    return _table(names, columns, shown), shown


def _engine(url: str, reference: str) -> tuple[Any, str]:
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise BadInput(
            f"What {shown_reference(reference)} holds is no SQLAlchemy URL.", "For example: postgresql+psycopg://user:password@host/db"
        ) from None
    shown = f"{parsed.get_backend_name()}:{parsed.host or ''}{'/' if parsed.host else ''}{parsed.database or ''}"
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:") and not Path(str(parsed.database)).is_file():
        raise BadInput(f"There is no SQLite file {parsed.database}.", "Check the path; the worker opens it.")
    try:
        return sa.create_engine(parsed), shown
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), f"to read {parsed.get_backend_name()}") from None
    except sa.exc.NoSuchModuleError:
        raise BadInput(f"There is no SQLAlchemy dialect {parsed.drivername!r}.", "Install the database's dialect beside everloop.") from None


def _table(names: list[str], columns: list[list[Any]], shown: str) -> Any:
    import pyarrow as pa

    from everloop.assets.tables import normal_types

    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BadInput(f"The query on {shown} gives the column {twice[0]!r} twice.", "Name columns apart with AS.")
    arrays = {}
    for name, values in zip(names, columns, strict=True):
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays[name] = pa.array([None if v is None else str(v) for v in values], pa.string())
    table, _ = normal_types(pa.table(arrays), "the query")
    return table


def _moment(value: Any, name: str) -> float:
    if isinstance(value, int | float):
        return float(value)
    try:
        return from_iso(str(value))
    except BadInput:
        raise BadInput(f"{name} is {value!r}.", "Write a date such as 2026-11-24T08:00:00Z, or epoch seconds.") from None


def _bound(at: float, bind: str) -> Any:
    if bind == "epoch":
        return at
    if bind == "text":
        return iso(at)
    return datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None)
