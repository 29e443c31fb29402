"""How `everloop data diff` tells what differs between two versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from everloop.cli import screen

FIGURES = ("missing", "distinct", "min", "mean", "max", "std")


def say(found: Mapping[str, Any]) -> None:
    """Print a comparison as `GET /api/v1/datasets/NAME/diff` answers it."""
    typer.secho(f"{found['from']['ref']} -> {found['to']['ref']}", bold=True)
    if found["same"]:
        typer.echo("The two versions are the same.")
        return
    if "files" in found:
        _files(found["files"])
    if "rows" in found:
        _schema(found["schema"])
        _rows(found["rows"])
        _columns(found["columns"])


def _files(files: Mapping[str, Any]) -> None:
    counts = files["counts"]
    typer.echo("files: " + ", ".join(f"{counts[k]:,} {k}" for k in ("added", "removed", "changed", "renamed", "same")))
    for mark, kind, colour in (("+", "added", "green"), ("-", "removed", "red"), ("~", "changed", "yellow")):
        for file in files[kind]:
            size = file.get("size")
            told = f"{size['from']:,} -> {size['to']:,} bytes" if isinstance(size, Mapping) else f"{size or 0:,} bytes"
            typer.secho(f"  {mark} {file['path']}  ({told})", fg=colour)
    for file in files["renamed"]:
        typer.secho(f"  > {file['from']} -> {file['to']}", fg="cyan")
    if files["cut"]:
        typer.echo("  ... and more; --json lists the first thousand of each")


def _schema(schema: Mapping[str, Any]) -> None:
    for column in schema["added"]:
        typer.secho(f"  + column {column['name']} ({column['type']})", fg="green")
    for column in schema["removed"]:
        typer.secho(f"  - column {column['name']} ({column['type']})", fg="red")
    for column in schema["changed"]:
        typer.secho(f"  ~ column {column['name']}: {column['from']} -> {column['to']}", fg="yellow")


def _rows(rows: Mapping[str, Any]) -> None:
    by = f"by {', '.join(rows['key'])}" if rows["key"] else "by content"
    parts = [f"{rows[k]:,} {k}" for k in ("added", "removed", "changed", "same") if rows[k] is not None]
    typer.echo(f"rows ({by}): {rows['from']:,} -> {rows['to']:,}: {', '.join(parts)}")
    for note in rows["notes"]:
        typer.echo(f"  note: {note}")
    for mark, kind, colour in (("+", "added", "green"), ("-", "removed", "red")):
        for row in rows["examples"][kind]:
            typer.secho(f"  {mark} " + ", ".join(f"{k}={screen.number(v, 5)}" for k, v in row.items()), fg=colour)
    for one in rows["examples"]["changed"]:
        key = ", ".join(f"{k}={screen.number(v, 5)}" for k, v in one["key"].items())
        changes = ", ".join(f"{n}: {_cell(c['from'])} -> {_cell(c['to'])}" for n, c in one["changes"].items())
        typer.secho(f"  ~ {key}: {changes}", fg="yellow")


def _columns(columns: list[Mapping[str, Any]]) -> None:
    lines = []
    for one in columns:
        if one["same"]:
            continue
        before, after = one["from"] or {}, one["to"] or {}
        cells = [_pair(before.get(f), after.get(f)) for f in FIGURES]
        lines.append([one["name"], one["type"], *cells])
    if lines:
        typer.echo("columns whose statistics differ (old -> new):")
        screen.table(["column", "type", *FIGURES], lines)


def _pair(old: Any, new: Any) -> str:
    if old == new:
        return screen.number(old, 5)
    return f"{_cell(old)} -> {_cell(new)}"


def _cell(value: Any) -> str:
    return "none" if value is None else screen.number(value, 5)
