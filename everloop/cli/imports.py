"""`everloop import`: another tracker's records, with their ids and times."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen

LEFT_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    group = typer.Typer(help="Bring another tracker's records over.", no_args_is_help=True)
    group.command("mlflow")(mlflow)
    app.add_typer(group, name="import")


def mlflow(
    source: str = typer.Argument(help="http(s)://HOST of a running MLflow server, a folder with mlruns, or sqlite:///FILE"),
    traces: bool = typer.Option(True, help="Bring traces and their assessments too"),
    as_json: bool = screen.JSON,
) -> None:
    """Bring experiments, runs, models, prompts and traces of an MLflow store over; run it again where it was interrupted."""
    from everloop.build.mlflow_import import Import
    from everloop.build.mlflow_source import Source

    say = (lambda text: None) if as_json else (lambda text: typer.echo(text))
    found = Import(screen.client(), Source(source), say).run(traces)
    if as_json:
        screen.say_json(found)
    else:
        _report(found)
    if found["left"]:
        raise typer.Exit(1)


def _report(found: dict[str, Any]) -> None:
    names = sorted({*found["brought"], *found["already"]})
    screen.table(
        ("what", "brought", "here already"), ((n, found["brought"].get(n, 0), found["already"].get(n, 0)) for n in names), "Nothing was there."
    )
    if not found["left"]:
        typer.echo("Everything was brought.")
        return
    typer.echo(f"{len(found['left'])} things were not brought:")
    for line in found["left"][:LEFT_SHOWN]:
        typer.echo(f"  {line}")
    if len(found["left"]) > LEFT_SHOWN:
        typer.echo(f"  ... and {len(found['left']) - LEFT_SHOWN} more (--json lists all)")
