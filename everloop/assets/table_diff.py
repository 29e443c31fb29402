"""Two versions of a table compared: schema, rows by key (or by content where there is none), and each column's statistics side by side.

DuckDB reads both Parquet files and joins them. Tables may be larger than memory: large ones are cut by a hash of their keys into files on disk, and compared
file by file. Row groups that are the same bytes in both are left out (table_groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.assets import table_groups
from everloop.core.clock import iso
from everloop.core.errors import BadInput
from everloop.core.limits import DIFF_CELL_CHARS, DIFF_MEMORY, DIFF_PART_BYTES, DIFF_PARTS, DIFF_ROWS_SHOWN


def schema(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """{"added": [column], "removed": [column], "changed": [{"name", "from", "to"}]} of two manifests; columns are {"name", "type"}."""
    before, after = ({c["name"]: c["type"] for c in m["schema"]} for m in (old, new))
    return {
        "added": [{"name": n, "type": t} for n, t in after.items() if n not in before],
        "removed": [{"name": n, "type": t} for n, t in before.items() if n not in after],
        "changed": [{"name": n, "from": before[n], "to": t} for n, t in after.items() if n in before and before[n] != t],
    }


def columns(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Statistics of every column side by side: [{"name", "type", "from": statistics or None, "to": ..., "same": bool}], the newer table's order first."""
    types = {c["name"]: c["type"] for m in (old, new) for c in m["schema"]}
    names = list(dict.fromkeys([*(c["name"] for c in new["schema"]), *(c["name"] for c in old["schema"])]))
    before, after = old.get("stats") or {}, new.get("stats") or {}
    return [{"name": n, "type": types[n], "from": before.get(n), "to": after.get(n), "same": before.get(n) == after.get(n)} for n in names]


def rows(
    old: Path,
    new: Path,
    old_manifest: Mapping[str, Any],
    new_manifest: Mapping[str, Any],
    *,
    key: Sequence[str],
    asked: bool,
    scratch: Path,
    limit: int,
) -> dict[str, Any]:
    """How rows differ: {"from", "to", "added", "removed", "changed", "same", "key", "notes", "columns": {name: rows changed}, "examples": {...},
    "skipped": rows that were not read, being the same bytes in both}.

    With `key` columns rows are matched by them. Where the key is not unique: BadInput if the caller `asked` for it, else rows are compared by
    their whole content, as are tables without a key; then a changed row counts as one removed and one added. Blocking; `scratch` is a folder
    for what does not fit into memory.
    """
    before, after = ({c["name"]: c["type"] for c in m["schema"]} for m in (old_manifest, new_manifest))
    limit = max(0, min(limit, DIFF_ROWS_SHOWN))
    for name in key:
        if name not in before or name not in after:
            raise BadInput(f"The key column {name!r} is not in both versions.", f"Columns in both: {', '.join(n for n in after if n in before)}.")
    short = {name: f"c{i}" for i, name in enumerate({**before, **after})}
    shared = table_groups.shared(old, new)
    with _database(scratch) as con:
        for view, file, left in (("a", old, shared.old), ("b", new, shared.new)):
            _open(con, f"{view}_all", file, short)
            if shared.rows:
                con.register(f"{view}_left", table_groups.only(file, left))
                con.execute(f"create view {view}({_names(file, short)}) as select * from {view}_left")
            else:
                con.execute(f"create view {view} as select * from {view}_all")
        found: dict[str, Any] = {"from": old_manifest["rows"], "to": new_manifest["rows"], "key": list(key) or None, "notes": []}
        found["skipped"] = shared.rows
        sides = [{short[name]: type_ for name, type_ in side.items()} for side in (before, after)]
        if key:
            twice = _not_unique(con, [short[name] for name in key])
            if twice and asked:
                raise BadInput(
                    f"Rows cannot be matched by {', '.join(key)}: {twice}.", "Name columns that together stand once per row: --key A --key B"
                )
            if not twice:
                by = [short[name] for name in key]
                cells = _cells(sides[0], sides[1], by)
                told = _in_parts(con, (old, new), shared, short, cells, lambda c: _by_key(c, sides[0], sides[1], by, limit), scratch, limit)
                return {**found, **_renamed({**told, "same": told["same"] + shared.rows}, short)}
            found["notes"].append(f"{', '.join(key)} does not name a row ({twice}), so rows are compared by their whole content.")
        else:
            found["notes"].append(
                "No column is known to name a row, so rows are compared by their whole content; name one as the key to see changes."
            )
        both = [n for n in sides[1] if n in sides[0]]
        if len(both) < max(len(before), len(after)):
            found["notes"].append("Only the columns that both versions have are compared.")
        cells = _cells(sides[0], sides[1], both)
        told = _in_parts(con, (old, new), shared, short, cells, lambda c: _by_content(c, sides[0], sides[1], both, limit), scratch, limit)
        return {**found, "key": None, **_renamed({**told, "same": told["same"] + shared.rows}, short)}


