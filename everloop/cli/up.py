"""`everloop up` and `everloop down`: the server alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import typer

from everloop.core.errors import Busy, NotFound
from everloop.core.settings import DEFAULT_HOME, Settings

STOP_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("health")(health)


def up(
    host: str = typer.Option(None, help="Address to bind (default 127.0.0.1). Others than loopback need an admin: everloop admin create NAME."),
    port: int = typer.Option(None, help="TCP port (default 7600; 0: any free one)."),
    otlp_grpc: int = typer.Option(None, help="TCP port for OTLP over gRPC, usually 4317 (default: off; needs everloop[grpc])."),
    home: Path = typer.Option(None, help="Folder of all state (default .everloop, or EVERLOOP_HOME)."),
    workers: int = typer.Option(None, help="Worker processes that run pipelines (default 1; 0: start them elsewhere with `everloop worker`)."),
) -> None:
    """Start the server.

    SIGTERM or Ctrl-C lets it finish what is under way; nothing acknowledged is lost.
    """
    settings = Settings.load(host=host, port=port, otlp_grpc=otlp_grpc, home=home, workers=workers)
    from everloop.web.server import serve

    serve(settings, lambda url: print(f"everloop answers at {url}  (state in {settings.home}; Ctrl-C stops it)", flush=True))


def down(home: Path = typer.Option(None, help="Whose server (default .everloop, or EVERLOOP_HOME).")) -> None:
    """Stop the server of a home, and wait until it has ended."""
    from everloop.client.server import running

    folder = home or Path(os.environ.get("EVERLOOP_HOME") or DEFAULT_HOME)
    found = running(folder)
    if found is None:
        raise NotFound(f"No server of the home {folder} is running.", "Name the home: everloop down --home DIR")
    os.kill(int(found["pid"]), signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while running(folder) is not None:
        if time.monotonic() > until:
            raise Busy(
                f"The server (pid {found['pid']}) has not ended within {STOP_SECONDS:.0f} s.", "Requests may still be under way; wait, or kill it."
            )
        time.sleep(0.05)
    typer.echo(f"stopped {found['url']} (pid {found['pid']})")


def health() -> None:
    """Whether the server answers, and as whom one acts there."""
    from everloop.client import connect

    client = connect(start=False)
    state, me = client.health(), client.me()
    typer.echo(f"{client.url}: {state['status']}, everloop {state['version']}; you are {me['name']}, {me['role']} of project {me['project']}")
