"""Fresh data by schedule: the step `load` takes new files of a folder, or the rows of a SQL query, as the next version of a dataset.

Params of a folder: `folder`, `glob` ("*" by default: every CSV and Parquet file), `mode` "new" (default: files not loaded before are added
to what is there) or "all" (the folder as it is now). Of a query: `url` (env:NAME or file:/path that holds a SQLAlchemy URL; sqlite:///...
may stand in clear, as it holds no password), `query` with :since and :until where it asks for a span, `bind` "datetime" (default), "text"
or "epoch" (how those two are sent), `since`, `until`.

Of both: `dataset` (its name), the roles `target`, `time`, `positive`, `protected`, `id` and `contract` (those of the version before, if not given),
`keep_days` (older rows, by the time column, fall out) and `keep_rows` (the newest so many stay). Where the dataset has an id column, a row
that comes again replaces the earlier one, so a label that arrives late finds its row.

Nothing is registered unless every file was read and every row fits; nothing new answers the version there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everloop.build import ingest_sql
from everloop.core.errors import BadInput, NotFound, TooLarge
from everloop.core.limits import INGEST_FILES
from everloop.core.refs import Ref

PIPELINE: dict[str, Any] = {"steps": [{"name": "load", "call": "everloop.build.ingest:load", "after": []}], "params": {}}
"""Loading alone: `client.pipelines.put("load-loans", {**ingest.PIPELINE, "params": {"dataset": "loans", "folder": "/data/loans"}})`, then
`client.pipelines.schedule("weekly-loans", "load-loans", "@weekly")`."""
ENDINGS = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet", ".pq")
PLACE = "everloop: place among all rows"
"""A column that stands in the table only while rows are dropped, and says which ones stayed."""
ROLES = ("target", "time", "positive", "protected", "id")


def load_and(pipeline: Mapping[str, Any], **params: Any) -> dict[str, Any]:
    """A pipeline's spec with `load` before its first steps, which then work on the version that was loaded."""
    steps = [{**s, "after": [*(s.get("after") or []), *([] if s.get("after") else ["load"])]} for s in pipeline["steps"]]
    return {**pipeline, "steps": [*PIPELINE["steps"], *steps], "params": {**pipeline.get("params", {}), **params}}


def load(step: Any) -> dict[str, Any]:
    """The next version of the dataset; answers {"dataset": exact reference, "new": bool, "rows", "rows_new", "files", "why"}.

    BadInput names file and line (or the query) of what cannot be read, and nothing is registered.
    """
    params = step.params
    if bool(params.get("folder")) == bool(params.get("url")):
        raise BadInput("Say where the data come from: `folder`, or `url` and `query`.", 'For example {"folder": "/data/loans", "dataset": "loans"}.')
    name = Ref.parse(str(params.get("dataset") or ""), "dataset").name if params.get("dataset") else ""
    if not name:
        raise BadInput("The param 'dataset' is missing.", "It names the dataset that is loaded, for example: loans")
    before = _before(step.client, name)
    if params.get("folder"):
        tables, origin, why = _from_folder(step, before)
    else:
        tables, origin, why = ingest_sql.rows(step, before)
    if not tables:
        if before is None:
            raise BadInput(f"There is nothing to load into dataset:{name}: {why}", "Check folder and glob, or the query and its span.")
        step.log(f"{before['ref']} stays: {why}")
        rows = before["manifest"]["rows"]
        return {"dataset": before["ref"], "new": False, "rows": rows, "rows_new": 0, "files": [], "why": f"Nothing new: {why}"}
    return _register(step, name, before, tables, origin, why)


