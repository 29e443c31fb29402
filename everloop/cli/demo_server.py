"""The demo's server: the one that runs for this home, or a new process on the port asked for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.client import server as local
from everloop.core.errors import BadInput, Busy, EverloopError

STOP_SECONDS = 60.0
"""How long a server may take to drain."""


class Server:
    """A server for `home`; `say` tells what happens to it."""

    def __init__(self, home: Path, port: int, say: Callable[[str], None]) -> None:
        self.home, self.port, self.say = home, port, say
        self.url = f"http://{local.DEFAULT_HOST}:{port}"
        self.ours = False

    def start(self) -> None:
        """Use the home's running server, or start one. BadInput where the port is taken by something else."""
        found = local.running(self.home)
        if found is not None:
            self.url = str(found["url"])
            if not local.wait_healthy(self.url, local.START_SECONDS):
                raise Busy(f"The server of {self.home} at {self.url} does not say that it is ready.", f"Its log is {self.home / 'server.log'}.")
            elsewhere = "" if self.url.endswith(f":{self.port}") else f" (not on port {self.port}: a home has one server)"
            self.say(f"The server of {self.home} runs already at {self.url}{elsewhere}; it is used.")
            return
        if local.port_taken(self.port):
            who = "an everloop server with another home" if local.health(self.url) else "another program"
            raise BadInput(f"Port {self.port} is in use by {who}.", f"Stop it, or choose another port: everloop demo --port {self.port + 1}")
        from everloop.web.server import prepare_home

        prepare_home(self.home)
        self.say(f"Starting the server at {self.url} (state in {self.home}) ...")
        begun = time.monotonic()
        self.ours = True
        local.start_server(self.home, self.port, say=lambda text: None)
        self.say(f"Ready in {time.monotonic() - begun:.1f} s.")

    def client(self) -> Any:
        """A client of it: on this machine no key is needed, and a key for another server is not sent."""
        from everloop.client.base import Client
        from everloop.client.http import Http

        return Client(Http(self.url, None, None))

    def pid(self) -> int | None:
        """Its process, or None where none runs."""
        found = local.running(self.home)
        return int(found["pid"]) if found else None

    def alive(self) -> bool:
        """Whether it runs."""
        return local.running(self.home) is not None

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained and ended; Busy if it does not."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while self.alive():
            if time.monotonic() > until:
                raise Busy(f"The server (pid {pid}) has not ended within {STOP_SECONDS:.0f} s.", "Requests may still be under way; wait, or kill it.")
            time.sleep(0.05)
        self.say(f"The server (pid {pid}) has drained and stopped.")

    def undo(self, runs: list[str]) -> None:
        """After Ctrl-C: cancel the pipeline runs that were waited for, stop the server if the demo started it, and say how to go on."""
        for run in runs if self.alive() else ():
            try:
                self.client().pipelines.cancel(run)
                self.say(f"The pipeline run {run} is cancelled.")
            except EverloopError as error:
                self.say(f"The pipeline run {run} could not be cancelled: {error}")
        if self.ours:
            self.stop()
        self.say(f"What was done is kept in {self.home}, each version whole. Go on with the same command; begin anew after: rm -r {self.home}")
