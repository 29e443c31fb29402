"""`client.endpoints`: declare endpoints and call them from a user's program."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote


class Endpoints:
    """What users call, and the releases behind it."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def list(self) -> list[dict[str, Any]]:
        """All endpoints of the project."""
        return self._http.get("/api/v1/endpoints")["items"]

    def get(self, name: str) -> dict[str, Any]:
        """One endpoint with what is live."""
        return self._http.get(f"/api/v1/endpoints/{quote(name, safe='')}")

    def put(self, name: str, kind: str, **spec: Any) -> dict[str, Any]:
        """Declare or change an endpoint; spec: release, split, shadow, limits."""
        return self._http.put(f"/api/v1/endpoints/{quote(name, safe='')}", json={"kind": kind, "spec": spec})

    def predict(self, name: str, rows: list[dict[str, Any]], *, at: float | None = None, user: str = "", session: str = "") -> dict[str, Any]:
        """Predictions for rows: {"predictions": [{..., "prediction_id"}], "release", "trace_id"}."""
        body = {"rows": rows, "at": at, "user": user, "session": session}
        return self._http.post(f"/api/v1/endpoints/{quote(name, safe='')}/predict", json=body)

    def chat(self, name: str, question: str, **more: Any) -> dict[str, Any]:
        """One question to a chat endpoint, answered in OpenAI's shape, with citations in the message."""
        body = {"model": name, "messages": [{"role": "user", "content": question}], **more}
        return self._http.post("/v1/chat/completions", json=body)