def _register(step: Any, name: str, before: Any, tables: list[tuple[str, Any]], origin: dict[str, Any], why: str) -> dict[str, Any]:
    import numpy as np

    roles, contract = _roles(step.params, before), step.params.get("contract")
    held = None if before is None or origin["mode"] == "all" else step.client.data.table(before["ref"])
    fresh = sum(table.num_rows for _, table in tables)
    _check(tables, roles, contract or (before["manifest"].get("contract") if before else None))
    table = joined([(before["ref"], held), *tables] if held is not None else tables)
    table = _kept(table.append_column(PLACE, [range(table.num_rows)]), roles, step.params)
    places, table = table.column(PLACE).to_numpy(), table.drop_columns([PLACE])
    reads = [before["ref"]] if held is not None else []
    made = step.client.data.add(name, table, roles=roles, contract=contract, origin=origin, run=step.run.id, reads=reads)
    if before is not None and made["ref"] == before["ref"]:
        said = f"{why} holds what {made['ref']} holds already"
        step.log(f"{made['ref']} stays: {said}.")
        return {"dataset": made["ref"], "new": False, "rows": table.num_rows, "rows_new": 0, "files": [], "why": f"Nothing new: {said}."}
    if held is not None:
        lost = "rows that came again, or are older than is kept, fell out"
        step.client.lineage.derives(made["ref"], {before["ref"]: np.where(places < held.num_rows, places, -1)}, run=step.run.id, why=lost)
    said = f"{fresh:,} rows from {why}; {made['manifest']['rows']:,} rows in all"
    step.run.log_metrics({"rows_new": fresh, "rows": made["manifest"]["rows"]})
    step.log(f"{made['ref']}: {said}")
    files = [label for label, _ in tables]
    return {"dataset": made["ref"], "new": True, "rows": made["manifest"]["rows"], "rows_new": fresh, "files": files[:100], "why": said}


def _before(client: Any, name: str) -> Any:
    try:
        return client.data.get(f"dataset:{name}")
    except NotFound:
        return None


def _roles(params: Mapping[str, Any], before: Any) -> dict[str, Any] | None:
    given = {key: params[key] for key in ROLES if params.get(key) not in (None, "", [])}
    return given or (dict(before["manifest"]["roles"]) if before else None)


def _from_folder(step: Any, before: Any) -> tuple[list[tuple[str, Any]], dict[str, Any], str]:
    """([(file name, table)], origin, what they are) of the files to load."""
    import blake3

    folder, mode = Path(str(step.params["folder"])).expanduser(), str(step.params.get("mode") or "new")
    if mode not in ("new", "all"):
        raise BadInput(f"mode is {mode!r}.", "One of: new (files not loaded before), all (the folder as it is).")
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.", "The worker reads it: give a path that exists where the worker runs.")
    pattern = str(step.params.get("glob") or "*")
    found = sorted(p for p in folder.glob(pattern) if p.is_file() and _wanted(p, pattern))
    if len(found) > INGEST_FILES:
        raise TooLarge(f"{folder} has {len(found):,} files for {pattern!r}; {INGEST_FILES:,} at most are loaded.", "Join them, or narrow the glob.")
    digests = {p.relative_to(folder).as_posix(): blake3.blake3().update_mmap(p).hexdigest() for p in found}
    source = before["manifest"]["source"] if before else {}
    known = dict(source.get("files") or {}) if source.get("kind") == "folder" and source.get("folder") == str(folder) else {}
    changed = [name for name, digest in digests.items() if known.get(name, digest) != digest]
    if changed and mode == "new":
        raise BadInput(
            f"{changed[0]} in {folder} was loaded before with other content{f' (and {len(changed) - 1} more)' if len(changed) > 1 else ''}.",
            "Put corrections into a new file, or take the folder as it is now with mode: all.",
        )
    fresh = list(digests) if mode == "all" else [name for name in digests if name not in known]
    origin = {"kind": "folder", "folder": str(folder), "glob": pattern, "mode": mode, "files": digests if mode == "all" else {**known, **digests}}
    if not fresh:
        seen = f"{len(digests)} files, all loaded before" if digests else "no CSV or Parquet file"
        return [], origin, f"{folder} holds {seen} (glob {pattern!r})."
    return [(name, _read(folder / name, name)) for name in fresh], origin, f"{len(fresh)} file{'s' if len(fresh) > 1 else ''} of {folder}"


