"""`everloop endpoints ...`, `everloop predict` and `everloop chat`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What users call, and the releases behind it.", no_args_is_help=True)
    app.add_typer(group, name="endpoints")

    @group.command("list")
    def listed() -> None:
        """All endpoints with what is live."""
        for one in screen.client(start=True).endpoints.list():
            live = ", ".join(f"{p['alias']}={p['ref'] or 'none'} ({p['weight']:g})" for p in one["live"])
            typer.echo(f"{one['name']}\t{one['kind']}\t{live}")

    @group.command("show")
    def show(name: str) -> None:
        """One endpoint as JSON."""
        typer.echo(json.dumps(screen.client(start=True).endpoints.get(name), indent=2))

    @app.command("predict")
    def predict(
        name: str = typer.Argument(help="An endpoint, or release:NAME@VERSION-OR-ALIAS"),
        source: str = typer.Option(..., "--file", "--in", help="A .csv, .parquet or .json file, or dataset:NAME@VERSION"),
        target: Path = typer.Option(None, "--out", help="A .parquet, .csv or .jsonl file; without, only the dataset version is made"),
        inputs: bool = typer.Option(False, help="Keep the input columns beside the predictions"),
        absent: str = typer.Option("refuse", help="Columns that the model takes and the file lacks: refuse, or missing (in every row)"),
    ) -> None:
        """Score a whole file in a worker.

        Predictions with ids, as a dataset version and a file; rows that cannot be scored are listed.
        """
        said = screen.client(start=True).endpoints.score(name, _source(source), target, inputs=inputs, absent=absent)
        typer.echo(f"{said['scored']:,} of {said['rows']:,} rows scored by {said['release']}: {said['out']}{f', {target}' if target else ''}")
        for one in said["refused_rows"]:
            typer.echo(f"row {one['row']}: {one['why']}", err=True)
        if said["refused"] > len(said["refused_rows"]):
            typer.echo(f"... {said['refused']:,} rows in all were not scored; see refused.jsonl of run {said['run']}", err=True)

    @app.command("chat")
    def chat(endpoint: str, question: str) -> None:
        """Ask a chat endpoint; the answer, its sources and its trace."""
        answer = screen.client(start=True).endpoints.chat(endpoint, question)
        message = answer["choices"][0]["message"]
        typer.echo(message["content"])
        for line in dict.fromkeys(f"  [{cited.get('n')}] {cited.get('document')}" for cited in message.get("citations") or ()):
            typer.echo(line)
        typer.echo(f"  why: everloop why {answer['id'].removeprefix('chatcmpl-')}")


def _source(text: str) -> Any:
    """What to score: a dataset's reference or a file as it is; a .json file's rows as a data frame."""
    if text.startswith("dataset:") or not text.endswith(".json"):
        return text
    import pandas as pd

    return pd.DataFrame(read_rows(Path(text)))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file by its ending; numbers in a CSV become numbers, empty fields None."""
    from everloop.core.errors import BadInput

    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    if path.suffix == ".json":
        found = json.loads(path.read_text())
        return list(found["rows"] if isinstance(found, dict) else found)
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(path).to_pylist())
    raise BadInput(f"{path} is neither .json, .csv nor .parquet.")


def _value(text: str | None) -> Any:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
