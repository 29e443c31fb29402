"""`client.traces`: look at traces, score them, send labels and feedback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 5_000
EXPORT_SECONDS = 3600.0
ACTION_SECONDS = 1800.0


class Traces:
    """What happened in production, and what people and late labels say of it."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def list(self, limit: int = 100, cursor: str | None = None, **filters: Any) -> dict[str, Any]:
        """A page of traces, newest first: {"items", "next"}. Filters: endpoint, status, release, user, session, since, until, text, and `query`, a filter
        line such as 'endpoint:tutor status:error ms>2000 score.thumbs<0 "free text"'."""
        params = {key: value for key, value in {"limit": limit, "cursor": cursor, **filters}.items() if value is not None}
        return self._http.get("/api/v1/traces", params=params)

    def iterate(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All traces that the filters let through, newest first, page by page."""
        cursor = None
        while True:
            page = self.list(cursor=cursor, **filters)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def get(self, trace_id: str) -> dict[str, Any]:
        """One trace: {"trace_id", "spans", "predictions", "scores", "logs", "about"}."""
        return self._http.get(f"/api/v1/traces/{trace_id}")

    def export(self, file: str | Path, format: str | None = None, *, traces: Iterable[str] | None = None, **asked: Any) -> dict[str, Any]:
        """Write a selection to a file: {"file", "count", "left_out": {why: traces}}. The filters are those of `list`, or `traces` names them.

        `format`: csv, jsonl, parquet (by the file's ending where not told; `of="spans"` or `"predictions"` for their rows), openai-evals, openai-eval-items,
        fine-tuning. `score="thumbs >= 1"` leaves out traces whose score is not so; `level`: call or trace.
        """
        import orjson

        path = Path(file)
        body = {
            "format": format or {".csv": "csv", ".parquet": "parquet"}.get(path.suffix, "jsonl"),
            **{k: v for k, v in asked.items() if v is not None},
        }
        if traces is not None:
            body["traces"] = list(traces)
        headers, pieces = self._http.download("POST", "/api/v1/exports/traces", json=body, timeout=EXPORT_SECONDS)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as out:
                out.writelines(pieces)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return {"file": str(path), "count": int(headers["x-everloop-exported"]), "left_out": orjson.loads(headers["x-everloop-left-out"])}

    def add_to_dataset(self, dataset: str, traces: Iterable[str] | None = None, **selection: Any) -> dict[str, Any]:
        """Add traces (ids, or the filters of `list`, score="thumbs >= 1", limit=) to a dataset as its next version: the asset, "added", "rows", "left_out".

        Rows are of predictions where the traces are, else of traces (question, answer, expected, scores); `of="traces"` or `"predictions"` says otherwise.
        """
        return self._do("dataset", {"dataset": dataset}, traces, selection)

    def add_to_suite(self, suite: str, traces: Iterable[str] | None = None, tags: Iterable[str] = (), **selection: Any) -> dict[str, Any]:
        """Add traces to a suite as cases: the asset, "added", "cases", "left_out". The expected answer is a score called `correction`, else none; labelled
        predictions become rows of the suite's dataset."""
        return self._do("suite", {"suite": suite, "tags": list(tags)}, traces, selection)

    def add_to_queue(self, queue: str, traces: Iterable[str] | None = None, rubric: Any = None, **selection: Any) -> dict[str, Any]:
        """Put traces before annotators: {"queue", "added", "left_out"}. A queue that is not there is made with `rubric` (see client.labels.make)."""
        return self._do("queue", {"queue": queue, **({"rubric": list(rubric)} if rubric else {})}, traces, selection)

    def replay(self, release: str, traces: Iterable[str] | None = None, checks: Iterable[str] = (), **selection: Any) -> dict[str, Any]:
        """Ask a release what traces were asked: {"release", "items": [{"trace_id", "question", "before", "after", "changed"}], "summary"}. It is not recorded
        as traffic. `checks` (groundedness, pii ...) judge both answers; where labels came, the share of right predictions is told. The filter is
        the selection; a release to filter by is `answered_by`."""
        if "answered_by" in selection:
            selection["release"] = selection.pop("answered_by")
        return self._do("replay", {"to": release, "checks": list(checks)}, traces, selection)

    def _do(self, action: str, body: dict[str, Any], traces: Iterable[str] | None, selection: Mapping[str, Any]) -> dict[str, Any]:
        chosen = {key: value for key, value in selection.items() if value is not None}
        if traces is not None:
            chosen["traces"] = [traces] if isinstance(traces, str) else [*traces]
        return self._http.post(f"/api/v1/traces/actions/{action}", json={**body, **chosen}, timeout=ACTION_SECONDS)

    def tail(self, seconds: float = 3600.0, **filters: Any) -> Iterator[dict[str, Any]]:
        """Traces as they come, for so many seconds: items as `list` gives them. Filters: endpoint, status, release, user, session, text."""
        import orjson

        asked = {key: value for key, value in {"seconds": seconds, **filters}.items() if value not in (None, "")}
        held = b""
        for piece in self._http.download("GET", "/api/v1/traces/tail", params=asked)[1]:
            *lines, held = (held + piece).split(b"\n")
            yield from (orjson.loads(line[6:]) for line in lines if line.startswith(b"data: "))

    def add_score(self, subject: str, name: str, value: Any, *, source: str = "", why: str = "", at: float | None = None) -> dict[str, Any]:
        """Judge a trace or a prediction; durable when this returns."""
        return self.add_scores([{"subject": subject, "name": name, "value": value, "source": source, "why": why, "at": at}])

    def add_scores(self, scores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Many judgements, sent in parts of BATCH; {"added"} counts them."""
        added, rest = 0, iter(scores)
        while part := [dict(score) for score in islice(rest, BATCH)]:
            added += self._http.post("/api/v1/scores", json={"scores": part})["added"]
        return {"added": added}

    def labels(self, labels: Iterable[Mapping[str, Any]], source: str = "labels") -> dict[str, Any]:
        """Labels that came late: {"prediction_id", "label", "at"?} each; where several come for one prediction, the last counts."""
        return self.add_scores(
            {"subject": row["prediction_id"], "name": "label", "value": row["label"], "source": source, "at": row.get("at")} for row in labels
        )

    def feedback(self, trace_id: str, value: int | bool, why: str = "", name: str = "thumbs", source: str = "user") -> dict[str, Any]:
        """A user's verdict on an answer: 1 (or True) for a thumb up, -1 (or False) for a thumb down. NotFound for a trace that is not there."""
        return self._http.post(f"/api/v1/traces/{trace_id}/feedback", json={"value": value, "why": why, "name": name, "source": source})

    def scores(self, subject: str) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        """Scores of a trace or prediction, oldest first."""
        return self._http.get("/api/v1/scores", params={"subject": subject})["items"]

    def stats(self, **window: Any) -> dict[str, Any]:
        """Traffic by time bucket; give since, until (ISO 8601 or epoch seconds), bucket_s, endpoint."""
        return self._http.get("/api/v1/stats", params=window)
