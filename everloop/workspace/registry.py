"""The registry's verbs, for clients that think in registered models: names with tags, versions, aliases through the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from everloop.assets import prompts, registry
from everloop.core.principal import Principal, Role

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


class Registry:
    """Facade over names of models and prompts."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def create(
        self, who: Principal, name: str, kind: str = "model", description: str = "", tags: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A new name without versions; Conflict if it is taken."""
        return await self._write(who, lambda tx: registry.create(tx, name, kind, description, tags))

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """A name with tags, aliases and the newest version of each stage."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: registry.get(tx, name))

    async def names(self, who: Principal) -> list[dict[str, Any]]:
        """All names, by name, with kind, description, tags and times."""
        return await self.ws.records.read(who.need(Role.viewer), registry.search)

    async def full(self, who: Principal, names: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """These names with their aliases and the newest version of each stage."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: registry.full(tx, names))

    async def change(self, who: Principal, name: str, **changes: Any) -> dict[str, Any]:
        """Change description or tags of a name."""
        return await self._write(who, lambda tx: registry.change(tx, name, **changes))

    async def rename(self, who: Principal, name: str, new: str) -> dict[str, Any]:
        """Give a name another name."""
        return await self._write(who, lambda tx: registry.rename(tx, name, new))

    async def delete(self, who: Principal, name: str) -> None:
        """Delete a name with all its versions; Conflict where a release rests on one."""
        await self._write(who, lambda tx: registry.delete(tx, name))

    async def add_version(self, who: Principal, name: str, manifest: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A new version of a name: `more` is run, description, tags. A prompt's messages are checked (BadInput); of a
        model that MLflow's client logged it is noted how it is served."""
        if "messages" in manifest:
            manifest = prompts.checked(manifest)
        elif manifest.get("format") == "mlflow" and manifest.get("files"):
            who.need(Role.editor, "register a model")
            manifest = {**manifest, **await self.ws.models.logged(who, manifest["files"])}
        return await self._write(who, lambda tx: registry.add_version(tx, name, manifest, **more))

    async def search_versions(
        self, who: Principal, kind: str, clauses: Sequence[Any], order_by: Sequence[tuple[str, bool]], limit: int, offset: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """(versions of a kind of which all clauses hold, whether there are more); see assets/registry."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: registry.search_versions(tx, kind, clauses, order_by, limit, offset))

    async def transition(self, who: Principal, name: str, at: str, stage: str, archive: bool = False) -> dict[str, Any]:
        """Put a version into a stage; with `archive` those that are in it go to Archived."""
        return await self._write(who, lambda tx: registry.transition(tx, name, at, stage, archive))

    async def version(self, who: Principal, name: str, at: str) -> dict[str, Any]:
        """One version, by number or alias."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: registry.version(tx, name, at))

    async def delete_version(self, who: Principal, name: str, at: str) -> None:
        """Put a version out of sight; Conflict where a release rests on it."""
        await self._write(who, lambda tx: registry.delete_version(tx, name, at))

    async def _write(self, who: Principal, work: Callable[[Any], Any]) -> Any:
        who.need(Role.editor, "change the registry")
        return await self.ws.records.write(who, work)
