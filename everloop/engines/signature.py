"""What a model takes and gives: names, types, ranges, categories, missing values; enforced before a row reaches the model.

A signature is JSON in the model's manifest: `{"inputs": [{"name", "type", "required", ...}], "outputs": [{"name", "type"}]}`.
Types are number, integer, string, boolean and datetime. An input may declare `min`, `max` and `categories` (then they are
enforced), and carries what the training frame looked like (`dtype`, `missing`, `levels`), so that serving rebuilds the same frame.
"""

from __future__ import annotations

import difflib
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from everloop.core.errors import BadInput, TooLarge
from everloop.core.labels import label
from everloop.core.limits import INFER_ROWS
from everloop.core.types import Batch

TYPES = ("number", "integer", "string", "boolean", "datetime")
_WANTED = {
    "number": "a number",
    "integer": "a whole number",
    "string": "text",
    "boolean": "true or false",
    "datetime": "a time such as 2026-11-24T08:00:00Z",
}
_BAD = object()


@dataclass(frozen=True)
class Column:
    """One input: its name and type, whether a value is required, and the limits that are enforced when declared."""

    name: str
    type: str
    required: bool = True
    min: float | None = None
    max: float | None = None
    categories: tuple[Any, ...] | None = None
    dtype: str = ""
    missing: str = ""
    levels: tuple[Any, ...] = ()
    allowed: frozenset[Any] = frozenset()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Column:
        """A column from the manifest; BadInput if it has no name or an unknown type."""
        name, kind = body.get("name"), body.get("type")
        if not isinstance(name, str) or kind not in TYPES:
            raise BadInput(f"A signature's input {body!r} has no name or no known type.", f"Types: {', '.join(TYPES)}.")
        categories = body.get("categories")
        return cls(
            name,
            kind,
            bool(body.get("required", True)),
            body.get("min"),
            body.get("max"),
            None if categories is None else tuple(categories),
            str(body.get("dtype", "")),
            str(body.get("missing", "")),
            tuple(body.get("levels") or ()),
            frozenset(categories or ()),
        )

    def to_json(self) -> dict[str, Any]:
        """The column as the manifest keeps it; what is not declared is left out."""
        body: dict[str, Any] = {"name": self.name, "type": self.type, "required": self.required}
        for key in ("min", "max", "dtype", "missing"):
            if getattr(self, key) not in (None, ""):
                body[key] = getattr(self, key)
        if self.categories is not None:
            body["categories"] = list(self.categories)
        if self.levels:
            body["levels"] = list(self.levels)
        return body


@dataclass(frozen=True)
class Signature:
    """A model's inputs and outputs, compiled for fast checks."""

    inputs: tuple[Column, ...]
    outputs: tuple[Mapping[str, Any], ...] = ()
    names: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | Signature) -> Signature:
        """A signature from its manifest form (a Signature passes through)."""
        if isinstance(body, Signature):
            return body
        inputs = tuple(Column.from_json(c) for c in body.get("inputs") or ())
        names = frozenset(c.name for c in inputs)
        if len(names) != len(inputs):
            raise BadInput("The signature names an input twice.")
        return cls(inputs, tuple(dict(o) for o in body.get("outputs") or ()), names)

    def to_json(self) -> dict[str, Any]:
        """The manifest form."""
        return {"inputs": [c.to_json() for c in self.inputs], "outputs": [dict(o) for o in self.outputs]}


_compiled: dict[int, tuple[Any, Signature]] = {}
_lock = threading.Lock()


def compiled(signature: Mapping[str, Any] | Signature) -> Signature:
    """The compiled form of a manifest's signature, remembered for the dict it came from."""
    if isinstance(signature, Signature):
        return signature
    known = _compiled.get(id(signature))
    if known is not None and known[0] is signature:
        return known[1]
    made = Signature.from_json(signature)
    with _lock:
        if len(_compiled) > 1000:
            _compiled.clear()
        _compiled[id(signature)] = (signature, made)
    return made


