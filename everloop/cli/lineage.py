"""`everloop alias`, `everloop why`, `everloop impact`: move what is live, and ask what it rests on."""

from __future__ import annotations

import re

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("alias")(alias)
    app.command("why")(why)
    app.command("impact")(impact)


def alias(ref: str, name: str, decision: str = typer.Option(None, help="Gate decision to use."), why: str = "") -> None:
    """Move an alias to a version, through its gate."""
    moved = screen.client().assets.move_alias(ref, name, decision=decision, why=why)
    typer.echo(
        f"{moved['alias']}: {moved['from'] or '-'} -> {moved['to']}" + ("  (ungated)" if moved["ungated"] else f"  (decision {moved['decision']})")
    )


def why(id: str = typer.Argument(help="A trace's id or its first characters, an answer's id, a reference, a run's or decision's id")) -> None:
    """What an answer, a version, a run or a decision rests on."""
    server = screen.client()
    if re.fullmatch("[0-9a-f]{4,31}", id):
        id = screen.trace_id(server, id)
    found = server.why(id)
    typer.echo(f"{found['what']} {found['id']} rests on:")
    for node in found["nodes"]:
        typer.echo(f"  {node['ref']:<40} {node.get('title', '')}")
    for decision in found["decisions"]:
        typer.echo(f"  decision {decision['id']}: {decision['verdict']} for {decision['alias']}: {decision['why']}")
    for move in found["moves"]:
        typer.echo(f"  {move['alias']}: {move['from_version'] or '-'} -> {move['to_version'] or '-'} by {move['by']}")


def impact(ref: str) -> None:
    """What rests on a version, and what of that is live."""
    found = screen.client().impact(ref)
    typer.echo(f"on {found['subject']} rest:")
    for node in found["nodes"]:
        typer.echo(f"  {node['ref']:<40} {node.get('title', '')}")
    for live in found["live"]:
        typer.echo(f"  live: endpoint {live['endpoint']} answers with {live['release']} ({live['alias']})")
    for ref, count in (found.get("answers") or {}).items():
        typer.echo(f"  {count} answers by {ref}")
