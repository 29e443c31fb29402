"""`everloop models`: registered models, their versions beside each other, deleting and restoring, whose pickles may be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen
from everloop.core.refs import Ref

_REF = typer.Argument(help="The version: NAME@3, NAME@champion, or KIND:NAME@3 for another kind than model")
_PRODUCER = typer.Argument(help="A principal as the record has it: key:ci, user:ann, local")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    models = typer.Typer(help="Registered models: compare, delete, trust whose pickles load.", no_args_is_help=True)
    for name, command in (("list", list_models), ("show", show), ("put", put), ("compare", compare)):
        models.command(name)(command)
    for name, command in (("delete", delete), ("restore", restore), ("deleted", deleted)):
        models.command(name)(command)
    for name, command in (("trusted", trusted), ("trust", trust), ("distrust", distrust)):
        models.command(name)(command)
    app.add_typer(models, name="models")


def list_models(search: str = typer.Option("", help="Only names that hold this"), as_json: bool = screen.JSON) -> None:
    """List registered models, last changed first."""
    found = screen.client().assets.list(kind="model", search=search)["items"]
    if as_json:
        return screen.say_json(found)
    rows = ((m["name"], m["latest"], ", ".join(f"{a}={v}" for a, v in m["aliases"].items()), screen.moment(m["updated_at"])) for m in found)
    screen.table(("model", "latest", "aliases", "updated"), rows, "No model is registered yet: log one with MLflow's client, or client.models.put().")


def show(ref: str = _REF, as_json: bool = screen.JSON) -> None:
    """Show one version: how it is served, what it takes and gives."""
    found = screen.client().assets.get(ref, kind=None if ":" in ref else "model")
    if as_json:
        return screen.say_json(found)
    m = found["manifest"]
    typer.echo(f"{found['ref']}  {m.get('format', '')}  {', '.join(found['aliases'])}")
    typer.echo(f"  made {screen.moment(found['created_at'])} UTC by {found['created_by']}{', run ' + found['run'] if found['run'] else ''}")
    typer.echo(f"  served by {m['engine']}" if m.get("engine") else f"  not served: {m.get('not_served', 'it names no engine')}")
    for column in (m.get("signature") or {}).get("inputs") or []:
        typer.echo(f"    {column['name']:<24} {column['type']}{'' if column.get('required', True) else ', may be missing'}")
    if found["description"]:
        typer.echo(f"  {found['description']}")


def put(
    name: str = typer.Argument(help="The model's name"),
    path: Path = typer.Argument(help="A file (.onnx .skops .ubj .json .lgb .txt .pt2) or the folder of a Hugging Face model"),
    description: str = typer.Option("", help="What it is"),
) -> None:
    """Register a model from a file or folder."""
    made = screen.client().models.put(name, path, description=description)
    typer.echo(f"{made['ref']}, served by {made['manifest']['engine']}")


def compare(
    left: str = _REF, right: str = typer.Argument(help="The other version: its number, alias, or latest"), as_json: bool = screen.JSON
) -> None:
    """Compare two versions: params, metrics, data, code, signature, files."""
    found = screen.client().assets.compare(_full(left), right)
    if as_json:
        return screen.say_json(found)
    sides = (found["from"], found["to"])
    typer.echo(f"{sides[0]['ref']}  beside  {sides[1]['ref']}{'  (same contents)' if found['same'] else ''}")
    for what in ("metrics", "params", "tags", "manifest"):
        rows = [(r["key"], _said(r["from"]), _said(r["to"]), screen.number(r.get("difference"))) for r in found[what] if r["changed"]]
        if rows:
            screen.table((what, sides[0]["ref"], sides[1]["ref"], "difference" if what == "metrics" else ""), rows)
    for side, changes in found["signature"].items():
        for one in changes:
            if one["change"] != "same":
                typer.echo(f"{side}: {one['name']} {one['change']}")
    for key in ("data", "code", "size"):
        if sides[0][key] != sides[1][key]:
            typer.echo(f"{key}: {_said(sides[0][key])}  ->  {_said(sides[1][key])}")


def delete(
    ref: str = _REF, permanent: bool = typer.Option(False, "--permanent", help="For good: its files are freed by garbage collection (admins)")
) -> None:
    """Put a version out of sight, or delete it for good; refused while something live needs it."""
    done = screen.client().assets.delete(_full(ref), permanent)
    if permanent:
        typer.echo(f"{done['ref']} is gone for good; {done['files']} files ({done['bytes']:,} bytes) can be freed: everloop data gc")
    else:
        typer.echo(f"{done['ref']} is out of sight. Bring it back with: everloop models restore {done['ref']}")


def restore(ref: str = _REF) -> None:
    """Bring a deleted version back."""
    typer.echo(f"{screen.client().assets.restore(_full(ref))['ref']} is back.")


def deleted(as_json: bool = screen.JSON) -> None:
    """List versions that were deleted and can be restored."""
    found = screen.client().assets.deleted()
    if as_json:
        return screen.say_json(found)
    screen.table(("version", "deleted", "description"), ((d["ref"], screen.moment(d["deleted_at"]), d["description"]) for d in found), "None.")


def trusted(as_json: bool = screen.JSON) -> None:
    """List producers whose pickles and code may be loaded."""
    found = screen.client().models.trusted()
    if as_json:
        return screen.say_json(found)
    rows = ((t["producer"], screen.moment(t["at"]), t["by"], t["why"]) for t in found)
    screen.table(
        ("producer", "since", "by", "why"), rows, "Nobody: only safe formats are loaded (skops, ONNX, safetensors, XGBoost's and LightGBM's own)."
    )


def trust(producer: str = _PRODUCER, why: str = typer.Option("", help="Why; it stays on the record")) -> None:
    """Let this producer's pickles and code be loaded, each model in a process of its own (admins)."""
    typer.echo(f"{screen.client().models.trust(producer, why)['producer']} is trusted from now on.")


def distrust(producer: str = _PRODUCER) -> None:
    """Load this producer's pickles and code no longer (admins)."""
    screen.client().models.distrust(producer)
    typer.echo(f"{producer} is trusted no longer.")


def _full(ref: str) -> str:
    return str(Ref.parse(ref, None if ":" in ref else "model"))


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
    return screen.number(value) or "-"
