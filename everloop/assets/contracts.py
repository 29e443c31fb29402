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

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from everloop.assets.table_parts import Stored, null_count, parts
from everloop.assets.table_stats import kind_of
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.limits import CONTRACT_LISTED, CONTRACT_SHOWN, REGEX_CHARS

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

    BadInput if the contract itself cannot be read. The table goes by in parts (table_parts).
    """
    return _checked(table, contract, now, None, None).report()


def need_contract(
    table: Any, contract: Mapping[str, Any] | None, name: str, put: Callable[[Any], tuple[str, int]] | None = None, scratch: Path | None = None
) -> dict[str, Any] | None:
    """The report of a contract that holds, or that is only recorded; None without a contract.

    Raises BadInput where it is broken and refuses: the sentence tells the first rows, details carry the first 100, and `list` the digest of all of
    them (JSON lines; the first CONTRACT_LISTED), kept by `put`, which is handed an open file. In a report that is recorded, `list` is there as
    well. `scratch` is a folder for what does not fit into memory.
    """
    if not contract:
        return None
    with tempfile.SpooledTemporaryFile(8 * 1024 * 1024, dir=str(scratch) if scratch else None) as lines:
        seen = _checked(table, contract, None, lines if put is not None else None, scratch)
        report = seen.report()
        if report["ok"]:
            return report
        if put is not None:
            lines.seek(0)
            digest, size = put(lines)
            report["list"] = {"path": "violations.jsonl", "digest": digest, "size": size}
            if report["total"] > CONTRACT_LISTED:
                report["list"]["listed"] = seen.listed
    report["violations"] = [{**v, "value": str(v["value"]) if v["value"] is not None else None} for v in report["violations"]]
    if contract.get("on_violation") == "record":
        return report
    told = [f"row {v['row']}: {v['why']}" if v["row"] else v["why"] for v in report["violations"][:5]]
    more = f"; and {report['total'] - len(told):,} more" if report["total"] > len(told) else ""
    raise BadInput(
        f"{name} breaks its data contract in {report['total']:,} places: {'; '.join(told)}{more}.",
        "Fix the rows, or change the contract if it is wrong. Nothing was loaded.",
        counts=report["counts"],
        violations=report["violations"],
        **({"list": report["list"]} if put is not None else {}),
    )


class _Seen:
    """Violations as they are found: each rule's are counted, the first are kept, and all (up to CONTRACT_LISTED) written to `lines`."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self._counts: dict[str, int] = {}
        self._shown: dict[str, list[dict[str, Any]]] = {}
        self.listed = 0

    def add(self, b: Broken, values: Any = None, start: int = 0) -> None:
        """A rule broken in rows of a part that begins at row `start` and has these `values` in the rule's column."""
        key = f"{b.column}: {b.rule}" if b.column else b.rule
        self._counts[key] = self._counts.get(key, 0) + max(1, len(b.rows))
        shown = self._shown.setdefault(key, [])
        rows: Sequence[int | None] = b.rows or [None]
        for row in rows:
            if len(shown) >= CONTRACT_SHOWN and (self._lines is None or self.listed >= CONTRACT_LISTED):
                return
            value = values[row].as_py() if row is not None and values is not None else None
            one = {"column": b.column, "rule": b.rule, "row": None if row is None else start + row + 1, "value": value, "why": b.why}
            if len(shown) < CONTRACT_SHOWN:
                shown.append(one)
            if self._lines is not None and self.listed < CONTRACT_LISTED:
                self._lines.write(orjson.dumps(one, default=str, option=orjson.OPT_APPEND_NEWLINE))
                self.listed += 1

    def report(self) -> dict[str, Any]:
        """{"ok", "total", "counts", "violations"}, the first of them by row."""
        shown = sorted((v for kept in self._shown.values() for v in kept), key=lambda v: (v["row"] or 0, v["column"]))
        return {"ok": not self._counts, "total": sum(self._counts.values()), "counts": dict(self._counts), "violations": shown[:CONTRACT_SHOWN]}


def _checked(table: Any, contract: Mapping[str, Any], now: float | None, lines: Any, scratch: Path | None) -> _Seen:
    """Every rule that does not hold, with all its rows. BadInput if the contract cannot be read."""
    columns = contract.get("columns") or {}
    if not isinstance(columns, Mapping) or set(contract) - PARTS or not set(contract) & (PARTS - {"on_violation"}):
        raise BadInput("The data contract cannot be read.", _EXAMPLE)
    if contract.get("on_violation", "refuse") not in ACTIONS:
        raise BadInput(f"on_violation is {contract['on_violation']!r}.", "It is refuse or record.")
    seen = _Seen(lines)
    by_row: dict[str, Mapping[str, Any]] = {}
    for name, rules in columns.items():
        if not isinstance(rules, Mapping) or set(rules) - RULES:
            wrong = ", ".join(sorted(set(rules) - RULES)) if isinstance(rules, Mapping) else repr(rules)
            raise BadInput(f"The contract of column {name!r} has unknown rules: {wrong}.", f"Rules: {', '.join(sorted(RULES))}.")
        wrong_column = _of_column(table, name, rules)
        if wrong_column is not None:
            seen.add(wrong_column)
        elif name in table.column_names:
            by_row[name] = rules
    start = 0
    for part in parts(table, list(by_row)) if by_row else ():
        for name, rules in by_row.items():
            values = part.column(name)
            for b in _by_row(table, name, values, rules):
                seen.add(b, values, start)
        start += part.num_rows
    unique = [([name], "unique") for name, rules in by_row.items() if rules.get("unique")]
    _whole(table, contract, columns, time.time() if now is None else now, seen, unique)
    for names, rule in unique:
        _repeats(table, names, rule, seen, scratch)
    return seen


