"""`everloop traces`: list and search them, show one as a tree of spans; what acts on them is in trace_actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen, trace_actions

TEXT_SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    traces = typer.Typer(help="What happened in production, span by span.", no_args_is_help=True)

    traces.command("list")(list_traces)
    traces.command("search")(search)

    @traces.command("show")
    def show(trace_id: str = typer.Argument(help="The trace's id, or its first characters"), as_json: bool = screen.JSON) -> None:
        """Show one trace: its spans as a tree, its predictions, scores and log records."""
        from rich.console import Console

        server = screen.client(start=True)
        given = trace_id.removeprefix("chatcmpl-")
        trace = server.traces.get(screen.trace_id(server, given))
        if as_json:
            return screen.say_json(trace)
        console = Console()
        console.print(tree(trace))
        _beside(console, trace)

    @traces.command("export")
    def export(
        file: Path = typer.Argument(help="The file to write; its ending tells the format: .csv, .jsonl, .parquet"),
        format: str = typer.Option(None, help="csv, jsonl, parquet, openai-evals, openai-eval-items or fine-tuning"),
        of: str = typer.Option(None, help="Rows of traces, spans or predictions"),
        level: str = typer.Option(None, help="For conversations: call (all that the LLM was sent) or trace (what was asked and answered)"),
        score: str = trace_actions.SCORE,
        endpoint: str = trace_actions.ENDPOINT,
        status: str = trace_actions.STATUS,
        release: str = trace_actions.RELEASE,
        user: str = trace_actions.USER,
        session: str = trace_actions.SESSION,
        since: str = trace_actions.SINCE,
        until: str = trace_actions.UNTIL,
        text: str = trace_actions.TEXT,
        query: str = trace_actions.QUERY,
        limit: int = trace_actions.NEWEST,
    ) -> None:
        """Write traces to a file: a table, OpenAI's evals, or conversations to fine-tune on."""
        asked = {"of": of, "level": level, "score": score, "endpoint": endpoint, "status": status, "release": release, "user": user}
        more = {"session": session, "since": since, "until": until, "text": text, "query": query, "limit": limit}
        found = screen.client(start=True).traces.export(file, format, **asked, **more)
        typer.echo(f"{found['count']} {of or 'traces'} written to {found['file']}")
        for why, count in found["left_out"].items():
            typer.echo(f"left out: {count} ({why})")

    trace_actions.register(traces)
    app.add_typer(traces, name="traces")


def list_traces(
    query: str = typer.Argument("", help='A filter line, e.g.: endpoint:tutor status:error ms>2000 score.thumbs<0 "free text"'),
    endpoint: str = trace_actions.ENDPOINT,
    status: str = trace_actions.STATUS,
    release: str = trace_actions.RELEASE,
    user: str = trace_actions.USER,
    session: str = trace_actions.SESSION,
    since: str = trace_actions.SINCE,
    until: str = trace_actions.UNTIL,
    text: str = trace_actions.TEXT,
    limit: int = typer.Option(20, help="How many"),
    cursor: str = typer.Option(None, help="Go on where the page before ended"),
    as_json: bool = screen.JSON,
) -> None:
    """List traces, newest first."""
    filters = {"endpoint": endpoint, "status": status, "release": release, "user": user, "session": session, "since": since, "until": until}
    _list({**filters, "query": query or None, "text": text or ""}, limit, cursor, as_json)


def search(
    words: str = typer.Argument(help='Words that must all occur; "quoted words" are a phrase'),
    endpoint: str = trace_actions.ENDPOINT,
    since: str = trace_actions.SINCE,
    limit: int = typer.Option(20, help="How many"),
    cursor: str = typer.Option(None, help="Go on where the page before ended"),
    as_json: bool = screen.JSON,
) -> None:
    """Find traces by words of what was asked or answered."""
    _list({"text": words, "endpoint": endpoint, "since": since}, limit, cursor, as_json)


def _list(filters: dict[str, Any], limit: int, cursor: str | None, as_json: bool) -> None:
    page = screen.client(start=True).traces.list(limit, cursor, **filters)
    if as_json:
        return screen.say_json(page)
    rows = []
    for t in page["items"]:
        tokens = f"{t['tokens_in'] or 0}/{t['tokens_out'] or 0}" if t["tokens_in"] or t["tokens_out"] else ""
        cost = f"${t['cost']:.5f}" if t["cost"] is not None else ""
        told = (t["trace_id"], screen.moment(t["at"]), t["name"], t["release"], t["status"], f"{t['ms']:.1f}", tokens, cost)
        rows.append((*told, trace_actions.asked(t["inputs"], TEXT_SHOWN)))
    screen.table(("trace", "at (UTC)", "name", "release", "status", "ms", "tokens", "cost", "asked"), rows, "No trace fits.")
    if page["next"]:
        typer.echo(f"more: --cursor {page['next']}")


def _beside(console: Any, trace: dict[str, Any]) -> None:
    """What belongs to a trace beside its spans."""
    for p in trace["predictions"]:
        console.print(f"prediction {p['prediction_id']}: {screen.cut(p['outputs'], TEXT_SHOWN)}  label: {p['label']}", markup=False)
    for s in trace["scores"]:
        console.print(f"score {s['name']} = {s['value']}  ({s['source'] or s['by']})  {s['why']}", markup=False)
    for one in trace["logs"]:
        console.print(
            f"log {screen.moment(one['at'])} {one['level'] or ''} {one['event'] or ''}: {screen.cut(one['body'], TEXT_SHOWN)}", markup=False
        )


def tree(trace: dict[str, Any]) -> Any:
    """The spans of a trace as rich's tree: name, kind, latency, model and tokens, error; spans whose parent is missing hang from the top."""
    from rich.text import Text
    from rich.tree import Tree

    top = Tree(Text(f"trace {trace['trace_id']}"))
    known = {span["span_id"] for span in trace["spans"]}
    children: dict[str | None, list[dict[str, Any]]] = {}
    for span in trace["spans"]:
        parent = span["parent_id"] if span["parent_id"] in known and span["parent_id"] != span["span_id"] else None
        children.setdefault(parent, []).append(span)
    waiting = [(top, span) for span in children.get(None, [])]
    while waiting:
        above, span = waiting.pop(0)
        node = above.add(_line(span))
        waiting[:0] = [(node, child) for child in children.get(span["span_id"], [])]
    return top


def _line(span: dict[str, Any]) -> Any:
    from rich.text import Text

    line = Text(f"{span['kind']} ", style="bold")
    line.append(f"{span['name']}  {span['ms']:.1f} ms", style="red" if span["status"] == "error" else "")
    if span["model"]:
        line.append(f"  {span['model']}", style="cyan")
    if span["tokens_in"] is not None or span["tokens_out"] is not None:
        line.append(f"  {span['tokens_in'] or 0} + {span['tokens_out'] or 0} tokens")
    if span.get("cost"):
        line.append(f"  ${span['cost']:.5f}")
    for label, value in (("in", span["inputs"]), ("out", span["outputs"]), ("error", span["error"])):
        if value is not None:
            line.append(f"\n  {label}: {screen.cut(value, TEXT_SHOWN)}", style="dim")
    return line
