"""`everloop alias`, `everloop why`, `everloop impact`: move what is live, and ask what it rests on."""

from __future__ import annotations

import json
import re
from typing import Any

import typer

from everloop.cli import screen

LONGEST = 600
"""Characters of an answer's inputs and outputs that are printed."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("alias")(alias)
    app.command("why")(why)
    app.command("impact")(impact)


def alias(ref: str, name: str, decision: str = typer.Option(None, help="Gate decision to use."), why: str = "") -> None:
    """Move an alias to a version, through its gate."""
    moved = screen.client().assets.move_alias(ref, name, decision=decision, why=why)
    typer.echo(
        f"{moved['alias']}: {moved['from'] or '-'} -> {moved['to']}" + ("  (ungated)" if moved["ungated"] else f"  (decision {moved['decision']})")
    )


def why(
    id: str = typer.Argument(help="A trace's id or its first characters, an answer's id, a reference, a run's or decision's id"),
    all: bool = typer.Option(False, "--all", help="Earlier loads of the same data set too, one by one."),
    as_json: bool = screen.JSON,
) -> None:
    """What an answer, a version, a run or a decision rests on."""
    server = screen.client()
    if re.fullmatch("[0-9a-f]{4,31}", id):
        id = screen.trace_id(server, id)
    found = server.why(id)
    if as_json:
        return screen.say_json(found)
    if found.get("trace"):
        _say_answer(found["trace"], found["id"])
    typer.echo(f"{found['what']} {found['id']} rests on:")
    earlier = found.get("earlier") if not all else None
    hidden = set(earlier["hidden"]) if earlier else set()
    chains = {chain["after"]: chain["count"] for chain in earlier["chains"]} if earlier else {}
    for node in found["nodes"]:
        if node["ref"] not in hidden:
            typer.echo(f"  {node['ref']:<40} {_title(node)}")
        if node["ref"] in chains:
            typer.echo(f"  {'':<40} and {screen.counted(chains[node['ref']], 'earlier version')} that it was loaded onto (all: --all)")
    for decision in found["decisions"]:
        typer.echo(f"  decision {decision['id']}: {decision['verdict']} for {decision['alias']}: {decision['why']}")
        typer.echo(f"    {_who(decision)}")
    for move in found["moves"]:
        decision = f", decision {move['decision']}" if move.get("decision") else ""
        said = f": {move['why']}" if move.get("why") else ""
        when = f"{screen.moment(move['at'])} UTC"
        typer.echo(f"  {move['alias']}: {move['from_version'] or '-'} -> {move['to_version'] or '-'}, {when} by {move['by']}{decision}{said}")


def _say_answer(trace: dict[str, Any], id: str) -> None:
    """What was asked and answered, when, and what was said about it since."""
    typer.echo(f"answered {screen.moment(trace['at'])} UTC by {trace['release']} at endpoint {trace['endpoint']}")
    for name, value in (("in", trace.get("inputs")), ("out", trace.get("outputs"))):
        typer.echo(f"  {name + ':':<6} {_short(value)}")
    for one in trace.get("documents") or ():
        typer.echo(f"  read:  {one['document']} (passage {one['chunk']})")
    own = [score for score in trace.get("scores") or () if score["subject"] == id]
    for score in own:
        typer.echo(f"  {score['name']}: {screen.number(score['value'])}, {screen.moment(score['at'])} UTC by {score['by']}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else text[:LONGEST] + " ... (all of it: --json)"


def _title(node: dict[str, Any]) -> str:
    """What a version or run is, when and by whom, and the code that a run ran."""
    code = node.get("code") or {}
    ran = " ".join(str(part) for part in (code.get("asset"), code.get("entry")) if part)
    parts = [node.get("title", ""), f"ran {ran}" if ran else "", f"{screen.moment(node['at'])} UTC by {node['by']}" if node.get("at") else ""]
    return ", ".join(part for part in parts if part)


def _who(decision: dict[str, Any]) -> str:
    """Who asked for a decision and when, and who agreed or not, and why."""
    asked = f"asked {screen.moment(decision['at'])} UTC by {decision['by']}"
    if decision["approval"] not in ("approved", "rejected"):
        return asked + ("; waits for a person" if decision["approval"] == "pending" else "")
    said = f": {decision['approval_why']}" if decision.get("approval_why") else ""
    return f"{asked}; {decision['approval']} {screen.moment(decision['approved_at'])} UTC by {decision['approved_by']}{said}"


def impact(
    ref: str = typer.Argument(
        help="A version, or rows or documents of it: dataset:x@3#row=KEY, #number=N (from 0), #document=PATH, #SPLIT; without @3, in all versions"
    ),
    as_json: bool = screen.JSON,
) -> None:
    """What rests on a version, or on a row or document of it."""
    found = screen.client().impact(ref)
    if as_json:
        return screen.say_json(found)
    if found.get("part"):
        _say_reached(found)
    else:
        typer.echo(f"on {found['subject']} rest:")
        for node in found["nodes"]:
            typer.echo(f"  {node['ref']:<40} {node.get('title', '')}")
    _say_live(found)
    if found.get("not_reached"):
        typer.echo("did not reach:")
    for node in found.get("not_reached") or ():
        typer.echo(f"  {node['ref']:<40} {node['why']}")


def _say_reached(found: dict[str, Any]) -> None:
    """What some rows or documents reached surely, and what perhaps."""
    part = found["part"]
    what = "document" if part["kind"] == "document" else "row"
    typer.echo(f"{found['subject']}: {screen.counted(part['count'], what)} of {part['of']:,} in {', '.join(part['versions'])}")
    own = set(part["versions"])
    for reach, said in (
        ("yes", "reached:"),
        ("may", f"may have reached (on the way a step read the version and did not say which {what}s it took; so this is an upper bound):"),
    ):
        nodes = [node for node in found["nodes"] if node["reach"] == reach and node["ref"] not in own]
        if nodes:
            typer.echo(said)
        for node in nodes:
            typer.echo(f"  {node['ref']:<40} {_rows_of(node)}{node.get('title', '')}")
    if own == {node["ref"] for node in found["nodes"]}:
        typer.echo("reached nothing: no step took it")


def _rows_of(node: dict[str, Any]) -> str:
    """Which rows of a version they are there, from 0."""
    if not node.get("rows_count"):
        return ""
    what = "document" if "documents" in node.get("title", "") else "row"
    shown = ", ".join(map(str, node["rows"][:5])) + (" ..." if node["rows_count"] > 5 else "")
    return f"[{what}{'' if node['rows_count'] == 1 else 's'} {shown}] "


def _say_live(found: dict[str, Any]) -> None:
    """What of it answers now, how much it answered, and which decisions asked it."""
    for live in found["live"]:
        perhaps = ", if it was reached" if live.get("reach") == "may" else ""
        typer.echo(f"  live: endpoint {live['endpoint']} answers with {live['release']} ({live['alias']}){perhaps}")
    rows = found.get("predictions") or {}
    for ref, count in (found.get("answers") or {}).items():
        told = f" ({screen.counted(rows[ref], 'row')})" if rows.get(ref) else ""
        typer.echo(f"  {screen.counted(count, 'call')} answered by {ref}{told}")
    for one in found.get("decisions") or ():
        typer.echo(f"  judged on it: {one['ref']} as {one['alias']}, {one['verdict']} (decision {one['id'][:12]}, {one['suite']})")
