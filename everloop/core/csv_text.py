"""Rows as CSV that a spreadsheet can open without running anything (OWASP, CSV Injection)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV, no cell of which is a formula."""
    made = io.StringIO()
    csv.writer(made).writerows([safe(v) for v in row] for row in rows)
    return made.getvalue().encode("utf-8", "replace")


def safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets a quote before it, numbers stay as they are."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "" if value is None else value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value
