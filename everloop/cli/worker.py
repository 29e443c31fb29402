"""`everloop worker`: a process that runs steps."""

from __future__ import annotations

import os

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(worker)


def worker(
    url: str = typer.Option("http://127.0.0.1:7600", envvar="EVERLOOP_URL", help="The server to work for."),
    exit_idle: bool = typer.Option(False, help="End when there is nothing to do for a minute."),
) -> None:
    """Run pipelines' steps for a server.

    Its key in EVERLOOP_API_KEY; SIGTERM gives the step back.
    """
    from everloop.work.worker import Worker

    Worker(url, os.environ.pop("EVERLOOP_API_KEY", None), exit_idle).serve()
