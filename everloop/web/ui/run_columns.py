"""Columns of the table of runs: named in the address (`col=metrics.auc&col=params.depth&pin=metrics.auc`), so that every view is a link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from everloop.assets import run_table
from everloop.web.ui import curves
from everloop.web.ui.page import View
from everloop.web.ui.show import chip, duration, number, text, when

METRICS, PARAMS = 6, 6
"""Metrics, and params, that the table shows when not told."""
COLUMNS = 60
"""Columns that a table shows at most."""
CELL_CHARS = 40
"""Length of a param's values for it to get a column by itself; longer values are cut."""
DASH = Markup('<span class="none">\u2013</span>')
ATTRIBUTES = {
    "status": ("Status", "status"),
    "kind": ("Kind", "kind"),
    "experiment": ("Experiment", ""),
    "started": ("Started", "started_at"),
    "took": ("Took", ""),
    "created_by": ("By", "created_by"),
    "pipeline": ("Pipeline", "pipeline"),
    "commit": ("Commit", ""),
    "id": ("Id", "id"),
}
"""Attributes that can be columns: label, and the name to order by ("": cannot)."""
FIRST = ("status", "kind", "started", "took")
SIDES = ("metrics", "params", "tags")


@dataclass(frozen=True)
class Column:
    """One column: `side` is metrics, params, tags or attributes. `order` is how the filter language calls it ("": no order)."""

    side: str
    key: str
    pinned: bool = False

    @property
    def name(self) -> str:
        """As the address has it."""
        return f"{self.side}.{self.key}"

    @property
    def label(self) -> str:
        """Its heading."""
        return ATTRIBUTES[self.key][0] if self.side == "attributes" else self.key

    @property
    def numeric(self) -> bool:
        """Whether it is aligned as numbers are."""
        return self.side == "metrics" or self.name == "attributes.took"

    @property
    def order(self) -> str:
        """What to order by."""
        if self.side == "attributes":
            return f"attributes.{ATTRIBUTES[self.key][1]}" if ATTRIBUTES[self.key][1] else ""
        return run_table.named(self.side, self.key)

    def plain(self, run: Mapping[str, Any]) -> Any:
        """A run's value, None where it has none."""
        if self.side != "attributes":
            return run[self.side].get(self.key)
        if self.key == "took":
            return run["ended_at"] - run["started_at"] if run["ended_at"] else None
        if self.key == "commit":
            return (run["code"] or {}).get("commit")
        return run["started_at"] if self.key == "started" else run[self.key]

    def shown(self, run: Mapping[str, Any]) -> Any:
        """A run's value as a cell of the table."""
        value = self.plain(run)
        if value is None or value == "":
            return DASH
        if self.side == "metrics":
            return number(value)
        if self.side == "attributes":
            special = {"status": chip, "started": when, "took": duration, "commit": lambda v: str(v)[:10]}
            return special[self.key](value) if self.key in special else str(value)
        return text(value, CELL_CHARS)


def read(name: str, pinned: bool = False) -> Column | None:
    """A column from its name in an address; None for what is no column."""
    side, _, key = name.strip().partition(".")
    side = {"metric": "metrics", "param": "params", "tag": "tags", "attribute": "attributes"}.get(side, side)
    known = key in ATTRIBUTES if side == "attributes" else bool(key) and side in SIDES
    return Column(side, key, pinned) if known else None


def chosen(page: View, runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns that the address names, else those that suit the runs shown; pinned ones first."""
    pins = page.query.getlist("pin")
    told = [part for one in page.query.getlist("columns") for part in one.split(",")] + page.query.getlist("col")
    if told:
        found = [column for name in dict.fromkeys([*pins, *told]) if (column := read(name, name in pins))]
    else:
        rest = [c for c in fitting(runs) if c.name not in pins]
        found = [column for name in dict.fromkeys(pins) if (column := read(name, True))] + rest
    return found[:COLUMNS]


def fitting(runs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """A few columns for runs when none are named: attributes, the metrics and the short params that most of them have and that differ."""
    metrics = [k for k in keys(runs, "metrics") if not k.startswith((curves.PREFIX, curves.IMPORTANCE, curves.SYSTEM))]
    short = [k for k in keys(runs, "params") if max(len(str(one["params"].get(k, ""))) for one in runs) <= CELL_CHARS]
    short.sort(key=lambda k: len({one["params"].get(k) for one in runs}) <= 1)
    found = [*(("attributes", k) for k in FIRST), *(("metrics", k) for k in metrics[:METRICS]), *(("params", k) for k in short[:PARAMS])]
    return [Column(side, key) for side, key in found]


def keys(runs: Sequence[Mapping[str, Any]], side: str) -> list[str]:
    """The keys that runs have on a side, those that most of them have first."""
    counts = Counter(key for one in runs for key in one[side])
    return [key for key, _ in counts.most_common()]
