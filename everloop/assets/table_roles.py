"""What columns are for (target, time, positive class, protected attributes, id), which task that makes, and contracts that data must keep."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from everloop.assets.table_dates import time_column
from everloop.assets.table_stats import kind_of
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.limits import CLASSES, CONTRACT_SHOWN

ROLES = ("target", "time", "positive", "protected", "id")
FEW = 20
"""A numeric target with at most this many distinct whole values is taken for classes."""
YES = ("1", "true", "yes", "y", "bad", "default", "defaulted", "fraud", "churn", "churned", "positive", "pos", "+")
"""Labels that usually name the class one looks for, in this order."""
_RULES = {"type", "required", "min", "max", "categories", "unique"}


def apply(table: Any, roles: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any], list[str]]:
    """(table, roles, notes): the roles checked against the table, its time column parsed, the positive class filled in where it is binary.

    Raises BadInput: an unknown role; a column that is not there (with the nearest names); a target with nothing in it or one class only; a
    positive class that does not occur; a date that does not parse (row and value).
    """
    given = {k: v for k, v in dict(roles or {}).items() if v not in (None, "", [], ())}
    unknown = set(given) - set(ROLES)
    if unknown:
        raise BadInput(f"There is no role {', '.join(sorted(unknown))}.", f"Roles: {', '.join(ROLES)}.")
    found: dict[str, Any] = {"target": None, "time": None, "positive": None, "protected": [], "id": None}
    notes: list[str] = []
    for role in ("target", "time", "id"):
        if given.get(role) is not None:
            found[role] = need_column(table, str(given[role]), f"The {role} column")
    protected = given.get("protected") or []
    for name in [protected] if isinstance(protected, str) else protected:
        found["protected"].append(need_column(table, str(name), "The protected column"))
    if found["target"] in (found["time"], found["id"]) and found["target"]:
        raise BadInput(f"Column {found['target']!r} cannot be the target and the time or id too.", "Name different columns.")
    if found["time"]:
        table, cyclic = time_column(table, found["time"])
        if cyclic:
            notes.append(cyclic)
            found["time"] = None
    if found["target"]:
        task = infer_task(table, found["target"], given.get("positive"))
        found["positive"] = task["positive"]
    elif given.get("positive") is not None:
        raise BadInput("A positive class is named and no target column.", "Name the target too.")
    return table, found, notes


def need_column(table: Any, name: str, what: str = "The column") -> str:
    """`name` if the table has it; BadInput listing the columns, nearest first, if not."""
    if name in table.column_names:
        return name
    near = get_close_matches(name.lower(), [c.lower() for c in table.column_names], 3, 0.5)
    nearest = sorted((c for c in table.column_names if c.lower() in near), key=lambda c: near.index(c.lower()))
    hint = f"Did you mean {' or '.join(repr(c) for c in nearest)}?  " if nearest else ""
    shown = ", ".join(table.column_names[:40]) + (f" and {table.num_columns - 40} more" if table.num_columns > 40 else "")
    raise BadInput(f"{what} {name!r} is not in the table.", f"{hint}Columns: {shown}.")


def infer_task(table: Any, target: str, positive: Any = None) -> dict[str, Any]:
    """{"task": binary | multiclass | regression, "classes": [labels], "positive": label | None, "why": one sentence}.

    Text and booleans are classes; whole numbers with few distinct values too; other numbers are a quantity. BadInput where nothing
    can be learnt: no value at all, one class only, as many classes as rows, dates.
    """
    import pyarrow.compute as pc

    values = table.column(need_column(table, target, "The target column")).drop_null()
    kind = kind_of(values.type)
    if kind == "number":
        values = values.filter(pc.is_finite(values))
    n = len(values)
    if not n:
        raise BadInput(f"The target column {target!r} has no value in any row.", "Choose another target, or fill it in.")
    distinct = int(pc.count_distinct(values).as_py())
    if distinct == 1:
        raise BadInput(
            f"The target column {target!r} has one class only: {label(values[0].as_py())!r} in all {n:,} rows.",
            "A model needs at least two classes; load rows of the other ones too, or choose another target.",
        )
    if kind == "datetime":
        raise BadInput(f"The target column {target!r} holds dates.", "Predict a number (days until then) or classes; make that column first.")
    whole = kind == "integer" or (kind == "number" and pc.all(pc.equal(values, pc.floor(values))).as_py())
    if kind in ("number", "integer") and positive is None and not (whole and (distinct == 2 or (distinct <= FEW and distinct * 5 <= n))):
        why = f"{target!r} is a number with {distinct:,} distinct values in {n:,} rows, so this is regression."
        return {"task": "regression", "classes": [], "positive": None, "why": why}
    if distinct > CLASSES or (distinct > FEW and distinct * 3 > n):
        raise BadInput(
            f"The target column {target!r} has {distinct:,} different values in {n:,} rows; that is an id or free text, not classes.",
            f"Choose a target with at most {CLASSES} classes.",
        )
    classes = sorted((str(label(v)) for v in pc.unique(values).to_pylist()), key=_order)
    if positive is not None and label(positive) not in classes:
        raise BadInput(f"The positive class {label(positive)!r} does not occur in {target!r}.", f"Classes: {', '.join(classes[:20])}.")
    if distinct > 2:
        why = f"{target!r} is {kind} with {distinct} distinct values in {n:,} rows, so this is classification with {distinct} classes."
        return {"task": "multiclass", "classes": classes, "positive": None, "why": why}
    chosen = str(label(positive)) if positive is not None else _positive(values, classes)
    why = f"{target!r} has two values, {classes[0]} and {classes[1]}, so this is binary classification; {chosen} is the positive class."
    return {"task": "binary", "classes": classes, "positive": chosen, "why": why}


def _positive(values: Any, classes: list[str]) -> str:
    """The class one usually looks for: by its name, else the rarer one."""
    for word in YES:
        for c in classes:
            if c.lower() == word:
                return c
    counts = dict.fromkeys(classes, 0)
    for v in values.to_pylist():
        counts[str(label(v))] += 1
    return min(classes, key=lambda c: (counts[c], c))


def _order(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def check_contract(table: Any, contract: Mapping[str, Any]) -> dict[str, Any]:
    """{"ok", "total", "counts": {"column: rule": n}, "violations": [{"column", "rule", "row", "value", "why"}]}, the first 100 by row.

    A contract is {"columns": {name: {"type", "required", "min", "max", "categories", "unique"}}}; all rules are optional. `required`
    means: there and never missing. BadInput if the contract itself cannot be read.
    """
    columns = contract.get("columns")
    if not isinstance(columns, Mapping) or set(contract) - {"columns"}:
        raise BadInput("The data contract cannot be read.", 'Write it as {"columns": {"age": {"type": "integer", "min": 18, "required": true}}}.')
    found: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for name, rules in columns.items():
        if not isinstance(rules, Mapping) or set(rules) - _RULES:
            wrong = ", ".join(sorted(set(rules) - _RULES)) if isinstance(rules, Mapping) else repr(rules)
            raise BadInput(f"The contract of column {name!r} has unknown rules: {wrong}.", f"Rules: {', '.join(sorted(_RULES))}.")
        for rule, rows, why in _broken(table, name, rules):
            counts[f"{name}: {rule}"] = max(1, len(rows))
            for row in rows[:CONTRACT_SHOWN] or [None]:
                value = table.column(name)[row].as_py() if row is not None else None
                found.append({"column": name, "rule": rule, "row": None if row is None else row + 1, "value": value, "why": why})
    found.sort(key=lambda v: (v["row"] or 0, v["column"]))
    return {"ok": not found, "total": sum(counts.values()), "counts": counts, "violations": found[:CONTRACT_SHOWN]}


def need_contract(table: Any, contract: Mapping[str, Any] | None, name: str) -> None:
    """Raise BadInput listing what breaks the contract (details carry the first 100 by row), if anything does."""
    if not contract:
        return
    report = check_contract(table, contract)
    if report["ok"]:
        return
    lines = [f"row {v['row']}: {v['why']}" if v["row"] else v["why"] for v in report["violations"][:5]]
    more = f"; and {report['total'] - len(lines):,} more" if report["total"] > len(lines) else ""
    raise BadInput(
        f"{name} breaks its data contract in {report['total']:,} places: {'; '.join(lines)}{more}.",
        "Fix the rows, or change the contract if it is wrong. Nothing was loaded.",
        counts=report["counts"],
        violations=[{**v, "value": str(v["value"]) if v["value"] is not None else None} for v in report["violations"]],
    )


def _broken(table: Any, name: str, rules: Mapping[str, Any]) -> list[tuple[str, list[int], str]]:
    """(rule, rows from 0, why) of each rule that does not hold; no rows where it is about the column itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name not in table.column_names:
        return [("required", [], f"column {name!r} is missing")] if rules.get("required") else []
    values = table.column(name)
    kind = kind_of(values.type)
    broken: list[tuple[str, list[int], str]] = []
    if rules.get("type") and rules["type"] != kind and (rules["type"], kind) != ("number", "integer") and values.null_count < len(values):
        return [("type", [], f"column {name!r} is {kind}; it must be {rules['type']}")]

    def add(rule: str, mask: Any, why: str) -> None:
        rows = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
        if rows:
            broken.append((rule, rows, why))

    if rules.get("required"):
        add("required", pc.is_null(values), f"{name!r} is missing")
    for rule, compare, word in (("min", pc.less, "under"), ("max", pc.greater, "over")):
        if rules.get(rule) is not None:
            if kind == "datetime":
                bound: Any = pa.scalar(_moment(rules[rule], name), values.type)
            elif kind in ("number", "integer") and isinstance(rules[rule], int | float):
                bound = pa.scalar(float(rules[rule]))
            else:
                raise BadInput(
                    f"The contract's {rule} of column {name!r} is {rules[rule]!r}, and the column is {kind}.", "Give a bound of that type."
                )
            add(rule, compare(values, bound), f"{name!r} is {word} {rules[rule]}")
    if rules.get("categories") is not None:
        allowed = {label(c) for c in rules["categories"]}
        bad = [v for v in pc.unique(values.drop_null()).to_pylist() if label(v) not in allowed]
        if bad:
            add("categories", pc.is_in(values, pa.array(bad, values.type)), f"{name!r} is none of {', '.join(sorted(map(str, allowed)))[:100]}")
    if rules.get("unique"):
        counted = pc.value_counts(values.drop_null())
        twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        add("unique", pc.is_in(values, twice) if len(twice) else pa.chunked_array([[False] * len(values)]), f"{name!r} occurs more than once")
    return broken


def _moment(text: Any, column: str) -> Any:
    from datetime import datetime, timezone

    from everloop.core.clock import from_iso

    try:
        return datetime.fromtimestamp(from_iso(str(text)), timezone.utc).replace(tzinfo=None)
    except BadInput as error:
        raise BadInput(f"The contract's bound of column {column!r}: {error.what}", error.hint) from None
