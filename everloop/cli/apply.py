"""`everloop apply`: register what a project file declares."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

import typer

from everloop.cli import screen
from everloop.core.errors import BadInput, Forbidden

FILE = "project.py"
"""The file that is looked for in a folder."""
SIGNS = {"created": ("+", "green"), "changed": ("~", "yellow"), "unchanged": ("=", None), "not loaded": ("?", None)}
VALUE_CHARS = 60


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("apply")(apply)


def apply(
    path: Path = typer.Argument(Path("."), help=f"The project's file, or its folder (then {FILE} in it)"),
    server: str = typer.Option(
        None, help="The server's URL (default: EVERLOOP_URL, else the local one, started where none runs); its key in EVERLOOP_API_KEY"
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything and say what would change; register nothing"),
    as_json: bool = screen.JSON,
) -> None:
    """Register what a project file declares.

    Pipelines, gates, endpoints, monitors ...: all of it or nothing; a second time says unchanged.
    """
    file = find(path)
    projects = load(file)
    client = screen.client(start=True, url=server)
    done = []
    for project in projects:
        try:
            done.append(client.declare.apply(project, dry_run=dry_run))
        except (BadInput, Forbidden) as error:
            if not error.details.get("problems"):
                raise
            raise type(error)(_listed(file, error.details["problems"]), "Nothing was registered.") from None
    if as_json:
        return screen.say_json({"server": client.url, "projects": done})
    me = client.me()
    for one in done:
        say(one, f"{file.name} at {client.url}, project {me['project']}")
    if not dry_run:
        _say_next(client, done)


def find(path: Path) -> Path:
    """The project file that `path` means; BadInput says what to do where it cannot be told."""
    if path.is_file():
        if path.suffix != ".py":
            raise BadInput(f"{path} is not a Python file.", f"Name the file that declares the project, such as {FILE}.")
        return path
    if not path.is_dir():
        raise BadInput(f"There is no file or folder {path}.", "Make a project with: everloop init DIR")
    if (path / FILE).is_file():
        return path / FILE
    found = [file for file in sorted(path.glob("*.py")) if "el.Project(" in file.read_text(encoding="utf-8", errors="replace")]
    if len(found) == 1:
        return found[0]
    told = f"{len(found)} files there declare one: {', '.join(f.name for f in found)}" if found else f"there is no {FILE}"
    raise BadInput(f"The folder {path.resolve()} has no project to apply: {told}.", "Name the file, or make a project with: everloop init DIR")


def load(file: Path) -> list[Any]:
    """The projects that a file declares; BadInput with file and line where it fails."""
    from everloop.client.declare import Project

    file = file.resolve()
    if file.stem == "everloop":
        raise BadInput("A project file cannot be called everloop.py: it would hide the package.", f"Rename it, for example to {FILE}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BadInput as error:
        raise BadInput(f"{_where(file, error)}: {error.what}", error.hint) from None
    except Exception as error:
        hint = "Install what it needs, here and where workers run." if isinstance(error, ImportError) else "Mend it; nothing was registered."
        told = error.msg if isinstance(error, SyntaxError) else error
        raise BadInput(f"{_where(file, error)} fails: {type(error).__name__}: {told}", hint) from None
    found: list[Any] = []
    for value in vars(module).values():
        if isinstance(value, Project) and value not in found:
            found.append(value)
    if not found:
        raise BadInput(
            f"{file.name} declares no project.", 'Write: project = everloop.Project("NAME"), then project.pipeline(...), project.endpoint() ...'
        )
    return found


def say(done: dict[str, Any], where: str) -> None:
    """Print what was created (+), changed (~) and left alone (=)."""
    typer.echo(typer.style(f"{done['project']}: {where}", bold=True))
    for one in done["items"]:
        sign, colour = SIGNS[one["change"]]
        told = one["ref"] if one["what"] in ("dataset", "code", "prompt", "policy", "suite", "gate") else one["name"]
        more = f"  {one['size']}" if one.get("size") else f"  from {one['from']}, when it is applied" if one.get("from") else ""
        typer.echo(typer.style(f"  {sign} {one['what']:<9} {told}{more}", fg=colour))
        for change in one["differences"]:
            for line in _difference(change):
                typer.echo(f"      {line}")
        for note in one["notes"]:
            typer.echo(f"      note: {note}")
    counts = {name: sum(one["change"] == name for one in done["items"]) for name in SIGNS}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    typer.echo(f"{told}. Nothing was registered: this was a dry run." if done["dry_run"] else f"{told}.")


def _difference(change: dict[str, Any]) -> list[str]:
    """A changed field in lines: lists of texts as what went and what came, else both values."""
    field, old, new = change["field"], change["from"], change["to"]
    if all(isinstance(side, list) and all(isinstance(one, str) for one in side) for side in (old, new)):
        return [f"{field}: - {one}" for one in old if one not in new] + [f"{field}: + {one}" for one in new if one not in old]
    if (old, new) == ("there", "changed"):
        return [f"{field}: changed"]
    return [f"{field}: {screen.cut(old, VALUE_CHARS)} -> {screen.cut(new, VALUE_CHARS)}"]


def _say_next(client: Any, done: list[dict[str, Any]]) -> None:
    names = {
        what: [one["name"] for project in done for one in project["items"] if one["what"] == what] for what in ("pipeline", "endpoint", "monitor")
    }
    waiting = [name for name in names["endpoint"] if not any(part["ref"] for part in client.endpoints.get(name)["live"])]
    if waiting and names["pipeline"]:
        typer.echo(f"\nNothing is live behind {', '.join(waiting)} yet. Next: everloop pipelines run {names['pipeline'][0]}")
    elif names["pipeline"] and any(one["change"] != "unchanged" for project in done for one in project["items"]):
        typer.echo(f"\nWhat is live stays as it was. To build and test what changed: everloop pipelines run {names['pipeline'][0]}")
    elif names["endpoint"]:
        typer.echo(f"\nSee what is live: everloop endpoints list   or {client.url}/ui")


def _listed(file: Path, problems: list[dict[str, str]]) -> str:
    lines = [f"{p['what']} {p['name']}: {p['why']} {p['hint']}".rstrip() for p in problems]
    count = "One declaration" if len(lines) == 1 else f"{len(lines)} declarations"
    return "\n  ".join([f"{count} of {file.name} cannot be:", *lines])


def _where(file: Path, error: BaseException) -> str:
    """`project.py, line 12`: the last line of the user's own file on the way to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno},"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f"{file.name}, line {lines[-1]}," if lines else file.name
