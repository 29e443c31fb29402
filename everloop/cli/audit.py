"""`everloop audit`: who did what, and whether the record is whole."""

from __future__ import annotations

import re
import time
from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import EverloopError

DETAILS_SHOWN = 120
"""Characters of a row's details in the table."""
_AGO = re.compile(r"(\d+(?:\.\d+)?)([dhm])")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("audit")(audit)


def audit(
    who: str = typer.Option("", help="Only what this person, key or pipeline did: ann, user:ann, key:ci, local"),
    action: str = typer.Option("", help="Only this action or family: gate.declare, gate, alias, key"),
    subject: str = typer.Option("", help="Only about this: release:credit@3, or release:credit for all its versions"),
    since: str = typer.Option(None, help="Only from then on: 2026-11-24, 2026-11-24T08:00, or how long ago: 7d, 12h, 30m"),
    limit: int = typer.Option(50, help="How many, newest first"),
    verify: bool = typer.Option(False, "--verify", help="Check that no row was changed or removed; exit code 1 if one was"),
    as_json: bool = screen.JSON,
) -> None:
    """Who did what, and whether the record of it is whole."""
    client = screen.client()
    if verify:
        return _verify(client, as_json)
    rows = client.audit.list(who, action, subject, moment(since), limit)
    if as_json:
        return screen.say_json(rows)
    cells = ((screen.moment(r["at"]), r["by"], r["action"], r["subject"], _told(r["details"])) for r in rows)
    screen.table(("at (UTC)", "who", "action", "subject", "details"), cells, "Nothing on record fits.")
    if len(rows) == limit:
        typer.echo(f"The newest {limit}; more with --limit {limit * 2}.")


def moment(text: str | None) -> str | float | None:
    """`7d`, `12h` or `30m` ago as epoch seconds; a time as it is written."""
    match = _AGO.fullmatch((text or "").strip())
    return time.time() - float(match[1]) * _SECONDS[match[2]] if match else text


def _verify(client: Any, as_json: bool) -> None:
    found = client.audit.verify()
    if as_json:
        screen.say_json(found)
    elif found["ok"]:
        typer.echo(f"The record is whole: {found['rows']} rows, each covered by the hash of the next. Its head is {found['head']}")
        typer.echo("Keep the head elsewhere: whoever can write the database file could make a whole new chain, and its head would differ.")
    else:
        typer.echo(f"The record is broken at row {found['broken_at']}: it, or one before it, was changed or removed after it was written.")
    if not found["ok"]:
        raise typer.Exit(EverloopError.exit_code)


def _told(details: dict[str, Any]) -> str:
    """Details in one line: names with short values, longer ones cut."""
    return screen.cut(", ".join(f"{key} {screen.cut(value, 60)}" for key, value in details.items() if value not in (None, "", [], {})), DETAILS_SHOWN)