def coerce(
    data: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]], signature: Mapping[str, Any] | Signature, *, extra: str = "refuse"
) -> Batch:
    """Rows (a list of dicts) or columns (a dict of sequences) as a Batch in the signature's order, every value checked.

    `extra` says what becomes of columns that the signature does not name: "refuse" or "ignore" (unless it looks like a column that is missing,
    misspelt). Missing values become None.
    BadInput names row (counting from 0), column, what was found and what was wanted; TooLarge above INFER_ROWS rows.
    """
    known = compiled(signature)
    if isinstance(data, Mapping):
        columns, n = _columns(data, known)
        if extra != "ignore":
            _refuse_extra(data, known, None)
    else:
        columns, n = _rows(data, known, extra)
    return Batch({c.name: _checked(c, columns[c.name], n) for c in known.inputs}, n)


def _columns(data: Mapping[str, Any], known: Signature) -> tuple[dict[str, Any], int]:
    sizes = {}
    for name, values in data.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise BadInput(f"Column {name!r} is {_found(values)}; a list of values is needed.")
        sizes[name] = len(values)
    n = max(sizes.values(), default=0)
    for name, size in sizes.items():
        if size != n:
            raise BadInput(f"Column {name!r} has {size} values; the longest column has {n}.", "Send columns of one length.")
    _check_count(n)
    columns: dict[str, Any] = {}
    for column in known.inputs:
        if column.name in data:
            columns[column.name] = data[column.name]
        elif column.required:
            raise _absent(column, data, known, None)
        else:
            _refuse_misspelt(column, data, known)
            columns[column.name] = [None] * n
    return columns, n


def _rows(rows: Sequence[Mapping[str, Any]], known: Signature, extra: str) -> tuple[dict[str, list[Any]], int]:
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Sequence):
        raise BadInput(f"The rows are {_found(rows)}; a list of objects is needed.", 'Send {"rows": [{"column": value, ...}]}.')
    _check_count(len(rows))
    names = known.names
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BadInput(f"Row {i} is {_found(row)}; an object with a value for each column is needed.", row=i)
        if row.keys() != names:
            if extra != "ignore":
                _refuse_extra(row, known, i)
            for column in known.inputs:
                if column.required and column.name not in row:
                    raise _absent(column, row, known, i)
    return {c.name: [row.get(c.name) for row in rows] for c in known.inputs}, len(rows)


def _check_count(n: int) -> None:
    if n == 0:
        raise BadInput("There are no rows to predict.", "Send at least one row.")
    if n > INFER_ROWS:
        raise TooLarge(f"{n} rows were sent; one request takes at most {INFER_ROWS}.", "Send them in parts, or use batch scoring over a file.")


