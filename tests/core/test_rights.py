"""Every route says who may use it. (That it is so, the walk in tests/web/test_every_route.py finds out by calling them all.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from everloop.core.principal import Principal, Role
from everloop.core.settings import Settings
from everloop.web import routes
from everloop.web.app import create_app
from everloop.web.rights import LEVELS, Rights, allowed


def test_every_route_has_a_level_and_every_level_a_route(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, workers=0, fsync=False))
    missing = [f"{method} {path}" for method, path, level in routes.table(app) if level is None]
    assert not missing, f'say who may use them: rights = {{"editor": ("PUT /api/v1/...",)}} in the module of {missing}; levels: {LEVELS}'
    assert not routes.stale(app), f"the rights tables name routes that are not there: {routes.stale(app)}"


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("caller", {"public", "any", "call"}),
        ("viewer", {"public", "any", "viewer"}),
        ("editor", {"public", "any", "call", "work", "viewer", "editor"}),
        ("approver", {"public", "any", "call", "work", "viewer", "editor", "approver"}),
        ("admin", {"public", "any", "call", "work", "viewer", "editor", "approver", "admin"}),
    ],
)
def test_what_each_role_may(role: str, may: set[str]) -> None:
    assert {level for level in LEVELS if allowed(level, Principal("key:k", "p", Role[role]))} == may
    assert {level for level in LEVELS if allowed(level, Principal("w", "p", Role[role], kind="worker"))} == {"public", "any", "work"}
    assert allowed("site", Principal("user:a", "p", Role.admin, site_admin=True))


def test_a_table_with_two_levels_for_a_route_is_refused() -> None:
    rights = Rights()
    rights.add({"viewer": ("GET /a",)})
    with pytest.raises(ValueError, match="both"):
        rights.add({"editor": ("GET /a",)})
    with pytest.raises(ValueError, match="no level"):
        rights.add({"boss": ("GET /b",)})
