"""Contracts that a table must keep, checked when it is added: what breaks one is listed row by row, and refused or recorded as the contract says.

    {"columns": {"age": {"type": "integer", "required": true, "min": 18, "max": 120}, "sex": {"categories": ["f", "m"]},
                 "email": {"pattern": "[^@]+@[^@]+", "missing": 0.05}, "id": {"unique": true}},
     "unique": [["customer", "month"]],              column groups that name a row
     "rows": {"min": 100, "max": 1000000},
     "extra": false,                                 no columns but those named
     "fresh": {"column": "when", "hours": 48},       the newest row is not older
     "on_violation": "refuse"}                       or "record": it is loaded, and the version carries what was found

All of it is optional. `required`: there and never missing; `missing`: the largest share that may be. Patterns are RE2 (linear time) and match whole values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from everloop.assets.table_stats import kind_of
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.limits import CONTRACT_SHOWN, REGEX_CHARS

RULES = {"type", "required", "missing", "min", "max", "categories", "pattern", "unique"}
PARTS = {"columns", "unique", "rows", "extra", "fresh", "on_violation"}
ACTIONS = ("refuse", "record")
_EXAMPLE = 'Write it as {"columns": {"age": {"type": "integer", "min": 18, "required": true}}}; parts: ' + ", ".join(sorted(PARTS)) + "."


@dataclass
class Broken:
    """One rule that does not hold: in which rows (from 0; none where it is about the column or table), and why."""

    column: str
    rule: str
    rows: Sequence[int]
    why: str


def check_contract(table: Any, contract: Mapping[str, Any], now: float | None = None) -> dict[str, Any]:
    """{"ok", "total", "counts": {"column: rule": n}, "violations": [{"column", "rule", "row", "value", "why"}]}, the first 100 by row.

    BadInput if the contract itself cannot be read.
    """
    return _report(table, broken(table, contract, now))


def need_contract(
    table: Any, contract: Mapping[str, Any] | None, name: str, put: Callable[[bytes], tuple[str, int]] | None = None
) -> dict[str, Any] | None:
    """The report of a contract that holds, or that is only recorded; None without a contract.

    Raises BadInput where it is broken and refuses: the sentence tells the first rows, details carry the first 100, and `list` the digest of all of
    them (JSON lines), kept by `put`. In a report that is recorded, `list` is there as well.
    """
    if not contract:
        return None
    found = broken(table, contract)
    report = _report(table, found)
    if report["ok"]:
        return report
    if put is not None:
        digest, size = put(b"".join(_lines(table, found)))
        report["list"] = {"path": "violations.jsonl", "digest": digest, "size": size}
    report["violations"] = [{**v, "value": str(v["value"]) if v["value"] is not None else None} for v in report["violations"]]
    if contract.get("on_violation") == "record":
        return report
    lines = [f"row {v['row']}: {v['why']}" if v["row"] else v["why"] for v in report["violations"][:5]]
    more = f"; and {report['total'] - len(lines):,} more" if report["total"] > len(lines) else ""
    raise BadInput(
        f"{name} breaks its data contract in {report['total']:,} places: {'; '.join(lines)}{more}.",
        "Fix the rows, or change the contract if it is wrong. Nothing was loaded.",
        counts=report["counts"],
        violations=report["violations"],
        **({"list": report["list"]} if put is not None else {}),
    )


def broken(table: Any, contract: Mapping[str, Any], now: float | None = None) -> list[Broken]:
    """Every rule that does not hold, with all its rows. BadInput if the contract cannot be read."""
    columns = contract.get("columns") or {}
    if not isinstance(columns, Mapping) or set(contract) - PARTS or not set(contract) & (PARTS - {"on_violation"}):
        raise BadInput("The data contract cannot be read.", _EXAMPLE)
    if contract.get("on_violation", "refuse") not in ACTIONS:
        raise BadInput(f"on_violation is {contract['on_violation']!r}.", "It is refuse or record.")
    found: list[Broken] = []
    for name, rules in columns.items():
        if not isinstance(rules, Mapping) or set(rules) - RULES:
            wrong = ", ".join(sorted(set(rules) - RULES)) if isinstance(rules, Mapping) else repr(rules)
            raise BadInput(f"The contract of column {name!r} has unknown rules: {wrong}.", f"Rules: {', '.join(sorted(RULES))}.")
        found += _column(table, name, rules)
    return found + _whole(table, contract, columns, time.time() if now is None else now)


def _report(table: Any, found: Sequence[Broken]) -> dict[str, Any]:
    counts = {f"{b.column}: {b.rule}" if b.column else b.rule: max(1, len(b.rows)) for b in found}
    shown = [_violation(table, b, row) for b in found for row in (b.rows[:CONTRACT_SHOWN] or [None])]
    shown.sort(key=lambda v: (v["row"] or 0, v["column"]))
    return {"ok": not found, "total": sum(counts.values()), "counts": counts, "violations": shown[:CONTRACT_SHOWN]}


def _lines(table: Any, found: Sequence[Broken]) -> Iterator[bytes]:
    for b in found:
        for row in b.rows or [None]:
            yield orjson.dumps(_violation(table, b, row), default=str, option=orjson.OPT_APPEND_NEWLINE)


def _violation(table: Any, b: Broken, row: int | None) -> dict[str, Any]:
    value = table.column(b.column)[row].as_py() if row is not None and b.column in table.column_names else None
    return {"column": b.column, "rule": b.rule, "row": None if row is None else row + 1, "value": value, "why": b.why}


def _whole(table: Any, contract: Mapping[str, Any], columns: Mapping[str, Any], now: float) -> list[Broken]:
    """Rules about the table as a whole."""
    found: list[Broken] = []
    bounds = contract.get("rows") or {}
    for rule, wrong in (("min", table.num_rows < bounds.get("min", 0)), ("max", table.num_rows > bounds.get("max", table.num_rows))):
        if wrong:
            found.append(Broken("", f"rows {rule}", [], f"it has {table.num_rows:,} rows; {rule} is {bounds[rule]:,}"))
    if contract.get("extra") is False:
        found += [Broken(n, "extra", [], f"column {n!r} is not in the contract") for n in table.column_names if n not in columns]
    for group in contract.get("unique") or []:
        names = [group] if isinstance(group, str) else list(group)
        gone = [n for n in names if n not in table.column_names]
        found += [Broken(n, "unique", [], f"column {n!r} is missing") for n in gone]
        rows = [] if gone else _repeated(table, names)
        if rows:
            found.append(Broken(names[0], f"unique {', '.join(names)}", rows, f"{' / '.join(names)} occurs more than once"))
    fresh = contract.get("fresh")
    return found + (_stale(table, fresh, now) if fresh else [])


def _stale(table: Any, fresh: Mapping[str, Any], now: float) -> list[Broken]:
    import pyarrow.compute as pc

    name, hours = str(fresh.get("column")), fresh.get("hours")
    if not isinstance(hours, int | float):
        raise BadInput("The contract's `fresh` cannot be read.", 'Write it as {"column": "when", "hours": 48}.')
    if name not in table.column_names or kind_of(table.column(name).type) != "datetime":
        return [Broken(name, "fresh", [], f"column {name!r} is missing or holds no times")]
    newest = pc.max(table.column(name)).as_py()
    from datetime import timezone

    age = None if newest is None else (now - newest.replace(tzinfo=timezone.utc).timestamp()) / 3600
    if age is not None and age <= hours:
        return []
    return [
        Broken(name, "fresh", [], f"the newest {name!r} is {newest}, {'' if age is None else f'{age:,.0f} hours ago; '}at most {hours:g} are allowed")
    ]


def _repeated(table: Any, names: list[str]) -> list[int]:
    """Rows (from 0) whose values of some columns occur more than once, together and none missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = table.select(names).append_column("__row", pa.array(range(table.num_rows)))
    for n in names:
        chosen = chosen.filter(pc.is_valid(chosen.column(n)))
    counted = chosen.group_by(names).aggregate([("__row", "count"), ("__row", "list")])
    twice = counted.filter(pc.greater(counted.column("__row_count"), 1))
    return sorted(row for rows in twice.column("__row_list").to_pylist() for row in rows)


