"""`client.policies`: sets of checks that guard a chat release, from a user's program."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from everloop.core.refs import Ref


class Policies:
    """Policies are assets: each put of something new is a version, checked by the server before it is made."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(
        self, name: str, rules: Sequence[Mapping[str, Any]], *, stream: str = "buffer", refusal: str | None = None, description: str = ""
    ) -> dict[str, Any]:
        """A version of a policy. A rule is {"check", "stage": input|retrieved|output, "action": block|redact|flag, "params"?, "name"?}.

        `stream` says what happens to streamed answers while output rules have not run: "buffer" holds back the whole answer, "window" a part of
        it, "after" only flags. `refusal` is what a user reads when a rule blocks. BadInput names the rule that is wrong.
        """
        manifest: dict[str, Any] = {"rules": [dict(rule) for rule in rules], "stream": stream}
        if refusal is not None:
            manifest["refusal"] = refusal
        return self._http.post("/api/v1/assets", json={"kind": "policy", "name": name, "manifest": manifest, "description": description})

    def get(self, ref: str) -> dict[str, Any]:
        """One version, by `name@version-or-alias` (with or without `policy:`)."""
        parsed = Ref.parse(ref, "policy")
        return self._http.get(f"/api/v1/assets/policy/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")

    def list(self, search: str = "", limit: int = 100) -> builtins.list[dict[str, Any]]:
        """Policies by last change, newest first."""
        return self._http.get("/api/v1/assets", params={"kind": "policy", "search": search, "limit": limit})["items"]
