"""Batch scoring: the step `score` sends a dataset version or a file through a release, in chunks, and keeps the predictions as a dataset version or a file.

Params: `endpoint` (its live release answers, and the predictions are its traffic, so its monitors see them) or `release` (an exact version or
alias of a release, `release:credit@champion`; recorded apart); `dataset` (a reference) or `file` (CSV or Parquet where the worker runs);
`out` (name of the dataset; NAME-scored by default) or `out_file` (a .parquet path where the worker runs); `inputs` True keeps the input
columns beside the predictions; `at` (event time of the calls, epoch seconds); `absent` "refuse" (default: a file without a column that the model
takes is not scored) or "missing" (such a column counts as missing in every row).

Every prediction has an id that `everloop why` takes. Rows that the release cannot take are listed in the run's refused.jsonl and the others
are scored; where no row can be, BadInput says why and nothing is kept.
"""

from __future__ import annotations

import io
import json
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import SCORE_CHUNK, SCORE_REFUSED_SHOWN

PIPELINE: dict[str, Any] = {"steps": [{"name": "score", "call": "everloop.build.scoring:score", "after": []}], "params": {}}
"""`client.endpoints.score("credit", "new.csv", "scored.parquet")` and `everloop predict` use it under the name `batch-scoring`."""
OWN = ("row", "prediction", "prediction_id")


def score(step: Any) -> dict[str, Any]:
    """Score the rows; answers {"out", "dataset"?, "rows", "scored", "refused", "refused_rows" (the first few), "release", "traces"}."""
    params = step.params
    target = str(params.get("endpoint") or params.get("release") or "")
    if not target or (params.get("endpoint") and params.get("release")):
        raise BadInput("Say what scores the rows: `endpoint` or `release`.", 'For example {"endpoint": "credit", "dataset": "dataset:new"}.')
    if bool(params.get("dataset")) == bool(params.get("file")):
        raise BadInput("Say which rows: `dataset` or `file`.", 'For example {"endpoint": "credit", "dataset": "dataset:new"}.')
    if params.get("release") and not target.startswith("release:"):
        target = f"release:{target}"
    parts, source, kept, names = _rows(step)
    _need_columns(step, target, names, source)
    with tempfile.TemporaryDirectory() as folder:
        made = _Written(Path(folder) / "scored.parquet")
        try:
            for start, part in parts:
                _chunk(step, target, start, part, made, kept if not params.get("inputs") else None)
        finally:
            made.close()
        return _finish(step, target, source, made)


class _Written:
    """What was scored so far, in a Parquet file that grows by chunks."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.scored = path, 0, 0
        self.refused: list[dict[str, Any]] = []
        self.refused_count = 0
        self.releases: dict[str, int] = {}
        self.traces: list[str] = []
        self.taken = array("q")
        self._writer: Any = None

    def add(self, columns: dict[str, list[Any]]) -> None:
        """Append columns; the first chunk's types hold for all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            table = pa.table(columns)
            kinds = [pa.field(f.name, pa.float64() if pa.types.is_null(f.type) else f.type) for f in table.schema]
            self._writer = pq.ParquetWriter(str(self.path), pa.schema(kinds), compression="zstd")
        self._writer.write_table(pa.table(columns, schema=self._writer.schema))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _need_columns(step: Any, target: str, names: list[str], source: str) -> None:
    """BadInput where the rows lack columns that the model takes, unless `absent` is "missing"."""
    absent = str(step.params.get("absent") or "refuse")
    if absent not in ("refuse", "missing"):
        raise BadInput(f"absent is {absent!r}.", "One of: refuse, missing.")
    ref = target if target.startswith("release:") else next((p["ref"] for p in step.client.endpoints.get(target)["live"] if p["ref"]), None)
    if ref is None:
        raise NotFound(f"Nothing is live behind the endpoint {target!r}.", "Promote a version of its release first.")
    pins = step.client.assets.get(ref)["manifest"]["pins"]
    if "model" not in pins:
        raise BadInput(f"{ref} is a chat release; it predicts nothing from rows.", "Name a predictive endpoint or release.")
    wanted = [i["name"] for i in step.client.assets.get(pins["model"])["manifest"]["signature"]["inputs"]]
    lacking = [name for name in wanted if name not in names]
    if lacking and (absent == "refuse" or len(lacking) == len(wanted)):
        raise BadInput(
            f"{source} lacks {len(lacking)} of the {len(wanted)} columns that {ref} takes: {', '.join(lacking[:20])}.",
            f"Its columns: {', '.join(names[:30])}. To count them as missing in every row: absent=missing.",
        )


