"""The objects themselves looked after: damage mended as far as bytes are still somewhere, and the whole store moved to another place."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.core.errors import Conflict, EverloopError, Forbidden
from everloop.core.limits import OBJECTS_ASKED, VERIFY_SHOWN
from everloop.core.principal import Principal, Role
from everloop.store import audit, moving, repair
from everloop.store.identity import list_projects
from everloop.store.places import Both, Place, open_place
from everloop.store.schema import assets, run_artifacts
from everloop.workspace import data_files

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_LOG = logging.getLogger(__name__)
HOME = "home"
"""What the home's own folder is called as a place to move to."""


async def mend(ws: Workspace, who: Principal, *, places: Sequence[str] = (), scan: bool = True) -> dict[str, Any]:
    """Take damaged bytes out and put again what is still somewhere: {"damaged": [{"key", "error"}], "restored", "lost": [{"ref", "path", "digest"}],
    "lost_count", "wanted": [digest]}.

    Looked into: other copies in the store, the home's folder where objects lie in a bucket, `places` (URLs; site admins alone), files put together for
    reading. `wanted` are objects and chunks that nobody has: whoever has them may put them as usual. Without `scan` only what is missing is looked
    for. Admins alone.
    """
    who.need(Role.admin, "repair objects")
    if places and not who.site_admin:
        raise Forbidden("Another place may be named by a site admin alone.", "Leave it out, or ask one.")
    others = [open_place(url, ws.home / "objects") for url in places]
    if not isinstance(ws.objects.place, Both) and moving.where(ws.settings.objects, ws.home / "objects")[0]:
        others.append(open_place("", ws.home / "objects", False))
    rows, artifacts = await ws.records.read(who, _named)
    done = await asyncio.to_thread(_mended, ws, who.project, rows, artifacts, others, scan)
    if done["damaged"] or done["restored"]:
        told = {"damaged": len(done["damaged"]), "restored": done["restored"], "lost": done["lost_count"]}
        await ws.records.write(who, lambda tx: audit.record(tx, "objects.repair", "objects", **told))
    return done


