"""Commands of `everloop traces` that act: score, add-to, replay, tail."""

from __future__ import annotations

import json
import time
from typing import Any

import typer

from everloop.assets import rubrics
from everloop.cli import screen
from everloop.core.errors import BadInput

ENDPOINT = typer.Option(None, help="Only this endpoint's")
STATUS = typer.Option(None, help="ok, error or unset")
RELEASE = typer.Option(None, help="Only those this release answered, e.g. release:tutor@3")
USER = typer.Option(None, help="Only this user's")
SESSION = typer.Option(None, help="Only this session's")
SINCE = typer.Option(None, help="From this time on: 2026-11-24T08:00:00Z or epoch seconds")
UNTIL = typer.Option(None, help="Before this time")
TEXT = typer.Option(None, help="Words that inputs or outputs must have")
QUERY = typer.Option(None, help='A filter line: endpoint:tutor status:error ms>2s score.thumbs<0 "free text"')
SCORE = typer.Option(None, help='Only traces whose score is so: "thumbs < 0"')
NEWEST = typer.Option(None, help="Only the newest so many")
TRACES = typer.Argument(None, help="Ids of traces (first characters suffice); none: all that the filters let through")
KINDS = ("dataset", "suite", "queue")
ANSWER_SHOWN = 70


def register(group: typer.Typer) -> None:
    """Add the commands to the group of traces."""
    group.command("score")(score)
    group.command("add-to")(add_to)
    group.command("replay")(replay)
    group.command("tail")(tail)


def score(
    subject: str = typer.Argument(help="A trace's id (first characters suffice), a prediction's, or session:ID"),
    name: str = typer.Argument(help="What is judged: thumbs, quality, correction ..."),
    value: str = typer.Argument(help="A number, true, false, or a text"),
    why: str = typer.Option("", help="Why"),
    source: str = typer.Option("cli", help="Who or what judged"),
) -> None:
    """Judge a trace, a prediction or a session. A text called `correction` is what should have been answered."""
    client = screen.client()
    plain = "-" not in subject and not subject.startswith("session:")
    whole = screen.trace_id(client, subject.removeprefix("chatcmpl-")) if plain else subject
    client.traces.add_score(whole, name, _value(value), source=source, why=why)
    typer.echo(f"{name} = {value} for {whole}")


def add_to(
    what: str = typer.Argument(help="dataset, suite or queue"),
    name: str = typer.Argument(help="Its name; it is made where it is not there"),
    traces: list[str] = TRACES,
    endpoint: str = ENDPOINT,
    status: str = STATUS,
    release: str = RELEASE,
    user: str = USER,
    session: str = SESSION,
    since: str = SINCE,
    until: str = UNTIL,
    text: str = TEXT,
    query: str = QUERY,
    score: str = SCORE,
    limit: int = NEWEST,
    tag: list[str] = typer.Option([], help="Suites: a tag of the cases. Repeat it"),
    ask: list[str] = typer.Option([], "--ask", help="A new queue: a question, e.g. quality=good,bad. Repeat it"),
    as_json: bool = screen.JSON,
) -> None:
    """Add traces to a dataset (rows), a suite (cases) or an annotation queue."""
    if what not in KINDS:
        raise BadInput(f"Traces cannot be added to a {what!r}.", f"They can be to a {', '.join(KINDS)}.")
    client = screen.client()
    filters = {"endpoint": endpoint, "status": status, "release": release, "user": user, "session": session, "since": since, "until": until}
    chosen = _chosen(client, traces, {**filters, "text": text, "query": query, "score": score, "limit": limit})
    if what == "queue":
        done = client.traces.add_to_queue(name, rubric=[rubrics.question(one) for one in ask] or None, **chosen)
        told, place = f"{done['added']} added to the queue {done['queue']}", f"{client.url}/ui/queues/{name}"
    elif what == "suite":
        done = client.traces.add_to_suite(name, tags=tag, **chosen)
        told, place = f"{done['ref']}: {done['added']} added, {done['cases']} cases", f"{client.url}/ui/assets/suite/{name}"
    else:
        done = client.traces.add_to_dataset(name, **chosen)
        told, place = f"{done['ref']}: {done['added']} added, {done['rows']} rows", f"{client.url}/ui/assets/dataset/{name}"
    if as_json:
        return screen.say_json(done)
    typer.echo(told)
    for why, n in done["left_out"].items():
        typer.echo(f"left out: {n} ({why})")
    typer.echo(place)


