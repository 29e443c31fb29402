"""Which telemetry is older than a rule of retention says, and how it is deleted: SQL of DuckDB, each one function of a connection and a project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from everloop.core.errors import BadInput
from everloop.core.refs import check_name

NS = 1_000_000_000
WHAT = ("traces", "predictions", "scores", "metrics", "logs")
ACTIONS = ("archive", "delete")
KINDS = ("chat", "predict", "client")
STATUSES = ("ok", "error", "unset")
_AGE = re.compile(r"(\d{1,6})(d|h|m)")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


@dataclass(frozen=True)
class Rule:
    """What is done with what is older than `older` ("90d", "36h", "10m"): traces with all of theirs are archived or deleted, or predictions or scores
    alone are deleted. Only those of an endpoint, of a kind (chat and predict: our endpoints' calls; client: sent in by a client), with a status."""

    name: str
    older: str
    action: str = "archive"
    of: str = "traces"
    endpoint: str | None = None
    kind: str | None = None
    status: str | None = None

    @property
    def seconds(self) -> int:
        """The age in seconds."""
        return age(self.older)

    def to_json(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


def age(text: str) -> int:
    """`90d`, `36h` or `10m` in seconds; BadInput for anything else."""
    match = _AGE.fullmatch(str(text).strip())
    if match is None or not int(match[1]):
        raise BadInput(f"{text!r} is no age.", "Write 90d, 36h or 10m.")
    return int(match[1]) * _SECONDS[match[2]]


def checked(name: str, given: Mapping[str, Any]) -> Rule:
    """A rule from what a user gave; BadInput says what cannot be."""
    fields = {key: value for key, value in given.items() if key != "name" and value is not None}
    unknown = set(fields) - set(Rule.__dataclass_fields__)
    if unknown:
        raise BadInput(f"A rule of retention has no {', '.join(sorted(unknown))}.", "It has: older, action, of, endpoint, kind, status.")
    if not isinstance(fields.get("older"), str):
        raise BadInput("A rule of retention needs an age.", 'For example: {"older": "90d", "action": "archive"}')
    rule = Rule(check_name(name, "rule's name"), **fields)
    age(rule.older)
    for key, allowed in (("action", ACTIONS), ("of", WHAT), ("kind", (None, *KINDS)), ("status", (None, *STATUSES))):
        if getattr(rule, key) not in allowed:
            raise BadInput(f"The rule's {key} is {getattr(rule, key)!r}.", f"It can be: {', '.join(one for one in allowed if one)}.")
    if rule.endpoint is not None and not isinstance(rule.endpoint, str):
        raise BadInput(f"The rule's endpoint is {rule.endpoint!r}; it must be a name.")
    if rule.of != "traces" and rule.action == "archive":
        raise BadInput(f"The {rule.of} are not archived alone (logs of a trace go with it).", "Archive traces, or delete: action delete.")
    if (rule.of in ("scores", "metrics", "logs") and (rule.endpoint or rule.kind or rule.status)) or (
        rule.of == "predictions" and (rule.kind or rule.status)
    ):
        raise BadInput(
            f"A rule of {rule.of} cannot be narrowed so.", "Predictions can be by endpoint; scores, metrics and logs go by their age alone."
        )
    return rule


class Old(NamedTuple):
    """A trace that a rule takes: its id, its first moment in nanoseconds, how many spans it has."""

    trace_id: str
    first_ns: int
    spans: int


def old_traces(con: Any, project: str, rule: Rule, cutoff_ns: int, limit: int, skip: Sequence[str] = ()) -> list[Old]:
    """Traces all of whose spans began before `cutoff_ns`, the oldest first, but those to skip."""
    parts, values = _conditions(rule)
    having = "".join(f" AND {part}" for part in parts)
    without = "AND trace_id NOT IN (SELECT unnest(?::VARCHAR[]))" if skip else ""
    skipped = [list(skip)] if skip else []
    rows = con.execute(
        f"SELECT trace_id, min(start_ns) AS first, count(*) FROM spans WHERE project = ? AND start_ns < ? {without} "
        f"GROUP BY trace_id HAVING true{having} ORDER BY first, trace_id LIMIT ?",
        [project, cutoff_ns, *skipped, *values, limit],
    ).fetchall()
    if rows:
        young = {
            trace
            for (trace,) in con.execute(
                "SELECT DISTINCT trace_id FROM spans WHERE project = ? AND start_ns >= ? AND trace_id IN (SELECT unnest(?::VARCHAR[]))",
                [project, cutoff_ns, [row[0] for row in rows]],
            ).fetchall()
        }
        rows = [row for row in rows if row[0] not in young]
    if not rows and not parts:  # traces that were told of and had no span
        rows = con.execute(
            f"SELECT trace_id, at_ms * 1000000, 0 FROM infos i WHERE project = ? AND at_ms < ? {without} "
            "AND NOT EXISTS (SELECT 1 FROM spans s WHERE s.project = i.project AND s.trace_id = i.trace_id) ORDER BY at_ms LIMIT ?",
            [project, cutoff_ns // 1_000_000, *skipped, limit],
        ).fetchall()
    return [Old(*row) for row in rows]


def count_old(con: Any, project: str, rule: Rule, cutoff_ns: int) -> dict[str, Any]:
    """What a rule would take now: {"traces", "rows", "oldest" (epoch seconds)}."""
    if rule.of != "traces":
        where, values = _alone(rule, cutoff_ns)
        count, first = con.execute(f"SELECT count(*), min({_time(rule)}) FROM {rule.of} WHERE project = ? AND {where}", [project, *values]).fetchone()
        return {"traces": 0, "rows": count, "oldest": first}
    parts, values = _conditions(rule)
    having = "".join(f" AND {part}" for part in parts)
    traces, rows, first = con.execute(
        f"SELECT count(*), coalesce(sum(n), 0), min(first) FROM (SELECT count(*) AS n, min(start_ns) AS first FROM spans WHERE project = ? "
        f"GROUP BY trace_id HAVING max(start_ns) < ?{having})",
        [project, cutoff_ns, *values],
    ).fetchone()
    return {"traces": traces, "rows": int(rows), "oldest": None if first is None else first / NS}


def delete_alone(con: Any, project: str, rule: Rule, cutoff_ns: int, limit: int) -> int:
    """Delete up to `limit` predictions or scores that a rule takes; answers how many. Inside the caller's transaction."""
    where, values = _alone(rule, cutoff_ns)
    [count] = con.execute(
        f"DELETE FROM {rule.of} WHERE rowid IN (SELECT rowid FROM {rule.of} WHERE project = ? AND {where} LIMIT ?)", [project, *values, limit]
    ).fetchone()
    return int(count)


def _alone(rule: Rule, cutoff_ns: int) -> tuple[str, list[Any]]:
    more, values = (" AND endpoint = ?", [rule.endpoint]) if rule.of == "predictions" and rule.endpoint else ("", [])
    return f"{_time(rule)} < ?{more}", [cutoff_ns / NS, *values]


def _time(rule: Rule) -> str:
    """When a row of what a rule is of was, in epoch seconds."""
    return "at_ns / 1e9" if rule.of in ("metrics", "logs") else '"at"'


def _conditions(rule: Rule) -> tuple[list[str], list[Any]]:
    """A rule's narrowing as conditions of a group of spans."""
    parts: list[str] = []
    values: list[Any] = []
    if rule.endpoint is not None:
        parts.append("bool_or(entry AND endpoint = ?)")
        values.append(rule.endpoint)
    if rule.kind == "predict":
        parts.append("bool_or(root AND endpoint IS NOT NULL AND kind = 'PREDICT')")
    elif rule.kind == "chat":
        parts.append("bool_or(root AND endpoint IS NOT NULL AND kind <> 'PREDICT')")
    elif rule.kind == "client":
        parts.append("NOT bool_or(endpoint IS NOT NULL)")
    if rule.status == "error":
        parts.append("bool_or(entry AND status = 'error')")
    elif rule.status is not None:
        parts.append("bool_or(entry AND status = ?) AND NOT bool_or(entry AND status = 'error')")
        values.append(rule.status)
    return parts, values
