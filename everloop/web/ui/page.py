"""Pages: one environment of templates, and `View`, what every route of the UI is handed.

A route says which template with which values; the frame (navigation, project, time range, crumbs) is the same for all. Everything is
escaped unless a filter of show.py made it; scripts are files of our own origin, so no page holds code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader

from everloop.core.errors import EverloopError
from everloop.core.principal import Principal, Role
from everloop.web.deps import csrf_token, get_who, get_ws
from everloop.web.ui import draw, show, static, times
from everloop.workspace.workspace import Workspace

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
NAV = (
    (
        "Operate",
        (
            ("Home", "/ui"),
            ("Endpoints", "/ui/endpoints"),
            ("Traffic", "/ui/traffic"),
            ("Traces", "/ui/traces"),
            ("Sessions", "/ui/sessions"),
            ("Monitors", "/ui/monitors"),
        ),
    ),
    ("Build", (("Assets", "/ui/assets"), ("Labels", "/ui/queues"), ("Runs", "/ui/runs"), ("Pipelines", "/ui/pipelines"))),
    ("Govern", (("Gates", "/ui/gates"), ("Lineage", "/ui/lineage"), ("Audit", "/ui/audit"))),
)
"""The navigation: group, then label and path."""
THEME_COOKIE = "everloop_theme"


@functools.cache
def environment() -> Environment:
    """The templates, with their filters."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False)
    made.filters.update(show.FILTERS)
    made.globals.update(static=static.url, plural=show.plural, draw=draw, presets=times.PRESETS, nav=NAV)
    return made


class View:
    """A request for a page: who asks, the workspace, the time range; and `render`."""

    def __init__(self, request: Request, who: Principal, ws: Workspace) -> None:
        self.request, self.who, self.ws = request, who, ws
        self.query = request.query_params
        self.range = times.parse(request.query_params)

    def url(self, path: str, /, **query: Any) -> str:
        """A link that keeps the time range; query values that are None or "" are left out."""
        return link(path, {**self.range.query, **query})

    def here(self, **changes: Any) -> str:
        """This page's own address with some of its query changed (None takes a part away; a list is the same part several times)."""
        return link(self.request.url.path, {**self.parts(), **changes})

    def parts(self) -> dict[str, list[str]]:
        """The query: all values of each part."""
        return {key: self.query.getlist(key) for key in self.query}

    def word(self, name: str) -> str | None:
        """A part of the query that filters, or None where it is empty."""
        return self.query.get(name, "").strip() or None

    async def render(self, template: str, title: str, crumbs: Sequence[tuple[str, str]] = (), status: int = 200, **values: Any) -> HTMLResponse:
        """The page as an answer. `crumbs` are the pages above this one: (label, path)."""
        frame = await self.ws.overview.frame(self.who)
        body = (
            environment()
            .get_template(template)
            .render(
                title=title,
                crumbs=crumbs,
                view=self,
                who=self.who,
                u=self.url,
                here=self.here,
                frame=frame,
                range=self.range,
                **shared(self.request),
                **values,
            )
        )
        return HTMLResponse(body, status)

    def back(self, path: str, **query: Any) -> RedirectResponse:
        """After a form: on to a page that is read."""
        return RedirectResponse(self.url(path, **query), 303)


def shared(request: Request) -> dict[str, Any]:
    """What pages and error pages have in common."""
    theme = request.cookies.get(THEME_COOKIE, "")
    who = request.scope.get("everloop.who")
    role = who.role if isinstance(who, Principal) else Role.viewer
    return {
        "request": request,
        "path": request.url.path,
        "theme": theme if theme in ("light", "dark") else "",
        "csrf": csrf_token(request),
        "may_edit": role >= Role.editor,
        "may_approve": role >= Role.approver,
        "may_admin": role >= Role.admin,
    }


def link(path: str, query: Mapping[str, Any]) -> str:
    """A path with a query; values that are None, "" or an empty list are left out, a list is the same part several times."""
    head, _, own = path.partition("?")
    parts: dict[str, list[str]] = {}
    for key, value in parse_qsl(own):
        parts.setdefault(key, []).append(value)
    for key, value in query.items():
        given = value if isinstance(value, list | tuple) else [value]
        parts[key] = [str(one) for one in given if one not in (None, "")]
    return f"{head}?{urlencode(parts, doseq=True)}" if any(parts.values()) else head


def error_page(request: Request, error: EverloopError) -> str:
    """An error in the UI's own look: what was wanted, what was found, what to do."""
    titles = {
        400: "That cannot be used",
        401: "Sign in first",
        403: "Not allowed",
        404: "Not found",
        409: "Not possible now",
        503: "Too busy",
        500: "Something broke",
    }
    who = request.scope.get("everloop.who")
    return (
        environment()
        .get_template("error.html")
        .render(
            title=titles.get(error.status, "That did not work"),
            error=error,
            who=who,
            crumbs=(),
            view=None,
            u=link_plain,
            frame=None,
            **shared(request),
        )
    )


def link_plain(path: str, /, **query: Any) -> str:
    """`View.url` where there is no time range."""
    return link(path, query)


def _view(request: Request, who: Annotated[Principal, Depends(get_who)], ws: Annotated[Workspace, Depends(get_ws)]) -> View:
    return View(request, who, ws)


Page = Annotated[View, Depends(_view)]