def _named(tx: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The project's versions with their manifests, and its runs' files."""
    columns = (assets.c.kind, assets.c.name, assets.c.version, assets.c.manifest)
    rows = tx.rows(sa.select(*columns).where(assets.c.project == tx.project))
    files = tx.rows(sa.select(run_artifacts.c.run, run_artifacts.c.path, run_artifacts.c.digest).where(run_artifacts.c.project == tx.project))
    return [{"ref": f"{r['kind']}:{r['name']}@{r['version']}", "manifest": r["manifest"]} for r in rows], files


def _mended(
    ws: Workspace, project: str, rows: list[dict[str, Any]], artifacts: list[dict[str, Any]], others: list[Place], scan: bool
) -> dict[str, Any]:
    store = ws.objects
    taken = repair.take_out(store, project) if scan else repair.Taken()
    found: dict[str, str] = {}
    while True:  # a list of files that comes back names files that may be missing too
        lacking = _lacking(ws, project, rows, artifacts)
        wanted = {digest for pieces in lacking.values() for digest in pieces} - set(found)
        came = repair.restore(store, project, wanted, others) if wanted else {}
        found |= came
        if not came:
            break
    lost = [*_users(ws, project, rows, artifacts, set(lacking))]
    return {
        "damaged": taken.files[:VERIFY_SHOWN],
        "damaged_count": len(taken.files),
        "restored": len(found),
        "lost": lost[:VERIFY_SHOWN],
        "lost_count": len(lost),
        "wanted": sorted({digest for pieces in lacking.values() for digest in pieces})[:OBJECTS_ASKED],
    }


def _lacking(ws: Workspace, project: str, rows: list[dict[str, Any]], artifacts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """{object: what is missing of it} of all that versions and runs name."""
    asked = {one["digest"] for one in artifacts}
    for row in rows:
        asked |= {digest for _, digest in repair.named(row["manifest"])}
        asked |= {entry["digest"] for entry in _entries(ws, project, row["manifest"]) if "digest" in entry}
    return {digest: gone for digest in asked if (gone := repair.lacking(ws.objects, project, digest))}


def _users(ws: Workspace, project: str, rows: list[dict[str, Any]], artifacts: list[dict[str, Any]], lost: set[str]) -> Iterable[dict[str, str]]:
    """{"ref", "path", "digest"} of what is lost, by version and file; runs' files too."""
    for row in rows if lost else ():
        named = [{"path": path, "digest": digest} for path, digest in repair.named(row["manifest"])]
        for entry in (*named, *_entries(ws, project, row["manifest"])):
            if entry.get("digest") in lost:
                yield {"ref": row["ref"], "path": entry["path"], "digest": entry["digest"]}
    for one in artifacts:
        if one["digest"] in lost:
            yield {"ref": f"run:{one['run']}", "path": one["path"], "digest": one["digest"]}


def _entries(ws: Workspace, project: str, manifest: Any) -> list[dict[str, Any]]:
    """The files that a dataset's list names; none where the list itself is gone."""
    tree = manifest.get("tree") if isinstance(manifest, dict) else None
    if not isinstance(tree, dict):
        return []
    try:
        return [*data_files.entries(ws, project, tree["digest"])]
    except EverloopError:
        return []


def _need_site_admin(who: Principal) -> None:
    if not who.site_admin:
        raise Forbidden("Objects are moved by a site admin alone.", "Ask one.")


class Mover:
    """Moves all projects' objects to another place, one move at a time, in the background."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.told: moving.Moved | None = None
        self._stop = threading.Event()

    async def start(self, who: Principal, to: str, *, remove: bool = False) -> dict[str, Any]:
        """Begin (or go on) to move the objects to `to`: s3://BUCKET/PREFIX, or "home" for the home's folder; answers the state at once.

        From now on what is new is written there, and both places are read. With `remove` files go from the old place once all are copied.
        Site admins alone. BadInput for a place that cannot be used, Conflict while another move runs.
        """
        _need_site_admin(who)
        if self.told is not None and self.told.state == "running":
            raise Conflict(f"A move to {self.told.to or HOME} is running.", "Wait until it is done: everloop data move --state")
        ws, root = self.ws, self.ws.home / "objects"
        url = "" if to == HOME else to.rstrip("/")
        now, old = moving.where(ws.settings.objects, root)
        source = old if url == now else now
        self.told = moving.Moved(url, source or "")
        if source is None:
            self.told.state = "done"
            return self.state(who)
        new = open_place(url, root, ws.settings.fsync)
        both = Both(new, open_place(source, root, ws.settings.fsync))
        await asyncio.to_thread(both.check)
        await asyncio.to_thread(moving.write_plan, root, {"to": url, "from": source, "done": False}, ws.settings.fsync)
        ws.objects.set_place(both)
        projects = await ws.records.read(who, list_projects)
        await ws.records.write(who, lambda tx: audit.record(tx, "objects.move", "objects", to=url or HOME, source=source or HOME))
        keys = sorted({ws.objects.key(name) for name in ("default", *(one["name"] for one in projects))})
        ws.spawn(self._run(both, keys, remove))
        return self.state(who)

    def state(self, who: Principal) -> dict[str, Any]:
        """How far the last move of this server is: {"to", "from", "state": none | running | done | damaged | stopped | failed, "copied", ...}.

        Site admins alone: it names buckets of all projects.
        """
        _need_site_admin(who)
        if self.told is None:
            to, old = moving.where(self.ws.settings.objects, self.ws.home / "objects")
            return {"to": to or HOME, "from": old if old is None else old or HOME, "state": "none" if old is None else "stopped"}
        told = self.told.to_json()
        setting = self.ws.settings.objects
        told |= {"to": told["to"] or HOME, "from": told["from"] or HOME}
        if setting and setting.rstrip("/") != self.told.to:
            told["note"] = f"EVERLOOP_OBJECTS still says {setting}: set it to {self.told.to or 'nothing'} before the server starts again."
        return told

    async def stop(self) -> None:
        """End a move that runs; it goes on when it is asked for again."""
        self._stop.set()

    async def _run(self, both: Both, projects: list[str], remove: bool) -> None:
        told = self.told
        assert told is not None
        try:
            await asyncio.to_thread(moving.move, both.new, both.old, projects, told, remove=remove, stop=self._stop.is_set)
        except EverloopError as error:
            told.state, told.error = "failed", str(error)
            _LOG.warning("moving objects to %s failed: %s", told.to or HOME, error)
            return
        if told.state == "done":
            root, fsync = self.ws.home / "objects", self.ws.settings.fsync
            await asyncio.to_thread(moving.write_plan, root, {"to": told.to, "from": told.source, "done": True}, fsync)
            self.ws.objects.set_place(both.new)