def _of_column(table: Any, name: str, rules: Mapping[str, Any]) -> Broken | None:
    """What is wrong with a column as a whole: it is not there, or is of another type; then its values are not looked at."""
    if name not in table.column_names:
        return Broken(name, "required", [], f"column {name!r} is missing") if rules.get("required") else None
    kind = kind_of(table.schema.field(name).type)
    asked = rules.get("type")
    if asked and asked != kind and (asked, kind) != ("number", "integer") and null_count(table, name) < table.num_rows:
        return Broken(name, "type", [], f"column {name!r} is {kind}; it must be {asked}")
    return None


def _by_row(table: Any, name: str, values: Any, rules: Mapping[str, Any]) -> Iterator[Broken]:
    """Rules about single values, of one part of a column; rows count from the part's beginning."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = kind_of(values.type)

    def broken(rule: str, mask: Any, why: str) -> Iterator[Broken]:
        rows = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
        if rows:
            yield Broken(name, rule, rows, why)

    if rules.get("required"):
        yield from broken("required", pc.is_null(values), f"{name!r} is missing")
    share = null_count(table, name) / max(1, table.num_rows)
    if rules.get("missing") is not None and share > rules["missing"]:
        yield from broken("missing", pc.is_null(values), f"{name!r} is missing in {share:.1%} of rows; at most {rules['missing']:.1%} may be")
    for rule, compare, word in (("min", pc.less, "under"), ("max", pc.greater, "over")):
        if rules.get(rule) is not None:
            bound = _bound(rules[rule], rule, name, kind, values.type)
            yield from broken(rule, compare(values, bound), f"{name!r} is {word} {rules[rule]}")
    if rules.get("categories") is not None:
        allowed = {label(c) for c in rules["categories"]}
        bad = [v for v in pc.unique(values.drop_null()).to_pylist() if label(v) not in allowed]
        if bad:
            why = f"{name!r} is none of {', '.join(sorted(map(str, allowed)))[:100]}"
            yield from broken("categories", pc.is_in(values, pa.array(bad, values.type)), why)
    if rules.get("pattern") is not None:
        yield from broken("pattern", _unlike(values, str(rules["pattern"]), name), f"{name!r} does not match {rules['pattern']}")


def _whole(table: Any, contract: Mapping[str, Any], columns: Mapping[str, Any], now: float, seen: _Seen, unique: list[tuple[list[str], str]]) -> None:
    """Rules about the table as a whole; groups of columns that must be unique are added to `unique`."""
    bounds = contract.get("rows") or {}
    for rule, wrong in (("min", table.num_rows < bounds.get("min", 0)), ("max", table.num_rows > bounds.get("max", table.num_rows))):
        if wrong:
            seen.add(Broken("", f"rows {rule}", [], f"it has {table.num_rows:,} rows; {rule} is {bounds[rule]:,}"))
    if contract.get("extra") is False:
        for name in table.column_names:
            if name not in columns:
                seen.add(Broken(name, "extra", [], f"column {name!r} is not in the contract"))
    for group in contract.get("unique") or []:
        names = [group] if isinstance(group, str) else list(group)
        gone = [n for n in names if n not in table.column_names]
        for name in gone:
            seen.add(Broken(name, "unique", [], f"column {name!r} is missing"))
        if not gone:
            unique.append((names, f"unique {', '.join(names)}"))
    fresh = contract.get("fresh")
    stale = _stale(table, fresh, now) if fresh else None
    if stale is not None:
        seen.add(stale)


def _stale(table: Any, fresh: Mapping[str, Any], now: float) -> Broken | None:
    import pyarrow.compute as pc

    name, hours = str(fresh.get("column")), fresh.get("hours")
    if not isinstance(hours, int | float):
        raise BadInput("The contract's `fresh` cannot be read.", 'Write it as {"column": "when", "hours": 48}.')
    if name not in table.column_names or kind_of(table.schema.field(name).type) != "datetime":
        return Broken(name, "fresh", [], f"column {name!r} is missing or holds no times")
    newest = max((at for part in parts(table, [name]) if (at := pc.max(part.column(name)).as_py()) is not None), default=None)
    from datetime import timezone

    age = None if newest is None else (now - newest.replace(tzinfo=timezone.utc).timestamp()) / 3600
    if age is not None and age <= hours:
        return None
    told = "" if age is None else f"{age:,.0f} hours ago; "
    return Broken(name, "fresh", [], f"the newest {name!r} is {newest}, {told}at most {hours:g} are allowed")


def _repeats(table: Any, names: list[str], rule: str, seen: _Seen, scratch: Path | None) -> None:
    """Rows whose values of some columns occur more than once, together and none missing."""
    why = f"{' / '.join(repr(n) if rule == 'unique' else n for n in names)} occurs more than once"
    if not isinstance(table, Stored):
        rows = _repeated(table, names)
        if rows:
            seen.add(Broken(names[0], rule, rows, why), table.column(names[0]))
        return
    from everloop.assets.table_sketches import repeated

    found = iter(repeated(table, names, scratch))
    row = next(found, None)
    start = 0
    for part in table.parts(names[:1]):
        here = []
        while row is not None and row < start + part.num_rows:
            here.append(row - start)
            row = next(found, None)
        if here:
            seen.add(Broken(names[0], rule, here, why), part.column(names[0]), start)
        start += part.num_rows


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
