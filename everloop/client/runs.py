"""`client.runs` and `el.run()`: start runs (tracked.py is an open one), find them, read series and files."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from everloop.client import spool
from everloop.client.tracked import Run, text_of

TAGS_VARIABLE = "EVERLOOP_RUN_TAGS"
"""JSON of tags that every run of a program gets; `everloop reproduce` sets it."""


class Runs:
    """Find runs and experiments, start runs, read series and files."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def start(
        self,
        name: str = "",
        *,
        kind: str = "training",
        experiment: str = "default",
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        seed: int | None = None,
        system_metrics: float = 10.0,
        offline: bool = False,
    ) -> Run:
        """Start a run and answer it, open.

        `seed` is noted with the environment. Every `system_metrics` seconds (0: never) the machine's load is logged below `system/`. `offline`: nothing is sent;
        `everloop sync` does it later.
        """
        body: dict[str, Any] = {"id": uuid.uuid4().hex, "name": name, "kind": kind, "experiment": experiment, "parent": parent}
        given = {**json.loads(os.environ.get(TAGS_VARIABLE) or "{}"), **(tags or {})}
        body |= {"params": {k: text_of(v) for k, v in (params or {}).items()}, "tags": {k: text_of(v) for k, v in given.items()}}
        if offline:
            return Run(self._http, {**body, "started_at": time.time()}, offline=True, system=system_metrics, seed=seed)
        return Run(self._http, self._http.post("/api/v1/runs", json=body), system=system_metrics, seed=seed)

    def attach(self, id: str) -> Run:
        """An open handle on a run that someone else started and will end: it logs, `finish` only flushes."""
        return Run(self._http, self.get(id), own=False)

    def get(self, id: str) -> dict[str, Any]:
        """One run with params, latest metrics and tags."""
        return self._http.get(f"/api/v1/runs/{quote(id)}")

    def search(self, filter: str = "", experiment: str | None = None, limit: int = 100, cursor: str | None = None, **more: Any) -> dict[str, Any]:
        """Runs that fit, newest first: {"items", "next"}; `filter` as in MLflow. `more`: order_by, kind, parent, text, view."""
        params = {"filter": filter, "experiment": experiment, "limit": limit, "cursor": cursor, **more}
        return self._http.get("/api/v1/runs", params={key: value for key, value in params.items() if value is not None})

    def history(self, id: str, key: str) -> list[dict[str, Any]]:
        """The whole series of a metric by time: [{"value", "step", "at"}]."""
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self._http.get(f"/api/v1/runs/{quote(id)}/metrics/{quote(key)}", params={"cursor": cursor} if cursor else None)
            items += [{**item, "value": float(item["value"])} for item in page["items"]]
            cursor = page["next"]
            if not cursor:
                return items

    def chart(self, id: str, key: str, points: int = 1000) -> list[dict[str, Any]]:
        """A metric's series in at most `points` pieces: [{"step", "at", "value" (the piece's last), "min", "max", "n"}], whatever its length."""
        return self._http.get(f"/api/v1/runs/{quote(id)}/metrics/{quote(key)}", params={"points": points})["items"]

    def finish(self, id: str, status: str = "finished", error: str = "") -> dict[str, Any]:
        """End a run by its id."""
        return self._http.patch(f"/api/v1/runs/{quote(id)}", json={"status": status, "error": error})

    def artifacts(self, id: str, under: str = "") -> list[dict[str, Any]]:
        """Files of a run: [{"path", "digest", "size", "at"}]."""
        return self._http.get(f"/api/v1/runs/{quote(id)}/artifacts", params={"under": under})["items"]

    def get_artifact(self, id: str, path: str) -> bytes:
        """The bytes of one file of a run."""
        return self._http.get_bytes(f"/api/v1/runs/{quote(id)}/artifacts/{quote(path)}")

    def delete(self, id: str) -> None:
        """Put a run out of sight."""
        self._http.delete(f"/api/v1/runs/{quote(id)}")

    def experiments(self, filter: str = "") -> list[dict[str, Any]]:
        """Experiments, last changed first."""
        return self._http.get("/api/v1/experiments", params={"filter": filter, "limit": 1000})["items"]

    def sync(self, everything: bool = False) -> dict[str, Any]:
        """Send what earlier programs could not (or logged offline): {"runs", "messages", "refused", "elsewhere"}. With `everything`, also what was meant for another server."""
        return spool.sync(self._http, everything)


def run(
    name: str = "",
    *,
    kind: str = "training",
    experiment: str = "default",
    parent: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    seed: int | None = None,
    system_metrics: float = 10.0,
    offline: bool | None = None,
    client: Any = None,
) -> Run:
    """Start a tracked run: `with el.run("forest", experiment="credit") as run: run.log({"loss": 0.3})`.

    `client` is one from `el.connect()`; without it one is made (EVERLOOP_URL, EVERLOOP_API_KEY, or a local server that is started). `offline` (or EVERLOOP_OFFLINE=1)
    needs no server: what is logged waits for `everloop sync`. The rest as `client.runs.start`.
    """
    if offline is None:
        offline = os.environ.get("EVERLOOP_OFFLINE", "") not in ("", "0", "false")
    runs = Runs(None) if offline else (client or _connected()).runs
    return runs.start(
        name,
        kind=kind,
        experiment=experiment,
        parent=parent,
        params=params,
        tags=tags,
        seed=seed,
        system_metrics=system_metrics,
        offline=offline,
    )


def _connected() -> Any:
    from everloop.client import connect

    return connect()
