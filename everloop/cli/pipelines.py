"""`everloop pipelines` and `everloop schedule`."""

from __future__ import annotations

import json
from typing import Any

import typer

from everloop.cli import screen
from everloop.core.clock import iso

RESULT_CHARS = 300
"""Characters of a step's result that are shown."""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    pipelines = typer.Typer(help="Durable steps that make versions.", no_args_is_help=True)
    pipelines.command("list")(list_pipelines)
    pipelines.command("run")(run)
    pipelines.command("show")(show)
    pipelines.command("cancel")(cancel)
    app.add_typer(pipelines, name="pipelines")
    schedule = typer.Typer(help="Pipelines that start by the clock.", no_args_is_help=True)
    schedule.command("list")(list_schedules)
    schedule.command("run")(run_schedule)
    app.add_typer(schedule, name="schedule")


def list_pipelines() -> None:
    """List pipelines."""
    for item in screen.client().pipelines.list():
        typer.echo(f"{item['name']}  {' -> '.join(s['name'] for s in item['spec']['steps'])}")


def run(
    name: str = typer.Argument(help="The pipeline's name"),
    params: str = typer.Option("{}", help="Params as JSON"),
    wait: bool = typer.Option(True, help="Wait for the end"),
    timeout: float = typer.Option(3600.0, help="Seconds to wait"),
) -> None:
    """Start a run."""
    from everloop.core.errors import BadInput

    try:
        given = json.loads(params)
    except ValueError as error:
        raise BadInput(f"--params is not JSON: {error}.") from None
    started = screen.client().pipelines.run(name, given)
    typer.echo(started["id"])
    if wait:
        done = screen.client().pipelines.wait(started["id"], timeout, progress=_say_state)
        for task in done["tasks"]:
            typer.echo(f"  {task['step']}  {told(task['result'])}")
    else:
        typer.echo(f"See how it goes: everloop pipelines show {started['id']}")


def _say_state(step: str, state: str) -> None:
    if state not in ("waiting", "ready"):
        typer.echo(f"{step}: {'running' if state == 'leased' else state}")


def told(result: Any) -> str:
    """A step's result in one line: its short values, the reason last."""
    if not isinstance(result, dict):
        return "" if result is None else str(result)[:RESULT_CHARS]
    short = {key: value for key, value in result.items() if isinstance(value, str | int | float | bool) and key != "why"}
    line = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in short.items() if len(str(value)) < 60)
    why = str(result.get("why") or "")
    return line[:RESULT_CHARS] + (f"\n    {why}" if why else "")


def show(id: str = typer.Argument(help="The run's id")) -> None:
    """Show a run and its steps."""
    typer.echo(json.dumps(screen.client().pipelines.state(id), indent=2))


def cancel(id: str = typer.Argument(help="The run's id")) -> None:
    """End a run."""
    typer.echo(screen.client().pipelines.cancel(id)["run"]["status"])


def list_schedules() -> None:
    """List schedules."""
    for item in screen.client().pipelines.schedules():
        typer.echo(f"{item['name']}  {item['pipeline']}  {item['cron']}  next {iso(item['next_at'])}")


def run_schedule(name: str = typer.Argument(help="The schedule's name"), at: str = typer.Option(None, help="As if it were then (ISO)")) -> None:
    """Start what a schedule starts, now."""
    typer.echo(screen.client().pipelines.run_schedule(name, at)["id"])
