"""`everloop data`: load tables and documents, list and show datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    data = typer.Typer(no_args_is_help=True, help="Datasets: tables and documents, versioned.")
    data.command("add")(add)
    data.command("add-documents")(add_documents)
    data.command("list")(list_datasets)
    data.command("show")(show)
    data.command("diff")(diff)
    app.add_typer(data, name="data")


def add(
    name: str = typer.Argument(help="Name of the dataset"),
    file: Path = typer.Argument(help="A CSV or Parquet file; or a folder (or one file) of documents with --documents"),
    target: str = typer.Option(None, help="Column to predict"),
    time: str = typer.Option(None, help="Column that says when"),
    positive: str = typer.Option(None, help="Value of the target that one looks for"),
    protected: list[str] = typer.Option(None, help="Protected attribute, for fairness (may be given again)"),
    id: str = typer.Option(None, help="Column that names a row"),
    contract: Path = typer.Option(None, help="JSON file with the data contract"),
    documents: bool = typer.Option(False, "--documents", help="Load PDF, HTML, Markdown and text"),
    description: str = "",
) -> None:
    """Load a file as the next version of a dataset."""
    client = screen.client(start=True)
    if documents or file.is_dir():
        _said(client.data.add_documents(name, file, description=description))
        return
    roles = {"target": target, "time": time, "positive": positive, "protected": protected or (), "id": id}
    _said(client.data.add(name, file, **roles, contract=_contract(contract), description=description))


def add_documents(
    name: str = typer.Argument(help="Name of the dataset"),
    paths: list[Path] = typer.Argument(help="Folders and files: PDF, HTML, Markdown, text"),
    description: str = "",
) -> None:
    """Load documents as the next version of a dataset; says what could not be read, and why."""
    _said(screen.client(start=True).data.add_documents(name, paths, description=description))


def list_datasets(search: str = typer.Argument("", help="Part of a name"), limit: int = 20) -> None:
    """List datasets by last change, newest first."""
    from rich.console import Console
    from rich.table import Table

    from everloop.core.clock import iso

    table = Table("dataset", "latest", "aliases", "changed")
    for one in screen.client(start=True).data.list(search, limit):
        table.add_row(one["name"], str(one["latest"]), ", ".join(one["aliases"]), iso(one["updated_at"]))
    Console().print(table)


def show(
    ref: str = typer.Argument(help="dataset:NAME@VERSION; the latest without version"), rows: int = typer.Option(5, help="Rows to show")
) -> None:
    """Show a dataset: columns with statistics, roles, notes, first rows."""
    from rich.console import Console
    from rich.table import Table

    client, console = screen.client(start=True), Console()
    asset = client.data.get(ref)
    manifest = asset["manifest"]
    _said(asset)
    if manifest["format"] == "table":
        table = Table("column", "type", "missing", "distinct", "min", "mean", "max", "most frequent")
        for column in manifest["schema"]:
            stats = manifest["stats"][column["name"]]
            top = ", ".join(f"{v} ({c})" for v, c in stats["top"][:3])
            figures = [screen.number(stats[key], 5) for key in ("missing", "distinct", "min", "mean", "max")]
            table.add_row(column["name"], column["type"], *figures, top)
        console.print(table)
    if rows > 0:
        found = client.data.rows(asset["ref"], rows)
        table = Table(*found["columns"])
        for row in found["rows"]:
            table.add_row(*[screen.number(v, 5) for v in row])
        console.print(table)


def diff(
    old: str = typer.Argument(help="dataset:NAME@VERSION"),
    new: str = typer.Argument("", help="The other version; the latest where none is named"),
    key: list[str] = typer.Option(None, help="Column that names a row (may be given again); else the dataset's id column"),
    rows: int = typer.Option(5, help="Example rows of each sort"),
    as_json: bool = screen.JSON,
) -> None:
    """Compare two versions: schema, rows, statistics; or files."""
    from everloop.cli import data_diff

    found = screen.client(start=True).data.diff(old, new, key=key or (), limit=rows)
    screen.say_json(found) if as_json else data_diff.say(found)


def _said(asset: dict[str, Any]) -> None:
    manifest = asset["manifest"]
    if manifest["format"] == "table":
        typer.echo(f"{asset['ref']}: {manifest['rows']:,} rows, {len(manifest['schema'])} columns")
        if manifest["task"]:
            typer.echo(manifest["task"]["why"])
        roles = ", ".join(f"{k}: {', '.join(v) if isinstance(v, list) else v}" for k, v in manifest["roles"].items() if v)
        typer.echo(f"roles: {roles or 'none'}")
        for note in manifest["notes"]:
            typer.echo(f"note: {note}")
        return
    chars, pages = sum(d["chars"] for d in manifest["documents"]), sum(d["pages"] or 0 for d in manifest["documents"])
    typer.echo(f"{asset['ref']}: {len(manifest['documents']):,} documents, {chars:,} characters" + (f", {pages:,} PDF pages" if pages else ""))
    for one in manifest["skipped"]:
        typer.echo(f"skipped {one['path']}: {one['why']}")


def _contract(path: Path | None) -> Any:
    import json

    from everloop.core.errors import BadInput

    if path is None:
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput(f"The contract {path} cannot be read: {error}.", "Give a JSON file.") from None