def _column(table: Any, name: str, rules: Mapping[str, Any]) -> list[Broken]:
    """Rules about one column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name not in table.column_names:
        return [Broken(name, "required", [], f"column {name!r} is missing")] if rules.get("required") else []
    values = table.column(name)
    kind = kind_of(values.type)
    if rules.get("type") and rules["type"] != kind and (rules["type"], kind) != ("number", "integer") and values.null_count < len(values):
        return [Broken(name, "type", [], f"column {name!r} is {kind}; it must be {rules['type']}")]
    found: list[Broken] = []

    def add(rule: str, mask: Any, why: str) -> None:
        rows = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
        if rows:
            found.append(Broken(name, rule, rows, why))

    if rules.get("required"):
        add("required", pc.is_null(values), f"{name!r} is missing")
    share = values.null_count / max(1, len(values))
    if rules.get("missing") is not None and share > rules["missing"]:
        add("missing", pc.is_null(values), f"{name!r} is missing in {share:.1%} of rows; at most {rules['missing']:.1%} may be")
    for rule, compare, word in (("min", pc.less, "under"), ("max", pc.greater, "over")):
        if rules.get(rule) is not None:
            add(rule, compare(values, _bound(rules[rule], rule, name, kind, values.type)), f"{name!r} is {word} {rules[rule]}")
    if rules.get("categories") is not None:
        allowed = {label(c) for c in rules["categories"]}
        bad = [v for v in pc.unique(values.drop_null()).to_pylist() if label(v) not in allowed]
        if bad:
            add("categories", pc.is_in(values, pa.array(bad, values.type)), f"{name!r} is none of {', '.join(sorted(map(str, allowed)))[:100]}")
    if rules.get("pattern") is not None:
        add("pattern", _unlike(values, str(rules["pattern"]), name), f"{name!r} does not match {rules['pattern']}")
    if rules.get("unique") and (rows := _repeated(table, [name])):
        found.append(Broken(name, "unique", rows, f"{name!r} occurs more than once"))
    return found


def _bound(given: Any, rule: str, name: str, kind: str, type_: Any) -> Any:
    import pyarrow as pa

    if kind == "datetime":
        return pa.scalar(_moment(given, name), type_)
    if kind in ("number", "integer") and isinstance(given, int | float):
        return pa.scalar(float(given))
    raise BadInput(f"The contract's {rule} of column {name!r} is {given!r}, and the column is {kind}.", "Give a bound of that type.")


def _unlike(values: Any, pattern: str, name: str) -> Any:
    """Which values a pattern does not match whole; each distinct value is looked at once."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import re2

    if len(pattern) > REGEX_CHARS:
        raise BadInput(f"The pattern of column {name!r} is over {REGEX_CHARS} characters long.")
    try:
        options = re2.Options()
        options.log_errors = False
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise BadInput(f"The pattern of column {name!r} cannot be read: {error}.", "Use RE2's syntax: no look-around, no back-references.") from None
    texts = values.cast(pa.string())
    bad = [text for text in pc.unique(texts.drop_null()).to_pylist() if not compiled.fullmatch(text)]
    return pc.is_in(texts, pa.array(bad, pa.string()))


def _moment(text: Any, column: str) -> Any:
    from datetime import datetime, timezone

    from everloop.core.clock import from_iso

    try:
        return datetime.fromtimestamp(from_iso(str(text)), timezone.utc).replace(tzinfo=None)
    except BadInput as error:
        raise BadInput(f"The contract's bound of column {column!r}: {error.what}", error.hint) from None
