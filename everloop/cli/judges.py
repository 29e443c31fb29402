"""`everloop judges`: a share of live traces, judged as they come."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import BadInput


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    judges = typer.Typer(help="A share of live traces, judged by checks or an LLM as they come.", no_args_is_help=True)
    for name, command in (("list", list_judges), ("put", put), ("show", show), ("delete", delete)):
        judges.command(name)(command)
    app.add_typer(judges, name="judges")


def list_judges(as_json: bool = screen.JSON) -> None:
    """List judges with what they did today."""
    found = screen.client().judges.list()
    if as_json:
        return screen.say_json(found)
    rows = [
        (
            j["name"],
            j["spec"]["endpoint"] or "all",
            f"{j['spec']['rate']:.0%}",
            j["today"]["judged"],
            _cost(j),
            j["today"]["dropped"],
            j["stopped"] or "on",
        )
        for j in found
    ]
    screen.table(("judge", "endpoint", "share", "judged today", "cost today", "dropped", "state"), rows, "No judge is declared.")


def put(
    name: str = typer.Argument(help="The judge's name"),
    check: list[str] = typer.Option([], help="A check: groundedness, pii ... (may be given again; params: 'harm:{\"limit\": 0.1}')"),
    llm: str = typer.Option(
        None, help='An LLM that judges: its engine as JSON or @FILE, e.g. \'{"name": "openai", "model": "gpt-5-mini", "key": "env:OPENAI_API_KEY"}\''
    ),
    instructions: str = typer.Option(None, help="What that LLM shall judge by"),
    called: str = typer.Option("quality", help="What that LLM's score is called"),
    endpoint: str = typer.Option(None, help="Only this endpoint's traces"),
    release: str = typer.Option(None, help="Only those this release answered"),
    rate: float = typer.Option(0.1, help="Share of traces that is judged"),
    budget: float = typer.Option(None, help="US dollars a day; then it stops until the next day (UTC)"),
    per_day: int = typer.Option(None, help="Traces a day at most"),
    off: bool = typer.Option(False, "--off", help="Switch it off"),
    as_json: bool = screen.JSON,
) -> None:
    """Declare (or change) a judge. It judges what comes from now on."""
    checks: list[Any] = []
    for text in check:
        word, colon, params = text.partition(":")
        checks.append({"check": word, "params": screen.json_of(params, "--check")} if colon else {"check": word})
    if llm:
        asked = {"name": called, "engine": screen.json_of(llm, "--llm"), **({"instructions": instructions} if instructions else {})}
        checks.append({"llm": asked})
    if not checks:
        raise BadInput("A judge needs a check.", "Give --check groundedness, or --llm ENGINE.")
    rule = {"endpoint": endpoint, "release": release, "budget": budget, "per_day": per_day, "enabled": not off}
    made = screen.client().judges.put(name, checks, rate=rate, **{key: value for key, value in rule.items() if value is not None})
    if as_json:
        return screen.say_json(made)
    typer.echo(f"{name} judges {rate:.0%} of {'the traces of ' + endpoint if endpoint else 'all traces'} by {', '.join(_names(made))}.")
    typer.echo(f"What it finds: everloop judges show {name}")


def show(name: str = typer.Argument(help="The judge's name"), as_json: bool = screen.JSON) -> None:
    """Show a judge: its rule, what it did and cost, its scores by release."""
    found = screen.client().judges.get(name)
    if as_json:
        return screen.say_json(found)
    today, spec = found["today"], found["spec"]
    bounds = ", ".join(f"{key} {spec[key]:g}" for key in ("budget", "per_day") if spec[key] is not None)
    typer.echo(f"{name}: {spec['rate']:.0%} of {spec['endpoint'] or 'all traces'} by {', '.join(_names(found))}{'; ' + bounds if bounds else ''}")
    if found["stopped"]:
        typer.echo(f"judges no more: {found['stopped']}")
    mean = today["ms"] / today["judged"] if today["judged"] else 0.0
    typer.echo(f"today: {today['judged']} judged, {_cost(found)}, {today['tokens_in']}+{today['tokens_out']} tokens, {mean:.0f} ms each")
    typer.echo(
        f"not judged: {today['passed_over']} not sampled, {today['over_budget']} over the budget, {today['dropped']} dropped; {today['errors']} errors"
    )
    if found["error"]:
        typer.echo(f"last error ({screen.moment(found['error']['at'])}): {found['error']['check']}: {found['error']['what']}")
    rows = [(s["key"] or "none", s["name"], s["n"], screen.number(s["mean"], 3), screen.interval(s["interval"])) for s in found["scores"]]
    screen.table(("release", "score", "n", "mean", "95 %"), rows, "Nothing is judged yet.")


def delete(name: str = typer.Argument(help="The judge's name")) -> None:
    """Take a judge away; its scores stay."""
    screen.client().judges.delete(name)
    typer.echo(f"{name} judges no more.")


def _names(judge: dict[str, Any]) -> list[str]:
    return [one["llm"]["name"] + " (LLM)" if "llm" in one else one["check"] for one in judge["spec"]["checks"]]


def _cost(judge: dict[str, Any]) -> str:
    return f"${judge['today']['cost']:.4f}"
