"""`everloop up`: the server alone."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO, Any

import typer

from everloop.client.server import LOCK, running
from everloop.core.errors import BadInput
from everloop.core.settings import Settings, is_loopback


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    host: str = typer.Option(None, help="Address to bind; other than loopback needs an admin or an admin key."),
    port: int = typer.Option(None, help="TCP port (default 7600)."),
    home: Path = typer.Option(None, help="Folder of all state (default .everloop)."),
) -> None:
    """Start the server; SIGTERM or Ctrl-C drains it and loses nothing."""
    serve(Settings.load(host=host, port=port, home=home))


def serve(settings: Settings) -> None:
    """Run until told to stop. BadInput for a port in use, a home that cannot be used, or no admin where others can reach it."""
    lock = _lock(settings)
    listener = _bind(settings)
    import uvicorn

    from everloop.web.app import create_app

    app = create_app(settings)
    if not is_loopback(settings.host):
        _need_admin(app.state.workspace)
    config = uvicorn.Config(app, log_level="warning", access_log=False, http="httptools", loop="uvloop", timeout_graceful_shutdown=30)
    print(f"everloop answers at {settings.url}  (state in {settings.home})", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    lock.close()


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise BadInput(
            f"{settings.host}:{settings.port} cannot be bound: {error.strerror}.", "Stop what listens there, or choose another: --port N"
        ) from error
    return listener


def _lock(settings: Settings) -> IO[str]:
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = open(home / LOCK, "a+")  # noqa: SIM115 - held open for the life of the server
    except OSError as error:
        raise BadInput(f"The home {home} cannot be used: {error.strerror}.", "Choose another with --home DIR.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        told = running(home) or {}
        raise BadInput(
            f"The home {home} is in use by the server with pid {told.get('pid', '?')} at {told.get('url', '?')}.",
            "Stop that one, or choose another with --home DIR.",
        ) from None
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "url": settings.url}))
    file.flush()
    return file


def _need_admin(ws: Any) -> None:
    from everloop.core.principal import SYSTEM
    from everloop.store import identity

    if os.environ.get("EVERLOOP_ADMIN_PASSWORD"):
        return
    ws.records.open()
    allowed = ws.records.read_sync(SYSTEM, identity.any_way_in)
    ws.records.close()
    del ws.__dict__["records"]
    if not allowed:
        raise BadInput(
            "Others can reach this address, and there is no admin yet.",
            "Set EVERLOOP_ADMIN_PASSWORD, or start on 127.0.0.1 and make a key: everloop keys create NAME --role admin",
        )
