"""`everloop gates`: declare what must hold before an alias moves, evaluate versions, approve and reject."""

from __future__ import annotations

from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import GateRefused

_ID = typer.Argument(help="The decision's id, or its first characters")
_WHY = typer.Option("", help="Why; it stays on the record")

CASE_CHARS = 200
"""Characters of an answer that a case is shown with."""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    gates = typer.Typer(help="What must hold before an alias moves, and decisions.", no_args_is_help=True)
    for name, command in (("list", list_gates), ("declare", declare), ("evaluate", evaluate), ("decisions", decisions)):
        gates.command(name)(command)
    for name, command in (("pending", pending), ("show", show), ("approve", approve), ("reject", reject)):
        gates.command(name)(command)
    app.add_typer(gates, name="gates")


def list_gates(as_json: bool = screen.JSON) -> None:
    """List the project's gates."""
    found = screen.client().gates.list()
    if as_json:
        return screen.say_json(found)
    rows = ((f"{g['kind']}:{g['name']}@{g['alias']}", g["spec"]["suite"], g["spec"]["approval"], "; ".join(g["spec"]["requirements"])) for g in found)
    screen.table(("gate", "suite", "approval", "requirements"), rows, "No gate is declared: every alias moves freely.")


def declare(
    ref: str = typer.Argument(help="Whose alias: release:NAME (a plain NAME means a release)"),
    alias: str = typer.Argument("champion", help="The alias that it protects"),
    suite: str = typer.Option(..., help="The suite that versions are tested with: suite:NAME (latest) or suite:NAME@3"),
    require: list[str] = typer.Option(..., help="What must hold, e.g. 'auc >= 0.7' or 'auc >= champion - 0.01' (may be given again)"),
    confidence: float = typer.Option(0.95, help="How sure each requirement must be"),
    approval: str = typer.Option("never", help="Whether a person must agree: never, always, not_first"),
    expires_days: float = typer.Option(7.0, help="Days that a decision stays usable"),
) -> None:
    """Declare (or change) a gate."""
    from everloop.core.refs import Ref

    parsed = Ref.parse(ref if ":" in ref else f"release:{ref}")
    more = {"confidence": confidence, "approval": approval, "expires_days": expires_days}
    made = screen.client().gates.declare(parsed.kind, parsed.name, alias, suite=suite, requirements=require, **more)
    typer.echo(
        f"{made['kind']}:{made['name']}@{made['alias']} moves only when {' and '.join(made['spec']['requirements'])} ({made['spec']['suite']})."
    )
    typer.echo(f"Evaluate a version with: everloop gates evaluate {parsed.kind}:{parsed.name}")


def evaluate(
    ref: str = typer.Argument(help="The version to test: release:NAME (latest) or release:NAME@3"),
    alias: str = typer.Argument("champion", help="The alias that it should get"),
    move: bool = typer.Option(False, "--move", help="Move the alias at once where the decision allows it"),
    as_json: bool = screen.JSON,
) -> None:
    """Test a version against its gate; exit code 4 unless it passes."""
    client = screen.client()
    found = client.gates.evaluate(ref if ":" in ref else f"release:{ref}", alias)
    if move and found["verdict"] == "pass" and found["approval"] != "pending":
        found["moved"] = client.assets.move_alias(found["ref"], alias, decision=found["id"], why="evaluated by hand")
    screen.say_json(found) if as_json else say_decision(found, alias in client.assets.get(found["ref"])["aliases"])
    if found["verdict"] != "pass":
        raise typer.Exit(GateRefused.exit_code)


def decisions(
    name: str = typer.Argument(None, help="Only those about this name"),
    kind: str = typer.Option(None, help="Only this kind of asset"),
    version: int = typer.Option(None, help="Only this version"),
    approval: str = typer.Option(None, help="Only these: pending, approved, rejected, not_needed"),
    limit: int = typer.Option(20, help="How many"),
    as_json: bool = screen.JSON,
) -> None:
    """List decisions, newest first."""
    found = screen.client().gates.decisions(kind=kind, name=name, version=version, approval=approval, limit=limit)
    _say_list(found, as_json, "No decision is on record.")


def pending(limit: int = typer.Option(100, help="How many"), as_json: bool = screen.JSON) -> None:
    """List the decisions that wait for a person."""
    _say_list(screen.client().gates.decisions(approval="pending", limit=limit), as_json, "Nothing waits for approval.")


