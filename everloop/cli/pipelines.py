"""`everloop pipelines` and `everloop schedule`."""

from __future__ import annotations

import json
from typing import Any

import typer

from everloop.core.clock import iso


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    pipelines = typer.Typer(help="Pipelines: durable steps.", no_args_is_help=True)
    pipelines.command("list")(list_pipelines)
    pipelines.command("run")(run)
    pipelines.command("show")(show)
    pipelines.command("cancel")(cancel)
    app.add_typer(pipelines, name="pipelines")
    schedule = typer.Typer(help="Schedules: pipelines that start by the clock.", no_args_is_help=True)
    schedule.command("list")(list_schedules)
    schedule.command("run")(run_schedule)
    app.add_typer(schedule, name="schedule")


def list_pipelines() -> None:
    """List pipelines."""
    for item in _client().list():
        typer.echo(f"{item['name']}  {' -> '.join(s['name'] for s in item['spec']['steps'])}")


def run(
    name: str = typer.Argument(help="The pipeline's name"),
    params: str = typer.Option("{}", help="Params as JSON"),
    wait: bool = typer.Option(True, help="Wait for the end"),
) -> None:
    """Start a run."""
    from everloop.core.errors import BadInput

    try:
        given = json.loads(params)
    except ValueError as error:
        raise BadInput(f"--params is not JSON: {error}.") from None
    started = _client().run(name, given)
    typer.echo(started["id"])
    if wait:
        _client().wait(started["id"], progress=lambda step, state: typer.echo(f"{step}: {state}"))


def show(id: str = typer.Argument(help="The run's id")) -> None:
    """Show a run and its steps."""
    typer.echo(json.dumps(_client().state(id), indent=2))


def cancel(id: str = typer.Argument(help="The run's id")) -> None:
    """End a run."""
    typer.echo(_client().cancel(id)["run"]["status"])


def list_schedules() -> None:
    """List schedules."""
    for item in _client().schedules():
        typer.echo(f"{item['name']}  {item['pipeline']}  {item['cron']}  next {iso(item['next_at'])}")


def run_schedule(name: str = typer.Argument(help="The schedule's name"), at: str = typer.Option(None, help="As if it were then (ISO)")) -> None:
    """Start what a schedule starts, now."""
    typer.echo(_client().run_schedule(name, at)["id"])


def _client() -> Any:
    from everloop.client.base import connect

    return connect(start=False).pipelines
