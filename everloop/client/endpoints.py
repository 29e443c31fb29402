"""`client.endpoints`: declare endpoints and call them from a user's program."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.core.errors import BadInput

SCORE = "batch-scoring"
"""The pipeline that `score` declares and runs."""


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

    def predict(
        self, name: str, rows: list[dict[str, Any]], *, at: float | None = None, user: str = "", session: str = "", partial: bool = False
    ) -> dict[str, Any]:
        """Predictions for rows: {"predictions": [{..., "prediction_id"}], "release", "trace_id"}; `name` may be `release:NAME@AT`.

        With `partial`, rows that do not fit are answered None and listed in "refused" with why; without, the first of them raises BadInput.
        """
        body = {"rows": rows, "at": at, "user": user, "session": session, **({"partial": True} if partial else {})}
        return self._http.post(f"/api/v1/endpoints/{quote(name, safe='')}/predict", json=body, timeout=300)

    def score(self, name: str, data: Any, out: str | os.PathLike[str] | None = None, *, timeout: float = 3600.0, **params: Any) -> dict[str, Any]:
        """Score a whole table in a worker: a file (CSV, Parquet), a data frame, or `dataset:NAME@AT`, through an endpoint or `release:NAME@AT`.

        Answers {"out": dataset reference, "rows", "scored", "refused", "refused_rows", "release", "run", ...}; with `out`, the predictions are also
        written there (.parquet, .csv or .jsonl by its ending). `params`: inputs=True keeps the input columns, at= sets the event time.
        """
        from everloop.client.data import Data
        from everloop.client.pipelines import Pipelines

        target = Path(out) if out is not None else None
        if target is not None and target.suffix not in (".parquet", ".csv", ".jsonl", ".json"):
            raise BadInput(f"Predictions cannot be written as {target.suffix or 'a file without ending'}.", "Name a .parquet, .csv or .jsonl file.")
        sets, pipelines = Data(self._http), Pipelines(self._http)
        plain = name.removeprefix("release:").partition("@")[0]
        ref = data if isinstance(data, str) and data.startswith("dataset:") else sets.add(f"{plain}-to-score", data, roles={})["ref"]
        pipelines.put(SCORE, {"steps": [{"name": "score", "call": "everloop.build.scoring:score", "after": []}], "params": {}})
        asked = {"release" if name.startswith("release:") else "endpoint": name, "dataset": ref, **params}
        run = pipelines.run(SCORE, asked)["id"]
        done = {**pipelines.wait(run, timeout)["tasks"][0]["result"], "run": run}
        if target is not None:
            _write(sets.table(done["out"]), target)
        return done

    def chat(self, name: str, question: str, **more: Any) -> dict[str, Any]:
        """One question to a chat endpoint, answered in OpenAI's shape, with citations in the message."""
        body = {"model": name, "messages": [{"role": "user", "content": question}], **more}
        return self._http.post("/v1/chat/completions", json=body)


def _write(table: Any, path: Path) -> None:
    """An Arrow table as a file by its ending."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, str(path), compression="zstd")
        return
    if path.suffix == ".csv":
        import pyarrow.csv as pc

        pc.write_csv(table, str(path))
        return
    with path.open("w", encoding="utf-8") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, default=str) + "\n")
