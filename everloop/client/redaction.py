"""`client.redaction`: what traces lose before they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Redaction:
    """Personal data and secrets are taken out of traces before they reach the disk, by a policy's rules with the action `redact`."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def set(self, policy: str, *, drop: Sequence[str] = (), hash: Sequence[str] = ()) -> dict[str, Any]:
        """Redact by this policy from now on. `drop`, `hash`: features of predictions that are left out, or kept as keyed hashes.

        BadInput for a policy that redacts nothing, NotFound for one that is not there.
        """
        return self._http.put("/api/v1/redaction", json={"policy": policy, "drop": list(drop), "hash": list(hash)})

    def get(self) -> dict[str, Any]:
        """What is set: {"policy": exact reference or None, "rules", "drop", "hash"}."""
        return self._http.get("/api/v1/redaction")

    def clear(self) -> None:
        """Redact nothing from now on."""
        self._http.delete("/api/v1/redaction")

    def attempt(self, text: str, policy: str | None = None) -> dict[str, Any]:
        """What a text would be written as: {"text", "found": {kind: n}, "policy"}."""
        return self._http.post("/api/v1/redaction/try", json={"text": text, "policy": policy})
