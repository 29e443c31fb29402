"""`everloop data verify` and `everloop data move`: the stored bytes looked after."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen


def add_to(data: typer.Typer) -> None:
    """Add the commands to `everloop data`."""
    data.command("verify")(verify)
    data.command("move")(move)


def verify(
    ref: str = typer.Argument(None, help="NAME@VERSION; all of the project without"),
    repair: bool = typer.Option(False, "--repair", help="Mend what is damaged from other copies; says what is lost (admins)"),
    source: Path = typer.Option(None, "--from", help="A folder or file here that may have what is damaged, say a checkout; implies --repair"),
    place: list[str] = typer.Option(None, help="With --repair: another place that may have it, s3://BUCKET/PREFIX (may be given again)"),
    as_json: bool = screen.JSON,
) -> None:
    """Read and check stored bytes, mend them where asked; damage that stays ends with exit code 1."""
    from everloop.core.errors import BadInput

    client = screen.client(start=True)
    if repair or source or place:
        if ref:
            raise BadInput("A repair looks at all of the project.", f"Leave {ref} out.")
        with screen.progress() as progress:
            _repaired(client.data.repair(source, places=place or (), progress=progress), as_json)
        return
    done = client.data.verify(ref)
    if as_json:
        screen.say_json(done)
    else:
        for one in done["damaged"]:
            typer.echo(f"damaged: {one.get('path') or one.get('key')}: {one['error']}")
        typer.echo(f"{done['checked']:,} checked, {done['bytes']:,} bytes: {done['damaged_count'] or 'none'} damaged")
        if done["damaged_count"]:
            typer.echo("Mend it from other copies: everloop data verify --repair, with --from FOLDER where a checkout has the files.")
    if done["damaged_count"]:
        raise typer.Exit(1)


def _repaired(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        screen.say_json(done)
    else:
        for one in done["damaged"]:
            typer.echo(f"damaged: {one['key']}: {one['error']}")
        for one in done["lost"]:
            typer.echo(f"lost: {one['path']} of {one['ref']} ({one['digest']})")
        if done["lost_count"] > len(done["lost"]):
            typer.echo(f"lost: and {done['lost_count'] - len(done['lost']):,} more")
        typer.echo(
            f"{done['damaged_count']:,} damaged files taken out, {done['restored']:,} objects restored, {done['lost_count'] or 'nothing'} lost"
        )
        if done["lost_count"]:
            typer.echo("Bring what is lost from where it still is: --from FOLDER for files here, --place s3://BUCKET/PREFIX for another store.")
    if done["lost_count"]:
        raise typer.Exit(1)


def move(
    to: str = typer.Option(None, help="s3://BUCKET/PREFIX, or home for the server's own folder"),
    remove: bool = typer.Option(False, "--remove", help="Delete files from the old place once all are copied"),
    state: bool = typer.Option(False, "--state", help="Only say how far a move is"),
    as_json: bool = screen.JSON,
) -> None:
    """Move all stored bytes to another place, checked; the server reads both meanwhile, and a move that ended goes on (site admins)."""
    from everloop.core.errors import BadInput

    client = screen.client(start=True)
    if not state and not to:
        raise BadInput("Where to is not said.", "Say --to s3://BUCKET/PREFIX, --to home, or ask for the --state of a move.")
    with screen.progress() as progress:
        told = client.data.moved() if state else client.data.move(to, remove=remove)
        while told["state"] == "running" and not state:
            time.sleep(0.3)
            told = client.data.moved()
            progress("objects' files", told["copied"] + told["there"], told["total"])
    screen.say_json(told) if as_json else _moved(told)
    if told["state"] in ("damaged", "failed"):
        raise typer.Exit(1)


def _moved(told: dict[str, Any]) -> None:
    if told["state"] == "none":
        typer.echo(f"Objects lie in {told['to']}; nothing is to be moved.")
        return
    for one in told.get("damaged", []):
        typer.echo(f"damaged, left where it is: {one['key']}: {one['error']}")
    counted = f"{told.get('copied', 0):,} files copied ({told.get('copied_bytes', 0):,} bytes), {told.get('there', 0):,} were there"
    typer.echo(f"{told['from']} -> {told['to']}: {told['state']}; {counted}" + (f", {told['removed']:,} removed" if told.get("removed") else ""))
    if told["state"] == "damaged":
        typer.echo("Mend them (everloop data verify --repair), then move again; until then both places are read.")
    if told["state"] == "stopped":
        typer.echo(f"It goes on with: everloop data move --to {told['to']}")
    for key in ("error", "note"):
        if told.get(key):
            typer.echo(told[key])
