"""`everloop otel`: metrics and logs that OpenTelemetry clients sent."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen

SHOWN = 160
BY = typer.Option([], help="An attribute to split by, or model, provider, operation, token_type, service; may be given again")
WHERE = typer.Option([], help="NAME=VALUE that an attribute must have (resource.NAME for a resource's); may be given again")
SINCE = typer.Option(None, help="From this time on: 2026-11-24T08:00:00Z or epoch seconds")
UNTIL = typer.Option(None, help="Before this time")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    otel = typer.Typer(help="Metrics and logs that OpenTelemetry clients sent.", no_args_is_help=True)
    otel.command("metrics")(metrics)
    otel.command("series")(series)
    otel.command("genai")(genai)
    otel.command("logs")(logs)
    app.add_typer(otel, name="otel")


def metrics(text: str = typer.Argument("", help="What the names must hold"), as_json: bool = screen.JSON) -> None:
    """List the metrics there are."""
    found = screen.client(start=True).otel.metrics(text)
    if as_json:
        return screen.say_json(found)
    rows = [
        (m["name"], m["type"].replace("_", " "), m["unit"] or "", m["temporality"] or "", m["series"], m["points"], screen.moment(m["last"]))
        for m in found
    ]
    screen.table(("metric", "type", "unit", "temporality", "series", "points", "last (UTC)"), rows, "No metric has been sent to /v1/metrics.")


def series(
    name: str = typer.Argument(help="The metric's name"),
    figure: str = typer.Option(None, help="avg, min, max, last (gauge); increase, rate (sum); count, sum, avg, rate, p95 (histogram)"),
    by: list[str] = BY,
    where: list[str] = WHERE,
    since: str = SINCE,
    until: str = UNTIL,
    bucket: float = typer.Option(None, help="Length of one row in seconds"),
    as_json: bool = screen.JSON,
) -> None:
    """A metric over time, by attributes."""
    params = {"figure": figure, "by": by, "where": _where(where), "bucket_s": bucket, "since": since, "until": until}
    found = screen.client(start=True).otel.series(name, **params)
    if as_json:
        return screen.say_json(found)
    rows = [
        (screen.moment(at), *one["by"].values(), "" if value is None else f"{value:.6g}") for one in found["items"] for at, value in one["points"]
    ]
    screen.table(("at (UTC)", *by, f"{found['figure']} ({found['unit'] or 'no unit'})"), sorted(rows), "No point of it lies in that time.")


def genai(since: str = SINCE, until: str = UNTIL, as_json: bool = screen.JSON) -> None:
    """Calls, tokens and seconds of LLMs, as their clients measured them."""
    found = screen.client(start=True).otel.genai(**{name: value for name, value in {"since": since, "until": until}.items() if value})
    if as_json:
        return screen.say_json(found)
    rows = [
        (
            *(m[key] or "" for key in ("model", "provider", "operation", "service")),
            *map(_number, (m["calls"], m["tokens_in"], m["tokens_out"], m["p50_s"], m["p95_s"])),
        )
        for m in found
    ]
    heads = ("model", "provider", "operation", "service", "calls", "tokens in", "tokens out", "p50 s", "p95 s")
    screen.table(heads, rows, "No client has sent gen_ai.client.token.usage or gen_ai.client.operation.duration.")


def logs(
    level: str = typer.Option(None, help="The lowest level shown: debug, info, warn, error"),
    text: str = typer.Option("", help="What the body must hold"),
    trace: str = typer.Option(None, help="Only this trace's"),
    event: str = typer.Option(None, help="Only records of this event, e.g. gen_ai.choice"),
    where: list[str] = WHERE,
    since: str = SINCE,
    until: str = UNTIL,
    limit: int = typer.Option(20, help="How many"),
    as_json: bool = screen.JSON,
) -> None:
    """List log records, newest first."""
    filters = {"level": level, "text": text, "trace": trace, "event": event, "since": since, "until": until}
    found = screen.client(start=True).otel.logs(limit, where=_where(where), **filters)
    if as_json:
        return screen.say_json(found)
    rows = [
        (
            screen.moment(one["at"]),
            one["level"] or one["severity"] or "",
            (one["trace_id"] or "")[:8],
            one["event"] or "",
            screen.cut(one["body"], SHOWN),
        )
        for one in found["items"]
    ]
    screen.table(("at (UTC)", "level", "trace", "event", "body"), rows, "No log record fits.")


def _where(given: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.6g}"
