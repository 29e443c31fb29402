"""`everloop keys`, `projects`, `members` and `admin`: who may do what."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from everloop.core.errors import BadInput
from everloop.core.settings import Settings

_PROJECT = typer.Option(None, help="Another project than one's own.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(no_args_is_help=True, help="API keys: each carries a project and a role.")
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke_key)
    app.add_typer(keys, name="keys")
    projects = typer.Typer(no_args_is_help=True, help="Projects: nothing is seen from one in another.")
    projects.command("create")(create_project)
    projects.command("list")(list_projects)
    app.add_typer(projects, name="projects")
    members = typer.Typer(no_args_is_help=True, help="Users and their roles in a project.")
    members.command("add")(add_member)
    members.command("list")(list_members)
    members.command("remove")(remove_member)
    app.add_typer(members, name="members")
    admin = typer.Typer(no_args_is_help=True, help="Site admins.")
    admin.command("create")(create_admin)
    app.add_typer(admin, name="admin")


def create_key(
    name: str = typer.Argument(help="What it is for: the name that records keep."),
    role: str = typer.Option("editor", help="caller (for a running application), viewer, editor, approver or admin."),
    days: float = typer.Option(None, help="Days until it expires (default: never)."),
    project: str = _PROJECT,
) -> None:
    """Make a key and print it; it is not shown again."""
    made = _http(project).post("/api/v1/keys", json={"name": name, "role": role, "expires_days": days})
    print(f"Key {made['name']} ({made['role']} of project {made['project']}); it is not shown again:", file=sys.stderr)
    typer.echo(made["key"])


def list_keys(project: str = _PROJECT) -> None:
    """List the project's keys, newest first."""
    from everloop.core.clock import iso

    for key in _http(project).get("/api/v1/keys")["items"]:
        state = "revoked" if key["revoked_at"] else f"expires {iso(key['expires_at'])}" if key["expires_at"] else "valid"
        typer.echo(f"{key['id']}  {key['name']:<20} {key['role']:<9} {key['hint']:<11} {state}")


def revoke_key(id: str = typer.Argument(help="The key's id or name."), project: str = _PROJECT) -> None:
    """Revoke a key; it stops working at once."""
    _http(project).delete(f"/api/v1/keys/{quote(id, safe='')}")
    typer.echo(f"revoked {id}")


def create_project(name: str) -> None:
    """Make a project (site admin)."""
    _http().post("/api/v1/projects", json={"name": name})
    typer.echo(f"project {name}; make a key for it with: everloop keys create NAME --project {name}")


def list_projects() -> None:
    """List the projects that one may act in."""
    for project in _http().get("/api/v1/projects")["items"]:
        typer.echo(project["name"])


def add_member(
    user: str = typer.Argument(help="The user; made, with a password asked for, if there is none."),
    role: str = typer.Option("editor", help="viewer, editor, approver or admin."),
    new: bool = typer.Option(False, "--new", help="Make the user."),
    project: str = _PROJECT,
) -> None:
    """Give a user a role in the project; with --new the user is made first."""
    if new:
        _http(project).post("/api/v1/users", json={"name": user, "password": _password(user), "role": role})
    else:
        _http(project).put(f"/api/v1/members/{quote(user, safe='')}", json={"role": role})
    typer.echo(f"{user} is {role}")


def list_members(project: str = _PROJECT) -> None:
    """List users with a role in the project."""
    for member in _http(project).get("/api/v1/members")["items"]:
        typer.echo(f"{member['user']:<30} {member['role']}")


def remove_member(user: str, project: str = _PROJECT) -> None:
    """Take a user's role in the project away."""
    _http(project).delete(f"/api/v1/members/{quote(user, safe='')}")
    typer.echo(f"{user} is no member any more")


def create_admin(
    name: str = typer.Argument(help="The user's name."),
    home: Path = typer.Option(None, help="Folder of all state (default .everloop, or EVERLOOP_HOME)."),
    key: bool = typer.Option(False, "--key", help="Also make and print an admin key of the default project, called like the user."),
) -> None:
    """Make a site admin: through the server where one runs on this machine, else straight in the home, so that one may then start beyond loopback.

    The password is asked for, or read from EVERLOOP_ADMIN_PASSWORD.
    """
    from everloop.client.server import running

    settings = Settings.load(home=home)
    found = running(settings.home)
    password = _password(name)
    if found is not None:
        from everloop.client.http import Http

        http = Http(found["url"], os.environ.get("EVERLOOP_API_KEY"))
        http.post("/api/v1/users", json={"name": name, "password": password, "role": "admin", "site_admin": True})
        made = http.post("/api/v1/keys", json={"name": name, "role": "admin"})["key"] if key else None
    else:
        made = _create_in_home(settings, name, password, key)
    print(f"{name} is site admin", file=sys.stderr)
    if made:
        typer.echo(made)


def _create_in_home(settings: Settings, name: str, password: str, key: bool) -> str | None:
    """The first admin, with no server: the home is locked meanwhile, so its state still has one owner."""
    from everloop.core.principal import SYSTEM, Role
    from everloop.web.server import lock_home, prepare_home
    from everloop.workspace.workspace import Workspace

    prepare_home(settings.home)
    with lock_home(settings.home):
        ws = Workspace(settings)
        ws.records.open()
        try:
            return ws.records.write_sync(SYSTEM, lambda tx: _made(tx, name, password, Role.admin if key else None))
        finally:
            ws.records.close()


def _made(tx: Any, name: str, password: str, role: Any) -> str | None:
    from everloop.store import identity
    from everloop.workspace.workspace import default_project

    default_project(tx)
    identity.create_user(tx, name, identity.hash_password(password), site_admin=True)
    return str(identity.create_key(tx, name, role)["key"]) if role is not None else None


def _password(name: str) -> str:
    given = os.environ.get("EVERLOOP_ADMIN_PASSWORD")
    if given:
        return given
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass(f"Password for {name}: ")
    if getpass.getpass("Once more: ") != first:
        raise BadInput("The two passwords differ.", "Try again.")
    return first


def _http(project: str | None = None) -> Any:
    from everloop.client import connect

    return connect(project=project, start=False)._http
