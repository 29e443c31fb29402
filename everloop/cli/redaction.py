"""`everloop redaction`: what traces lose before they are written."""

from __future__ import annotations

import typer

from everloop.cli import screen


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    redaction = typer.Typer(help="What traces lose before they are written.", no_args_is_help=True)

    @redaction.command("set")
    def set_policy(
        policy: str = typer.Argument(help="A policy with redacting rules: private, private@2"),
        drop: list[str] = typer.Option([], help="A feature of predictions that is left out; may be given several times"),
        hash: list[str] = typer.Option([], help="A feature of predictions that is kept as a keyed hash only; may be given several times"),
    ) -> None:
        """Redact all traces from now on by a policy's rules that have the action redact. Admins only."""
        made = screen.client(start=True).redaction.set(policy, drop=drop, hash=hash)
        typer.echo(f"Traces written from now on are redacted by {made['policy']}: {_checks(made)}.")

    @redaction.command("show")
    def show(as_json: bool = screen.JSON) -> None:
        """Show what is set."""
        found = screen.client(start=True).redaction.get()
        if as_json:
            return screen.say_json(found)
        if found["policy"] is None:
            typer.echo("Nothing is redacted. Set a policy with: everloop redaction set POLICY")
            return
        typer.echo(f"{found['policy']}: {_checks(found)}")
        for what in ("drop", "hash"):
            if found[what]:
                typer.echo(f"features to {what}: {', '.join(found[what])}")

    @redaction.command("off")
    def off() -> None:
        """Redact nothing from now on; what was redacted stays so. Admins only."""
        screen.client(start=True).redaction.clear()
        typer.echo("Traces written from now on are kept as they come.")

    @redaction.command("try")
    def attempt(
        text: str = typer.Argument(help="Any text"), policy: str = typer.Option(None, help="Another policy than the one that is set")
    ) -> None:
        """Show what a text would be written as."""
        found = screen.client(start=True).redaction.attempt(text, policy)
        typer.echo(found["text"])
        told = ", ".join(f"{n} {kind}" for kind, n in found["found"].items())
        typer.echo(f"({told or 'nothing found'}; {found['policy']})", err=True)

    app.add_typer(redaction, name="redaction")


def _checks(setting: dict[str, list[dict[str, str]]]) -> str:
    return ", ".join(dict.fromkeys(rule["check"] for rule in setting["rules"] if rule["action"] == "redact"))
