"""The server on this machine: found, or started as a process of its own that outlives the program, as people expect of an embedded tool."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.core.errors import UpstreamFailed
from everloop.core.settings import DEFAULT_HOME, DEFAULT_HOST, DEFAULT_PORT

START_SECONDS = 60.0
LOCK = "server.lock"
"""In the home: locked while a server runs; holds {"pid", "url"}."""


def local_server(start: bool = True) -> str:
    """The URL of a server on this machine. Where none answers one is started (UpstreamFailed if it does not come up).

    EVERLOOP_HOME names whose server: that home's own. Without it: the one at port 7600, else the one of `.everloop` here.
    """
    chosen = os.environ.get("EVERLOOP_HOME")
    home = Path(chosen or DEFAULT_HOME)
    port = int(os.environ.get("EVERLOOP_PORT") or DEFAULT_PORT)
    url = f"http://{DEFAULT_HOST}:{port}"
    if not chosen and health(url) is not None:
        return url
    found = running(home)
    if found and (not start or wait_healthy(found["url"], 5.0)):
        return str(found["url"])
    if not start:
        return url
    if port_taken(port):
        port = free_port()
    return start_server(home, port)


def start_server(home: Path, port: int, say: Callable[[str], None] | None = None) -> str:
    """Start `everloop up` detached and wait until it is healthy; says so on stderr, or by `say`. UpstreamFailed with its last words if it ends instead."""
    say = say or (lambda text: print(text, file=sys.stderr))
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    url = f"http://{DEFAULT_HOST}:{port}"
    say(f"everloop: no server answers; starting one at {url} (state in {home}, log in {log})")
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "everloop", "up", "--home", str(home), "--host", DEFAULT_HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        return _came_up(process, home, url, log, begin, say)
    except KeyboardInterrupt:
        process.terminate()  # it has a session of its own, so Ctrl-C did not reach it
        raise


def _came_up(process: subprocess.Popen[bytes], home: Path, url: str, log: Path, begin: int, say: Callable[[str], None]) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if health(url) is not None:
            say(f"everloop: ready, pid {process.pid}; stop it with: everloop down --home {home}")
            return url
        if process.poll() is not None:
            other = running(home)  # another program may have started one in the same moment
            if other and wait_healthy(other["url"], 10.0):
                return str(other["url"])
            with log.open("rb") as said:
                said.seek(begin)
                words = said.read()[-2000:].decode("utf-8", "replace").strip()
            raise UpstreamFailed(f"The local server ended with code {process.returncode}: {words or 'it said nothing'}", f"Its log is {log}.")
        time.sleep(0.05)
    raise UpstreamFailed(f"The local server at {url} was not ready within {START_SECONDS:.0f} s.", f"Its log is {log}.")


def running(home: Path) -> dict[str, Any] | None:
    """{"pid", "url"} of the live server of a home, or None: the lock is the proof, not the file."""
    import fcntl

    path = home / LOCK
    try:
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                told = json.loads(file.read() or "{}")
                return told if isinstance(told, dict) and told.get("url") else None
    except (OSError, ValueError):
        return None
    return None


def health(url: str, seconds: float = 2.0) -> dict[str, Any] | None:
    """What an everloop server says of itself at `url`, or None if none answers there or it is not ready."""
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + "/health", timeout=seconds) as answer:
            told = json.loads(answer.read(10_000))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return told if isinstance(told, dict) and told.get("name") == "everloop" else None


def wait_healthy(url: str, seconds: float) -> bool:
    """Whether a server is healthy within so many seconds."""
    until = time.monotonic() + seconds
    while health(url) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def port_taken(port: int, host: str = DEFAULT_HOST) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind((DEFAULT_HOST, 0))
        return int(probe.getsockname()[1])
