"""`everloop labels ...`: annotation queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from everloop.assets import rubrics
from everloop.cli import screen
from everloop.cli.labels_join import join
from everloop.core.errors import BadInput

SHOWN_CHARS = 60


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Labels: queues of rows, documents or traces that people label.", no_args_is_help=True)
    app.add_typer(group, name="labels")
    for command in (make, show, close, dataset, join):
        group.command(command.__name__)(command)
    group.command("list")(list_queues)


def make(
    name: str = typer.Argument(help="Name of the queue"),
    source: str = typer.Argument(help="What to label: dataset:NAME (rows, documents) or endpoint:NAME (its traces)"),
    ask: list[str] = typer.Option(
        [], "--ask", help="A question: quality=good,bad (classes), quality=bad<fair<good (in order), score=1..5, or note (text)"
    ),
    rubric: Path = typer.Option(None, help="Or a JSON file with the questions and their instructions"),
    annotator: list[str] = typer.Option([], help="Who labels: a user's name, key:NAME, or * for every member. Repeat it. Editors always may"),
    overlap: int = typer.Option(1, help="Labels wanted of each item"),
    extra: int = typer.Option(0, help="Further labels where those differ"),
    dealt: bool = typer.Option(False, "--dealt", help="Deal the items to the annotators now, instead of to who comes first"),
    order: str = typer.Option("given", help="given, random, uncertainty, score or disagreement"),
    release: str = typer.Option(None, help="uncertainty: the release whose probabilities count"),
    column: str = typer.Option(None, help="uncertainty: the column with a probability"),
    score: str = typer.Option(None, help="score: its name; the lowest come first"),
    limit: int = typer.Option(1000, help="Items at most"),
    instructions: str = typer.Option("", help="What annotators read first"),
    as_json: bool = screen.JSON,
) -> None:
    """Make a queue: what people label, by which questions, in which order."""
    by: dict[str, Any] = {"by": order, **({"release": release} if release else {}), **({"column": column} if column else {})}
    by |= {"score": score} if score else {}
    spec = {"annotators": annotator, "overlap": overlap, "extra": extra, "assignment": "dealt" if dealt else "open", "order": by}
    client = screen.client()
    made = client.labels.make(name, source, _rubric(ask, rubric), limit=limit, instructions=instructions, **spec)
    if as_json:
        return screen.say_json(made)
    typer.echo(f"{made['name']}: {made['items']:,} {made['spec']['of']} of {made['spec']['source']}, {overlap} label(s) each")
    typer.echo(f"Label at {client.url}/ui/queues/{name}")


def list_queues(as_json: bool = screen.JSON) -> None:
    """List queues and how far each is."""
    found = screen.client().labels.list()
    if as_json:
        return screen.say_json(found)
    rows = (
        (q["name"], q["spec"]["source"], f"{q['done']}/{q['items']}", q["labels"], q["contested"], "closed" if q["closed_at"] else "open")
        for q in found
    )
    screen.table(
        ("queue", "of", "done", "labels", "contested", "state"),
        rows,
        "No queue yet. Make one: everloop labels make NAME dataset:NAME --ask quality=good,bad",
    )


def show(name: str = typer.Argument(help="The queue"), limit: int = typer.Option(20, help="Items to show"), as_json: bool = screen.JSON) -> None:
    """Show a queue: progress, who labelled, how far they agree, and its items with their labels."""
    client = screen.client()
    queue, items = client.labels.get(name), client.labels.items(name)
    if as_json:
        return screen.say_json({**queue, "labelled": items})
    typer.echo(
        f"{queue['name']}: {queue['spec']['of']} of {queue['spec']['source']}; {queue['done']} of {queue['items']} done, {queue['contested']} contested"
    )
    for person in queue["people"]:
        typer.echo(f"  {person['annotator']}: {person['labels']} labelled, {person['skipped']} skipped, last {screen.moment(person['last_at'])} UTC")
    for question, told in queue["agreement"].items():
        typer.echo(f"  {question}: {agreed(told)}")
    rows = []
    for one in sorted(items, key=lambda i: -len(i["labels"]))[:limit]:
        said = "; ".join(f"{label['annotator']}: {'skipped' if label['skipped'] else _said(label['answers'])}" for label in one["labels"])
        rows.append((one["item"], screen.cut(one["shown"], SHOWN_CHARS), said or "-"))
    screen.table(("item", "what", "labels"), rows, "No items.")


def close(name: str = typer.Argument(help="The queue"), reopen: bool = typer.Option(False, "--open", help="Open it again")) -> None:
    """Close a queue: its labels stay, no more are taken."""
    screen.client().labels.change(name, closed=not reopen)
    typer.echo(f"{name} is {'open again' if reopen else 'closed'}.")


def dataset(
    name: str = typer.Argument(help="The queue"),
    to: str = typer.Option(None, "--name", help="The dataset (default: of the queue's name)"),
    least: int = typer.Option(1, help="Only items with at least so many labels"),
    target: str = typer.Option(None, help="The question that a model shall predict"),
    as_json: bool = screen.JSON,
) -> None:
    """Make a dataset version of the labels: who said what and when, with its source in the lineage."""
    made = screen.client().labels.dataset(name, to, least=least, target=target)
    if as_json:
        return screen.say_json(made)
    tied = f"; {made['tied']} answers left open, as many gave one as another" if made["tied"] else ""
    typer.echo(f"{made['ref']}: {made['labelled']} labelled items, {made['left_out']} left out{tied}")


def agreed(told: dict[str, Any]) -> str:
    """An agreement in words: alpha with its interval and n, or why it cannot be told."""
    if told["alpha"] is None:
        return f"agreement cannot be told yet ({told['n']} items with two labels or more)"
    low, high = told["interval"] or (None, None)
    between = f" [{low:.2f}, {high:.2f}]" if low is not None else ""
    return f"alpha {told['alpha']:.3f}{between}, all agree on {told['share']:.0%} of {told['n']} ({told['level']})"


def _said(answers: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in answers.items())


def _rubric(ask: list[str], file: Path | None) -> list[dict[str, Any]]:
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise BadInput(f"{file} cannot be read as a rubric: {error}.", "Give a JSON file with a list of questions.") from None
        if not isinstance(found, list):
            raise BadInput(f"{file} holds no list of questions.", 'For example: [{"name": "quality", "classes": ["good", "bad"]}]')
        return found
    return [rubrics.question(text) for text in ask]
