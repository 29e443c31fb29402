"""`client.gates`: declare, evaluate, approve."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote


class Gates:
    """What must hold before an alias moves, and the decisions about it."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def declare(
        self,
        kind: str,
        name: str,
        alias: str = "champion",
        *,
        suite: str,
        requirements: list[str],
        confidence: float = 0.95,
        approval: str = "never",
        expires_days: float = 7.0,
    ) -> dict[str, Any]:
        """Declare a gate; `approval` is never, always or not_first."""
        body = {"suite": suite, "requirements": requirements, "confidence": confidence, "approval": approval, "expires_days": expires_days}
        return self._http.put(f"/api/v1/gates/{kind}/{quote(name, safe='')}/{alias}", json=body)

    def list(self) -> list[dict[str, Any]]:
        """All gates of the project."""
        return self._http.get("/api/v1/gates")["items"]

    def evaluate(self, ref: str, alias: str = "champion") -> dict[str, Any]:
        """Run the gate's suite against a release and freeze the decision."""
        return self._http.post("/api/v1/gates/evaluate", json={"ref": ref, "alias": alias}, timeout=600)

    def decisions(self, **filters: Any) -> list[dict[str, Any]]:
        """Decisions, newest first; filters: kind, name, version, approval, limit."""
        return self._http.get("/api/v1/decisions", params=filters)["items"]

    def decision(self, id: str) -> dict[str, Any]:
        """One decision."""
        return self._http.get(f"/api/v1/decisions/{id}")

    def cases(self, id: str) -> list[dict[str, Any]]:
        """A chat decision's cases one by one, the wrong ones first: {"question", "kind", "right", "why", "hit", "expected_sources", "found",
        "expected_answer", "answer", "declined", ...}."""
        return self._http.get(f"/api/v1/decisions/{id}/cases")["items"]

    def approve(self, id: str, why: str = "", move: bool = True) -> dict[str, Any]:
        """Approve a decision that waits; with `move` its alias moves at once."""
        return self._http.post(f"/api/v1/decisions/{id}/approve", json={"why": why, "move": move})

    def reject(self, id: str, why: str = "") -> dict[str, Any]:
        """Reject a decision that waits."""
        return self._http.post(f"/api/v1/decisions/{id}/reject", json={"why": why})
