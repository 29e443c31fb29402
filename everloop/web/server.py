"""The server process: what must hold before it starts, its life, and a stop that loses nothing.

Cheap checks come first, each refusal a sentence: the home can be written and has space, no other server has it, the port is free, and where
others can reach it there is someone who may sign in.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from everloop.client.server import LOCK, health, running
from everloop.core.errors import BadInput, NoSpace
from everloop.core.limits import HOME_FREE_BYTES
from everloop.core.settings import Settings, is_loopback

DRAIN_SECONDS = 30
"""How long requests under way may take to finish once the server is told to stop."""
LOCK_SECONDS = 1.0
"""How long a start waits for the home's lock: someone may be looking whether a server has it."""
BACKLOG = 2048
"""Connections that wait to be accepted."""


def serve(settings: Settings, ready: Callable[[str], None] = lambda url: None) -> None:
    """Run a server until SIGTERM or SIGINT; `ready` is called with its URL once it answers. BadInput or NoSpace where it cannot start."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    prepare_home(settings.home)
    with lock_home(settings.home) as lock, bind(settings.host, settings.port) as listener:
        settings = replace(settings, port=int(listener.getsockname()[1]))
        from everloop.workspace.workspace import Workspace

        ws = Workspace(settings)
        if not is_loopback(settings.host):
            need_way_in(ws)
        _tell(lock, settings)
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, ws, listener, ready))


async def _run(settings: Settings, ws: Any, listener: socket.socket, ready: Callable[[str], None]) -> None:
    import uvicorn

    from everloop.web.app import create_app

    app = create_app(settings, ws)
    await ws.start()  # here and not in the lifespan, so that what is wrong is told as a sentence
    try:
        grpc = await _open_grpc(settings, app, ws)
    except BaseException:
        await ws.stop()
        raise

    class Server(uvicorn.Server):
        """uvicorn's, that says when it is ready and ends with 0 when told to stop."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(settings.url)

        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.draining = ws.draining = True
            super().handle_exit(sig, frame)

        @contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            with super().capture_signals():
                yield
                self._captured_signals.clear()

    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who one is must not depend on a header that anyone can send
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    try:
        await Server(config).serve(sockets=[listener])
    finally:
        if grpc is not None:
            await grpc.stop()
        if ws.started:
            await ws.stop()


async def _open_grpc(settings: Settings, app: Any, ws: Any) -> Any:
    """The receiver of OTLP over gRPC where the settings ask for one, else None."""
    if not settings.otlp_grpc:
        return None
    from everloop.protocols.otlp_grpc import Receiver
    from everloop.web.auth import SignIn

    receiver = Receiver(ws, SignIn(None, ws, app.state.rights).caller)
    await receiver.start(settings.host, settings.otlp_grpc)
    return receiver


def prepare_home(home: Path) -> None:
    """Make the home (for its owner alone) and see that it can be written. BadInput or NoSpace otherwise."""
    probe = home / f".probe.{os.getpid()}"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        probe.unlink(missing_ok=True) if error.errno == errno.ENOSPC else None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"The disk of the home {home} is full.", "Free some space, or choose another home with --home DIR.") from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise BadInput(f"The home {home} cannot be a folder: there is a file of that name.", "Choose another with --home DIR.") from error
        raise BadInput(f"The home {home} cannot be written: {error.strerror}.", "Choose another with --home DIR, or set EVERLOOP_HOME.") from error
    if free < HOME_FREE_BYTES:
        raise NoSpace(
            f"The disk of the home {home} has {free // 2**20} MB free; at least {HOME_FREE_BYTES // 2**20} MB are needed.",
            "Free some space, or choose another home with --home DIR.",
        )


@contextmanager
def lock_home(home: Path) -> Generator[IO[str], None, None]:
    """Hold the home's lock; BadInput names the server that has it. The lock ends with its process, so a stale file is simply taken over."""
    with (home / LOCK).open("a+") as file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    told = running(home) or {}
                    who = f"the server with pid {told['pid']} at {told['url']}" if told else "another server that is starting"
                    raise BadInput(
                        f"The home {home} is in use by {who}.", "Stop it with `everloop down`, or choose another home with --home DIR."
                    ) from None
                time.sleep(0.05)
        try:
            yield file
        finally:
            file.truncate(0)


@contextmanager
def bind(host: str, port: int) -> Generator[socket.socket, None, None]:
    """A bound TCP socket (port 0: any free one); BadInput says why not."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise _bind_error(host, port, error) from error
        yield listener


def _bind_error(host: str, port: int, error: OSError) -> BadInput:
    if error.errno == errno.EADDRINUSE:
        url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
        who = "an everloop server with another home" if health(url) else "another program"
        return BadInput(f"Port {port} of {host} is in use by {who}.", "Stop it, or choose another port: --port N (0: any free one).")
    if error.errno == errno.EACCES:
        return BadInput(f"Port {port} may not be used by this user.", "Ports below 1024 need rights; choose another: --port N.")
    return BadInput(f"{host}:{port} cannot be bound: {error.strerror or error}.", "Give an address of this machine: --host 127.0.0.1 or 0.0.0.0.")


def need_way_in(ws: Any) -> None:
    """Refuse to be reachable by others while nobody could sign in (BadInput)."""
    if os.environ.get("EVERLOOP_ADMIN_PASSWORD"):
        return
    from everloop.core.principal import SYSTEM
    from everloop.store.identity import any_way_in

    ws.records.open()
    try:
        allowed = ws.records.read_sync(SYSTEM, any_way_in)
    finally:
        ws.records.close()
        del ws.__dict__["records"]
    if not allowed:
        raise BadInput(
            f"Others can reach {ws.settings.host}, and there is no admin yet who could sign in.",
            f"Make one with `everloop admin create NAME --home {ws.home}`, or set EVERLOOP_ADMIN_PASSWORD.",
        )


def _tell(lock: IO[str], settings: Settings) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    lock.truncate(0)
    lock.write(json.dumps({"pid": os.getpid(), "url": replace(settings, host=host).url}))
    lock.flush()