def _open(con: Any, view: str, file: Path, short: Mapping[str, str]) -> None:
    """A file as a view whose columns have short names: those of SQL do not tell "v" from "V"."""
    con.execute(f"create view {view}({_names(file, short)}) as select * from read_parquet({_text(str(file))})")


def _names(file: Path, short: Mapping[str, str]) -> str:
    import pyarrow.parquet as pq

    return ", ".join(short.get(name, f"other{i}") for i, name in enumerate(pq.read_schema(file).names))


def _renamed(found: dict[str, Any], short: Mapping[str, str]) -> dict[str, Any]:
    """An answer in short names, in the table's own."""
    own = {value: name for name, value in short.items()}
    full = lambda row: {own[name]: value for name, value in row.items()}
    examples = {kind: [full(row) for row in found["examples"][kind]] for kind in ("added", "removed")}
    changed = [{"key": full(row["key"]), "changes": full(row["changes"])} for row in found["examples"]["changed"]]
    return {**found, "columns": full(found["columns"]), "examples": {**examples, "changed": changed}}


def _in_parts(
    con: Any,
    files: tuple[Path, Path],
    shared: table_groups.Shared,
    short: Mapping[str, str],
    cells: tuple[list[str], list[str]],
    compare: Callable[[Any], dict[str, Any]],
    scratch: Path,
    limit: int,
) -> dict[str, Any]:
    """What `compare` finds in the views a and b: at once where both are small, else part by part, rows that could match being in the same part."""
    groups = shared.old, shared.new
    heavy = max(table_groups.weight(file, left) for file, left in zip(files, groups, strict=True))
    n = min(DIFF_PARTS, -(-heavy // DIFF_PART_BYTES))
    if n <= 1:
        return compare(con)
    cut = []
    for file, left, by, side in zip(files, groups, cells, "ab", strict=True):
        names = [name.strip() for name in _names(file, short).split(",")]
        cut.append(table_groups.spill(con, file, left, names, by, n, scratch / side))
    total: dict[str, Any] = {}
    for pair in zip(*cut, strict=True):
        with _database(scratch) as own:  # a database of its own: what one keeps of files that were read does not add up
            for view, path in zip("ab", pair, strict=True):
                own.execute(f"create view {view} as select * from read_parquet({_text(str(path))})")
            found = compare(own)
        total = _summed(total, found, limit) if total else found
        for path in pair:
            path.unlink()
    return total


def _summed(one: dict[str, Any], two: dict[str, Any], limit: int) -> dict[str, Any]:
    """What was found in two parts, together; of the examples the first by key."""
    counts = {k: None if one[k] is None else one[k] + two[k] for k in ("added", "removed", "changed", "same")}
    columns = {name: one["columns"].get(name, 0) + two["columns"].get(name, 0) for name in {**one["columns"], **two["columns"]}}
    first = lambda row: [(value is None, str(type(value)), value) for value in row.get("key", row).values()]
    examples = {kind: sorted(one["examples"][kind] + two["examples"][kind], key=first)[:limit] for kind in one["examples"]}
    return {**counts, "columns": columns, "examples": examples}


def _cells(before: Mapping[str, str], after: Mapping[str, str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """For each side SQL of some columns under which cells that count as equal are equal."""
    found: tuple[list[str], list[str]] = ([], [])
    for cells in found:
        for n in names:
            kind = "varchar" if _mixed(before[n], after[n]) else "double" if before[n] != after[n] else ""
            cells.append(f"cast({_name(n)} as {kind})" if kind else _name(n))
    return found


def _by_key(con: Any, before: Mapping[str, str], after: Mapping[str, str], key: list[str], limit: int) -> dict[str, Any]:
    values = [n for n in after if n in before and n not in key]
    as_text = {k: _mixed(before[k], after[k]) for k in key}
    cell = lambda side, k: f"cast({side}.{_name(k)} as varchar)" if as_text[k] else f"{side}.{_name(k)}"
    on = " and ".join(f"{cell('a', k)} is not distinct from {cell('b', k)}" for k in key)
    differs = {n: _differs(n, before[n], after[n]) for n in values}
    join = f"(select *, true as __in_a from a) a full join (select *, true as __in_b from b) b on {on}"
    both = "__in_a and __in_b"
    anything = f"{both} and ({' or '.join(differs.values())})" if differs else "false"
    sums = ["count(*) filter (where __in_a is null)", "count(*) filter (where __in_b is null)", f"count(*) filter (where {both})"]
    sums += [f"count(*) filter (where {anything})", *(f"count(*) filter (where {both} and {d})" for d in differs.values())]
    added, removed, matched, changed, *by_column = con.execute(f"select {', '.join(sums)} from {join}").fetchone()
    counts = {n: c for n, c in zip(differs, by_column, strict=True) if c}
    answer = {"added": added, "removed": removed, "changed": changed, "same": matched - changed}
    order = ", ".join(f"coalesce({cell('a', k)}, {cell('b', k)})" for k in key)
    examples: dict[str, Any] = {"added": [], "removed": [], "changed": []}
    for kind, side, names, there in (("added", "b", after, "__in_a is null"), ("removed", "a", before, "__in_b is null")):
        if limit and answer[kind]:
            shown = ", ".join(f"{side}.{_name(n)}" for n in names)
            examples[kind] = _dicts(con.execute(f"select {shown} from {join} where {there} order by {order} limit {limit}"), list(names))
    if limit and changed:
        shown = ", ".join([f"b.{_name(k)}" for k in key] + [f"a.{_name(n)}, b.{_name(n)}, {differs[n]}" for n in values])
        found = con.execute(f"select {shown} from {join} where {anything} order by {order} limit {limit}").fetchall()
        examples["changed"] = [_change(row, key, values) for row in found]
    return {**answer, "columns": counts, "examples": examples}


def _change(row: Sequence[Any], key: list[str], values: list[str]) -> dict[str, Any]:
    """{"key": {column: value}, "changes": {column: {"from", "to"}}} of a joined row."""
    rest = row[len(key) :]
    cells = {n: rest[3 * i : 3 * i + 3] for i, n in enumerate(values)}
    return {
        "key": {k: _plain(v) for k, v in zip(key, row, strict=False)},
        "changes": {n: {"from": _plain(old), "to": _plain(new)} for n, (old, new, differs) in cells.items() if differs},
    }


def _by_content(con: Any, before: Mapping[str, str], after: Mapping[str, str], shared: list[str], limit: int) -> dict[str, Any]:
    if not shared:
        raise BadInput("The two versions have no column in common, so their rows cannot be compared.")
    cells = {n: f"cast({_name(n)} as varchar)" if _mixed(before[n], after[n]) else _name(n) for n in shared}
    chosen = ", ".join(f"{cell} as {_name(n)}" for n, cell in cells.items())
    names = ", ".join(_name(n) for n in shared)
    con.execute(
        f"create or replace temp table d as select {names}, sum(__n)::bigint as __n from"
        f" (select {chosen}, 1 as __n from b union all select {chosen}, -1 as __n from a) group by all having sum(__n) <> 0"
    )
    added, removed = con.execute("select coalesce(sum(greatest(__n, 0)), 0), coalesce(sum(greatest(-__n, 0)), 0) from d").fetchone()
    total = con.execute("select count(*) from b").fetchone()[0]
    examples: dict[str, Any] = {"added": [], "removed": [], "changed": []}
    for kind, there in (("added", "__n > 0"), ("removed", "__n < 0")):
        if limit:
            examples[kind] = _dicts(con.execute(f"select {names} from d where {there} order by all limit {limit}"), shared)
    return {"added": int(added), "removed": int(removed), "changed": None, "same": total - int(added), "columns": {}, "examples": examples}


def _not_unique(con: Any, key: Sequence[str]) -> str:
    """Which value of the key stands more than once, in words; nothing where each stands once."""
    names = ", ".join(_name(k) for k in key)
    for side, word in (("a_all", "the older version"), ("b_all", "the newer version")):
        row = con.execute(
            f"select {names}, count(*) as n from {side} group by {names} having count(*) > 1 order by n desc, {names} limit 1"
        ).fetchone()
        if row:
            return f"{' / '.join(str(_plain(v)) for v in row[:-1])} stands {row[-1]:,} times in {word}"
    return ""


def _differs(name: str, old: str, new: str) -> str:
    if _mixed(old, new):
        return f"(cast(a.{_name(name)} as varchar) is distinct from cast(b.{_name(name)} as varchar))"
    return f"(a.{_name(name)} is distinct from b.{_name(name)})"


def _mixed(old: str, new: str) -> bool:
    """Whether two types can only be compared as text."""
    return old != new and {old, new} != {"integer", "number"}


def _database(scratch: Path) -> Any:
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    settings = {"memory_limit": DIFF_MEMORY, "temp_directory": str(scratch), "threads": 2}
    con = duckdb.connect(":memory:", config=settings)
    con.execute("set enable_external_file_cache = false")  # each file is read a few times at most
    con.execute("set enable_progress_bar = false")  # it would be drawn on the server's own output
    return con


def _dicts(cursor: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    return [{n: _plain(v) for n, v in zip(names, row, strict=True)} for row in cursor.fetchall()]


def _plain(value: Any) -> Any:
    """A cell as JSON holds it: NaN as None, times as ISO text, long text cut."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "timestamp"):
        from datetime import timezone

        return iso(value.replace(tzinfo=timezone.utc).timestamp())
    if isinstance(value, str) and len(value) > DIFF_CELL_CHARS:
        return value[: DIFF_CELL_CHARS - 1] + "…"
    return value


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
