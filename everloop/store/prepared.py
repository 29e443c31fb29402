"""Statements of hot paths: written with SQLAlchemy, compiled once for each engine, run on the driver's own cursor.

SQLAlchemy's own way from a statement to the driver costs some 50 microseconds a call; this costs five. Values go in and come out as the driver has them:
for columns of text, numbers and bytes only, not for JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from everloop.store.records import Tx


class _Compiled(NamedTuple):
    """`text` for the driver; for one with `?`, the `order` in which it wants the values; `constants` that the statement itself holds (a LIMIT)."""

    text: str
    order: list[int] | None
    constants: dict[str, Any]


class Prepared:
    """`statement` with parameters called `names`; values are given by position, in that order."""

    def __init__(self, statement: Any, *names: str) -> None:
        self._statement = statement
        self._names = names
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, tx: Tx, *values: Any) -> list[Any]:
        """All rows that it answers, as tuples."""
        return list(self._execute(tx, values).fetchall())

    def row(self, tx: Tx, *values: Any) -> Any:
        """The first row, or None."""
        return self._execute(tx, values).fetchone()

    def run(self, tx: Tx, *values: Any) -> int:
        """Execute it; how many rows it touched."""
        return int(self._execute(tx, values).rowcount)

    def many(self, tx: Tx, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute it for many sets of values."""
        made = self._made(tx)
        given = [self._given(made, row) for row in rows]
        with _errors(tx, made.text):
            tx.conn.connection.cursor().executemany(made.text, given)

    def _execute(self, tx: Tx, values: tuple[Any, ...]) -> Any:
        made = self._made(tx)
        with _errors(tx, made.text):
            cursor: Any = tx.conn.connection.cursor()
            cursor.execute(made.text, self._given(made, values))
        return cursor

    def _given(self, made: _Compiled, values: tuple[Any, ...]) -> Any:
        if made.order is None:
            return {**dict(zip(self._names, values, strict=True)), **made.constants}
        values += tuple(made.constants.values())
        return [values[i] for i in made.order]

    def _made(self, tx: Tx) -> _Compiled:
        """The SQL of this engine."""
        dialect = tx.conn.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            statement = self._statement(dialect.name) if callable(self._statement) else self._statement
            compiled = statement.compile(dialect=dialect)
            constants = {name: value for name, value in compiled.params.items() if name not in self._names}
            all_of_them = [*self._names, *constants]
            order = None if compiled.positiontup is None else [all_of_them.index(name) for name in compiled.positiontup]
            found = self._compiled[dialect.name] = _Compiled(str(compiled), order, constants)
        return found


class _errors:
    """The driver's errors as SQLAlchemy's, which the records' writer knows what to do with."""

    __slots__ = ("text", "tx")

    def __init__(self, tx: Tx, text: str) -> None:
        self.tx, self.text = tx, text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        dialect = self.tx.conn.dialect
        base = dialect.loaded_dbapi.Error
        if isinstance(error, base):
            raise sa.exc.DBAPIError.instance(self.text, None, error, base, dialect=dialect) from error


def upsert(table: sa.Table, dialect: str, where: Any = None, columns: Iterable[str] = ()) -> Any:
    """An insert that, where the primary key is there already, sets `columns` (default: all others), if `where(new)` holds."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    keys = [c.name for c in table.primary_key.columns]
    statement = insert(table).values({c.name: sa.bindparam(c.name) for c in table.columns})
    new = statement.excluded
    change = list(columns) or [c.name for c in table.columns if c.name not in keys]
    return statement.on_conflict_do_update(
        index_elements=keys, set_={name: new[name] for name in change}, where=None if where is None else where(new)
    )
