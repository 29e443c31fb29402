"""The `everloop` command: each file of this folder adds its own with `register(app)`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys

import typer

import everloop
from everloop.core.errors import EverloopError

app = typer.Typer(
    name="everloop",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One open platform that takes any model to production and keeps it good there.",
)

PANELS = {
    "Begin": ("demo", "init", "apply", "up", "down", "health"),
    "Data and pipelines": ("data", "import", "index", "pipelines", "schedule", "runs", "experiments"),
    "Release and serve": ("models", "gates", "alias", "endpoints", "predict", "chat"),
    "Watch and explain": ("monitors", "traces", "why", "impact", "audit"),
    "Run and govern": ("keys", "members", "projects", "admin", "worker"),
}
"""Groups of commands in `everloop --help`; a command that is in none stands under Commands."""


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(everloop.__version__)
        raise typer.Exit


@functools.cache
def program() -> typer.Typer:
    """The whole command line: every file of this folder with a `register`, in the order of its name.

    A file with an underscore in its name is a part of a command (demo_tutor.py of demo.py), and read when that runs: it may be heavy.
    """
    package = importlib.import_module("everloop.cli")
    for info in pkgutil.iter_modules(package.__path__):
        if info.name != "main" and "_" not in info.name:
            module = importlib.import_module(f"everloop.cli.{info.name}")
            if hasattr(module, "register"):
                module.register(app)
    where = {name: (place, panel) for place, (panel, name) in enumerate((panel, name) for panel, names in PANELS.items() for name in names)}
    for listed in (app.registered_commands, app.registered_groups):
        listed.sort(key=lambda one: where.get(str(one.name), (len(where), ""))[0])
        for one in listed:
            one.rich_help_panel = where[one.name][1] if one.name in where else "Commands"
    return app


def main() -> None:
    """Run the command line; an EverloopError is printed as its sentence and gives its exit code."""
    try:
        program()()
    except EverloopError as error:
        print(f"{type(error).__name__}: {error.what}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        sys.exit(error.exit_code)