def _rows(step: Any) -> tuple[Iterator[tuple[int, Any]], str, list[str], list[str]]:
    """(chunks as (first row's place, Arrow table), where they come from, columns to keep: the id and time, all columns)."""
    import pyarrow.parquet as pq

    if step.params.get("file"):
        from everloop.assets import tables

        path = Path(str(step.params["file"])).expanduser()
        table = tables.read(path).table
        return _cut(table), str(path), [], list(table.column_names)
    named = step.client.data.dataset(str(step.params["dataset"]))
    asset = named.asset
    if asset["manifest"].get("format") != "table":
        raise BadInput(f"{asset['ref']} is a set of documents, not a table.", "Name a dataset that was loaded from CSV or Parquet.")
    roles = asset["manifest"]["roles"]
    if named.part:
        part = named.arrow()
        return _cut(part), named.ref, [c for c in (roles["id"], roles["time"]) if c], list(part.column_names)
    file = pq.ParquetFile(io.BytesIO(step.client.assets.get_object(asset["manifest"]["files"][0]["digest"])))
    return _batches(file), asset["ref"], [c for c in (roles["id"], roles["time"]) if c], list(file.schema_arrow.names)


def _batches(file: Any) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa

    start = 0
    for batch in file.iter_batches(batch_size=SCORE_CHUNK):
        yield start, pa.Table.from_batches([batch])
        start += batch.num_rows


def _cut(table: Any) -> Iterator[tuple[int, Any]]:
    for start in range(0, table.num_rows, SCORE_CHUNK):
        yield start, table.slice(start, SCORE_CHUNK)


def _chunk(step: Any, target: str, start: int, part: Any, made: _Written, kept: list[str] | None) -> None:
    from everloop.assets.table_stats import native

    columns = {name: native(part.column(name)) for name in part.column_names}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    said = step.client.endpoints.predict(target, rows, at=step.params.get("at"), user="batch", session=step.run.id, partial=True)
    made.rows += part.num_rows
    places = [i for i, one in enumerate(said["predictions"]) if one is not None]
    made.refused_count += len(said["refused"])
    made.refused += [{**one, "row": start + one["row"] + 1} for one in said["refused"]]
    if places:
        answers = [said["predictions"][i] for i in places]
        shown = {"row": [start + i + 1 for i in places]}
        for name in part.column_names if kept is None else kept:
            shown[name if name not in (*OWN, *answers[0]) else f"input_{name}"] = [columns[name][i] for i in places]
        shown.update({name: [a.get(name) for a in answers] for name in answers[0]})
        made.add(shown)
        made.scored += len(places)
        made.taken.extend(start + i for i in places)
        made.releases[said["release"]] = made.releases.get(said["release"], 0) + len(places)
        made.traces.append(said["trace_id"])
    step.run.log_metric("rows_scored", made.scored, step=made.rows)
    step.log(f"{made.rows:,} rows read, {made.scored:,} scored")


def _finish(step: Any, target: str, source: str, made: _Written) -> dict[str, Any]:
    if not made.scored:
        why = made.refused[0]["why"] if made.refused else "there are no rows"
        raise BadInput(
            f"None of the {made.rows:,} rows of {source} could be scored: row 1: {why}", "Bring the columns into the shape the model takes."
        )
    if made.refused:
        step.run.log_artifact("".join(json.dumps(one, default=str) + "\n" for one in made.refused).encode(), "refused.jsonl")
    said: dict[str, Any] = {"rows": made.rows, "scored": made.scored, "refused": made.refused_count, "releases": made.releases}
    said |= {"refused_rows": made.refused[:SCORE_REFUSED_SHOWN], "release": max(made.releases, key=lambda r: made.releases[r])}
    said |= {"traces": made.traces[:100]}
    if step.params.get("out_file"):
        path = Path(str(step.params["out_file"])).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.path.read_bytes())
        return {**said, "out": str(path)}
    name = str(step.params.get("out") or f"{target.removeprefix('release:').partition('@')[0]}-scored")
    reads = [*([source] if source.startswith("dataset:") else []), *made.releases]
    origin = {"kind": "scored", "of": source, "releases": made.releases, "run": step.run.id}
    asset = step.client.data.add(name, made.path, roles={}, run=step.run.id, reads=reads, origin=origin)
    if source.startswith("dataset:"):
        step.client.lineage.derives(asset["ref"], {source: made.taken}, run=step.run.id, why=f"{made.refused_count:,} rows were refused")
    step.log(f"{asset['ref']}: {made.scored:,} predictions, {made.refused_count:,} rows refused")
    return {**said, "out": asset["ref"], "dataset": asset["ref"]}
