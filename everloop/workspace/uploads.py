"""Uploads in parts: begun, each part put by an address that is good for that part alone, completed into one object or given up."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everloop.assets import uploads
from everloop.core.errors import Forbidden
from everloop.core.limits import UPLOADS_SECONDS
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

PURPOSE = "upload-part"


class Uploads:
    """Facade over uploads that are under way."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._completing: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def begin(self, who: Principal, place: dict[str, str], parts: int) -> tuple[str, list[dict[str, str]]]:
        """(id, for each part the query of the address where it is put, which needs no key). See assets/uploads for the errors."""
        who.need(Role.editor, "store a file")
        made = await self.ws.records.write(who, lambda tx: uploads.begin(tx, place, parts))
        until = int(made["at"] + UPLOADS_SECONDS)
        shared = {"project": who.project, "upload": made["id"], "by": who.name, "until": str(until)}
        queries = [{**shared, "part": str(number)} for number in range(1, parts + 1)]
        return made["id"], [{**query, "seal": self.ws.identity.seal(PURPOSE, _text(query))} for query in queries]

    def opened(self, query: dict[str, str]) -> tuple[Principal, str, int]:
        """(as whom, upload, part) of an address that `begin` gave; Forbidden for any other, or one that is too old."""
        asked = {name: query.get(name, "") for name in ("project", "upload", "by", "until", "part")}
        if not self.ws.identity.sealed(PURPOSE, _text(asked), query.get("seal", "")) or int(asked["until"]) < self.ws.clock.now():
            raise Forbidden("The address of this part is not one that was given out, or it has expired.", "Begin the upload again.")
        return Principal(asked["by"], asked["project"], Role.editor), asked["upload"], int(asked["part"])

    async def put_part(self, who: Principal, id: str, number: int, data: Path) -> str:
        """Keep one part, in place of what was sent as it before; answers its digest."""
        digest, size = await asyncio.to_thread(self.ws.objects.put, who.project, data)
        await self.ws.records.write(who, lambda tx: uploads.put_part(tx, id, number, digest, size))
        return digest

    async def place(self, who: Principal, id: str) -> dict[str, str]:
        """Where an upload goes, in the words of whoever began it."""
        found = await self.ws.records.read(who.need(Role.viewer), lambda tx: uploads.get(tx, id))
        return dict(found["place"])

    async def complete(self, who: Principal, id: str, told: list[tuple[int, str]], put: Callable[[str, int], Awaitable[Any]]) -> dict[str, Any]:
        """Make one object of the parts that `told` names [(number, digest)] and hand it to `put(digest, size)`; answers {"digest", "size"}.

        Asked again, while it is at it or later, it answers the same and does nothing twice.
        """
        who.need(Role.editor, "store a file")
        place = (who.project, id)
        task = self._completing.get(place)
        if task is None:
            task = self._completing[place] = self.ws.spawn(self._complete(who, id, told, put))
            task.add_done_callback(lambda _: self._completing.pop(place, None))
        return dict(await asyncio.shield(task))

    async def _complete(self, who: Principal, id: str, told: list[tuple[int, str]], put: Callable[[str, int], Awaitable[Any]]) -> dict[str, Any]:
        upload, digests = await self.ws.records.read(who, lambda tx: uploads.parts(tx, id, told))
        if upload["done"]:
            return dict(upload["done"])
        digest, size = await asyncio.to_thread(self._join, who.project, digests)
        await put(digest, size)
        await self.ws.records.write(who, lambda tx: uploads.finish(tx, upload, digest, size))
        return {"digest": digest, "size": size}

    async def abort(self, who: Principal, id: str) -> None:
        """Give an upload up; its parts are left to the garbage collector."""
        who.need(Role.editor, "store a file")
        await self.ws.records.write(who, lambda tx: uploads.drop(tx, id))

    def _join(self, project: str, digests: list[str]) -> tuple[str, int]:
        joined: Any = io.BufferedReader(_Joined(self.ws.objects, project, digests), buffer_size=1024 * 1024)
        with joined:
            return self.ws.objects.put(project, joined)


class _Joined(io.RawIOBase):
    """Objects one after another, as one stream."""

    def __init__(self, objects: Any, project: str, digests: list[str]) -> None:
        self._open = lambda digest: objects.open(project, digest)
        self._left = digests[::-1]
        self._at: Any = None

    def readable(self) -> bool:
        """It is only read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the object at hand, or the next one that has bytes."""
        while self._at is not None or self._left:
            if self._at is None:
                self._at = self._open(self._left.pop())
            count = int(self._at.readinto(buffer))
            if count:
                return count
            self._at.close()
            self._at = None
        return 0

    def close(self) -> None:
        """Close what is open."""
        if self._at is not None:
            self._at.close()
            self._at = None
        super().close()


def _text(query: dict[str, str]) -> str:
    return "\0".join(query[name] for name in ("project", "upload", "by", "until", "part"))
