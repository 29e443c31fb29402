"""Metrics and logs that OpenTelemetry clients send, and figures out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import OTEL_BUCKETS, PAGE_ROWS, PAGE_ROWS_MAX, SERIES_BUCKETS
from everloop.core.principal import Principal, Role
from everloop.store import series
from everloop.store import telemetry_otel as stored
from everloop.store.telemetry_otel import NS, Wanted
from everloop.store.telemetry_queries import round_bucket

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

TOKENS, DURATION = "gen_ai.client.token.usage", "gen_ai.client.operation.duration"
GENAI_BY = ("model", "provider", "operation", "service")


class Otel:
    """The verbs of metrics and logs. Sending needs the role caller or editor (it is ingest, so it leaves no audit row), reading viewer."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def add(
        self,
        who: Principal,
        *,
        metrics: Sequence[Mapping[str, Any]] = (),
        logs: Sequence[Mapping[str, Any]] = (),
        scores: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write points and records (as protocols/otlp_metrics.py and otlp_logs.py make them) and scores told in records; answers after an fsync.
        Sent again, they change nothing. Raises Busy, TooLarge, NoSpace."""
        who.need_call("send metrics and logs")
        told = [{**score, "by": who.name} for score in scores]
        await self.ws.telemetry.add_durable(who.project, scores=told, metrics=metrics, logs=logs)

    async def metrics(self, who: Principal, text: str = "") -> dict[str, Any]:
        """The metrics there are, by name: {"items": [{"name", "type", "unit", "temporality", "description", "points", "series", "first", "last"}], "next"};
        `text` occurs in the name."""
        who.need(Role.viewer)
        return {"items": await self.ws.telemetry.query(lambda con: stored.names(con, who.project, text)), "next": None}

    async def points(
        self,
        who: Principal,
        name: str,
        *,
        since: float | None = None,
        until: float | None = None,
        where: Mapping[str, str] | None = None,
        limit: int = PAGE_ROWS,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """A metric's points as they were sent, newest first: {"items", "next"}."""
        who.need(Role.viewer)
        _page(limit)
        wanted = Wanted(since, until, where or {})
        return await self.ws.telemetry.query(lambda con: stored.latest(con, who.project, name, wanted, limit, cursor))

    async def series(
        self,
        who: Principal,
        name: str,
        *,
        figure: str | None = None,
        by: Sequence[str] = (),
        where: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
        bucket_s: float | None = None,
    ) -> dict[str, Any]:
        """A metric over time: {"name", "type", "unit", "figure", "bucket_s", "items": [{"by": {attribute: value}, "points": [[at, value]], "n"}]}.

        `figure`: avg, min, max, last, count (gauge); increase, rate, last (sum); count, sum, avg, rate, min, max, p95 (histogram, summary). `by` and `where`
        name attributes, a resource's (`resource.service.name`), or `model`, `provider`, `operation`, `token_type`, `service`. NotFound for an unknown name,
        BadInput for a figure that the type has not, TooLarge where there are too many points.
        """
        who.need(Role.viewer)
        wanted = Wanted(since, until, where or {})

        def work(con: Any) -> dict[str, Any]:
            found = stored.points(con, who.project, name, wanted, by, before=True)
            if not found:
                known = [one["name"] for one in stored.names(con, who.project)]
                if name in known:
                    return {"name": name, "items": [], "bucket_s": bucket_s, "figure": figure, "type": None, "unit": None}
                raise NotFound(f"There is no metric {name!r}.", f"There are: {', '.join(known[:10]) or 'none yet'}.")
            kind = found[-1]["type"]
            found = [one for one in found if one["type"] == kind]  # a name that changed its type: the other points are another metric
            chosen = series.figure_of(kind, figure)
            start = int(since * NS) if since is not None else min(one["at_ns"] for one in found)
            end = int(until * NS) if until is not None else max(one["at_ns"] for one in found) + 1
            length = bucket_s or round_bucket(max((end - start) / NS, 1.0), SERIES_BUCKETS)
            if length <= 0 or (end - start) / NS / length > OTEL_BUCKETS:
                raise BadInput(f"{length:g} s cut that time into more than {OTEL_BUCKETS} parts.", "Give a longer bucket_s, or a shorter time.")
            step = max(1, int(length * NS))
            bins = series.fold(found, start, lambda at: at - at % step)
            items = series.table(bins, by, chosen, kind, length)
            return {"name": name, "type": kind, "unit": found[-1]["unit"], "figure": chosen, "bucket_s": length, "items": items}

        return await self.ws.telemetry.query(work)

    async def genai(self, who: Principal, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        """What LLM clients measured, by model, provider, operation and service: {"items": [{"model", "provider", "operation", "service", "calls",
        "tokens_in", "tokens_out", "avg_s", "p50_s", "p95_s"}], "next"}, the most tokens first. What a client does not send is None."""
        who.need(Role.viewer)
        wanted = Wanted(since, until)

        def work(con: Any) -> list[dict[str, Any]]:
            rows: dict[tuple[Any, ...], dict[str, Any]] = {}

            def row(group: tuple[Any, ...]) -> dict[str, Any]:
                empty = dict.fromkeys(("calls", "tokens_in", "tokens_out", "avg_s", "p50_s", "p95_s"))
                return rows.setdefault(group, {**dict(zip(GENAI_BY, group, strict=True)), **empty})

            start = 0 if since is None else int(since * NS)
            for (group, _), one in series.fold(
                stored.points(con, who.project, TOKENS, wanted, [*GENAI_BY, "token_type"], True), start, lambda at: 0
            ).items():
                side = "tokens_in" if group[-1] == "input" else "tokens_out"
                made = row(group[:-1])
                made[side] = (made[side] or 0) + one.sum
            for (group, _), one in series.fold(stored.points(con, who.project, DURATION, wanted, GENAI_BY, True), start, lambda at: 0).items():
                value = {"calls": int(one.count), "avg_s": one.sum / one.count if one.count else None}
                row(group).update(value, p50_s=series.quantile(one, 0.5), p95_s=series.quantile(one, 0.95))
            return sorted(rows.values(), key=lambda made: -((made["tokens_in"] or 0) + (made["tokens_out"] or 0)))

        return {"items": await self.ws.telemetry.query(work), "next": None}

    async def logs(
        self,
        who: Principal,
        *,
        since: float | None = None,
        until: float | None = None,
        level: str | None = None,
        text: str = "",
        trace: str | None = None,
        event: str | None = None,
        where: Mapping[str, str] | None = None,
        limit: int = PAGE_ROWS,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Log records, newest first: {"items": [{"id", "at", "severity", "level", "event", "body", "trace_id", "span_id", "attributes", "resource", "scope"}],
        "next"}. `level` is the lowest one shown (debug, info, warn, error ...), `text` occurs in the body, `where` are attributes that must be equal."""
        who.need(Role.viewer)
        _page(limit)
        wanted = Wanted(since, until, where or {})

        def work(con: Any) -> dict[str, Any]:
            return stored.logs(con, who.project, wanted, limit, cursor, level=level, text=text, trace=trace, event=event)

        return await self.ws.telemetry.query(work, who.project, since, until, traces=[trace] if trace else None)


def _page(limit: int) -> None:
    if not 1 <= limit <= PAGE_ROWS_MAX:
        raise BadInput(f"A page has 1 to {PAGE_ROWS_MAX} rows, not {limit}.")