def replay(
    to: str = typer.Argument(help="The release to ask: release:tutor@4"),
    traces: list[str] = TRACES,
    endpoint: str = ENDPOINT,
    status: str = STATUS,
    release: str = RELEASE,
    user: str = USER,
    session: str = SESSION,
    since: str = SINCE,
    until: str = UNTIL,
    text: str = TEXT,
    query: str = QUERY,
    score: str = SCORE,
    limit: int = NEWEST,
    check: list[str] = typer.Option([], help="A check that judges both answers: groundedness, pii ... Repeat it"),
    as_json: bool = screen.JSON,
) -> None:
    """Ask a release what traces were asked, and compare; nothing of it is recorded as traffic."""
    client = screen.client()
    filters = {"endpoint": endpoint, "status": status, "answered_by": release, "user": user, "session": session, "since": since, "until": until}
    found = client.traces.replay(
        to, checks=check, **_chosen(client, traces, {**filters, "text": text, "query": query, "score": score, "limit": limit})
    )
    if as_json:
        return screen.say_json(found)
    rows = [
        (
            one["trace_id"][:12],
            screen.cut(one["question"], ANSWER_SHOWN),
            _said(one["before"]),
            one["after"].get("error") or _said(one["after"]),
            "" if one["changed"] is None else "changed" if one["changed"] else "same",
        )
        for one in found["items"]
    ]
    screen.table(("trace", "asked", "then", f"now ({found['release']})", ""), rows)
    s = found["summary"]
    typer.echo(f"{screen.counted(s['n'], 'trace')} asked again: {s['changed']} answered otherwise, {s['failed']} failed")
    for name, unit in (("ms", "ms (median)"), ("cost", "US dollars")):
        then, now = s[name]["before"], s[name]["after"]
        typer.echo(f"{unit}: {screen.number(then) or 'not known'} then, {screen.number(now) or 'not known'} now")
    for name, told in (*s["checks"].items(), *((("right", s["right"]),) if "right" in s else ())):
        typer.echo(f"{name}: {_share(told['before'])} then, {_share(told['after'])} now")


def tail(
    endpoint: str = ENDPOINT,
    status: str = STATUS,
    release: str = RELEASE,
    user: str = USER,
    session: str = SESSION,
    text: str = TEXT,
    seconds: float = typer.Option(86_400.0, help="How long to watch"),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line"),
) -> None:
    """Show traces as they come, until Ctrl-C."""
    filters = {"endpoint": endpoint, "status": status, "release": release, "user": user, "session": session, "text": text}
    client = screen.client(start=True)
    if not as_json:
        typer.echo("watching; Ctrl-C ends it", err=True)
    try:
        for t in client.traces.tail(seconds, **filters):
            typer.echo(json.dumps(t, default=str) if as_json else line(t))
    except KeyboardInterrupt:
        return


def line(t: dict[str, Any]) -> str:
    """A trace in a line: time, id, name, status, latency, tokens, cost, what was asked."""
    used = f"{t['tokens_in'] or 0}+{t['tokens_out'] or 0} tokens  " if t["tokens_in"] or t["tokens_out"] else ""
    cost = f"${t['cost']:.5f}  " if t["cost"] is not None else ""
    at = time.strftime("%H:%M:%S", time.gmtime(t["at"]))
    return f"{at}  {t['trace_id'][:12]}  {t['name']}  {t['status']}  {t['ms']:.1f} ms  {used}{cost}{asked(t['inputs'])}"


def asked(value: Any, chars: int = 100) -> str:
    """What was asked: the last message's text where it is a chat, else the inputs, shortened."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = value
    last = found[-1] if isinstance(found, list) and found else None
    said = last.get("content") if isinstance(last, dict) else None
    return screen.cut(said if isinstance(said, str) else value, chars).replace("\n", " ")


def _chosen(client: Any, traces: list[str] | None, filters: dict[str, Any]) -> dict[str, Any]:
    chosen = {key: value for key, value in filters.items() if value is not None}
    if traces:
        chosen["traces"] = [screen.trace_id(client, one.removeprefix("chatcmpl-")) for one in traces]
    if not chosen:
        raise BadInput("Nothing is selected.", "Name traces, or give a filter: --endpoint tutor --since 2026-11-24T08:00:00Z")
    return chosen


def _value(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float | bool | str) else text


def _said(side: dict[str, Any]) -> str:
    if "answer" in side:
        return screen.cut(side["answer"], ANSWER_SHOWN)
    return screen.cut(", ".join(str((one or {}).get("prediction")) for one in side["predictions"]), ANSWER_SHOWN)


def _share(told: dict[str, Any] | None) -> str:
    return "not judged" if told is None else f"{told['value']:.0%} of {told['n']} [{screen.interval(told['interval'])}]"
