"""`everloop labels join`: labels that came late, in a file, to the predictions that they are of."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import BadInput

ID = "prediction_id"


def join(
    file: Path = typer.Argument(help="CSV, JSON lines or Parquet, a row a label"),
    on: str = typer.Option(ID, help="The column that says which prediction: prediction_id, or a feature that names the case, e.g. loan_id"),
    label: str = typer.Option("label", help="The column with the label"),
    at: str = typer.Option(None, help="The column that says when it was known: epoch seconds or ISO 8601 (default: now)"),
    endpoint: str = typer.Option(None, help="Joined on a feature: the endpoint whose predictions these are"),
    since: str = typer.Option(None, help="Joined on a feature: predictions from this time on"),
    source: str = typer.Option("labels", help="Where the labels come from"),
    as_json: bool = screen.JSON,
) -> None:
    """Join late labels to predictions, by their ids or by a feature. A label that comes again replaces the one before."""
    if on != ID and not endpoint:
        raise BadInput(f"Joining on {on!r} needs to know whose predictions these are.", "Add --endpoint NAME.")
    client = screen.client()
    ids = None if on == ID else _predictions(client, on, endpoint, since)
    counts = {"labels": 0, "rows": 0, "without_label": 0, "without_prediction": 0}

    def found() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(_rows(file), 1):
            counts["rows"] += 1
            if on not in row or label not in row:
                missing = on if on not in row else label
                raise BadInput(f"Row {number} of {file} has no column {missing!r}.", f"It has: {', '.join(map(str, row))}.")
            if row[label] in (None, ""):
                counts["without_label"] += 1
                continue
            named = [str(row[on])] if ids is None else ids.get(str(row[on]), [])
            counts["without_prediction"] += not named
            for one in named:
                yield {ID: one, "label": row[label], "at": _moment(row[at], number) if at else None}

    counts["labels"] = client.traces.labels(found(), source)["added"]
    if as_json:
        return screen.say_json(counts)
    typer.echo(f"{screen.counted(counts['labels'], 'label')} added, from {screen.counted(counts['rows'], 'row')} of {file.name}")
    for key, why in (("without_label", "have no label"), ("without_prediction", f"have a {on} that no prediction of {endpoint} has")):
        if counts[key]:
            typer.echo(f"{screen.counted(counts[key], 'row')} left out: they {why}")


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise BadInput(f"There is no file {file}.", "Give a CSV, JSON lines or Parquet file.")
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    elif file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as opened:
            yield from csv.DictReader(opened)
    else:
        with file.open(encoding="utf-8") as opened:
            for number, text in enumerate(opened, 1):
                if text.strip():
                    yield _object(text, number, file)


def _object(text: str, number: int, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"Line {number} of {file} is not JSON: {error}.", "One object a line, or name the file .csv or .parquet.") from None
    if not isinstance(found, dict):
        raise BadInput(f"Line {number} of {file} is no object.", 'For example: {"prediction_id": "...", "label": 1}')
    return found


def _moment(value: Any, number: int) -> float:
    from everloop.core.clock import from_iso

    try:
        return from_iso(str(value))
    except BadInput as error:
        raise BadInput(f"Row {number}: {error.what}", error.hint) from None


def _predictions(client: Any, feature: str, endpoint: str, since: str | None) -> dict[str, list[str]]:
    """Ids of an endpoint's predictions by the value of a feature, as text."""
    found: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.jsonl"
        client.traces.export(file, "jsonl", of="predictions", endpoint=endpoint, since=since)
        for row in _rows(file):
            value = (row["features"] or {}).get(feature)
            if value is not None:
                found[str(value)].append(row[ID])
    if not found:
        raise BadInput(
            f"No prediction of {endpoint} has a feature {feature!r}.", "Is it sent with the rows? Columns that a model does not use are kept too."
        )
    return found
