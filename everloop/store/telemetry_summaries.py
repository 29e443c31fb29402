"""One row a trace: what lists, filters, figures and sessions read instead of all spans.

A row is worked out from the spans of its trace and from nothing else, so it is the same in whatever order, in how many pieces and how often
they came. When a batch of spans enters the tables, rows of traces seen whole for the first time are made from the batch; a trace that had
spans before, or came in several frames, is settled first (what its spans inherit and count is decided over all of them; alone, a frame could
only guess) and its row is made anew. The rows carry the position in the log that they stand for: where it is not the tables' (a home of an
earlier everloop), all rows are made anew on opening.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from everloop.store.log import Position

VERSION = 1
"""Raise it when the columns or their meaning change: homes are brought up on opening."""
COLUMNS = {
    "key": "UBIGINT",
    "project": "VARCHAR",
    "trace_id": "VARCHAR",
    "span_id": "VARCHAR",
    "name": "VARCHAR",
    "kind": "VARCHAR",
    "status": "VARCHAR",
    "error": "VARCHAR",
    "start_ns": "BIGINT",
    "end_ns": "BIGINT",
    "first_ns": "BIGINT",
    "last_ns": "BIGINT",
    "endpoint": "VARCHAR",
    "release": "VARCHAR",
    "alias": "VARCHAR",
    "principal": "VARCHAR",
    "call_ns": "BIGINT",
    "blocked": "BOOLEAN",
    "refused": "BOOLEAN",
    "flagged": "BOOLEAN",
    "session": "VARCHAR",
    "user": "VARCHAR",
    "model": "VARCHAR",
    "models": "VARCHAR[]",
    "tokens_in": "BIGINT",
    "tokens_out": "BIGINT",
    "tokens_cached": "BIGINT",
    "cost": "DOUBLE",
    "first_token_ms": "DOUBLE",
    "spans": "INTEGER",
    "errors": "INTEGER",
}
"""`key` finds a row without comparing texts (see KEY). `span_id`, `name` to `end_ns` are the head span's: the root, else the endpoint's span, else
the earliest without a parent here. `first_ns` and `last_ns` span all spans. `endpoint` to `principal` are those of the trace's first call of an
endpoint, which took `call_ns` (the head span's length where there is none). `errors` counts spans that failed, `spans` all.
Inputs and outputs stay with the head span: nothing is stored twice."""
KEY = "md5_number_lower(concat({project}, '/', {trace_id}))"
FIRST_TOKEN = '"gen_ai\\.response\\.time_to_first_chunk":([0-9.eE+-]+)'
_RANK = "(CASE WHEN parent_id IS NULL THEN 0 WHEN root THEN 1 WHEN entry THEN 2 ELSE 3 END, start_ns, span_id)"
_HAS = "CASE WHEN root THEN contains(attributes, '{}') ELSE false END"


def key_of(project: str = "?", trace_id: str = "?") -> str:
    """The SQL of a trace's key; the arguments are SQL too (columns or parameters)."""
    return KEY.format(project=project, trace_id=trace_id)


def create(con: Any) -> None:
    """Make the tables where they are missing, and all rows anew where they do not stand for what the span table holds."""
    found = con.execute("SELECT segment, byte, version FROM summed").fetchone() if _exists(con, "summed") else None
    if found is not None and found[2] != VERSION:
        con.execute("DROP TABLE traces")
    declared = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
    con.execute(f"CREATE TABLE IF NOT EXISTS traces ({declared})")
    con.execute("CREATE TABLE IF NOT EXISTS summed (segment BIGINT, byte BIGINT, version INTEGER)")
    drained = con.execute("SELECT segment, byte FROM drained").fetchone()
    if drained is not None and found != (*drained, VERSION):
        rebuild(con, Position(*drained))


def rebuild(con: Any, position: Position) -> None:
    """Make all rows anew from the spans; all or nothing."""
    con.execute("BEGIN")
    try:
        con.execute("DELETE FROM traces")
        con.execute(f"INSERT INTO traces BY NAME {_summed('spans', 'true')}")
        mark(con, position)
        con.execute("COMMIT")
    except BaseException:
        con.execute("ROLLBACK")
        raise


def mark(con: Any, position: Position) -> None:
    """Note which position the rows stand for; inside the caller's transaction."""
    con.execute("DELETE FROM summed")
    con.execute("INSERT INTO summed VALUES (?, ?, ?)", [*position, VERSION])


def add(con: Any, fresh: Any, split: Iterable[str]) -> None:
    """Take spans into the rows of their traces: `fresh` is the Arrow table of those that were just inserted, `split` the ids of traces that came
    in several frames of the batch. Inside the caller's transaction."""
    con.register("fresh_spans", fresh)
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE met AS SELECT DISTINCT project, trace_id, {key_of('project', 'trace_id')} AS key FROM fresh_spans")
        known = con.execute("SELECT m.project, m.trace_id FROM traces t JOIN met m ON t.key = m.key").fetchall()
        again = set(known)
        if split := set(split):
            again |= {row for row in con.execute("SELECT project, trace_id FROM met").fetchall() if row[1] in split}
        others = "true"
        if again:
            _name(con, again)
            others = f"NOT EXISTS (SELECT 1 FROM again a WHERE {_SAME.format('fresh_spans')})"
        con.execute(f"INSERT INTO traces BY NAME {_summed('fresh_spans', others)}")
        if again:
            _settle(con, settle=True)
    finally:
        con.unregister("fresh_spans")
        con.execute("DROP TABLE IF EXISTS met")


def refresh(con: Any, traces: Iterable[tuple[str, str]], settle: bool = False) -> None:
    """Make the rows of these traces, (project, trace id), anew from their spans, whichever there are; `settle` decides anew over all of them what
    they inherit and count. Inside the caller's transaction."""
    wanted = set(traces)
    if wanted:
        _name(con, wanted)
        _settle(con, settle)


# -- inside -----------------------------------------------------------------------------------------------------------------------------------

_SAME = "a.project = {0}.project AND a.trace_id = {0}.trace_id"


def _exists(con: Any, table: str) -> bool:
    return bool(con.execute("SELECT count(*) FROM information_schema.tables WHERE table_name = ?", [table]).fetchone()[0])


def _name(con: Any, traces: Iterable[tuple[str, str]]) -> None:
    """Put traces into the temporary table `again`."""
    import pyarrow as pa

    pairs = sorted(traces)
    named = pa.table({"project": pa.array([p for p, _ in pairs], pa.string()), "trace_id": pa.array([t for _, t in pairs], pa.string())})
    con.register("named", named)
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE again AS SELECT *, {key_of('project', 'trace_id')} AS key FROM named")
    finally:
        con.unregister("named")


def _settle(con: Any, settle: bool) -> None:
    """Settle the spans of the traces in `again`, and make their rows anew."""
    if settle:
        _inherit(con)
    con.execute("DELETE FROM traces WHERE key IN (SELECT key FROM again)")
    ours = f"EXISTS (SELECT 1 FROM again a WHERE {_SAME.format('spans')})"
    con.execute(f"INSERT INTO traces BY NAME {_summed('spans', ours)}")
    con.execute("DROP TABLE again")


def _summed(source: str, condition: str) -> str:
    """The rows of the traces whose spans are in `source`, as a question."""
    return f"""SELECT {key_of("g.project", "g.trace_id")} AS key, g.project, g.trace_id, head.span_id, head.name, head.kind, head.status, head.error,
          head.start_ns, head.end_ns, first_ns, last_ns, first_call.endpoint, first_call.release, first_call.alias, first_call.principal,
          coalesce(first_call.ns, head.end_ns - head.start_ns) AS call_ns, blocked, refused, flagged,
          coalesce(g.session, i.session) AS session, coalesce(g."user", i."user") AS "user", named.model AS model, models, tokens_in, tokens_out,
          tokens_cached, cost, first_token_ms, spans, errors
        FROM (SELECT project, trace_id,
            arg_min({{'span_id': span_id, 'name': name, 'kind': kind, 'status': status, 'error': error, 'start_ns': start_ns, 'end_ns': end_ns}},
              {_RANK}) AS head,
            min(start_ns) AS first_ns, max(end_ns) AS last_ns,
            arg_min({{'endpoint': endpoint, 'release': release, 'alias': alias, 'principal': principal, 'ns': end_ns - start_ns}},
              (start_ns, span_id)) FILTER (root AND endpoint IS NOT NULL) AS first_call,
            coalesce(bool_or({_HAS.format('"everloop.blocked":true')}), false) AS blocked,
            coalesce(bool_or({_HAS.format('"everloop.refused":true')}), false) AS refused,
            coalesce(bool_or({_HAS.format('"everloop.flags":[')}), false) AS flagged,
            arg_min(session, {_RANK}) FILTER (session IS NOT NULL) AS session, arg_min("user", {_RANK}) FILTER ("user" IS NOT NULL) AS "user",
            arg_max({{'model': model}}, (coalesce(tokens_out, -1), model)) FILTER (model IS NOT NULL) AS named,
            list_sort(list(DISTINCT model) FILTER (model IS NOT NULL)) AS models,
            sum(tokens_in) FILTER (NOT rolled) AS tokens_in, sum(tokens_out) FILTER (NOT rolled) AS tokens_out,
            sum(tokens_cached) FILTER (NOT rolled) AS tokens_cached, sum(cost) FILTER (NOT rolled) AS cost,
            min(CASE WHEN contains(attributes, 'time_to_first_chunk') THEN try_cast(regexp_extract(attributes, '{FIRST_TOKEN}', 1) AS DOUBLE) END)
              * 1000 AS first_token_ms,
            count(*) AS spans, count(*) FILTER (status = 'error') AS errors
          FROM {source} WHERE {condition} GROUP BY project, trace_id) g
        LEFT JOIN infos i ON i.project = g.project AND i.trace_id = g.trace_id"""


_LIGHT: tuple[str, ...] = (
    *("project", "trace_id", "span_id", "parent_id", "start_ns", "root", "entry", "rolled", "tokens_in"),
    *("endpoint", "release", "alias", "principal", "session", "user"),
)


def _inherit(con: Any) -> None:
    """Decide over all spans of each trace in `again` what a frame alone can only guess: which have no parent here, what they take from their
    endpoint's call, and which only repeat the tokens of those below them. Spans that change are written back."""
    import pyarrow as pa

    names = ", ".join(f's."{name}"' for name in _LIGHT)
    rows = con.execute(
        f"SELECT {names}, contains(s.attributes, '\"everloop.endpoint\":'), contains(s.attributes, '\"everloop.remote_parent\":true') "
        f"FROM spans s JOIN again a ON {_SAME.format('s')}"
    ).fetchall()
    traces: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        traces.setdefault(row[:2], []).append(row)
    changed = [new for spans in traces.values() for new in settled(spans)]
    if not changed:
        return
    fields = {"project": "VARCHAR", "trace_id": "VARCHAR", "span_id": "VARCHAR", "entry": "BOOLEAN", "rolled": "BOOLEAN"}
    fields |= dict.fromkeys(("endpoint", "release", "alias", "principal", "session", "user"), "VARCHAR")
    columns = zip(fields.items(), zip(*changed, strict=True), strict=True)
    con.register("settled", pa.table({name: pa.array(v, pa.bool_() if kind == "BOOLEAN" else pa.string()) for (name, kind), v in columns}))
    try:
        sets = ", ".join(f'"{name}" = f."{name}"' for name in list(fields)[3:])
        con.execute(
            f"UPDATE spans SET {sets} FROM settled f WHERE spans.project = f.project AND spans.trace_id = f.trace_id AND spans.span_id = f.span_id"
        )
    finally:
        con.unregister("settled")


def settled(spans: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Which spans of one trace need other values: (project, trace id, span id, entry, rolled, endpoint, release, alias, principal, session, user).
    `spans` are rows of _LIGHT, then whether the span names its endpoint itself, and whether its parent is in another process."""
    parents = {span[2]: span[3] for span in spans}
    counted = {span[2] for span in spans if span[8] is not None}
    rolled: set[str] = set()
    for one in counted if len(counted) > 1 else ():
        at, seen = parents.get(one), {one}
        while at and at not in seen:
            seen.add(at)
            if at in counted:
                rolled.add(at)
            at = parents.get(at)
    calls = [span for span in spans if span[15]]
    above = min(calls, key=lambda span: (span[4], span[2])) if calls else None
    changed = []
    for span in spans:
        own, remote = span[15], span[16]
        entry = span[3] is None or own or remote or span[3] not in parents
        call = tuple(above[9:13]) if above is not None and not own else tuple(span[9:13])
        who = tuple(mine if mine is not None or above is None else theirs for mine, theirs in zip(span[13:15], (above or span)[13:15], strict=True))
        new = (entry, span[2] in rolled, *call, *who)
        if new != (span[6], span[7], *span[9:15]):
            changed.append((*span[:3], *new))
    return changed