def _wanted(path: Path, pattern: str) -> bool:
    named = path.name.lower()
    return not named.startswith((".", "~")) and (named.endswith(ENDINGS) or pattern not in ("*", "**/*"))


def _read(path: Path, name: str) -> Any:
    from everloop.assets import tables

    try:
        return tables.read(path, name).table
    except BadInput as error:
        raise type(error)(f"{name}: {error.what}" if name not in error.what else error.what, f"{error.hint} Nothing was loaded.") from None


def _check(tables: list[tuple[str, Any]], roles: Mapping[str, Any] | None, contract: Any) -> None:
    """Columns that roles name are there and dates parse, file by file, so that the file is named; the contract holds in each."""
    from everloop.assets import contracts, table_dates, table_roles

    wanted = [c for c in [(roles or {}).get("target"), (roles or {}).get("time"), (roles or {}).get("id")] if c]
    for name, table in tables:
        try:
            for column in wanted:
                table_roles.need_column(table, str(column))
            if (roles or {}).get("time"):
                table_dates.time_column(table, str((roles or {})["time"]))
            contracts.need_contract(table, contract, name)
        except BadInput as error:
            raise BadInput(f"{name}: {error.what}", f"{error.hint} Nothing was loaded.", **error.details) from None


def joined(tables: list[tuple[str, Any]]) -> Any:
    """One table of all: columns as in the first, numbers widened where a part has decimals; BadInput names the part whose columns differ."""
    import pyarrow as pa

    first_name, first = tables[0]
    kinds = {c: first.schema.field(c).type for c in first.column_names}
    for name, table in tables[1:]:
        missing = [c for c in kinds if c not in table.column_names]
        more = [c for c in table.column_names if c not in kinds]
        if missing or more:
            said = "; ".join([f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(more)} besides"] * bool(more))
            raise BadInput(f"{name} has other columns than {first_name}: it {said}.", "Bring the columns into line; nothing was loaded.")
        for column in kinds:
            kinds[column] = _wider(kinds[column], table.schema.field(column).type)
    parts = []
    for name, table in tables:
        columns = {}
        for column, kind in kinds.items():
            try:
                columns[column] = table.column(column).cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                found = table.schema.field(column).type
                raise BadInput(f"Column {column!r} of {name} is {found}, and {kind} elsewhere.", "Nothing was loaded.") from None
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _wider(a: Any, b: Any) -> Any:
    """The type that holds both: numbers as float64, anything beside text as text; a column without values takes the other's type."""
    import pyarrow as pa

    if a == b:
        return a
    if pa.types.is_null(a) or pa.types.is_null(b):
        return b if pa.types.is_null(a) else a
    numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (a, b))
    return pa.float64() if numbers else pa.string()


def _kept(table: Any, roles: Mapping[str, Any] | None, params: Mapping[str, Any]) -> Any:
    """Rows that come again replaced, old rows dropped, as the params say."""
    import numpy as np
    import pyarrow.compute as pc

    roles = roles or {}
    if roles.get("id"):
        ids = table.column(roles["id"]).to_pylist()
        last = {v: i for i, v in enumerate(ids)}
        table = table.take(np.array([i for i, v in enumerate(ids) if v is None or last[v] == i], dtype="int64"))
    if params.get("keep_days"):
        if not roles.get("time"):
            raise BadInput("keep_days needs a time column.", "Name it with `time`, or use keep_rows.")
        from everloop.assets.table_dates import time_column

        table, _ = time_column(table, str(roles["time"]))
        moments = table.column(roles["time"])
        import datetime

        newest = pc.max(moments).as_py()
        if not isinstance(newest, datetime.datetime):
            raise BadInput(f"keep_days needs dates in {roles['time']!r}; it holds {moments.type}.", "Use keep_rows.")
        table = table.filter(pc.greater_equal(moments, newest - datetime.timedelta(days=float(params["keep_days"]))))
    if params.get("keep_rows"):
        if roles.get("time"):
            table = table.sort_by([(str(roles["time"]), "ascending")])
        table = table.slice(max(0, table.num_rows - int(params["keep_rows"])))
    return table
