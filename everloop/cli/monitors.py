"""`everloop monitors`: declare them, let them look, see what they saw."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import BadInput

LOOKS_SHOWN = 5
WHY_SHOWN = 100
"""Characters of a reason in a table."""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    monitors = typer.Typer(help="Checks over live traffic, and what they start.", no_args_is_help=True)
    for name, command in (("list", list_monitors), ("put", put), ("show", show), ("tick", tick), ("alerts", alerts)):
        monitors.command(name)(command)
    app.add_typer(monitors, name="monitors")


def list_monitors(as_json: bool = screen.JSON) -> None:
    """List monitors with what they last saw."""
    found = screen.client().monitors.list()
    if as_json:
        return screen.say_json(found)
    rows = []
    for m in found:
        state = m["state"] or {}
        starts = (m["spec"]["on_fail"] or {}).get("pipeline") or "-"
        told = state.get("why") or state.get("error") or ""
        rows.append(
            (m["name"], m["endpoint"], state.get("verdict") or "no look yet", screen.moment(state.get("until")), starts, screen.cut(told, WHY_SHOWN))
        )
    screen.table(("monitor", "endpoint", "verdict", "window's end (UTC)", "starts", "why"), rows, "No monitor is declared.")


def put(
    name: str = typer.Argument(help="The monitor's name"),
    endpoint: str = typer.Option(None, help="The endpoint that it watches (default: of the monitor's name)"),
    check: list[str] = typer.Option(
        None, help='A check, e.g. decay or drift, or a limit: "latency_p95_ms <= 200" (may be given again; params: \'psi:{"column": "income"}\')'
    ),
    retrain: str = typer.Option(None, help="The pipeline that a failing look starts"),
    params: str = typer.Option(None, help="Params of that pipeline, as JSON or @FILE"),
    retrain_on: str = typer.Option(None, help="What starts it: errors (labels say so), any (drift too), never"),
    window_days: float = typer.Option(None, help="Days of traffic in a window (default 7)"),
    label_window_days: float = typer.Option(None, help="Days back that late labels are looked for (default 28)"),
    every: str = typer.Option(None, help="How often it looks, e.g. 6h or 1d (default 1d)"),
    min_rows: int = typer.Option(None, help="Fewer rows give the verdict inconclusive (default 100)"),
    cooldown_days: float = typer.Option(None, help="Days after an alarm in which none starts anything (default 7)"),
    as_json: bool = screen.JSON,
) -> None:
    """Declare (or change) a monitor."""
    settings = {"retrain_on": retrain_on, "window_days": window_days, "label_window_days": label_window_days}
    settings |= {"every": every, "min_rows": min_rows, "cooldown_days": cooldown_days}
    spec = {key: value for key, value in settings.items() if value is not None}
    if check:
        spec["checks"] = [_check(text) for text in check]
    if retrain:
        spec["on_fail"] = {"pipeline": retrain, "params": screen.json_of(params, "--params") or {}}
    elif params:
        raise BadInput("--params are for the pipeline of --retrain, which is missing.", "Add --retrain PIPELINE.")
    made = screen.client().monitors.put(name, endpoint or name, **spec)
    if as_json:
        return screen.say_json(made)
    watched = ", ".join(c["check"] for c in made["spec"]["checks"])
    typer.echo(f"{made['name']} watches {made['endpoint']} for {watched}, every {made['spec']['every']} over {made['spec']['window_days']:g} days.")
    typer.echo(f"Let it look now: everloop monitors tick {made['name']}")


def show(name: str = typer.Argument(help="The monitor's name"), as_json: bool = screen.JSON) -> None:
    """Show a monitor: its settings, its last looks, its alarms."""
    client = screen.client()
    found = client.monitors.get(name)
    looks, alarms = client.monitors.scores(name, 100), client.monitors.alerts(name)
    if as_json:
        return screen.say_json({**found, "looks": looks, "alerts": alarms})
    spec, state = found["spec"], found["state"] or {}
    typer.echo(f"{name} watches {found['endpoint']}: {', '.join(c['check'] for c in spec['checks'])}")
    typer.echo(f"every {spec['every']} over {spec['window_days']:g} days (labels: {spec['label_window_days']:g}), from {spec['min_rows']} rows on")
    if spec["on_fail"]:
        typer.echo(f"starts {spec['on_fail']['pipeline']} on {spec['retrain_on']}, at most once in {spec['cooldown_days']:g} days")
    typer.echo(f"last look: {state.get('verdict') or 'none yet'}. {state.get('why') or state.get('error') or ''}".rstrip())
    ends = sorted({s["at"] for s in looks}, reverse=True)[:LOOKS_SHOWN]
    rows = [
        (
            screen.moment(s["at"]),
            s["name"],
            screen.number(s["value"] if s["value"] is not None else s["text"]),
            s["verdict"],
            s["n"],
            screen.cut(s["why"], WHY_SHOWN),
        )
        for s in looks
        if s["at"] in ends
    ]
    screen.table(("window's end (UTC)", "check", "value", "verdict", "n", "why"), rows, "It has not looked yet.")
    typer.echo(f"alarms: {len(alarms)}" + (f"; see them with: everloop monitors alerts {name}" if alarms else ""))


def tick(
    name: str = typer.Argument(help="The monitor's name"),
    at: str = typer.Option(None, help="Look at the window that ends then (2026-11-24T08:00:00Z or epoch seconds); default now"),
    as_json: bool = screen.JSON,
) -> None:
    """Let a monitor look now; it acts as it would by the clock."""
    found = screen.client().monitors.tick(name, at)
    if as_json:
        return screen.say_json(found)
    typer.echo(f"{name}: " + typer.style(found["verdict"], fg=screen.COLOURS.get(found["verdict"]), bold=True) + f". {found['why']}")
    rows = (
        (s["name"], screen.number(s["value"]), screen.interval(s["interval"]), s["verdict"], s["n"], screen.cut(s["why"], WHY_SHOWN))
        for s in found["scores"]
    )
    screen.table(("check", "value", "interval", "verdict", "n", "why"), rows, "No check was run.")
    if found["run"]:
        typer.echo(f"It started a pipeline: everloop pipelines show {found['run']}")


def alerts(
    name: str = typer.Argument(None, help="Only this monitor's"), limit: int = typer.Option(20, help="How many"), as_json: bool = screen.JSON
) -> None:
    """List alarms, newest first."""
    found = screen.client().monitors.alerts(name)[:limit]
    if as_json:
        return screen.say_json(found)
    rows = ((screen.moment(a["event_at"]), a["monitor"], a["run"] or "-", a["state"], a["what"]) for a in found)
    screen.table(("window's end (UTC)", "monitor", "started run", "state", "what"), rows, "No alarm is on record.")


def _check(text: str) -> dict[str, Any]:
    if "<" in text or ">" in text:
        return {"rule": text}
    name, colon, params = text.partition(":")
    return {"check": name, **({"params": screen.json_of(params, f"The params of check {name}")} if colon else {})}
