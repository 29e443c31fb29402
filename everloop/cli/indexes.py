"""`everloop index ...`: build an index of documents, look things up in it."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Indexes: what chat releases retrieve from.", no_args_is_help=True)
    app.add_typer(group, name="index")
    group.command("build")(build)
    group.command("search")(search)


def build(
    name: str = typer.Argument(help="Name of the index"),
    documents: str = typer.Argument(help="The documents: dataset:NAME, or NAME@VERSION"),
    chars: int = typer.Option(800, help="Characters in a passage at most"),
    overlap: int = typer.Option(120, help="Characters that a passage takes over from the one before, in whole sentences"),
    dims: int = typer.Option(128, help="Dimensions of the embedding"),
    update: bool = typer.Option(False, help="Index anew only the documents that changed since the latest version"),
) -> None:
    """Cut documents into passages and index them (in a worker); a chat release pins the version made."""
    params: dict[str, Any] = {"chars": chars, "overlap": overlap, "dims": dims, "update": update}
    made = screen.client().indexes.build(name, documents, **params)
    manifest = made["manifest"]
    typer.echo(f"{made['ref']}: {manifest['count']:,} passages of {manifest['documents']}, {manifest['embedder']['dims']} dimensions")
    typer.echo(f'Try it: everloop index search {name} "a question"')


def search(
    ref: str = typer.Argument(help="The index: NAME, or index:NAME@VERSION"),
    query: str = typer.Argument(help="A question"),
    k: int = typer.Option(4, help="Passages to show"),
    mode: str = typer.Option("hybrid", help="hybrid, text or vector"),
    json: bool = screen.JSON,
) -> None:
    """Show the passages that a question finds, best first, with their scores from 0 to 1."""
    found = screen.client().indexes.search(ref, query, k, mode)
    if json:
        screen.say_json(found)
        return
    for passage in found:
        page = f", page {passage['page']}" if passage.get("page") else ""
        typer.secho(f"[{passage['n']}] {passage['score']:.3f}  {passage['path']}{page}  {passage['heading'] or passage['title']}", bold=True)
        text = " ".join(passage["text"].split())
        typer.echo(f"    {text[:300]}{'…' if len(text) > 300 else ''}")
    if not found:
        typer.echo("Nothing found: no word of the question is in the documents.")
