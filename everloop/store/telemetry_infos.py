"""What is known of a whole trace beside its spans: the experiment it belongs to, its state, tags and metadata, runs and prompts it is linked to.

A client changes these after the fact, so they are kept as changes in the log and folded into one row a trace when it is drained. A change is

    {"trace_id",
     "set": {field: value}            these fields get these values
     "fill": {field: value}           these where they have none yet
     "tags", "metadata": {key: text}  merged in; None takes a key away
     "fill_tags", "fill_metadata"     merged in where the key is missing
     "runs", "prompts": [text]        added to the lists
     "span": [start ms, end ms], "root_state"     what new spans say; they count until the trace is `final`
     "delete": True}                  the trace goes, with its spans, predictions and scores that were written before
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = (
    "id",
    "experiment",
    "state",
    "at_ms",
    "ms",
    "client_request_id",
    "request_preview",
    "response_preview",
    "name",
    "session",
    "user",
    "final",
)
"""Single values: the id as its client writes it, experiment id, MLflow's state (OK, ERROR, IN_PROGRESS), start and length in milliseconds."""
MAPS, LISTS = ("tags", "metadata"), ("runs", "prompts")
COLUMNS = ("project", "trace_id", *FIELDS, *MAPS, *LISTS, "received_at")
TYPES = {
    "at_ms": "BIGINT",
    "ms": "BIGINT",
    "final": "BOOLEAN",
    "received_at": "DOUBLE",
    **dict.fromkeys(MAPS, "MAP(VARCHAR, VARCHAR)"),
    **dict.fromkeys(LISTS, "VARCHAR[]"),
}
OPEN = (None, "IN_PROGRESS", "STATE_UNSPECIFIED")
Row = dict[str, Any]


def checked(change: dict[str, Any]) -> dict[str, Any]:
    """The change with every value of its column's type. ValueError or TypeError where one cannot be."""
    for part in ("set", "fill"):
        if change.get(part):
            change[part] = {name: _fit(name, value) for name, value in change[part].items() if name in FIELDS}
    for part in (*MAPS, *(f"fill_{name}" for name in MAPS)):
        if change.get(part):
            change[part] = {str(key): None if value is None else str(value) for key, value in change[part].items()}
    for part in LISTS:
        if change.get(part):
            change[part] = [str(value) for value in change[part]]
    change["trace_id"] = str(change["trace_id"])
    return change


def _fit(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "final":
        return bool(value)
    if TYPES.get(name) != "BIGINT":
        return str(value)
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} is {value}, which no 64-bit number is")
    return int(value)


def fold(row: Row | None, change: Mapping[str, Any]) -> Row:
    """The row of a trace after one change; `row` is None where the trace had none. The row given is not touched."""
    new: Row = dict(row) if row else {**dict.fromkeys(COLUMNS), **{name: {} for name in MAPS}, **{name: [] for name in LISTS}}
    new["project"], new["trace_id"], new["received_at"] = change["project"], change["trace_id"], change["received_at"]
    new.update(change.get("set") or {})
    for name, value in (change.get("fill") or {}).items():
        if new.get(name) is None:
            new[name] = value
    for name in MAPS:
        merged = {**(change.get(f"fill_{name}") or {}), **(new[name] or {}), **(change.get(name) or {})}
        new[name] = {key: value for key, value in merged.items() if value is not None}
    for name in LISTS:
        new[name] = list(dict.fromkeys([*(new[name] or []), *(change.get(name) or [])]))
    if not new["final"]:
        _extend(new, change)
    if change.get("root_state") and new["state"] in OPEN:
        new["state"] = change["root_state"]
    return new


def _extend(new: Row, change: Mapping[str, Any]) -> None:
    """Let the trace reach from its first span's start to its last one's end."""
    if not change.get("span"):
        return
    start, end = change["span"]
    if new["at_ms"] is not None:
        end = max(end, new["at_ms"] + (new["ms"] or 0))
        start = min(start, new["at_ms"])
    new["at_ms"], new["ms"] = start, end - start


