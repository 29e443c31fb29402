"""`everloop endpoints ...`, `everloop predict` and `everloop chat`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import typer

CHUNK = 1000
"""Rows sent in one request by `everloop predict`."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What users call, and the releases behind it.", no_args_is_help=True)
    app.add_typer(group, name="endpoints")

    @group.command("list")
    def listed() -> None:
        """All endpoints with what is live."""
        for one in _client().endpoints.list():
            live = ", ".join(f"{p['alias']}={p['ref'] or 'none'} ({p['weight']:g})" for p in one["live"])
            typer.echo(f"{one['name']}\t{one['kind']}\t{live}")

    @group.command("show")
    def show(name: str) -> None:
        """One endpoint as JSON."""
        typer.echo(json.dumps(_client().endpoints.get(name), indent=2))

    @app.command("predict")
    def predict(endpoint: str, source: Path = typer.Option(..., "--in"), target: Path = typer.Option(..., "--out")) -> None:
        """Predict every row of a .json, .csv or .parquet file through an endpoint: one line of JSON a row, in order."""
        rows, client, done = read_rows(source), _client(), 0
        with open(target, "w") as out:
            for start in range(0, len(rows), CHUNK):
                for row in client.endpoints.predict(endpoint, rows[start : start + CHUNK])["predictions"]:
                    out.write(json.dumps(row) + "\n")
                    done += 1
                typer.echo(f"{done} of {len(rows)} rows", err=True)

    @app.command("chat")
    def chat(endpoint: str, question: str) -> None:
        """Ask a chat endpoint; prints the answer and its sources."""
        message = _client().endpoints.chat(endpoint, question)["choices"][0]["message"]
        typer.echo(message["content"])
        for cited in message.get("citations") or ():
            typer.echo(f"  [{cited.get('n')}] {cited.get('document')}")


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


def _client() -> Any:
    from everloop.client import connect

    return connect()
