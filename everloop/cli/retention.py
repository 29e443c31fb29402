"""`everloop retention`: how long traces are kept, and where."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    retention = typer.Typer(help="How long traces are kept, and where.", no_args_is_help=True)

    @retention.command("set")
    def set_rule(
        name: str = typer.Argument(help="The rule's name"),
        older: str = typer.Option(..., "--older", help="The age: 90d, 36h, 10m"),
        action: str = typer.Option("archive", help="archive (still listed, shown and searched) or delete"),
        of: str = typer.Option("traces", help="traces, with their predictions and scores; or predictions, or scores, alone (delete only)"),
        endpoint: str = typer.Option(None, help="Only those of this endpoint"),
        kind: str = typer.Option(None, help="Only these: chat or predict (our endpoints' calls), client (sent in)"),
        status: str = typer.Option(None, help="Only these: ok, error, unset"),
    ) -> None:
        """Declare or change a rule; the server does it every ten minutes. Admins only."""
        narrowed = {key: value for key, value in {"of": of, "endpoint": endpoint, "kind": kind, "status": status}.items() if value is not None}
        made = screen.client(start=True).retention.set(name, older, action, **narrowed)
        typer.echo(f"{made['name']}: {_said(made)}. See what it would take now: everloop retention run --dry-run")

    @retention.command("list")
    def list_rules(as_json: bool = screen.JSON) -> None:
        """List the rules in the order in which they are done."""
        found = screen.client(start=True).retention.list()
        if as_json:
            return screen.say_json(found)
        screen.table(("rule", "what it does"), ((one["name"], _said(one)) for one in found["items"]), "Everything is kept: there is no rule.")
        if found["last"]:
            did = "; ".join(_did(one) for one in found["last"]["rules"])
            typer.echo(f"Last run that did something: {screen.moment(found['last']['at'])} UTC: {did}")

    @retention.command("remove")
    def remove(name: str = typer.Argument(help="The rule's name")) -> None:
        """Take a rule away; what it archived stays archived. Admins only."""
        screen.client(start=True).retention.delete(name)
        typer.echo(f"{name} is gone.")

    @retention.command("run")
    def run(
        rule: str = typer.Argument(None, help="One rule; all where none is named"),
        dry_run: bool = typer.Option(False, "--dry-run", help="Only count what would be archived or deleted"),
        as_json: bool = screen.JSON,
    ) -> None:
        """Do the rules now. Admins only."""
        done = screen.client(start=True).retention.run(dry_run=dry_run, rule=rule)
        if as_json:
            return screen.say_json(done)
        if not done["rules"]:
            typer.echo("There is no rule. Declare one with: everloop retention set NAME --older 90d")
        for one in done["rules"]:
            typer.echo(f"{_did(one)}{' (not done: this was a dry run)' if dry_run else ''}")

    app.add_typer(retention, name="retention")


def _said(rule: dict[str, Any]) -> str:
    narrowed = [f"{key} {rule[key]}" for key in ("endpoint", "kind", "status") if rule.get(key)]
    return f"{rule['action']} {rule['of']}{' of ' + ', '.join(narrowed) if narrowed else ''} older than {rule['older']}"


def _did(one: dict[str, Any]) -> str:
    what = f"{one['traces']:,} traces ({one['rows']:,} rows)" if one["of"] == "traces" else f"{one['rows']:,} {one['of']}"
    size = f", {one['archived_bytes']:,} bytes" if one.get("archived_bytes") else ""
    return f"{one['name']}: {one['action']} {what} from before {screen.moment(one['before'])} UTC{size}"
