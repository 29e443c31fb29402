"""What commands share: a client, plain tables that stay whole when piped, JSON, short ids and times."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from everloop.core.errors import BadInput, NotFound

JSON = typer.Option(False, "--json", help="Print what the server answers, as JSON")
"""The option that lists and shows take."""
ID_CHARS = 32
IDS_LOOKED_AT = 500
"""How many of the newest ids a shortened one is looked for in."""
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", "pending": "yellow", "rejected": "red", "approved": "green"}


def client(start: bool = False, url: str | None = None) -> Any:
    """The SDK's client of `url` (EVERLOOP_URL, else the local server); with `start`, a local server is started where none answers."""
    from everloop.client import connect

    return connect(url, start=start)


def say_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, where that is a terminal, for work that says (what, done, total)."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        tasks: dict[str, Any] = {}

        def say(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what[:40], total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield say


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "") -> None:
    """Print rows under column names, padded to the widest cell; `empty` is said instead where there are none."""
    cells = [["" if value is None else str(value).replace("\n", " ") for value in row] for row in rows]
    if not cells:
        typer.echo(empty or "none")
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    typer.echo(typer.style("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip(), bold=True))
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        padded = [typer.style(cell, fg=COLOURS[cell.strip()]) if cell.strip() in COLOURS else cell for cell in padded]
        typer.echo("  ".join(padded).rstrip())


def moment(at: float | None) -> str:
    """Epoch seconds as `2026-11-24 08:00` (UTC); nothing for None."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def number(value: Any, digits: int = 4) -> str:
    """A figure with that many digits, other values as they are, nothing for None."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return "" if value is None else str(value)


def interval(found: Sequence[float] | None) -> str:
    """`0.71 to 0.78`, or nothing."""
    return f"{found[0]:.4g} to {found[1]:.4g}" if found else ""


def counted(n: int, what: str) -> str:
    """A count with its noun: "1 call", "3,000 calls"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def cut(value: Any, chars: int) -> str:
    """A text, or another value as JSON, cut to `chars` characters; nothing for None."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= chars else text[: chars - 1] + "…"


def full_id(given: str, what: str, list_ids: Callable[[int], Iterable[str]]) -> str:
    """The id that `given` is the beginning of, among the newest; NotFound or BadInput where there is none or more than one."""
    if len(given) >= ID_CHARS:
        return given
    if len(given) < 4:
        raise BadInput(f"{given!r} is too short for the id of a {what}.", "Give its first four characters or more.")
    found = [id for id in list_ids(IDS_LOOKED_AT) if id.startswith(given)]
    if not found:
        raise NotFound(f"No {what} among the newest {IDS_LOOKED_AT} has an id that begins with {given!r}.", f"Give the whole id of an older {what}.")
    if len(found) > 1:
        raise BadInput(f"{len(found)} {what}s have an id that begins with {given!r}.", f"They are: {', '.join(found[:5])}")
    return found[0]


def trace_id(client: Any, given: str) -> str:
    """The whole id of the trace that `given` is the beginning of."""
    return full_id(given, "trace", lambda limit: (one["trace_id"] for one in client.traces.list(limit)["items"]))


def json_of(text: str | None, option: str) -> Any:
    """JSON given as text, or as @FILE; None for None. BadInput names the option."""
    if text is None:
        return None
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise BadInput(f"{option} is not JSON: {error}.", f"Give it in quotes, or in a file: {option} @FILE.json") from None
