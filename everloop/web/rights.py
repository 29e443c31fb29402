"""Who may use which route: the table that the sign-in layer enforces, put together from what each module says beside its routes.

A module with routes says `rights = {"viewer": ("GET /api/v1/things",), "editor": ("PUT /api/v1/things/{name}",)}`. The levels:

public    anybody, signed in or not
any       anybody signed in, whatever the role: their own session and name, the endpoints there are
call      callers, and editors upwards: asking an endpoint, sending traces, giving feedback
work      workers, and editors upwards: the queue of pipelines' steps
viewer, editor, approver, admin     that role of the project, or a higher one
site      site admins, who may act in every project

A worker started by the server may use `any` and `work` and nothing else; each task hands it a key of the task's own project. Pages below
/ui that are only read are for viewers and need no line. A test fails for a route that is in no module's table. A path that no route has
(a mistyped one) is not found, whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from everloop.core.errors import Forbidden, NotFound
from everloop.core.principal import Principal, Role

LEVELS = ("public", "any", "call", "work", "viewer", "editor", "approver", "admin", "site")
SAFE = {"GET", "HEAD", "OPTIONS"}
REMEMBERED = 4_096
"""Allowed requests that are remembered."""
REMEMBERED_CHARS = 200
"""Longest path that is."""
PAGES = "/ui"
STATIC = "/static/"


class Rights:
    """The table of an app. `add` is called while it is put together, `need` for each request."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], str] = {}
        self._patterns: dict[tuple[Role, bool, bool], re.Pattern[str]] = {}
        self._allowed: set[tuple[Role, bool, bool, str, str]] = set()

    def add(self, rights: Mapping[str, Iterable[str]]) -> None:
        """Take a module's lines in. ValueError for an unknown level, or for a route that is there already with another one."""
        for level, routes in rights.items():
            if level not in LEVELS:
                raise ValueError(f"{level!r} is no level; one of {', '.join(LEVELS)}")
            for route in routes:
                method, _, path = route.partition(" ")
                if self.table.setdefault((method, path), level) != level:
                    raise ValueError(f"{route} is both {level} and {self.table[method, path]}")
        self._allowed.clear()

    def level(self, method: str, path: str) -> str | None:
        """The level that a route (its template, not a filled path) needs; None where no module says."""
        if method == "GET" and path.startswith(STATIC):
            return "public"
        return self.table.get((method, path)) or ("viewer" if method == "GET" and (path == "/" or path.startswith(PAGES)) else None)

    @cached_property
    def public(self) -> set[tuple[str, str]]:
        """(method, path) of routes that answer without a principal."""
        return {route for route, level in self.table.items() if level == "public"}

    def is_public(self, method: str, path: str) -> bool:
        """Whether a request is answered without a principal."""
        return ("GET" if method == "HEAD" else method, path) in self.public or (method in SAFE and path.startswith(STATIC))

    def need(self, who: Principal, method: str, path: str) -> None:
        """Forbidden where `who` may not use the route, NotFound where there is none. What was allowed is remembered for that role, method and path."""
        place = (who.role, who.kind == "worker", who.site_admin, method, path)
        if place in self._allowed:
            return
        self._judge(who, method, path)
        if len(self._allowed) >= REMEMBERED:
            self._allowed.clear()
        if len(path) <= REMEMBERED_CHARS:
            self._allowed.add(place)

    def _judge(self, who: Principal, method: str, path: str) -> None:
        asked = f"{'GET' if method == 'HEAD' else method} {path}"
        matched = self._pattern(who).fullmatch(asked) is not None
        if who.kind != "worker" and who.role >= Role.editor:  # what they may not is the shorter list
            if not matched:
                return
        elif matched or (who.role >= Role.viewer and who.kind != "worker" and method in SAFE and not self._denied_to_viewers.fullmatch(asked)):
            return
        if not self._routes.fullmatch(path):
            raise NotFound(f"There is nothing at {method} {path}.", "The routes are listed at /api/v1/openapi.json.")
        raise Forbidden(
            f"{who.name} is {who.role.name} in project {who.project!r}, which is not enough for {method} {path}.",
            "Ask an admin of the project for a key with a higher role.",
        )

    @cached_property
    def _routes(self) -> re.Pattern[str]:
        """Every path there is, for any method."""
        return pattern({path for _, path in self.table} | {"/", PAGES, f"{PAGES}/", f"{PAGES}/{{rest:path}}"})

    def _pattern(self, who: Principal) -> re.Pattern[str]:
        """What editors and above may not use; what others may."""
        worker = who.kind == "worker"
        key = (who.role, worker, who.site_admin)
        if key not in self._patterns:
            wanted = worker or who.role < Role.editor
            chosen = [route for route, level in self.table.items() if allowed(level, who) is wanted]
            self._patterns[key] = pattern(f"{method} {path}" for method, path in chosen)
        return self._patterns[key]

    @cached_property
    def _denied_to_viewers(self) -> re.Pattern[str]:
        viewer = Principal("", "", Role.viewer)
        return pattern(f"{m} {path}" for (m, path), level in self.table.items() if m in SAFE and not allowed(level, viewer))


def allowed(level: str, who: Principal) -> bool:
    """Whether a principal has a level."""
    if level in ("public", "any"):
        return True
    if who.kind == "worker":
        return level == "work"
    if level == "site":
        return who.site_admin
    if level == "call":
        return who.role is Role.caller or who.role >= Role.editor
    return who.role >= (Role.editor if level == "work" else Role[level])


def pattern(templates: Iterable[str]) -> re.Pattern[str]:
    """One pattern that matches whole texts like the templates: `{name}` is one piece of a path, `{name:path}` any. None: matches nothing."""
    parts = [re.sub(r"\\\{[^/{}]*?(:path)?\\\}", lambda m: ".+" if m.group(1) else "[^/]+", re.escape(t)) for t in templates]
    return re.compile("|".join(f"(?:{p})" for p in parts) if parts else r"(?!)")