def create(con: Any) -> None:
    """Make the table where it is missing."""
    declared = ", ".join(f'"{name}" {TYPES.get(name, "VARCHAR")}' for name in COLUMNS)
    con.execute(f"CREATE TABLE IF NOT EXISTS infos ({declared})")


def apply(con: Any, changes: Sequence[Mapping[str, Any]]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Fold changes, in their order, into the table; inside the caller's transaction. Answers the traces, (project, trace id), that went, and those
    whose session or user is told: their own rows (telemetry_summaries) must be made anew."""
    keys = list(dict.fromkeys((one["project"], one["trace_id"]) for one in changes))
    rows: dict[tuple[str, str], Row | None] = _rows(con, keys)
    gone = []
    for one in changes:
        key = (one["project"], one["trace_id"])
        if one.get("delete"):
            rows[key] = None
            gone.append((*key, one["received_at"]))
        else:
            rows[key] = fold(rows.get(key), one)
    if gone:
        forget(con, gone)
    told = _write(con, keys, [row for row in rows.values() if row is not None])
    return {(project, trace) for project, trace, _ in gone}, set(told)


def _rows(con: Any, keys: list[tuple[str, str]]) -> dict[tuple[str, str], Row | None]:
    found = con.execute(
        "SELECT i.* FROM infos i JOIN (SELECT unnest(?::VARCHAR[]) AS project, unnest(?::VARCHAR[]) AS trace_id) k USING (project, trace_id)",
        [[project for project, _ in keys], [trace for _, trace in keys]],
    )
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return {(row["project"], row["trace_id"]): row for row in rows}


def _write(con: Any, keys: list[tuple[str, str]], rows: list[Row]) -> list[tuple[str, str]]:
    import pyarrow as pa

    con.execute(
        "DELETE FROM infos WHERE (project, trace_id) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[])))",
        [[project for project, _ in keys], [trace for _, trace in keys]],
    )
    if not rows:
        return []
    text = pa.string()
    kinds = {"BIGINT": pa.int64(), "BOOLEAN": pa.bool_(), "DOUBLE": pa.float64(), "VARCHAR[]": pa.list_(text)}
    kinds["MAP(VARCHAR, VARCHAR)"] = pa.map_(text, text)
    columns = {
        name: pa.array([list(row[name].items()) if name in MAPS else row[name] for row in rows], kinds.get(TYPES.get(name, ""), text))
        for name in COLUMNS
    }
    con.register("fresh_infos", pa.table(columns))
    try:
        con.execute("INSERT INTO infos BY NAME SELECT * FROM fresh_infos")
        told = [(row["project"], row["trace_id"]) for row in rows if row["session"] or row["user"]]
        if told:  # so that the traces of a session, or of a user, are found by their spans too
            con.execute(
                'UPDATE spans SET session = coalesce(spans.session, f.session), "user" = coalesce(spans."user", f."user") FROM fresh_infos f '
                "WHERE spans.project = f.project AND spans.trace_id = f.trace_id "
                'AND (spans.session IS NULL AND f.session IS NOT NULL OR spans."user" IS NULL AND f."user" IS NOT NULL)'
            )
    finally:
        con.unregister("fresh_infos")
    return told


def forget(con: Any, gone: Sequence[tuple[str, str, float]]) -> None:
    """Take spans, predictions and scores of traces, (project, trace id, moment), that were received up to the moment out of their tables; inside the
    caller's transaction."""
    import pyarrow as pa

    projects, traces, moments = zip(*gone, strict=True)
    con.register("gone", pa.table({"project": projects, "trace_id": traces, "until": pa.array(moments, pa.float64())}))
    try:
        for table in ("spans", "predictions", "scores"):
            con.execute(
                f"DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM gone g WHERE g.project = {table}.project AND g.trace_id = {table}.trace_id "
                f"AND {table}.received_at <= g.until)"
            )
    finally:
        con.unregister("gone")
