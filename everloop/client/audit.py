"""`client.audit`: who did what, and whether the record of it is whole."""

from __future__ import annotations

from typing import Any


class Audit:
    """The project's tamper-evident record of changes."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def list(
        self, who: str = "", action: str = "", subject: str = "", since: str | float | None = None, limit: int = 100, before: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows, newest first: {"seq", "at", "by", "action", "subject", "details", "previous", "hash"}.

        `who` is a principal (`user:ann`) or its name alone (`ann`); `action` one (`gate.declare`) or a family (`gate`); `subject` a reference,
        or one without its version for all of them; `since` a time (ISO or epoch seconds); `before` the seq to go on from.
        """
        params = {"by": who, "action": action, "subject": subject, "since": since, "limit": limit, "before": before}
        return self._http.get("/api/v1/audit", params={key: value for key, value in params.items() if value not in (None, "")})["items"]

    def verify(self) -> dict[str, Any]:
        """Walk the whole chain of hashes: {"ok", "rows", "head", "broken_at"}."""
        return self._http.get("/api/v1/audit/verify")
