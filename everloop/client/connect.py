"""`el.connect()`: a client of the server that is there, or of a local one started for the purpose."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from everloop.client.http import Http, Unreachable
from everloop.core.errors import EverloopError
from everloop.core.settings import DEFAULT_HOME, DEFAULT_HOST, DEFAULT_PORT, is_loopback

START_SECONDS = 30.0


class Client:
    """A connection to one server. Namespaces (`client.assets`, `client.runs`, `client.gates`, ...) are the files of everloop/client."""

    def __init__(self, url: str, key: str | None = None, project: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = Http(url, key, project)

    def __getattr__(self, name: str) -> Any:
        """A namespace, made at first use: `client.assets` is everloop.client.assets.Assets."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            module = importlib.import_module(f"everloop.client.{name}")
        except ModuleNotFoundError:
            raise AttributeError(f"the client has no {name!r}") from None
        made = getattr(module, name.capitalize())(self._http)
        setattr(self, name, made)
        return made

    def me(self) -> dict[str, Any]:
        """Who this client acts as: name, project, role."""
        return dict(self._http.get("/api/v1/me"))

    def health(self) -> dict[str, Any]:
        """Whether the server is ready."""
        return dict(self._http.get("/health"))

    def why(self, id: str) -> dict[str, Any]:
        """What an answer, a version, a run or a decision rests on."""
        return dict(self._http.get(f"/api/v1/lineage/why/{quote(id, safe=':@')}"))

    def impact(self, ref: str) -> dict[str, Any]:
        """What rests on an asset version."""
        return dict(self._http.get("/api/v1/lineage/impact", params={"ref": ref}))


def connect(url: str | None = None, key: str | None = None, project: str | None = None, start: bool = True) -> Client:
    """A client of `url` (else EVERLOOP_URL, else this machine's port 7600) with `key` (else EVERLOOP_API_KEY).

    Where a local server is meant and none answers, one is started with its state in EVERLOOP_HOME (default .everloop), unless `start`
    is False; then, and where another machine does not answer, Unreachable is raised.
    """
    url = url or os.environ.get("EVERLOOP_URL") or f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    client = Client(url, key or os.environ.get("EVERLOOP_API_KEY"), project)
    parts = urlsplit(url)
    if not start or not is_loopback(parts.hostname or ""):
        return client
    if not _answers(url):
        _start(parts.hostname or DEFAULT_HOST, parts.port or DEFAULT_PORT, url)
    return client


@lru_cache(maxsize=1)
def default() -> Client:
    """The client that `el.run()` and others use when none is given: `connect()`, once."""
    return connect()


def _answers(url: str) -> bool:
    import urllib3

    try:
        return bool(urllib3.request("GET", f"{url.rstrip('/')}/health", timeout=2.0, retries=False).status == 200)
    except urllib3.exceptions.HTTPError:
        return False


def _start(host: str, port: int, url: str) -> None:
    home = Path(os.environ.get("EVERLOOP_HOME", DEFAULT_HOME))
    home.mkdir(parents=True, exist_ok=True)
    print(f"everloop: starting a server at {url} (state in {home})", file=sys.stderr)
    with open(home / "server.log", "ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "everloop", "up", "--host", host, "--port", str(port), "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if _answers(url):
            return
        if server.poll() is not None:
            said = (home / "server.log").read_text(errors="replace").strip().splitlines()[-2:]
            raise EverloopError(f"The local server did not start: {' '.join(said)}")
        time.sleep(0.1)
    raise Unreachable(f"The server started at {url} was not ready within {START_SECONDS:.0f} s.", f"Its log: {home / 'server.log'}")
