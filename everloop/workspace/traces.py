"""What happened in production: traces, predictions, and the scores and labels that come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from everloop.core.errors import BadInput, NotFound, TooLarge
from everloop.core.limits import ARCHIVE_PARTS, PAGE_ROWS, PAGE_ROWS_MAX, PREDICTIONS_MAX, SCORES_BATCH, SERIES_BUCKETS
from everloop.core.principal import Principal, Role
from everloop.core.types import Span
from everloop.store import genai_events
from everloop.store import telemetry_otel as otel
from everloop.store import telemetry_queries as queries
from everloop.store.frames import TRACE_ID, trace_of
from everloop.workspace.trace_lines import select

if TYPE_CHECKING:
    from everloop.store.telemetry_archive import Part
    from everloop.workspace.workspace import Workspace


EVENTS_SECONDS = 86_400.0
"""How long after a trace's beginning records with its messages are looked for when traces are listed."""


class Traces:
    """The verbs of telemetry. Writing needs the role caller or editor (it is ingest, so it leaves no audit row), reading viewer."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    def record(self, who: Principal, spans: Sequence[Span], predictions: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write an answer's trace before the answer leaves: in the operating system's hands on return, on disk within 100 ms.

        A prediction is {"prediction_id", "at", "endpoint", "release", "alias"?, "features": {...}, "outputs": {...}, "session"?, "user"?}.
        Raises Busy, TooLarge, NoSpace.
        """
        self.ws.telemetry.add_soon(who.project, spans, predictions)

    async def add(self, who: Principal, spans: Sequence[Span], predictions: Sequence[Mapping[str, Any]] = (), *, durable: bool = True) -> None:
        """Write spans and predictions. With `durable` they come from a client, who must be editor, and it answers after an fsync;
        without, they are the server's own record of a call that `who` was allowed to make (see `record`). BadInput for ids that are none.
        """
        if not durable:
            self.record(who, spans, predictions)
            return
        who.need_call("send traces")
        for span in spans:
            if not TRACE_ID.fullmatch(span.trace_id):
                raise BadInput(f"{span.trace_id!r} is not a trace id.", "A trace id is 32 lowercase hex characters.")
        await self.ws.telemetry.add_durable(who.project, spans, predictions)

    async def list(
        self,
        who: Principal,
        *,
        endpoint: str | None = None,
        status: str | None = None,
        release: str | None = None,
        user: str | None = None,
        session: str | None = None,
        since: float | None = None,
        until: float | None = None,
        text: str = "",
        query: str = "",
        traces: Sequence[str] | None = None,
        limit: int = PAGE_ROWS,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """Traces, newest first. `text` searches inputs and outputs: all words must occur, "quoted words" as a phrase; `query` is a filter
        line (assets/trace_query); `traces` leaves these alone.

        Archived traces are listed like others, where the range of time reaches them.
        """
        who.need(Role.viewer)
        if not 1 <= limit <= PAGE_ROWS_MAX:
            raise BadInput(f"A page has 1 to {PAGE_ROWS_MAX} rows, not {limit}.")
        telemetry = self.ws.telemetry
        found, lines = await select(telemetry, who.project, query, text)
        if traces is not None:
            found = list(traces) if found is None else [one for one in found if one in set(traces)]
        wanted = queries.Filter(endpoint, release, status, user, session, since, until, found, lines)

        def work(con: Any) -> dict[str, Any]:
            return queries.list_traces(con, who.project, wanted, limit, cursor)

        page = await telemetry.query(work)
        parts = await self._archived(who, since, until, found)
        taken = 0
        while taken < len(parts):  # parts are read, the newest first, until none could have a newer trace than the page's last
            if page["next"] and parts[taken].until_ns < page["items"][-1]["at"] * queries.NS:
                break
            taken = max(ARCHIVE_PARTS, taken * 2)
            page = await telemetry.query(work, parts=parts[:taken])
        await self._said(who, page["items"])
        return page

    async def _said(self, who: Principal, items: Sequence[dict[str, Any]]) -> None:
        """Fill in what went in and came out where an instrumentation sent it as log records, as `get` does."""
        silent = {item["trace_id"]: item for item in items if item["inputs"] is None}
        if not silent:
            return
        times = [item["at"] for item in silent.values()]
        reach = (min(times) - 60, max(times) + EVENTS_SECONDS)
        events = await self.ws.telemetry.query(lambda con: otel.events_of(con, who.project, list(silent), *reach), who.project, traces=list(silent))
        for trace, found in events.items():
            inputs, outputs = genai_events.messages([one for one in found if one["span_id"] == found[0]["span_id"]])
            silent[trace]["inputs"] = inputs if inputs is None else orjson.dumps(inputs).decode()
            if silent[trace]["outputs"] is None and outputs is not None:
                silent[trace]["outputs"] = orjson.dumps(outputs).decode()

    async def _archived(self, who: Principal, since: float | None, until: float | None, found: Sequence[str] | None) -> Sequence[Part]:
        """The parts of the archive that a list may reach, those that end last first."""
        archive = self.ws.telemetry.archive
        if archive is None or not (parts := archive.parts(who.project, since, until)):
            return []
        if found is not None:
            held = await self.ws.telemetry.query(lambda con: archive.holding(con, who.project, found))
            parts = [part for part in parts if part in held]
        return sorted(parts, key=lambda part: part.until_ns, reverse=True)

    async def get(self, who: Principal, trace_id: str) -> dict[str, Any]:
        """A whole trace: {"trace_id", "spans", "predictions", "scores", "logs", "about"}. NotFound if the project has none such."""
        who.need(Role.viewer)
        found = await self.ws.telemetry.query(lambda con: queries.get_trace(con, who.project, trace_id), who.project, traces=[trace_id])
        if found is None:  # perhaps written a moment ago
            await self.ws.telemetry.flush()
            found = await self.ws.telemetry.query(lambda con: queries.get_trace(con, who.project, trace_id), who.project, traces=[trace_id])
        if found is None:
            raise NotFound(f"The project {who.project!r} has no trace {trace_id!r}.", "List them with: everloop traces list")
        return found

    async def add_scores(self, who: Principal, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Judgements of traces or predictions: {"subject": trace or prediction id, "name", "value", "source"?, "why"?, "at"?}.

        A label is a score named `label` of a prediction id; where several come, the last counts and all are kept. Answers {"added"} once
        durable. The subject need not have arrived yet. BadInput where a name or subject is missing.
        """
        who.need_call("add scores")
        if len(scores) > SCORES_BATCH:
            raise TooLarge(f"{len(scores)} scores in one call; at most {SCORES_BATCH} are allowed.", "Send them in parts.")
        now = self.ws.clock.now()
        rows = []
        for i, score in enumerate(scores):
            subject, name = score.get("subject"), score.get("name")
            if not (isinstance(subject, str) and subject and isinstance(name, str) and name and "value" in score):
                raise BadInput(f"Score number {i} needs a subject, a name and a value; it has {', '.join(sorted(map(str, score))) or 'nothing'}.")
            at = score.get("at")
            if at is not None and (isinstance(at, bool) or not isinstance(at, (int, float))):
                raise BadInput(f"Score number {i} has at={at!r}; it must be epoch seconds.")
            rows.append(
                {
                    "id": self.ws.clock.new_id(),
                    "subject": subject,
                    "name": name,
                    "value": score["value"],
                    "source": score.get("source"),
                    "why": score.get("why"),
                    "at": now if at is None else float(at),
                    "by": who.name,
                }
            )
        await self.ws.telemetry.add_durable(who.project, scores=rows)
        return {"added": len(rows)}

    async def feedback(
        self, who: Principal, trace_id: str, value: int | bool, *, name: str = "thumbs", why: str = "", source: str = "user"
    ) -> dict[str, Any]:
        """A user's verdict on an answer: 1 (or True) for a thumb up, -1 (or False) for a thumb down; it is a score of the trace.

        NotFound where the project has no such trace, BadInput for another value.
        """
        who.need_call("give feedback")
        thumb = {True: 1, False: -1}.get(value, value) if isinstance(value, bool) else value
        if thumb not in (1, -1):
            raise BadInput(f"{value!r} is not a thumb.", "Send 1 (up) or -1 (down).")
        await self.get(who.reading(), trace_id)
        await self.add_scores(who, [{"subject": trace_id, "name": name, "value": int(thumb), "source": source, "why": why}])
        await self.ws.telemetry.flush()
        return {"subject": trace_id, "name": name, "value": int(thumb), "source": source, "why": why}

    async def scores(self, who: Principal, subject: str) -> list[dict[str, Any]]:
        """All scores of a trace (with those of its predictions) or of one prediction, oldest first."""
        who.need(Role.viewer)
        if TRACE_ID.fullmatch(subject):
            return await self.ws.telemetry.query(
                lambda con: queries.scores_of(con, who.project, [subject]).get(subject, []), who.project, traces=[subject]
            )
        return await self.ws.telemetry.query(lambda con: queries.scores(con, who.project, subject), who.project, traces=[trace_of(subject) or ""])

    async def stats(self, who: Principal, since: float, until: float, bucket_s: float, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Per bucket with traces: {"at", "count", "errors", "p50_ms", "p95_ms", "cost", "tokens"}; times in epoch seconds, cost in US dollars."""
        who.need(Role.viewer)
        return await self.ws.telemetry.query(lambda con: queries.stats(con, who.project, since, until, bucket_s, endpoint), who.project, since, until)

    async def extent(self, who: Principal, endpoint: str | None = None) -> tuple[float, float] | None:
        """When the first and the last trace of an endpoint (None: of the project) began, in epoch seconds; None where there is none."""
        who.need(Role.viewer)
        return await self.ws.telemetry.query(lambda con: queries.extent(con, who.project, endpoint), who.project)

    async def series(
        self, who: Principal, since: float | None = None, until: float | None = None, endpoint: str | None = None, buckets: int = SERIES_BUCKETS
    ) -> dict[str, Any]:
        """`stats` over a range that may be open: {"items", "bucket_s", "since", "until", "whole"} with about `buckets` of a round length, empty ones
        left out; `whole` is the same figures over all of the range (None where there is no trace in it)."""
        who.need(Role.viewer)

        def work(con: Any) -> dict[str, Any]:
            there = queries.extent(con, who.project, endpoint)
            if there is None:
                return {"items": [], "bucket_s": 0.0, "since": since, "until": until, "whole": None}
            first = there[0] if since is None else since
            last = there[1] + 1 if until is None else until
            length = queries.round_bucket(max(last - first, 1.0), buckets)
            start = first - first % length
            items = [s for s in queries.stats(con, who.project, start, max(last, start), length, endpoint) if s["at"] + length > first]
            whole = queries.stats(con, who.project, first, max(last, first), max(last - first, 1.0) * 2, endpoint)
            return {"items": items, "bucket_s": length, "since": start, "until": last, "whole": whole[0] if whole else None}

        return await self.ws.telemetry.query(work, who.project, since, until)

    async def histogram(
        self, who: Principal, edges_ms: Sequence[float], *, endpoint: str | None = None, since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """How many calls took how long: {"edges_ms", "counts"} with one more count than edges (below the first ... above the last)."""
        who.need(Role.viewer)
        if not 1 <= len(edges_ms) <= 100:
            raise BadInput("Give 1 to 100 edges in milliseconds.")
        wanted = queries.Filter(endpoint=endpoint, since=since, until=until)
        counts = await self.ws.telemetry.query(lambda con: queries.histogram(con, who.project, wanted, edges_ms), who.project, since, until)
        return {"edges_ms": sorted(edges_ms), "counts": counts}

    async def predictions(
        self, who: Principal, endpoint: str, since: float, until: float, release: str | None = None, limit: int = PREDICTIONS_MAX
    ) -> list[dict[str, Any]]:
        """An endpoint's predictions by time, oldest first: {"prediction_id", "at", "release", "features", "outputs", "label"}."""
        who.need(Role.viewer)
        await self.ws.telemetry.flush()
        return await self.ws.telemetry.query(
            lambda con: queries.predictions(con, who.project, endpoint, since, until, release, limit), who.project, since, until
        )

    async def calls(
        self, who: Principal, endpoint: str, since: float, until: float, *, limit: int = PREDICTIONS_MAX, texts: bool = False
    ) -> list[dict[str, Any]]:
        """An endpoint's calls, newest first, as monitors look at them (see telemetry_queries.calls)."""
        who.need(Role.viewer)
        await self.ws.telemetry.flush()
        return await self.ws.telemetry.query(
            lambda con: queries.calls(con, who.project, endpoint, since, until, limit, texts), who.project, since, until
        )

    async def count_by_release(self, who: Principal, releases: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """How many traces each release answered, and how many rows it predicted."""
        who.need(Role.viewer)
        return await self.ws.telemetry.query(lambda con: queries.count_by_release(con, who.project, releases), who.project)