def _refuse_extra(row: Mapping[str, Any], known: Signature, i: int | None) -> None:
    for name in row:
        if name not in known.names:
            near = difflib.get_close_matches(str(name), known.names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Columns: {', '.join(c.name for c in known.inputs)}."
            place = "" if i is None else f"Row {i}: "
            raise BadInput(f"{place}the model has no column {name!r}.", hint, row=i, column=str(name))


def _refuse_misspelt(column: Column, data: Mapping[str, Any], known: Signature) -> None:
    """A column may be left out, but not by a slip of the pen: its values would be taken for missing ones without a word."""
    others = {str(name).casefold(): str(name) for name in data if name not in known.names}
    near = difflib.get_close_matches(column.name.casefold(), others, 1, 0.8)
    if near and [c for c in near[0] if c.isdigit()] == [c for c in column.name if c.isdigit()]:  # q1 is no slip for q2
        raise BadInput(
            f"Column {column.name!r} is missing, and {others[near[0]]!r} is none of the model's columns.",
            f"Did you mean {column.name!r}? A column without values is sent as null.",
            column=column.name,
        )


def _absent(column: Column, row: Mapping[str, Any], known: Signature, i: int | None) -> BadInput:
    place = "" if i is None else f"Row {i}: "
    found = ", ".join(str(k) for k in list(row)[:50]) or "none"
    return BadInput(
        f"{place}column {column.name!r} is missing; the model needs {_WANTED[column.type]} there.",
        f"Columns found: {found}.",
        row=i,
        column=column.name,
    )


def _checked(column: Column, values: Any, n: int) -> Any:
    """The column's values in canonical form; raises BadInput at the first that does not fit."""
    fast = _whole(column, values)
    if fast is not None:
        return fast
    convert = _CONVERT[column.type]
    out = []
    for i, value in enumerate(values):
        if value is None or value != value or (type(value).__name__ in ("NAType", "NaTType")):
            if column.required:
                raise BadInput(f"Row {i}, column {column.name!r}: the value is missing; wanted {_WANTED[column.type]}.", row=i, column=column.name)
            out.append(None)
            continue
        good = convert(value)
        if good is _BAD:
            raise BadInput(
                f"Row {i}, column {column.name!r}: found {_found(value)}, wanted {_WANTED[column.type]}.",
                row=i,
                column=column.name,
                found=_plain(value),
            )
        if (column.min is not None and good < column.min) or (column.max is not None and good > column.max):
            raise BadInput(
                f"Row {i}, column {column.name!r}: found {good}, wanted a value from {column.min if column.min is not None else '-inf'} "
                f"to {column.max if column.max is not None else 'inf'}.",
                row=i,
                column=column.name,
                found=_plain(good),
            )
        if column.categories is not None and good not in column.allowed:
            wanted = ", ".join(repr(c) for c in column.categories[:20])
            raise BadInput(f"Row {i}, column {column.name!r}: found {good!r}, wanted one of {wanted}.", row=i, column=column.name, found=_plain(good))
        out.append(good)
    return out


def _whole(column: Column, values: Any) -> Any:
    """A column that is fine as it stands (a finite numpy array without limits to check), else None."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if column.min is not None or column.max is not None or column.categories is not None or not kind or getattr(values, "ndim", 1) != 1:
        return None
    if kind in "iu" and column.type in ("number", "integer"):
        return values
    if kind == "f" and column.type == "number":
        total = float(values.sum())
        return values if math.isfinite(total) else None
    return None


def _number(value: Any) -> Any:
    if type(value) is float or type(value) is int:
        return value if abs(value) != math.inf else _BAD
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_", "str", "str_"):
        return _BAD
    try:
        number = float(value)
    except (TypeError, ValueError):
        return _BAD
    return number if math.isfinite(number) else _BAD


def _integer(value: Any) -> Any:
    if type(value) is int:
        return value
    number = _number(value)
    if number is _BAD or number != int(number):
        return _BAD
    return int(number)


def _string(value: Any) -> Any:
    return str(value) if isinstance(value, str) else _BAD


def _boolean(value: Any) -> Any:
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    return _BAD


def _datetime(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return _BAD
        return value
    if type(value).__name__ == "datetime64":
        return str(value)
    return _BAD


_CONVERT: dict[str, Callable[[Any], Any]] = {"number": _number, "integer": _integer, "string": _string, "boolean": _boolean, "datetime": _datetime}


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def infer_signature(frame: Any, classes: Iterable[Any] | None = None, *, strict: bool = False, prediction: str = "") -> dict[str, Any]:
    """The signature of a model trained on `frame` (a pandas DataFrame of features alone, as the model saw it).

    A column without missing values in training is required. With `strict`, the ranges and categories seen are declared and so enforced
    in serving; without, new values pass and are left to drift monitors. `classes` (a classifier's) give the probability outputs;
    `prediction` is the type of the prediction ("number" when there are no classes, else taken from the classes).
    """
    inputs = []
    for name in frame.columns:
        inputs.append(_infer_column(str(name), frame[name], strict).to_json())
    if classes is None:
        outputs = [{"name": "prediction", "type": prediction or "number"}]
    else:
        classes = list(classes)
        outputs = [{"name": "prediction", "type": prediction or type_of(classes)}]
        outputs += [{"name": f"probability_{label(c)}", "type": "number"} for c in classes]
    return {"inputs": inputs, "outputs": outputs}


def _infer_column(name: str, values: Any, strict: bool) -> Column:
    dtype = str(values.dtype)
    present = values.dropna()
    kind = getattr(values.dtype, "kind", "O")
    levels: tuple[Any, ...] = ()
    if dtype == "category":
        levels = tuple(v.item() if hasattr(v, "item") else v for v in values.cat.categories)
        type_ = type_of(levels)
    elif kind == "M" or dtype.startswith("datetime"):
        type_ = "datetime"
    elif kind == "b" or dtype == "boolean":
        type_ = "boolean"
    elif kind in "iu" or dtype.startswith(("Int", "UInt")):
        type_ = "integer"
    elif kind == "f" or dtype.startswith("Float"):
        type_ = "number"
    else:
        type_ = type_of(present.head(1000).tolist())
    gaps = values[values.isna()]
    missing = "" if not len(gaps) else ("none" if kind == "O" and dtype == "object" and gaps.iloc[0] is None else "nan")
    low = high = categories = None
    if strict and len(present) and type_ in ("number", "integer") and dtype != "category":
        low, high = float(present.min()), float(present.max())
    if strict and type_ == "string" and present.nunique() <= 1000:
        categories = tuple(sorted(str(v) for v in present.unique()))
    return Column(name, type_, not len(gaps), low, high, categories, dtype, missing, levels)


def numbered(names: Iterable[Any] | None, count: int | None) -> dict[str, Any]:
    """The signature of a model of which only its columns' names, or how many there are, is known: numbers, none of them required. BadInput where
    neither is."""
    if names is None and not count:
        raise BadInput("It is not known which columns the model reads.", "Log it with a signature or an input_example, or give a sample.")
    known = [f"x{i}" for i in range(int(count or 0))] if names is None else [str(name) for name in names]
    return {"inputs": [{"name": name, "type": "number", "required": False, "dtype": "float64"} for name in known], "outputs": []}


def type_of(values: Sequence[Any]) -> str:
    """The type that all values of a column share; texts where they differ."""
    kinds = {type(v.item() if hasattr(v, "item") else v) for v in values}
    if kinds and kinds <= {bool}:
        return "boolean"
    if kinds and kinds <= {int}:
        return "integer"
    if kinds and kinds <= {int, float}:
        return "number"
    if kinds and kinds <= {datetime, date}:
        return "datetime"
    return "string"


def to_frame(batch: Batch, signature: Mapping[str, Any] | Signature) -> Any:
    """The batch as the pandas DataFrame that the model saw in training: same order, dtypes, and spelling of missing values."""
    import pandas as pd

    known = compiled(signature)
    return pd.DataFrame({c.name: _series(c, batch.columns[c.name]) for c in known.inputs})


def _series(column: Column, values: Any) -> Any:
    import numpy as np
    import pandas as pd

    if column.dtype == "category":
        return pd.Categorical([None if v is None else v for v in values], categories=list(column.levels) or None)
    if column.type == "datetime":
        times = pd.Series(pd.to_datetime(list(values), format="ISO8601", utc=True))
        return times.dt.tz_localize(None) if "UTC" not in column.dtype and "," not in column.dtype else times
    if column.type in ("number", "integer") and column.dtype != "object":
        array = np.array([math.nan if v is None else v for v in values], dtype=np.float64) if not hasattr(values, "dtype") else np.asarray(values)
        if column.dtype in ("float32", "float64", "int64", "int32") and (column.dtype[0] == "f" or not np.isnan(array).any()):
            return array.astype(column.dtype)
        return array
    if column.type == "boolean" and not any(v is None for v in values):
        return np.array(list(values), dtype=object if column.dtype == "object" else bool)
    gap = None if column.missing == "none" else math.nan
    made = np.empty(len(values), dtype=object)
    made[:] = [gap if v is None else v for v in values]
    return made
