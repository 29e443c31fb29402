"""All routes of an app, also those behind mounted apps: what the tests walk and the documentation lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles


def table(app: FastAPI) -> list[tuple[str, str, str | None]]:
    """(method, path, level) of every route, sorted by path; the level (see rights.py) is None where no module says it.

    A mounted app and a route that takes every path dispatch by themselves: their routes are those that their module's `rights` name.
    """
    found: set[tuple[str, str]] = set()
    for method, path, own in _flat(app):
        below = [route for route in app.state.rights.table if route[1].startswith(path.removesuffix("{path:path}"))] if own else []
        found.update(below or [(method, path)])
    return sorted(((m, p, app.state.rights.level(m, p)) for m, p in found), key=lambda row: (row[1], row[0]))


def stale(app: FastAPI) -> list[tuple[str, str]]:
    """Lines of the rights table that no route answers to."""
    there = {(method, path) for method, path, _ in table(app)}
    return sorted(set(app.state.rights.table) - there)


def _flat(app: FastAPI) -> Iterator[tuple[str, str, bool]]:
    """(method, path, whether it dispatches by itself below) of the routes as they are matched; included routers are unfolded."""
    for route in _unfolded(app):
        path = str(getattr(route, "path", ""))
        if isinstance(route, Mount):
            if isinstance(route.app, StaticFiles):
                yield "GET", path + "/{path:path}", False
            else:
                yield "*", path, True
        else:
            methods = getattr(route, "methods", None)
            for method in sorted(methods - {"HEAD"}) if methods else ["*"]:
                yield method, path, methods is None or path.endswith("/mlflow/{path:path}")


def _unfolded(app: FastAPI) -> Iterator[Any]:
    """FastAPI 0.13x and later keep included routers whole."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:
        yield from app.routes
    else:
        yield from iter_route_contexts(app.routes)
