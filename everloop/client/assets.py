"""`client.assets`: the catalogue from a user's program."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import BadInput
from everloop.core.refs import Ref


class Assets:
    """Register, look up and alias assets; put and get the bytes behind them."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def list(self, kind: str | None = None, search: str = "", limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """Names by last change: {"items", "next"}."""
        return self._http.get("/api/v1/assets", params={"kind": kind, "search": search, "limit": limit, "cursor": cursor})

    def register(
        self,
        kind: str,
        name: str,
        manifest: dict[str, Any],
        *,
        run: str | None = None,
        reads: Iterable[str] = (),
        description: str = "",
        tags: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a new version (the same content answers the same version)."""
        body = {"kind": kind, "name": name, "manifest": manifest, "run": run, "reads": [*reads], "description": description, "tags": tags}
        return self._http.post("/api/v1/assets", json=body)

    def release(
        self,
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
        return self._http.post(
            "/api/v1/releases",
            json={"name": name, "kind": kind, "pins": pins, "params": params or {}, "policy": policy, "run": run, "description": description},
        )

    def get(self, ref: str, kind: str | None = None) -> dict[str, Any]:
        """One version by `kind:name@version-or-alias`."""
        parsed = Ref.parse(ref, kind)
        return self._http.get(f"/api/v1/assets/{parsed.kind}/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")

    def versions(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Versions, newest first."""
        return self._http.get(f"/api/v1/assets/{kind}/{quote(name, safe='')}")["items"]

    def annotate(self, ref: str, description: str | None = None, tags: dict[str, str | None] | None = None) -> dict[str, Any]:
        """Change a version's description and tags (None removes a tag)."""
        return self._http.patch(self._at(ref), json={"description": description, "tags": tags})

    def compare(self, left: str, right: str) -> dict[str, Any]:
        """Two versions of one asset side by side: `compare("model:credit@3", "model:credit@champion")`, or "4" for the right one."""
        one = Ref.parse(left)
        other = Ref(one.kind, one.name, "" if right == "latest" else right) if right == "latest" or ":" not in right else Ref.parse(right)
        if (one.kind, one.name) != (other.kind, other.name):
            raise BadInput(f"{left} and {right} are not versions of one asset.", "Compare versions of the same kind and name.")
        sides = {"from": one.at or "latest", "to": other.at or "latest"}
        return self._http.get(f"/api/v1/assets/{one.kind}/{quote(one.name, safe='')}/compare", params=sides)

    def delete(self, ref: str, permanent: bool = False) -> dict[str, Any]:
        """Put a version out of sight (`restore` brings it back), or for admins delete it for good; Conflict says what needs it."""
        return self._http.delete(self._at(ref) + ("?permanent=true" if permanent else ""))

    def restore(self, ref: str) -> dict[str, Any]:
        """Bring a deleted version back."""
        return self._http.post(f"{self._at(ref)}/restore", json={})

    def deleted(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Versions that were deleted and can be restored, last deleted first."""
        return self._http.get("/api/v1/deleted-assets", params={"kind": kind})["items"]

    @staticmethod
    def _at(ref: str) -> str:
        parsed = Ref.parse(ref)
        return f"/api/v1/assets/{parsed.kind}/{quote(parsed.name, safe='')}/{quote(parsed.at or 'latest', safe='')}"

    def move_alias(self, ref: str, alias: str, *, decision: str | None = None, why: str = "") -> dict[str, Any]:
        """Move an alias to `ref`, through the gate where there is one (GateRefused says what is missing)."""
        parsed = Ref.parse(ref)
        body = {"at": parsed.at or "latest", "decision": decision, "why": why}
        return self._http.put(f"/api/v1/assets/{parsed.kind}/{quote(parsed.name, safe='')}/aliases/{quote(alias, safe='')}", json=body)

    def remove_alias(self, kind: str, name: str, alias: str) -> None:
        """Delete an alias: what follows it has nothing to answer with. NotFound if there is none."""
        self._http.delete(f"/api/v1/assets/{kind}/{quote(name, safe='')}/aliases/{quote(alias, safe='')}")

    def alias_history(self, kind: str, name: str, alias: str) -> list[dict[str, Any]]:
        """Every move of an alias, newest first."""
        return self._http.get(f"/api/v1/assets/{kind}/{quote(name, safe='')}/aliases/{quote(alias, safe='')}/history")["items"]

    def put_object(self, data: bytes | Path) -> dict[str, Any]:
        """Store bytes or a file: {"digest", "size"}."""
        body = data if isinstance(data, bytes) else Path(data).read_bytes()
        return self._http.post("/api/v1/objects", data=body)

    def get_object(self, digest: str) -> bytes:
        """The bytes behind a digest."""
        return self._http.get_bytes(f"/api/v1/objects/{digest}")

    def put_files(self, files: dict[str, bytes | Path]) -> list[dict[str, Any]]:
        """Store several files: the `files` list of a manifest, [{"path", "digest", "size"}] sorted by path."""
        return [{"path": path, **self.put_object(data)} for path, data in sorted(files.items())]
