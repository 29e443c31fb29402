"""What columns are for (target, time, positive class, protected attributes, id), and which task that makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from everloop.assets.table_dates import time_column
from everloop.assets.table_parts import parts
from everloop.assets.table_stats import kind_of
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.limits import CLASSES

ROLES = ("target", "time", "positive", "protected", "id")
FEW = 20
"""A numeric target with at most this many distinct whole values is taken for classes."""
_MANY = 100_000
YES = ("1", "true", "yes", "y", "bad", "default", "defaulted", "fraud", "churn", "churned", "positive", "pos", "+")
"""Labels that usually name the class one looks for, in this order."""


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
    counted = _count(table, need_column(table, target, "The target column"))
    kind, n, distinct = counted.kind, counted.n, counted.distinct
    if not n:
        raise BadInput(f"The target column {target!r} has no value in any row.", "Choose another target, or fill it in.")
    if distinct == 1:
        raise BadInput(
            f"The target column {target!r} has one class only: {next(iter(counted.labels))!r} in all {n:,} rows.",
            "A model needs at least two classes; load rows of the other ones too, or choose another target.",
        )
    if kind == "datetime":
        raise BadInput(f"The target column {target!r} holds dates.", "Predict a number (days until then) or classes; make that column first.")
    few = distinct == 2 or (distinct <= FEW and distinct * 5 <= n)
    if kind in ("number", "integer") and positive is None and not (counted.whole and few):
        why = f"{target!r} is a number with {counted.said} distinct values in {n:,} rows, so this is regression."
        return {"task": "regression", "classes": [], "positive": None, "why": why}
    if distinct > CLASSES or (distinct > FEW and distinct * 3 > n):
        raise BadInput(
            f"The target column {target!r} has {counted.said} different values in {n:,} rows; that is an id or free text, not classes.",
            f"Choose a target with at most {CLASSES} classes.",
        )
    classes = sorted(counted.labels, key=_order)
    if positive is not None and label(positive) not in classes:
        raise BadInput(f"The positive class {label(positive)!r} does not occur in {target!r}.", f"Classes: {', '.join(classes[:20])}.")
    if distinct > 2:
        why = f"{target!r} is {kind} with {distinct} distinct values in {n:,} rows, so this is classification with {distinct} classes."
        return {"task": "multiclass", "classes": classes, "positive": None, "why": why}
    chosen = str(label(positive)) if positive is not None else _positive(counted.labels)
    why = f"{target!r} has two values, {classes[0]} and {classes[1]}, so this is binary classification; {chosen} is the positive class."
    return {"task": "binary", "classes": classes, "positive": chosen, "why": why}


@dataclass
class _Counted:
    """A column's values by how often they occur; given up over _MANY different ones."""

    kind: str
    n: int = 0
    distinct: int = 0
    whole: bool = True
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return f"over {_MANY:,}" if self.distinct > _MANY else f"{self.distinct:,}"


def _count(table: Any, target: str) -> _Counted:
    """A column's values, missing and infinite ones left out, counted part by part."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = _Counted(kind_of(table.schema.field(target).type))
    counts: Any = None
    for part in parts(table, [target]):
        values = part.column(target).drop_null()
        if counted.kind == "number":
            values = values.filter(pc.is_finite(values))
            counted.whole = counted.whole and pc.all(pc.equal(values, pc.floor(values))).as_py() is not False
        elif counted.kind != "integer":
            counted.whole = False
        counted.n += len(values)
        if counted.distinct > _MANY:
            continue
        found = pc.value_counts(values)
        some = pa.table({"v": found.field("values"), "n": found.field("counts")})
        counts = some if counts is None else pa.concat_tables([counts, some]).group_by("v").aggregate([("n", "sum")]).rename_columns(["v", "n"])
        counted.distinct = counts.num_rows
    if counts is not None and counted.distinct <= _MANY:
        for value, n in zip(counts.column("v").to_pylist(), counts.column("n").to_pylist(), strict=True):
            counted.labels[str(label(value))] = counted.labels.get(str(label(value)), 0) + n
    return counted


def _positive(counts: Mapping[str, int]) -> str:
    """The class one usually looks for: by its name, else the rarer one."""
    for word in YES:
        for c in sorted(counts, key=_order):
            if c.lower() == word:
                return c
    return min(counts, key=lambda c: (counts[c], c))


def _order(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)
