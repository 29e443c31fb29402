"""Which rows or documents of a version came into what was made of it, where a step declared it.

One record a declaration. The numbers themselves are an object: a Parquet file of runs (`start`, `length`, `to`), each a stretch of neighbouring rows
of the source that became neighbouring rows of the target from `to` on; `to` is -1 where it is not known which. Rows count from 0 in the order in
which they are stored, documents in the order of the manifest's list. A mask over a million rows is some kilobytes to some hundreds of them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from everloop.assets import lineage, splits
from everloop.core.errors import BadInput
from everloop.core.limits import DERIVED_WHY_CHARS
from everloop.store import audit
from everloop.store.records import Tx
from everloop.store.schema import derivations

FORMS = ("all", "none", "rows", "part")
UNKNOWN = -1
"""Place in the target of a row that went into it, nobody said where."""


class Runs(NamedTuple):
    """Stretches of rows: arrays of equal length, sorted by `start`."""

    start: Any
    length: Any
    to: Any


def runs_of(rows: Any, to: Any = None) -> Runs:
    """Pairs of (row of the source, row of the target) as stretches; `to` None means that the places in the target are not known."""
    import numpy as np

    rows = np.asarray(rows, dtype=np.int64)
    places = np.full(len(rows), UNKNOWN, dtype=np.int64) if to is None else np.asarray(to, dtype=np.int64)
    order = np.lexsort((places, rows))
    rows, places = rows[order], places[order]
    known = places != UNKNOWN
    step, next_ = np.diff(rows), np.diff(places)
    keep = np.r_[True, (step != 0) | (next_ != 0)][: len(rows)]
    rows, places, known = rows[keep], places[keep], known[keep]
    step, next_ = np.diff(rows), np.diff(places)
    goes_on = (step == 1) & np.where(known[:-1] & known[1:], next_ == 1, ~known[:-1] & ~known[1:])
    first = np.flatnonzero(np.r_[True, ~goes_on][: len(rows)])
    return Runs(rows[first], np.diff(np.r_[first, len(rows)]), places[first])


def pack(runs: Runs) -> bytes:
    """Stretches as the bytes of an object."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    names = ("start", "length", "to")
    table = pa.table(dict(zip(names, (pa.array(column, pa.int64()) for column in runs), strict=True)))
    how = dict.fromkeys(names, "DELTA_BINARY_PACKED")
    pq.write_table(table, file, compression="zstd", use_dictionary=False, column_encoding=how, store_schema=False)
    return file.getvalue()


def unpack(data: bytes) -> Runs:
    """The stretches that `pack` wrote."""
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    return Runs(*(table.column(name).to_numpy() for name in ("start", "length", "to")))


def of_part(data: bytes, part: str, into: int | None) -> Runs:
    """The rows of a split, from the object that says which row is where; in a target of as many rows they are in their order."""
    import numpy as np

    rows = np.flatnonzero(splits.mask(data, part).to_numpy(zero_copy_only=False))
    return runs_of(rows, np.arange(len(rows)) if into == len(rows) else None)


def follow(runs: Runs, rows: Any) -> tuple[bool, Any]:
    """(whether any of the rows came into the target, their places there); the places are None where they are not known. `rows` is sorted."""
    import numpy as np

    low, high = np.searchsorted(rows, runs.start), np.searchsorted(rows, runs.start + runs.length)
    hits = high - low
    total = int(hits.sum())
    if not total:
        return False, None
    found = np.repeat(low, hits) + np.arange(total) - np.repeat(np.cumsum(hits) - hits, hits)
    begins, places = np.repeat(runs.start, hits), np.repeat(runs.to, hits)
    if (places == UNKNOWN).any():
        return True, None
    return True, np.unique(rows[found] - begins + places)


def declare(tx: Tx, source: str, target: str, form: str, *, run: str = "", why: str = "", **more: Any) -> dict[str, Any]:
    """Keep a declaration: what of `source` came into `target` (exact references, or `run:ID`). The same run's next one about the same two replaces it;
    another's stands beside it. `more` is part, digest, count, of, into. BadInput for a reason that is too long."""
    assert form in FORMS, form
    if len(why) > DERIVED_WHY_CHARS:
        raise BadInput(f"The reason is {len(why)} characters long; at most {DERIVED_WHY_CHARS} are allowed.")
    row: dict[str, Any] = {"project": tx.project, "source": source, "target": target, "run": run, "form": form, "part": "", "digest": None}
    row |= {"count": None, "of": None, "into": None, "why": why, "at": tx.now, "by": tx.who.name, **more}
    keys = ("project", "source", "target", "run")
    tx.upsert(derivations, row, update=[key for key in row if key not in keys])
    lineage.link(tx, source, target, "read" if target.startswith("run:") else "derived")
    audit.record(tx, "lineage.derive", target, source=source, form=form, count=row["count"], of=row["of"], run=run)
    return shown(row)


def declare_part(tx: Tx, source: str, part: str, manifest: dict[str, Any], target: str, into: int | None, run: str = "") -> None:
    """Keep that one split of a dataset version was read; BadInput lists the splits there are."""
    splits.need_part(manifest, source, part)
    held = manifest["splits"]
    count = held["names"][part]
    more = {"part": part, "digest": held["digest"], "count": count, "of": sum(held["names"].values()), "into": into}
    declare(tx, source, target, "part", run=run, why=f"only the part {part} was read", **more)


def forget_parts(tx: Tx, source: str, target: str, run: str) -> None:
    """Drop what was kept by itself when `target` was registered as made from a split: a step tells now which rows of it."""
    t = derivations.c
    mine = (t.project == tx.project, t.source == source, t.target == target, t.form == "part", t.run.in_(("", run)))
    tx.run(derivations.delete().where(*mine))


def among(tx: Tx, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Declarations whose source is one of `nodes`."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(nodes), 500):
        found += tx.rows(sa.select(derivations).where(derivations.c.project == tx.project, derivations.c.source.in_(nodes[start : start + 500])))
    return found


def of(tx: Tx, target: str) -> list[dict[str, Any]]:
    """What was declared of where a version or run came from, as everyone sees it."""
    t = derivations.c
    return [shown(row) for row in tx.rows(sa.select(derivations).where(t.project == tx.project, t.target == target).order_by(t.at, t.source))]


def rows_in(manifest: dict[str, Any]) -> int | None:
    """How many rows or documents a version has that can be told apart; None where it has none."""
    if manifest.get("format") == "documents":
        return len(manifest.get("documents") or [])
    return int(manifest["rows"]) if manifest.get("format") == "table" else None


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A declaration as everyone sees it."""
    return {key: row[key] for key in ("source", "target", "run", "form", "part", "count", "of", "why", "at", "by")}
