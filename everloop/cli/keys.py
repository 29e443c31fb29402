"""`everloop keys ...`, `everloop projects ...`, `everloop alias`, `everloop health`: small verbs over the API."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(no_args_is_help=True, help="API keys of a project.")
    keys.command("create")(create)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys")
    app.command("health")(health)
    app.command("alias")(alias)
    app.command("why")(why)


def create(
    name: str, role: str = "editor", days: float = typer.Option(None, help="Days until it expires."), project: str = typer.Option(None)
) -> None:
    """Make a key and print it; it is not shown again."""
    from everloop.client import connect

    made = connect(project=project, start=False)._http.post("/api/v1/keys", json={"name": name, "role": role, "expires_days": days})
    typer.echo(made["key"])


def list_keys(project: str = typer.Option(None)) -> None:
    """Keys of the project, newest first."""
    from everloop.client import connect
    from everloop.core.clock import iso

    for key in connect(project=project, start=False)._http.get("/api/v1/keys")["items"]:
        state = "revoked" if key["revoked_at"] else f"expires {iso(key['expires_at'])}" if key["expires_at"] else "valid"
        typer.echo(f"{key['id']}  {key['name']:<20} {key['role']:<9} {key['hint']:<11} {state}")


def revoke(id: str, project: str = typer.Option(None)) -> None:
    """Revoke a key by id or name; it stops working at once."""
    from everloop.client import connect

    connect(project=project, start=False)._http.delete(f"/api/v1/keys/{id}")
    typer.echo(f"revoked {id}")


def health() -> None:
    """Whether the server answers, and as whom one acts there."""
    from everloop.client import connect

    client = connect(start=False)
    state, me = client.health(), client.me()
    typer.echo(f"{client.url}: {state['status']}, everloop {state['version']}; you are {me['name']}, {me['role']} of project {me['project']}")


def alias(ref: str, name: str, decision: str = typer.Option(None, help="Gate decision to use."), why: str = "") -> None:
    """Move an alias to a version: everloop alias model:credit@3 champion."""
    from everloop.client import connect

    moved = connect(start=False).assets.move_alias(ref, name, decision=decision, why=why)
    typer.echo(
        f"{moved['alias']}: {moved['from'] or '-'} -> {moved['to']}" + ("  (ungated)" if moved["ungated"] else f"  (decision {moved['decision']})")
    )


def why(id: str) -> None:
    """What an answer, a version, a run or a decision rests on."""
    from everloop.client import connect

    found = connect(start=False).why(id)
    typer.echo(f"{found['what']} {found['id']} rests on:")
    for node in found["nodes"]:
        typer.echo(f"  {node['ref']:<40} {node.get('title', '')}")
    for decision in found["decisions"]:
        typer.echo(f"  decision {decision['id']}: {decision['verdict']} for {decision['alias']}: {decision['why']}")
    for move in found["moves"]:
        typer.echo(f"  {move['alias']}: {move['from_version'] or '-'} -> {move['to_version'] or '-'} by {move['by']}")
