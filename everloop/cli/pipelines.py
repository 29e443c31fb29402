"""`everloop pipelines` and `everloop schedule`."""

from __future__ import annotations

import json
from typing import Any

import typer

from everloop.cli import screen

RUNS_SHOWN = 10
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


def list_pipelines(as_json: bool = screen.JSON) -> None:
    """List pipelines."""
    found = screen.client().pipelines.list()
    if as_json:
        return screen.say_json(found)
    rows = ((p["name"], " -> ".join(s["name"] for s in p["spec"]["steps"]), p["spec"].get("code") or "everloop's own") for p in found)
    screen.table(("pipeline", "steps", "code"), rows, "No pipeline is declared.")


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


def show(
    what: str = typer.Argument(help="A pipeline's name, or a run's id or its first characters"),
    as_json: bool = screen.JSON,
) -> None:
    """Show a pipeline (steps, params, schedule, last runs), or one run of it (what each step did)."""
    client = screen.client()
    if any(one["name"] == what for one in client.pipelines.list()):
        return _show_pipeline(client, what, as_json)
    id = screen.full_id(what, "pipeline run", lambda limit: (run["id"] for run in client.pipelines.runs(limit=limit)))
    found = client.pipelines.state(id)
    return screen.say_json(found) if as_json else _say_run(found)


def _show_pipeline(client: Any, name: str, as_json: bool) -> None:
    """What a pipeline is made of, when it starts, how its last runs went."""
    found = client.pipelines.get(name)
    runs = client.pipelines.runs(name, RUNS_SHOWN)
    schedules = [one for one in client.pipelines.schedules() if one["pipeline"] == name]
    if as_json:
        return screen.say_json({**found, "runs": runs, "schedules": schedules})
    spec = found["spec"]
    typer.echo(f"{name}: code {spec.get('code') or 'of everloop itself'}; changed {screen.moment(found['updated_at'])} UTC by {found['updated_by']}")
    rows = ((s["name"], ", ".join(s.get("after") or []) or "-", s["call"], _params(s.get("params"))) for s in spec["steps"])
    screen.table(("step", "after", "calls", "params"), rows)
    typer.echo(f"params of all steps: {_params(spec.get('params')) or 'none'}")
    for one in schedules:
        going = f"next {screen.moment(one['next_at'])} UTC" if one["enabled"] else "switched off"
        last = f", last {screen.moment(one['last_at'])} UTC" if one.get("last_at") else ""
        typer.echo(f"schedule {one['name']}: {one['cron']}, {going}{last}{'  ' + _params(one['params']) if one['params'] else ''}")
    if not schedules:
        typer.echo("schedule: none; it starts by hand or by a monitor")
    typer.echo("last runs:")
    lines = (
        (r["id"], r["status"], (r["tags"] or {}).get("trigger", ""), screen.moment(r["started_at"]), _lasted(r), screen.cut(r["error"], 80))
        for r in runs
    )
    screen.table(("run", "status", "started by", "started (UTC)", "took", "error"), lines, f"It never ran. Start it: everloop pipelines run {name}")


def _say_run(found: dict[str, Any]) -> None:
    """A run, and what each step did, said or failed with."""
    run, tasks = found["run"], found["tasks"]
    trigger = (run["tags"] or {}).get("trigger", "")
    typer.echo(
        f"run {run['id']} of {run['pipeline']}: {run['status']}, started {screen.moment(run['started_at'])} UTC by {run['created_by']} ({trigger})"
    )
    if run["params"]:
        typer.echo(f"params: {_params(run['params'])}")
    rows = ((t["step"], "running" if t["state"] == "leased" else t["state"], t["attempts"], _lasted(t)) for t in tasks)
    screen.table(("step", "state", "attempts", "took"), rows)
    for task in tasks:
        said = told(task["result"])
        if task["error"]:
            typer.echo(f"{task['step']} failed: {task['error'].strip()}")
        elif said:
            typer.echo(f"{task['step']}: {said}")


def _params(params: dict[str, Any] | None) -> str:
    """Params in one line, long values cut."""
    return ", ".join(f"{key}={screen.cut(value, 60)}" for key, value in (params or {}).items())


def _lasted(one: dict[str, Any]) -> str:
    """How long a run or step took, nothing where it has not ended."""
    return f"{one['ended_at'] - one['started_at']:.1f} s" if one.get("ended_at") and one.get("started_at") else ""


def cancel(id: str = typer.Argument(help="The run's id")) -> None:
    """End a run."""
    typer.echo(screen.client().pipelines.cancel(id)["run"]["status"])


def list_schedules(as_json: bool = screen.JSON) -> None:
    """List schedules."""
    found = screen.client().pipelines.schedules()
    if as_json:
        return screen.say_json(found)
    rows = ((s["name"], s["pipeline"], s["cron"], screen.moment(s["next_at"]) if s["enabled"] else "off", screen.moment(s["last_at"])) for s in found)
    screen.table(("schedule", "pipeline", "when", "next (UTC)", "last (UTC)"), rows, "No schedule is declared.")


def run_schedule(name: str = typer.Argument(help="The schedule's name"), at: str = typer.Option(None, help="As if it were then (ISO)")) -> None:
    """Start what a schedule starts, now."""
    typer.echo(screen.client().pipelines.run_schedule(name, at)["id"])
