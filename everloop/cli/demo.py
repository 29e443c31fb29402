"""`everloop demo`: a credit model and a tutor taken once round the loop, against a server of its own process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import typer

from everloop.cli.demo_report import Options, Report
from everloop.core.errors import BadInput
from everloop.core.settings import DEFAULT_HOME, DEFAULT_PORT

CASES = ("credit", "tutor")
"""Each is `run(client, report, options)` in cli/demo_NAME.py."""


STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    case: str = typer.Argument(None, help="credit or tutor; both when not given."),
    case_option: str = typer.Option(None, "--case", help="The same as the argument."),
    stop: bool = typer.Option(False, "--exit", help="Stop the server at the end (it drains; nothing is lost)."),
    port: int = typer.Option(None, help=f"The server's TCP port (default {DEFAULT_PORT})."),
    home: Path = typer.Option(None, help=f"Folder of all state (default {DEFAULT_HOME}, or EVERLOOP_HOME)."),
    json_file: Path = typer.Option(None, "--json", help="Write what happened to this file: stages, seconds, references, figures."),
    svg: Path = typer.Option(None, help="Write the last screen as a picture to this file."),
    yes: bool = typer.Option(None, "--yes/--wait", help="Approve what waits for a person, or leave it waiting (asked at a terminal; else yes)."),
    data: Path = typer.Option(None, help="credit: your own CSV or Parquet file."),
    target: str = typer.Option(None, help="credit: the column to predict (with --data)."),
    time: str = typer.Option(None, help="credit: the column that says when (with --data; row order where not given)."),
    positive: str = typer.Option(None, help="credit: the value of the target that counts as positive (with --data)."),
    require: list[str] = typer.Option(
        None, help="credit: what your model must show, e.g. 'auc >= 0.7' (again for more; with --data; else defaults)."
    ),
    docs: Path = typer.Option(None, help="tutor: your own folder of PDF, HTML, Markdown or text."),
    seed: int = typer.Option(7, help="Seed of the demo's own data."),
    per_week: int = typer.Option(500, min=50, help="credit: generated applications a week; fewer are faster and say less."),
) -> None:
    """Take a credit model and an LLM tutor once round the loop.

    Data, build, gate, serve, observe, adapt; the server stays running unless told otherwise.
    """
    if case and case_option and case != case_option:
        raise BadInput(f"Two cases are named, {case} and --case {case_option}.", "Name one, or none for both.")
    chosen = case or case_option or ("credit" if data else "tutor" if docs else None)
    wanted, missing = _cases(chosen)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    folder = home or Path(os.environ.get("EVERLOOP_HOME") or DEFAULT_HOME)
    given = yes is True or (yes is None and not terminal)
    options = Options(data, target, time, positive, docs, given, yes is None and terminal, seed, folder, per_week, tuple(require or ()))
    _check(options, wanted)
    from everloop.cli.demo_server import Server

    report = Report(own=bool(data or docs))
    for name in missing:
        report.show.text(f"{name} is not part of this installation; {' and '.join(wanted)} run{'s' if len(wanted) == 1 else ''}.")
    server = Server(folder, port or int(os.environ.get("EVERLOOP_PORT") or DEFAULT_PORT), report.show.text)
    code = _run(server, report, wanted, options, stop)
    _end(server, report, missing, json_file, svg, quiet=code == STOPPED)
    raise typer.Exit(code)


def _cases(chosen: str | None) -> tuple[list[str], list[str]]:
    """(cases to run, cases that this installation lacks); BadInput for an unknown one."""
    if chosen is not None and chosen not in CASES:
        raise BadInput(f"There is no case {chosen!r}.", f"Cases: {', '.join(CASES)}; without a name all run.")
    here = [name for name in CASES if importlib.util.find_spec(f"everloop.cli.demo_{name}") is not None]
    if chosen is not None and chosen not in here:
        raise BadInput(f"The case {chosen!r} is not part of this installation.", f"There is: {', '.join(here)}.")
    return ([chosen], []) if chosen else (here, [name for name in CASES if name not in here])


def _check(options: Options, cases: list[str]) -> None:
    """What the options name must be there and fit together, before anything starts."""
    from everloop.evaluate.rules import parse

    if options.data is not None:
        if not options.data.is_file():
            raise BadInput(f"There is no file {options.data}.", "Give a CSV or Parquet file: --data FILE --target COLUMN")
        if not options.target:
            raise BadInput(
                "--data needs --target, the column to predict.", f"For example: everloop demo credit --data {options.data} --target COLUMN"
            )
    elif options.target or options.time or options.positive or options.require:
        raise BadInput("--target, --time, --positive and --require go with --data FILE.", "Without a file the demo makes its own loans.")
    for rule in options.require:
        parse(rule)
    if options.docs is not None and not options.docs.is_dir():
        raise BadInput(f"There is no folder {options.docs}.", "Give a folder of PDF, HTML, Markdown or text: --docs DIR")
    for given, name in ((options.data, "credit"), (options.docs, "tutor")):
        if given is not None and name not in cases:
            raise BadInput(f"{given} is for the case {name}, which does not run.", f"Run: everloop demo {name}")


def _run(server: Any, report: Report, cases: list[str], options: Options, stop: bool) -> int:
    """All cases, one after the other; the exit code. What a case raises ends that case; Ctrl-C ends all."""
    code = 0
    try:
        server.start()
        for name in cases:
            try:
                importlib.import_module(f"everloop.cli.demo_{name}").run(server.client(), report, options)
            except Exception as error:  # whatever it is, the other case runs, and screen and JSON say what went wrong
                _outside(report, name, error)
                code = 2 if isinstance(error, BadInput) else 1
        if stop:
            server.stop()
    except KeyboardInterrupt:
        report.show.text("\nStopped by Ctrl-C.")
        server.undo([stage.run for stage in report.stages if stage.run])
        return STOPPED
    return code or (0 if report.ok else 1)


def _outside(report: Report, case: str, error: Exception) -> None:
    """An error between stages still shows: as a stage of its own."""
    if not any(stage.case == case and not stage.ok for stage in report.stages):
        try:
            with report.stage(case, "between stages"):
                raise error
        except type(error):
            return


def _end(server: Any, report: Report, missing: list[str], json_file: Path | None, svg: Path | None, quiet: bool) -> None:
    """The JSON file, and (unless someone has just pressed Ctrl-C) the last screen."""
    from everloop.cli import demo_screen

    if json_file is not None:
        report.write_json(json_file, url=server.url, home=str(server.home), running=server.alive())
    if quiet:
        return
    run = "./dev " if Path("dev").is_file() and Path("everloop").is_dir() else ""
    lines = demo_screen.screen(report, url=server.url, home=server.home, running=server.alive(), pid=server.pid(), cases_missing=missing, run=run)
    demo_screen.draw(lines, report)
    if svg is not None:
        demo_screen.save_svg(lines, svg)
