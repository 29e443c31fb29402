"""`client.otel`: metrics and logs that OpenTelemetry clients sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Otel:
    """Metric points and log records of the project. They are sent by any OpenTelemetry exporter, to /v1/metrics and /v1/logs."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def metrics(self, text: str = "") -> list[dict[str, Any]]:
        """The metrics there are: name, type, unit, temporality, points, series, first, last. `text` occurs in the name."""
        return self._http.get("/api/v1/otel/metrics", params={"text": text})["items"]

    def points(self, name: str, limit: int = 100, cursor: str | None = None, where: Mapping[str, str] | None = None, **window: Any) -> dict[str, Any]:
        """A page of a metric's points as they were sent, newest first: {"items", "next"}. The window: since, until (ISO 8601 or epoch seconds)."""
        return self._http.get("/api/v1/otel/metrics/points", params=_params(name=name, limit=limit, cursor=cursor, where=_equal(where), **window))

    def series(
        self,
        name: str,
        figure: str | None = None,
        by: Sequence[str] = (),
        where: Mapping[str, str] | None = None,
        bucket_s: float | None = None,
        **window: Any,
    ) -> dict[str, Any]:
        """A metric over time: {"figure", "bucket_s", "unit", "items": [{"by", "points": [[at, value]], "n"}]}.

        `figure`: avg, min, max, last (gauge); increase, rate, last (sum); count, sum, avg, rate, p95 (histogram). `by` and `where` name attributes, or
        `model`, `provider`, `operation`, `token_type`, `service`.
        """
        params = _params(name=name, figure=figure, by=list(by), where=_equal(where), bucket_s=bucket_s, **window)
        return self._http.get("/api/v1/otel/metrics/series", params=params)

    def genai(self, **window: Any) -> list[dict[str, Any]]:
        """Calls, tokens and seconds by model, provider, operation and service, as LLM clients measured them. The window: since, until."""
        return self._http.get("/api/v1/otel/genai", params=window)["items"]

    def logs(self, limit: int = 100, cursor: str | None = None, where: Mapping[str, str] | None = None, **filters: Any) -> dict[str, Any]:
        """A page of log records, newest first: {"items", "next"}. Filters: level (the lowest), text, trace, event, since, until."""
        return self._http.get("/api/v1/otel/logs", params=_params(limit=limit, cursor=cursor, where=_equal(where), **filters))


def _params(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in (None, [])}


def _equal(where: Mapping[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in (where or {}).items()]
