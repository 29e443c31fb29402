"""The catalogue's verbs: register, look up, move aliases, objects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from everloop.assets import aliases, catalog, comparison, policies, prompts, releases, removal, splits, suites
from everloop.core.errors import NotFound
from everloop.core.principal import Principal, Role
from everloop.core.refs import Ref, cut_part
from everloop.workspace import data_files

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Assets:
    """Facade over assets/ and the object store."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def kinds(self, who: Principal) -> list[dict[str, Any]]:
        """How many names and versions of each kind there are."""
        return await self.ws.records.read(who.need(Role.viewer), catalog.kinds)

    async def list(self, who: Principal, kind: str | None = None, search: str = "", limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """Names by last change, newest first."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: catalog.names(tx, kind, search, limit, cursor))

    async def register(
        self,
        who: Principal,
        kind: str,
        name: str,
        manifest: dict[str, Any],
        *,
        run: str | None = None,
        reads: Iterable[str] = (),
        description: str = "",
        tags: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a new version (or answer the one with this content). Files it names must be objects of the project already."""
        who.need(Role.editor, f"register a {kind}")
        manifest = await self.checked(who, kind, manifest)
        if kind == "release":
            pins, params = manifest.get("pins") or {}, manifest.get("params") or {}
            return await self.release(
                who, name, str(manifest.get("kind", "")), pins, params, manifest.get("policy"), run=run, description=description
            )

        def work(tx: Any) -> dict[str, Any]:
            made = catalog.register(tx, kind, name, manifest, run=run, reads=reads, description=description, tags=tags)
            if kind == "suite":
                suites.link(tx, made)
            return made

        return await self.ws.records.write(who, work)

    async def checked(self, who: Principal, kind: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest as its kind wants it; BadInput says what is wrong, NotFound which file is no object of the project.

        A chat suite's cases are stored complete, under their own digest.
        """
        if kind == "dataset" and isinstance(manifest.get("tree"), dict):
            tree = str(manifest["tree"].get("digest"))
            return {**manifest, **await asyncio.to_thread(data_files.manifest_of, self.ws, who.project, tree)}
        named = _files(manifest)
        gone = set(await asyncio.to_thread(self.ws.objects.missing, who.project, [digest for digest, _ in named])) if named else set()
        for digest, path in named:
            if digest in gone:
                raise NotFound(
                    f"The manifest names {path} with digest {digest}, which is not among the project's objects.", "Put it first: POST /api/v1/objects"
                )
        if kind == "prompt":
            return prompts.checked(manifest)
        if kind == "policy":
            return await asyncio.to_thread(policies.checked, manifest, make_check)
        if kind != "suite":
            return manifest
        read = lambda digest: self.ws.objects.get(who.project, digest)
        full, cases = await asyncio.to_thread(suites.checked, manifest, read)
        if full.get("dataset"):  # exact, so that the cases of a version stay what they are; apply may declare it before the data are there
            with contextlib.suppress(NotFound):
                full |= await self._suite_data(who, str(full["dataset"]))
        if cases is not None:
            full["cases"] = {"path": "cases.jsonl", **await self.put_object(who, cases)}
        return full

    async def _suite_data(self, who: Principal, named: str) -> dict[str, Any]:
        """A suite's data, exact: {"dataset", "count", "part"?}; of a part, how many of the rows it has. BadInput lists the parts there are."""
        head, part = cut_part(named)
        asset = await self.get(who, Ref.parse(head, "dataset"))
        if not part:
            return {"dataset": asset["ref"]}
        rows = asset["manifest"]["splits"]["names"][splits.need_part(asset["manifest"], asset["ref"], part)]
        of = asset["manifest"].get("rows") or asset["manifest"].get("count")
        return {"dataset": f"{asset['ref']}#{part}", "count": rows, "part": {"name": part, "rows": rows, "of": of}}

    async def release(
        self,
        who: Principal,
        name: str,
        kind: str,
        pins: dict[str, str],
        params: dict[str, Any] | None = None,
        policy: str | None = None,
        *,
        run: str | None = None,
        description: str = "",
    ) -> dict[str, Any]:
        """Make a release that pins exact versions."""
        who.need(Role.editor, "make a release")
        return await self.ws.records.write(who, lambda tx: releases.make(tx, name, kind, pins, params, policy, run, description))

    async def get(self, who: Principal, ref: str | Ref) -> dict[str, Any]:
        """One version, by exact reference, alias or name (latest)."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: catalog.get(tx, ref))

    async def resolve(self, who: Principal, ref: str | Ref) -> Ref:
        """The exact reference that `ref` means now."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: catalog.resolve(tx, ref))

    async def versions(self, who: Principal, kind: str, name: str, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Versions, newest first."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: catalog.versions(tx, kind, name, limit, before))

    async def annotate(
        self, who: Principal, ref: str | Ref, description: str | None = None, tags: dict[str, str | None] | None = None
    ) -> dict[str, Any]:
        """Change a version's description and tags."""
        who.need(Role.editor, "annotate an asset")
        return await self.ws.records.write(who, lambda tx: catalog.annotate(tx, ref, description, tags))

    async def move_alias(self, who: Principal, ref: str | Ref, alias: str, *, decision: str | None = None, why: str = "") -> dict[str, Any]:
        """Move an alias, through the gate where there is one. A release is loaded and warmed before traffic follows its alias."""
        who.need(Role.editor, f"move the alias {alias}")
        asset = await self.get(who, ref)
        if asset["kind"] == "release":
            await self.ws.endpoints.warm(who, asset["ref"], alias)
        moved = await self.ws.records.write(who, lambda tx: aliases.move(tx, asset["ref"], alias, decision=decision, why=why))
        if asset["kind"] == "release":
            await self.ws.endpoints.refresh(who.project, asset["name"])
        return moved

    async def remove_alias(self, who: Principal, kind: str, name: str, alias: str, why: str = "") -> None:
        """Delete an alias; traffic that followed it stops."""
        who.need(Role.editor, f"remove the alias {alias}")
        await self.ws.records.write(who, lambda tx: aliases.remove(tx, kind, name, alias, why))
        if kind == "release":
            await self.ws.endpoints.refresh(who.project, name)

    async def alias_history(self, who: Principal, kind: str, name: str, alias: str | None = None) -> list[dict[str, Any]]:
        """Moves of a name's aliases, newest first."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: aliases.history(tx, kind, name, alias))

    async def compare(self, who: Principal, kind: str, name: str, left: str, right: str) -> dict[str, Any]:
        """Two versions of a name side by side: see `assets.comparison.compare`."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: comparison.compare(tx, kind, name, left, right))

    async def delete(self, who: Principal, ref: str | Ref, permanent: bool = False) -> dict[str, Any]:
        """Put a version out of sight, or (admins) delete it for good; Conflict says what needs it."""
        who.need(Role.admin if permanent else Role.editor, "delete a version for good" if permanent else "delete a version")
        return await self.ws.records.write(who, lambda tx: (removal.purge if permanent else removal.delete)(tx, ref))

    async def needed_by(self, who: Principal, ref: str | Ref) -> list[str]:
        """What keeps a version from being deleted, in words; empty where nothing does."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: removal.needed_by(tx, ref))

    async def restore(self, who: Principal, ref: str | Ref) -> dict[str, Any]:
        """Bring a deleted version back."""
        who.need(Role.editor, "restore a version")
        return await self.ws.records.write(who, lambda tx: removal.restore(tx, ref))

    async def deleted(self, who: Principal, kind: str | None = None) -> list[dict[str, Any]]:
        """Versions that can be restored, last deleted first."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: removal.deleted(tx, kind))

    async def put_object(self, who: Principal, data: bytes | Path) -> dict[str, Any]:
        """Store bytes (or a file's) in the project: {"digest", "size"}."""
        who.need(Role.editor, "store an object")
        digest, size = await asyncio.to_thread(self.ws.objects.put, who.project, data)
        return {"digest": digest, "size": size}

    async def get_object(self, who: Principal, digest: str) -> bytes:
        """The bytes behind a digest, verified; NotFound if the project has no such object."""
        who.need(Role.viewer)
        return await asyncio.to_thread(self.ws.objects.get, who.project, digest)

    async def open_object(self, who: Principal, digest: str) -> tuple[BinaryIO, int]:
        """(a verifying reader of an object, its size), for what should not be in memory whole; NotFound if the project has none such."""
        who.need(Role.viewer)
        reader = await asyncio.to_thread(self.ws.objects.open, who.project, digest)
        return reader, await asyncio.to_thread(self.ws.objects.size, who.project, digest)

    async def missing_objects(self, who: Principal, digests: Sequence[str]) -> Sequence[str]:
        """Which of the digests the project has not; the others are safe from the garbage collector for its time of grace."""
        who.need(Role.viewer)
        return await asyncio.to_thread(self.ws.objects.missing, who.project, digests)

    async def put_pack(self, who: Principal, file: Path) -> dict[str, Any]:
        """Store a pack that a client made: {"objects"}; BadInput where a byte of it is not what it should be, and nothing is kept."""
        who.need(Role.editor, "store objects")
        return {"objects": await asyncio.to_thread(self.ws.objects.add_pack, who.project, file)}

    async def put_list(self, who: Principal, digest: str, size: int, chunks: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """Make a large object of chunks that are there: {"digest", "size"}; NotFound names a missing chunk."""
        who.need(Role.editor, "store an object")
        await asyncio.to_thread(self.ws.objects.add_list, who.project, digest, size, chunks)
        return {"digest": digest, "size": size}

    async def located(self, who: Principal, digests: Sequence[str]) -> dict[str, Any]:
        """Where the objects' bytes lie in files of this host, those that do: {digest: [(path, offset, size)]}."""
        from everloop.store.located import located

        who.need(Role.viewer)
        return dict(await asyncio.to_thread(located, self.ws.objects, who.project, digests))

    async def fetch_objects(self, who: Principal, digests: Sequence[str]) -> Iterator[bytes]:
        """The bytes of many objects as frames (core/packs.py); NotFound names one that is missing before anything is sent."""
        who.need(Role.viewer)
        return await asyncio.to_thread(data_files.frames, self.ws, who.project, [*digests])


def make_check(name: str, params: Mapping[str, Any]) -> Any:
    """A registered check with its params; NotFound or BadInput says what there is, or what it takes."""
    from everloop.evaluate.rules import make

    return make(name, (), dict(params))


def _files(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(f["digest"]), str(f.get("path", ""))) for f in manifest.get("files") or [] if isinstance(f, dict) and "digest" in f]
