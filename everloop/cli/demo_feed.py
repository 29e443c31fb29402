"""What the credit demo feeds the loop with: history to train on, and weeks that come one by one, with outcomes that are known later.

Two makers: the loan generator of build/credit.py (its shift is documented there), and any table of one's own, whose first part is history
and whose rest is played week by week. A feed knows when each outcome is known, so that nothing is trained or judged on the future.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEEK = 7 * 86_400.0
HISTORY_WEEKS, SHIFT_WEEK, LAST_WEEK = 18, 22, 40
"""The generator's weeks: history before the first replayed week, the first week of the new world, one past the last."""
DATASET = "loans"
KEEP_WEEKS = 8
"""A weekly load holds the newest so many weeks' worth of rows whose outcome is known."""
HISTORY_SHARE = 0.6
"""The first part of one's own table that is history."""
WINDOW_ROWS, WINDOWS, KEEP_ROWS = 100, 20, 500
"""Of one's own table: rows that a replayed window holds at least, the number of windows at most, rows that a weekly load keeps at least."""


@dataclass(frozen=True)
class Week:
    """One week of traffic: rows with features and outcome, when each outcome is known (epoch seconds), begin and end."""

    number: int
    rows: Any
    known: list[float]
    since: float
    until: float


@dataclass
class Feed:
    """History and weeks of one portfolio. `roles` as client.data.add takes them; `keep` is how many rows a
    weekly load holds, `first` how many the history does; `notes` are said aloud."""

    name: str
    dataset: str
    roles: dict[str, Any]
    features: list[str]
    history: Any
    history_known: list[float]
    weeks: list[Week]
    keep: int
    first: int
    shift_week: int | None = None
    reads: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def target(self) -> str:
        """The column that is predicted."""
        return str(self.roles["target"])

    @property
    def begins(self) -> float:
        """When the first replayed week begins."""
        return self.weeks[0].since

    def became_known(self, after: float, until: float) -> Any:
        """Rows whose outcome became known after the one moment and by the other, oldest first (of the history its newest `first`)."""
        import pandas as pd

        parts = [self.history[[after < k <= until for k in self.history_known]]]
        parts += [w.rows[[after < k <= until for k in w.known]] for w in self.weeks if w.since < until]
        found = [part for part in parts if len(part)]
        return (pd.concat(found) if found else self.history.iloc[:0]).iloc[-self.first :]


def generated(seed: int, per_week: int = 500, now: float | None = None) -> Feed:
    """Loan applications whose last week ends today (UTC); the world changes in week SHIFT_WEEK, outcomes come 4 to 6 weeks late."""
    from everloop.build import credit
    from everloop.core.clock import iso

    today = (now or time.time()) // 86_400 * 86_400
    begin = today - LAST_WEEK * WEEK
    frames = credit.weeks(start=iso(begin)[:10], n=LAST_WEEK, per_week=per_week, seed=seed, shift_week=SHIFT_WEEK)
    weeks = []
    for number, rows in enumerate(frames):
        at = [moment.timestamp() for moment in rows["applied_at"].dt.tz_localize("UTC")]
        known = [credit.known_at(a, i) for a, i in zip(at, rows["application_id"], strict=True)]
        weeks.append(Week(number, rows, known, begin + number * WEEK, begin + (number + 1) * WEEK))
    import pandas as pd

    past = weeks[:HISTORY_WEEKS]
    roles = {"target": credit.TARGET, "time": credit.TIME, "id": credit.ID, "protected": list(credit.PROTECTED), "positive": credit.POSITIVE}
    return Feed(
        "credit",
        DATASET,
        roles,
        list(credit.FEATURES),
        pd.concat([w.rows for w in past]),
        [k for w in past for k in w.known],
        weeks[HISTORY_WEEKS:],
        KEEP_WEEKS * per_week,
        KEEP_WEEKS * per_week,
        SHIFT_WEEK,
        notes=[f"{per_week} applications a week, {len(past)} weeks of history, {len(weeks) - len(past)} to come; seed {seed}"],
    )


def from_table(client: Any, path: Path, target: str, when: str | None, positive: str | None, now: float | None = None) -> Feed:
    """One's own CSV or Parquet: loaded whole as `dataset:NAME-file` (BadInput says what is wrong in it), its first part history, the rest played.

    Rows go by the time column, else in the file's order. An outcome counts as known one window after its row, as the file does not say when.
    """
    from everloop.core.errors import BadInput

    name = _slug(path.stem)
    asset = client.data.add(f"{name}-file", path, target=target, time=when, positive=positive)
    manifest = asset["manifest"]
    roles = {k: v for k, v in manifest["roles"].items() if v}
    frame = client.data.frame(asset["ref"])
    asked, when = when, roles.get("time")
    none = f"{asked!r} (--time) is no column of dates" if asked else "there is no column of dates (--time)"
    order = f"by {when}" if when else f"in the file's order, as {none}"
    if when:
        frame = frame.sort_values(when, kind="stable")
    cut = int(len(frame) * HISTORY_SHARE)
    rest = len(frame) - cut
    count = max(1, min(WINDOWS, rest // WINDOW_ROWS))
    if rest < 1 or cut < 2:
        raise BadInput(
            f"{path} has {len(frame)} rows; that is too few to train on some and replay the rest.", f"Give at least {2 * WINDOW_ROWS} rows."
        )
    end = (now or time.time()) // 86_400 * 86_400
    begin = end - count * WEEK
    weeks = []
    for number in range(count):
        rows = frame.iloc[cut + rest * number // count : cut + rest * (number + 1) // count]
        since = begin + number * WEEK
        weeks.append(Week(number, rows, [since + 2 * WEEK] * len(rows), since, since + WEEK))
    left_out = {roles["target"], roles.get("time"), roles.get("id"), *roles.get("protected", ())}
    features = [c["name"] for c in manifest["schema"] if c["name"] not in left_out and c["type"] != "datetime"]
    notes = [
        f"{len(frame)} rows {order}: {cut} are history, {rest} are replayed in {count} windows of about {rest // count} rows",
        "each window is played as one week, its outcomes are known one week later",
    ]
    keep = min(cut, max(KEEP_ROWS, KEEP_WEEKS * (rest // count)))
    return Feed(name, name, roles, features, frame.iloc[:cut], [begin] * cut, weeks, keep, cut, reads=[asset["ref"]], notes=notes)


def _slug(text: str) -> str:
    """A name that assets and endpoints may have."""
    import re

    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "table"


def plain_rows(frame: Any, columns: list[str]) -> list[dict[str, Any]]:
    """Rows as JSON can carry them: missing is None, numbers and texts of Python's own."""
    import pandas as pd

    out = []
    for row in frame[columns].astype(object).to_dict("records"):
        out.append({k: None if pd.isna(v) else v.item() if hasattr(v, "item") else v for k, v in row.items()})
    return out
