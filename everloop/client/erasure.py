"""`client.erasure`: forget a user."""

from __future__ import annotations

from typing import Any


class Erasure:
    """All traces of a user or a session go: from log, tables, index, archive, labels, and from the datasets and suites made of them."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def erase(self, user: str | None = None, *, session: str | None = None, why: str = "", dry_run: bool = False) -> dict[str, Any]:
        """Erase a user's traces, a session's, or a user's within a session; answers the receipt. `why` is kept in the audit record, the id is not.

        BadInput without an id or a reason. A dry run only counts.
        """
        body = {"user": user, "session": session, "why": why, "dry_run": dry_run}
        return self._http.post("/api/v1/erasures", json=body, timeout=3600)

    def list(self) -> dict[str, Any]:
        """The receipts, newest first: {"items", "next", "waiting"}."""
        return self._http.get("/api/v1/erasures")
