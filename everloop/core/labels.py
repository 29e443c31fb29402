"""One spelling for class labels, so that a dataset's 1, a model's 1.0 and a JSON "1" are the same class."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def label(value: Any) -> str | None:
    """The canonical text of a class label: None for missing; "true"/"false" for booleans; whole floats without ".0"."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if type(value).__name__ in ("bool", "bool_"):
        return "true" if value else "false"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def as_written(classes: Iterable[str], values: Any) -> list[Any]:
    """Canonical class labels in the type that a column's values (a numpy array or pandas series) have: 1 for "1" where they are whole numbers,
    True for "true" where they are booleans, else the text itself."""
    kind = values.dtype.kind
    if kind == "b":
        return [c == "true" for c in classes]
    names = list(classes)
    if kind in "iu" or (kind == "f" and all(c.lstrip("-").isdigit() for c in names)):
        return [int(c) for c in names]
    return [float(c) for c in names] if kind == "f" else list(names)
