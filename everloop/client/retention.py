"""`client.retention`: how long traces are kept, and where."""

from __future__ import annotations

from typing import Any


class Retention:
    """Rules that the server does every few minutes: what is older goes to the archive (still listed, shown and searched), or is deleted."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def set(self, name: str, older: str, action: str = "archive", **narrowed: Any) -> dict[str, Any]:
        """Declare a rule: `older` is 90d, 36h or 10m, `action` archive or delete. Narrowed by endpoint=, kind= (chat, predict, client), status=
        (ok, error, unset); of= "traces" (with all of theirs), or "predictions" or "scores" alone (deleted only). BadInput for one that cannot be."""
        return self._http.put(f"/api/v1/retention/{name}", json={"older": older, "action": action, **narrowed})

    def list(self) -> dict[str, Any]:
        """The rules, and what the last run that did something did: {"items", "next", "last"}."""
        return self._http.get("/api/v1/retention")

    def delete(self, name: str) -> None:
        """Take a rule away. NotFound where there is none such."""
        self._http.delete(f"/api/v1/retention/{name}")

    def run(self, *, dry_run: bool = False, rule: str | None = None) -> dict[str, Any]:
        """Do all rules, or one, now; a dry run only counts: {"rules": [{"name", "action", "traces", "rows", ...}], "dry_run"}."""
        return self._http.post("/api/v1/retention/run", json={"dry_run": dry_run, "rule": rule}, timeout=3600)
