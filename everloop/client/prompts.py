"""`client.prompts`: prompts as versions, from a user's program."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from everloop.core.refs import Ref


class Prompts:
    """Prompts are assets: each put of something new is a version, checked by the server before it is made."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(
        self,
        name: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        settings: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        syntax: str = "jinja2",
        run: str | None = None,
        reads: Iterable[str] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """A version of a prompt: a list of {"role", "content"}, or a text, which becomes the system message.

        `settings` are {"retrieval": {"k", "mode", "min_score"}, "answer": {"sentences", "min_score", "citations"}}, `parameters` go to the LLM
        (temperature ...), `defaults` fill variables. BadInput names the message where a template does not parse.
        """
        turns = [{"role": "system", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        manifest: dict[str, Any] = {"messages": turns, "syntax": syntax, "parameters": dict(parameters or {}), "settings": dict(settings or {})}
        if defaults:
            manifest["defaults"] = dict(defaults)
        body = {"kind": "prompt", "name": name, "manifest": manifest, "run": run, "reads": [*reads], "description": description}
        return self._http.post("/api/v1/assets", json={**body, "tags": dict(tags or {})})

    def get(self, ref: str) -> dict[str, Any]:
        """One version, by `name@version-or-alias` (with or without `prompt:`)."""
        parsed = Ref.parse(ref, "prompt")
        return self._http.get(f"/api/v1/assets/prompt/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")

    def list(self, search: str = "", limit: int = 100) -> builtins.list[dict[str, Any]]:
        """Prompts by last change, newest first."""
        return self._http.get("/api/v1/assets", params={"kind": "prompt", "search": search, "limit": limit})["items"]