def show(
    id: str = _ID,
    cases: bool = typer.Option(False, "--cases", help="A chat's questions one by one: what was expected, what came, the wrong ones first"),
    wrong: bool = typer.Option(False, "--wrong", help="Only the questions that went wrong"),
    as_json: bool = screen.JSON,
) -> None:
    """Show a decision: its verdict, and every requirement with figure, interval and reason."""
    client = screen.client()
    found = client.gates.decision(_full(id))
    told = [case for case in client.gates.cases(found["id"]) if not (wrong and case["right"])] if cases or wrong else []
    if as_json:
        return screen.say_json({**found, **({"cases": told} if cases or wrong else {})})
    say_decision(found, found["alias"] in client.assets.get(found["ref"])["aliases"])
    if cases or wrong:
        say_cases(told)


def say_cases(cases: list[dict[str, Any]]) -> None:
    """Print questions one by one: right or wrong and why, then expected and got."""
    for case in cases:
        sign, colour = ("right", "green") if case["right"] else ("WRONG", "red")
        typer.echo(f"\n{typer.style(sign, fg=colour)} {case['question']}  ({case['kind'].replace('_', ' ')})")
        typer.echo(f"  {case['why']}")
        for name, value in (
            ("expected", ", ".join(case["expected_sources"])),
            ("found", ", ".join(case["found"])),
            ("answer wanted", case["expected_answer"]),
        ):
            if value:
                typer.echo(f"  {name}: {screen.cut(value, CASE_CHARS)}")
        if not case["right"] or case["covered"] is not None:
            typer.echo(f"  got: {screen.cut(case['answer'] or '-', CASE_CHARS)}")
    if not cases:
        typer.echo("\nNo question to show.")


def approve(id: str = _ID, why: str = _WHY, move: bool = typer.Option(True, help="Move the alias at once"), as_json: bool = screen.JSON) -> None:
    """Approve a decision that waits; its alias moves at once."""
    found = screen.client().gates.approve(_full(id), why, move)
    if as_json:
        return screen.say_json(found)
    moved = found.get("moved")
    typer.echo(
        f"approved by {found['approved_by']}: {found['ref']}" + (f" is now {found['alias']} (before: {moved['from'] or 'none'})" if moved else "")
    )


def reject(id: str = _ID, why: str = _WHY, as_json: bool = screen.JSON) -> None:
    """Reject a decision that waits; its version stays out."""
    found = screen.client().gates.reject(_full(id), why)
    if as_json:
        return screen.say_json(found)
    typer.echo(f"rejected by {found['approved_by']}: {found['ref']} does not become {found['alias']}")


def say_decision(found: dict[str, Any], holds: bool) -> None:
    """Print a decision: what it is about, each requirement, what comes next; `holds`: its version has the alias now."""
    against = f" against {found['against']}" if found["against"] else ""
    typer.echo(f"{found['ref']} for {found['alias']}{against}: " + typer.style(found["verdict"], fg=screen.COLOURS.get(found["verdict"]), bold=True))
    part = found["spec"].get("suite_part")
    if part:
        typer.echo(f"asked on {part['rows']:,} of {part['of']:,} rows: the part {part['dataset']}")
    for score in found["scores"]:
        verdict = typer.style(f"{score['verdict']:<12}", fg=screen.COLOURS.get(score["verdict"]))
        typer.echo(f"  {verdict} {score['why'] or score['name']}")
    if not found["scores"]:
        typer.echo(f"  {found['why']}")
    typer.echo(f"decision {found['id']}, {screen.moment(found['at'])} UTC by {found['by']}, usable until {screen.moment(found['expires_at'])}")
    if found["approval"] in ("approved", "rejected"):
        typer.echo(f"{found['approval']} by {found['approved_by']}, {screen.moment(found['approved_at'])} UTC. {found['approval_why']}".rstrip())
    all_the_same = "" if found["verdict"] == "pass" else " all the same: it was before, and stays until the alias is moved"
    typer.echo(f"{found['ref']} is {found['alias']}{all_the_same or ' now'}." if holds else _next(found))


def _next(found: dict[str, Any]) -> str:
    if found["approval"] == "pending":
        return f"It waits for a person: everloop gates approve {found['id']}"
    if found["verdict"] == "pass" and found["approval"] != "rejected":
        return f"Make it {found['alias']}: everloop alias {found['ref']} {found['alias']}"
    return f"{found['alias']} stays where it is."


def _say_list(found: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    if as_json:
        return screen.say_json(found)
    rows = ((d["id"], screen.moment(d["at"]), d["ref"], d["alias"], d["against"] or "-", d["verdict"], d["approval"], d["by"]) for d in found)
    screen.table(("decision", "at (UTC)", "version", "alias", "against", "verdict", "approval", "asked by"), rows, empty)


def _full(id: str) -> str:
    return screen.full_id(id, "decision", lambda limit: (d["id"] for d in screen.client().gates.decisions(limit=limit)))
