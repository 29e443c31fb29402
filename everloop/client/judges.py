"""`client.judges`: a share of live traces, judged as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote


class Judges:
    """Online judging: checks or an LLM score a sample of an endpoint's traces, within a budget."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(self, name: str, checks: Iterable[str | Mapping[str, Any]], *, rate: float = 0.1, **rule: Any) -> dict[str, Any]:
        """Declare a judge. A check is a name ("groundedness"), {"check", "params"}, or {"llm": {"engine": {...}, "instructions", "name"}}.

        `rule`: endpoint, release, user, session, status (which traces), budget (US dollars a day), per_day (traces a day), enabled.
        """
        return self._http.put(self._path(name), json={"checks": [*checks], "rate": rate, **rule})

    def list(self) -> list[dict[str, Any]]:
        """All judges, with what they did today."""
        return self._http.get("/api/v1/judges")["items"]

    def get(self, name: str) -> dict[str, Any]:
        """One judge: "spec", "today", "days", "stopped", and "scores" by release with n and interval."""
        return self._http.get(self._path(name))

    def delete(self, name: str) -> None:
        """Take a judge away; its scores stay."""
        self._http.delete(self._path(name))

    def _path(self, name: str) -> str:
        return f"/api/v1/judges/{quote(name, safe='')}"
