"""`el.connect()` and the client it answers, whose namespaces mirror the server's rooms.

`client.runs` is class `Runs` of `client/runs.py`, imported when it is first asked for; a new file in this folder is a new namespace.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from everloop.client.http import Http


class Client:
    """A server, seen as one principal in one project. Safe to share between threads."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @property
    def url(self) -> str:
        """Where the server answers."""
        return self._http.url

    def me(self) -> dict[str, Any]:
        """Who this client acts as: {"name", "project", "role", "kind", "site_admin"}."""
        return self._http.get("/api/v1/me")

    def health(self) -> dict[str, Any]:
        """Whether the server is ready: {"status", "version"}; Busy while it starts or drains."""
        return self._http.get("/health")

    def why(self, id: str) -> dict[str, Any]:
        """What stood behind an answer, a version, a run or a decision (back through lineage)."""
        return self._http.get(f"/api/v1/lineage/why/{quote(id, safe='')}")

    def impact(self, ref: str) -> dict[str, Any]:
        """What a version touched: every version, release and answer made from it (forward through lineage).

        Of a row, document or split (`dataset:x@3#row=KEY`, `#number=N`, `#document=PATH`, `#train`; without @3, in all versions) each node has "reach":
        yes, or may where a step declared no rows; "not_reached" says which did not, and why.
        """
        return self._http.get("/api/v1/lineage/impact", params={"ref": ref})

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """A namespace, made at first use."""
        module = f"everloop.client.{name}"
        if not name.startswith("_") and importlib.util.find_spec(module) is not None:
            made = getattr(importlib.import_module(module), name.capitalize(), None)
            if made is not None:
                namespace = made(self._http)
                self.__dict__[name] = namespace
                return namespace
        raise AttributeError(f"The client has no {name!r}; it has: {', '.join(_namespaces())}.")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_namespaces()})

    def __repr__(self) -> str:
        return f"<everloop client of {self.url}>"


def connect(url: str | None = None, key: str | None = None, project: str | None = None, start: bool = True) -> Client:
    """A client of the server at `url` (EVERLOOP_URL), or else of the local one, which is started where none answers.

    `key` (EVERLOOP_API_KEY) carries project and role; on this machine none is needed. `project` (EVERLOOP_PROJECT) names another project than
    the key's own, for those that may. Unreachable where no server answers, Unauthorized for a wrong key. With `start=False` nothing is started and nothing asked yet.
    """
    url = url or os.environ.get("EVERLOOP_URL") or None
    key = key or os.environ.get("EVERLOOP_API_KEY") or None
    project = project or os.environ.get("EVERLOOP_PROJECT") or None
    if url is None:
        from everloop.client.server import local_server

        url = local_server(start)
    client = Client(Http(url, key, project))
    if start:
        client.me()
    return client


@lru_cache(maxsize=1)
def default() -> Client:
    """The client that `el.run()` and others use when none is given: `connect()`, once."""
    return connect()


def _namespaces() -> list[str]:
    import everloop.client as package

    plain = {
        "base",
        "http",
        "server",
        "environment",
        "tracing",
        "declare",
        "upload",
        "checkout",
        "dataset_view",
        "file_cache",
        "pins",
        "spool",
        "tracked",
        "system",
        "media",
        "reproduce",
    }
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.name not in plain)
