"""`everloop erase`: forget a user."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("erase")(erase)


def erase(
    user: str = typer.Option(None, help="All traces of this user"),
    session: str = typer.Option(None, help="All traces of this session; with --user, only that user's in it"),
    why: str = typer.Option("", help="The reason, kept in the audit record: a ticket's number, never the user's name"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only count what would go"),
    yes: bool = typer.Option(False, "--yes", help="Do not ask"),
    receipts: bool = typer.Option(False, "--receipts", help="List what was erased before, and do nothing"),
    as_json: bool = screen.JSON,
) -> None:
    """Erase a user's traces everywhere. Admins only."""
    client = screen.client(start=True)
    if receipts:
        return _list(client, as_json)
    if not (user or session):
        raise BadInput("Nobody is named.", "Give --user ID, --session ID, or both.")
    counted = client.erasure.erase(user, session=session, dry_run=True)
    if dry_run:
        return screen.say_json(counted) if as_json else typer.echo(f"It would erase {_counts(counted)}. Nothing was done: this was a dry run.")
    if not yes and not as_json:
        typer.confirm(f"This erases {_counts(counted)} for good, everywhere. Go on?", abort=True)
    done = client.erasure.erase(user, session=session, why=why)
    screen.say_json(done) if as_json else _say(done)


def _list(client: Any, as_json: bool) -> None:
    found = client.erasure.list()
    if as_json:
        return screen.say_json(found)
    rows = ((screen.moment(one["at"]), one["by"], one["user"] or one["session"], one["traces"], one["why"]) for one in found["items"])
    screen.table(("at (UTC)", "who", "id (keyed hash)", "traces", "why"), rows, "Nothing was erased yet.")


def _say(done: dict[str, Any]) -> None:
    typer.echo(f"Erased {_counts(done)}.")
    for queue, items in done["queues"].items():
        typer.echo(f"  queue {queue}: {items} items with their labels")
    for one in done["remade"]:
        typer.echo(f"  {one['ref']} is now {one['new']}, without {one['left_out']} of its rows")
    for ref in done["purged"]:
        typer.echo(f"  {ref} is deleted for good")
    for one in done["kept"]:
        typer.echo(f"  NOT erased from {one['ref']}: {one['why']}")
    if done["mentions"]:
        typer.echo(f"  files of the home that still hold the id: {', '.join(done['mentions'])}")
    typer.echo(f"Receipt {done['id']} is in the audit record; there the id is {done['user'] or done['session']}.")


def _counts(told: dict[str, Any]) -> str:
    names = {"archived": "rows of the archive"}
    rows = ", ".join(f"{count:,} {names.get(name, name)}" for name, count in told["rows"].items() if count)
    traces = f"{told['traces']:,} trace{'' if told['traces'] == 1 else 's'}"
    return f"{traces} ({rows})" if rows else traces
