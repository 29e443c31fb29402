"""`client.suites`: what releases are evaluated on, from a user's program."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import BadInput
from everloop.core.refs import Ref


class Suites:
    """Suites are assets: questions with what a good answer looks like, or a labelled dataset."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(
        self,
        name: str,
        cases: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | None = None,
        *,
        task: str = "chat",
        dataset: str | None = None,
        target: str | None = None,
        protected: Iterable[str] = (),
        description: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """A version of a suite. For chat, `cases` is a list, or a file of JSON lines; for other tasks give `dataset` and `target`.

        A case is {"question", "kind": answerable|unanswerable|harmful|off_topic|injection, "expected_sources", "expected_answer", "id", "tags"};
        all but the question may be left out. BadInput names the line that is wrong, and nothing is made.
        """
        manifest: dict[str, Any] = {"task": task, "dataset": dataset, "target": target, "protected": [*protected], "cases": None, **more}
        if cases is not None:
            manifest["cases"] = self._http.post("/api/v1/objects", data=_lines(cases))
        reads = [dataset] if dataset else []
        return self._http.post(
            "/api/v1/assets", json={"kind": "suite", "name": name, "manifest": manifest, "reads": reads, "description": description}
        )

    def get(self, ref: str) -> dict[str, Any]:
        """One version, by `name@version-or-alias` (with or without `suite:`); a chat suite's asset carries its "cases"."""
        parsed = Ref.parse(ref, "suite")
        asset = self._http.get(f"/api/v1/assets/suite/{quote(parsed.name, safe='')}/{parsed.at or 'latest'}")
        named = asset["manifest"].get("cases")
        if named:
            data = self._http.get_bytes(f"/api/v1/objects/{named['digest']}")
            asset["cases"] = [json.loads(line) for line in data.splitlines() if line.strip()]
        return dict(asset)

    def list(self, search: str = "", limit: int = 100) -> builtins.list[dict[str, Any]]:
        """Suites by last change, newest first."""
        return self._http.get("/api/v1/assets", params={"kind": "suite", "search": search, "limit": limit})["items"]


def _lines(cases: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> bytes:
    if not isinstance(cases, str | os.PathLike):
        return "".join(json.dumps(dict(case), default=str) + "\n" for case in cases).encode()
    path = Path(cases)
    if not path.is_file():
        raise BadInput(f"There is no file {path}.", "Give a file of JSON lines, one case each, or a list of cases.")
    return path.read_bytes()
