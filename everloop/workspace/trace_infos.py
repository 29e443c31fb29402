"""What clients tell of whole traces: experiment, state, tags, metadata, links to runs and prompts, judgements; and search over all that.

The spans, and the judgements as scores, are those that `Traces` shows: one store, nothing twice. Reading waits until what was acknowledged
before can be queried, so a client always reads its own writes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from everloop.assets import experiments, runs, trace_filter
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import SEEN_TRACES, TRACE_LINKS
from everloop.core.principal import Principal, Role
from everloop.core.types import Span
from everloop.store import audit
from everloop.store import telemetry_metrics as metrics
from everloop.store import telemetry_search as searches

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

T = TypeVar("T")
PREFIX = "tr-"
_OURS = re.compile(r"tr-([0-9a-f]{32})")
JUDGEMENTS = ("feedback", "expectation", "issue")
WAIT_SECONDS = 3.0
"""How long `whole` waits for spans that the trace's own statistics promise."""


def key_of(id: str) -> str:
    """The id that a trace has here: MLflow's `tr-` and 32 hex digits lose the prefix, any other stays as it is."""
    match = _OURS.fullmatch(id)
    return match[1] if match else id


class TraceInfos:
    """Facade over what is known of whole traces. Sending needs caller or editor, reading viewer."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._seen: dict[str, None] = {}

    async def add_spans(self, who: Principal, experiment: str, spans: Sequence[Span], run: str | None = None) -> None:
        """Spans of a client that names the experiment they belong to. NotFound where there is no such experiment (or run)."""
        who.need_call("send traces")
        await self._active(who, experiment)
        changes = [_told(trace, experiment, own, run) for trace, own in _by_trace(spans).items()]
        await self.ws.telemetry.add_durable(who.project, spans, infos=changes)
        for one in changes:
            self._seen[one["trace_id"]] = None
        while len(self._seen) > SEEN_TRACES:
            del self._seen[next(iter(self._seen))]

    async def add_file(self, who: Principal, id: str, spans: Sequence[Span]) -> None:
        """Spans that an older client uploads as a file, after it told of their trace. NotFound where it did not."""
        known = await self.get(who.need_call("send traces").reading(), id)
        own = [one for one in spans if one.trace_id == known["trace_id"]]
        if len(own) < len(spans):
            raise BadInput(f"The file has spans of another trace than {id}.")
        await self.ws.telemetry.add_durable(who.project, own, infos=[{"trace_id": known["trace_id"], "set": {"id": id}}])

    async def start(self, who: Principal, id: str, fields: Mapping[str, Any], judgements: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Tell of a trace: `fields` are those of a row (see store/telemetry_infos), with "tags" and "metadata". Answers what is known of it now."""
        who.need_call("send traces")
        await self._active(who, str(fields["experiment"]))
        trace = key_of(id)
        single = {k: v for k, v in fields.items() if k not in ("tags", "metadata") and v is not None}
        change = {"trace_id": trace, "set": {"id": id, **single}, "tags": fields.get("tags"), "metadata": fields.get("metadata")}
        if run := (fields.get("metadata") or {}).get(searches.RUN_KEY):
            change["runs"] = [run]
        scores = [self._score(who, trace, one) for one in judgements]
        await self.ws.telemetry.add_durable(who.project, scores=scores, infos=[change])
        return {
            **dict.fromkeys(("tokens_in", "tokens_out", "tokens_cached", "cost", "ms", "session", "user", "name")),
            **dict.fromkeys(("client_request_id", "request_preview", "response_preview")),
            **{"runs": [], "prompts": [], "scores": scores, "spans": int(trace in self._seen), "trace_id": trace, "id": id},
            **fields,
        }

    async def get(self, who: Principal, id: str) -> dict[str, Any]:
        """What is known of a trace; NotFound if the project has none such."""
        found = await self.many(who, [id])
        if not found:
            raise _missing(id)
        return found[0]

    async def many(self, who: Principal, ids: Iterable[str], experiments: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What is known of several traces; those that are not there (or in other experiments) are left out."""
        keys = [key_of(one) for one in ids]
        found = await self._read(who, lambda con: searches.by_id(con, who.project, keys), keys)
        return [one for one in found if experiments is None or one["experiment"] in experiments]

    async def spans(self, who: Principal, ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """The spans of traces, by the id that each has here, root first."""
        keys = [key_of(one) for one in ids]
        return await self._read(who, lambda con: searches.spans_of(con, who.project, keys), keys)

    async def whole(self, who: Principal, id: str, expected: int = 0) -> list[dict[str, Any]] | None:
        """A trace's spans once there are `expected` of them; None if some are still missing after WAIT_SECONDS."""
        for _ in range(10):
            spans = (await self.spans(who, [id]))[key_of(id)]
            if spans and len(spans) >= expected:
                return spans
            await asyncio.sleep(WAIT_SECONDS / 10)
        return None

    async def search(
        self, who: Principal, experiments: Sequence[str], filter: str = "", order: list[str] | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """A page of traces of these experiments, and whether there are more. BadInput for a filter or an order that cannot be asked."""
        clauses, orders = trace_filter.parse(filter), trace_filter.parse_order(order or [])
        return await self._read(who, lambda con: searches.search(con, who.project, experiments, clauses, orders, limit, offset))

    async def overlap(self, who: Principal, experiments: Sequence[str], first: str, second: str, base: str = "") -> dict[str, int]:
        """How many traces fulfil two filters, alone and together: {"total", "first", "second", "both"}."""
        parsed = [trace_filter.parse(f"{base} AND {text}" if base else text) for text in (first, second)]
        every = trace_filter.parse(base)

        def work(con: Any) -> dict[str, int]:
            a, b = (set(searches.ids(con, who.project, experiments, clauses)) for clauses in parsed)
            total = len(searches.ids(con, who.project, experiments, every))
            return {"total": total, "first": len(a), "second": len(b), "both": len(a & b)}

        return await self._read(who, work)

    async def metrics(self, who: Principal, asked: metrics.Question) -> list[dict[str, Any]]:
        """Figures over many traces, spans or judgements (see store/telemetry_metrics)."""
        return await self._read(who, lambda con: metrics.answer(con, who.project, asked))

    async def tag(self, who: Principal, id: str, key: str, value: str | None) -> None:
        """Set a tag of a trace, or take it away (None). NotFound where the trace, or the tag to take away, is not there."""
        who.need_call("tag a trace")
        known = await self.get(who.reading(), id)
        if key == searches.NAME_TAG:
            gone, change = known["name"] is None, {"set": {"name": value}}
        else:
            gone, change = key not in known["tags"], {"tags": {key: value}}
        if value is None and gone:
            raise NotFound(f"No trace tag with key '{key}' for trace with ID '{id}'")
        await self._tell(who, [known], change)

    async def link_run(self, who: Principal, ids: Sequence[str], run: str) -> None:
        """Link traces to a run. NotFound where there is no such run; BadInput for more than TRACE_LINKS at once."""
        who.need_call("link traces")
        if len(ids) > TRACE_LINKS:
            raise BadInput(f"Cannot link more than {TRACE_LINKS} traces to a run in a single request. Provided {len(ids)} traces.")
        await self.ws.records.read(who, lambda tx: runs.must_exist(tx, run))
        known = await self.many(who.reading(), ids)
        await self._tell(who, known, {"runs": [run]})

    async def link_prompts(self, who: Principal, id: str, prompts: Sequence[str]) -> None:
        """Link prompt versions, written NAME/VERSION, to a trace."""
        who.need_call("link prompts")
        await self._tell(who, [await self.get(who.reading(), id)], {"prompts": list(prompts)})

    async def end(self, who: Principal, id: str, state: str, end_ms: int, tags: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, Any]:
        """Finish a trace that was told of when it began."""
        who.need_call("send traces")
        known = await self.get(who.reading(), id)
        name = {"name": tags[searches.NAME_TAG]} if searches.NAME_TAG in tags else {}
        single = {"state": state, "ms": max(0, end_ms - (known["at_ms"] or end_ms)), "final": True, **name}
        await self._tell(who, [known], {"set": single, "tags": dict(tags), "metadata": dict(metadata)})
        return await self.get(who.reading(), id)

    async def delete(self, who: Principal, experiment: str, ids: Sequence[str] = (), until_ms: int | None = None, most: int | None = None) -> int:
        """Delete traces of an experiment, by id or the oldest up to a moment, with spans and scores; answers how many. Editors only; audited."""
        who.need(Role.editor, "delete traces")
        clauses = trace_filter.parse(f"timestamp_ms <= {until_ms}" if until_ms is not None else "")
        found = await self._read(who, lambda con: searches.ids(con, who.project, [experiment], clauses, oldest=True))
        wanted = {key_of(one) for one in ids}
        found = [one for one in found if not wanted or one in wanted][: most if most is not None else None]
        if found:
            await self.ws.records.write(who, lambda tx: audit.record(tx, "traces.delete", f"experiment:{experiment}", count=len(found)))
            await self.ws.telemetry.add_durable(who.project, infos=[{"trace_id": one, "delete": True} for one in found])
            await self.ws.telemetry.flush()
        return len(found)

    # -- judgements: scores with MLflow's details -------------------------------------------------------------------------------------------

    async def judge(self, who: Principal, id: str, judgement: Mapping[str, Any]) -> dict[str, Any]:
        """Add a judgement of a trace: {"name", "value", "kind": feedback | expectation | issue, "source_type", "source_id", "why", "metadata", "error",
        "span_id", "overrides", "at"}. One that it overrides is no longer valid. NotFound for a trace or an overridden one that is not there."""
        who.need_call("give feedback")
        known = await self.get(who.reading(), id)
        made = self._score(who, known["trace_id"], judgement)
        rows = [made]
        if judgement.get("overrides"):
            rows.append(_valid(_find(known, id, judgement["overrides"]), False))
        await self.ws.telemetry.add_durable(who.project, scores=rows)
        return made

    async def judgement(self, who: Principal, id: str, judgement: str) -> dict[str, Any]:
        """One judgement of a trace."""
        return _find(await self.get(who, id), id, judgement)

    async def change_judgement(self, who: Principal, id: str, judgement: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change name, value, error, why or metadata (merged) of a judgement; `kind` must be what it was."""
        who.need_call("give feedback")
        old = await self.judgement(who.reading(), id, judgement)
        details = dict(old.get("details") or {})
        kind = details.get("type", "feedback")
        if changes.get("kind") not in (None, kind):
            asked = {"feedback": "feedback value on an Expectation", "expectation": "expectation value on a Feedback"}.get(
                changes["kind"], "issue on another"
            )
            raise BadInput(f"Cannot update {asked} assessment.")
        if changes.get("metadata"):
            details["metadata"] = {**(details.get("metadata") or {}), **changes["metadata"]}
        if "error" in changes:
            details["error"] = changes["error"]
        if "valid" in changes:
            details["valid"] = changes["valid"]
        details["updated_at"] = self.ws.clock.now()
        row = {**old, **{k: changes[k] for k in ("name", "value", "why") if k in changes}, "details": details, "trace_id": key_of(id)}
        await self.ws.telemetry.add_durable(who.project, scores=[row])
        return row

    async def forget_judgement(self, who: Principal, id: str, judgement: str) -> None:
        """Take a judgement away; one that it had overridden is valid again. One that is not there is gone already."""
        who.need_call("give feedback")
        known = await self.get(who.reading(), id)
        there = {one["id"]: one for one in known["scores"]}
        if judgement not in there:
            return
        rows = [{**there[judgement], "name": None, "trace_id": known["trace_id"]}]
        overridden = (there[judgement].get("details") or {}).get("overrides")
        if overridden in there:
            rows.append(_valid({**there[overridden], "trace_id": known["trace_id"]}, True))
        await self.ws.telemetry.add_durable(who.project, scores=rows)

    # -- inside -------------------------------------------------------------------------------------------------------------------------------

    def _score(self, who: Principal, trace: str, one: Mapping[str, Any]) -> dict[str, Any]:
        if one["kind"] not in JUDGEMENTS:
            raise BadInput(f"A judgement is one of {', '.join(JUDGEMENTS)}, not {one['kind']!r}.")
        now = self.ws.clock.now()
        span = one.get("span_id")
        details = {
            "type": one["kind"],
            "source_type": one.get("source_type") or "CODE",
            "source_id": one.get("source_id") or "default",
            "metadata": one.get("metadata"),
            "error": one.get("error"),
            "overrides": one.get("overrides"),
            "valid": one.get("valid", True),
            "span_id": span,
            "updated_at": one.get("updated_at") or now,
        }
        return {
            "id": one.get("id") or f"a-{self.ws.clock.new_id()}",
            "subject": f"{trace}-{span}" if span else trace,
            "trace_id": trace,
            "name": one["name"],
            "value": one.get("value"),
            "source": f"{str(details['source_type']).lower()}:{details['source_id']}",
            "why": one.get("why") or "",
            "at": one.get("at") or now,
            "by": who.name,
            "details": {k: v for k, v in details.items() if v is not None},
        }

    async def _tell(self, who: Principal, known: Sequence[Mapping[str, Any]], change: Mapping[str, Any]) -> None:
        """Write one change of several traces; a trace that had no row of its own gets one with what its spans say."""
        fields = ("id", "experiment", "state", "at_ms", "ms", "name", "session", "user", "request_preview", "response_preview")
        parts = ("tags", "metadata")  # also those that an archived trace has: its row is not in the table any more
        changes = [
            {
                "trace_id": one["trace_id"],
                "fill": {k: one[k] for k in fields if one.get(k) is not None},
                **{f"fill_{part}": dict(one[part]) for part in parts if one.get(part)},
                **change,
                **{part: [*(one.get(part) or []), *change.get(part, [])] for part in ("runs", "prompts")},
            }
            for one in known
        ]
        if changes:
            await self.ws.telemetry.add_durable(who.project, infos=changes)

    async def _active(self, who: Principal, experiment: str) -> None:
        found = await self.ws.records.read(who, lambda tx: experiments.get(tx, experiment))
        if found["deleted_at"]:
            raise BadInput(f"The experiment {experiment} must be in the 'active' state. Current state is deleted.")

    async def _read(self, who: Principal, work: Any, traces: Sequence[str] | None = None) -> Any:
        who.need(Role.viewer)
        await self.ws.telemetry.flush()
        return await self.ws.telemetry.query(work, who.project, traces=traces)


def _missing(id: str) -> NotFound:
    return NotFound(f"Trace with ID '{id}' not found.")


def _find(known: Mapping[str, Any], id: str, judgement: str) -> dict[str, Any]:
    for one in known["scores"]:
        if one["id"] == judgement:
            return {**one, "trace_id": known["trace_id"]}
    raise NotFound(f"Assessment with ID '{judgement}' not found for trace '{id}'")


def _valid(score: Mapping[str, Any], valid: bool) -> dict[str, Any]:
    return {**score, "details": {**(score.get("details") or {}), "valid": valid}}


def _by_trace(spans: Sequence[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for one in spans:
        found.setdefault(one.trace_id, []).append(one)
    return found


TAG_OF_TRACE = "mlflow.traceTag."
"""Attributes of a root span that begin so are tags of its trace."""
_NOT_TAGS = ("telemetry.sdk.", "mlflow.")


def _told(trace: str, experiment: str, spans: Sequence[Span], run: str | None) -> dict[str, Any]:
    """What a batch of spans says of their trace."""
    root = next((one for one in spans if one.parent_id is None), None)
    ends = [one.end_ns for one in spans]
    fill: dict[str, Any] = {"id": PREFIX + trace, "experiment": experiment, "state": "IN_PROGRESS"}
    for name, keys in (("session", ("session.id", "gen_ai.conversation.id")), ("user", ("user.id",))):
        fill[name] = next((str(one.attributes[key]) for one in spans for key in keys if one.attributes.get(key)), None)
    change: dict[str, Any] = {"trace_id": trace, "span": [min(one.start_ns for one in spans) // 1_000_000, max(ends) // 1_000_000]}
    tags: dict[str, str] = {}
    if root is not None:
        change["root_state"] = "ERROR" if root.status == "error" else "OK"
        tags |= {
            k: v if isinstance(v, str) else str(v) for k, v in (root.attributes.get("otel.resource") or {}).items() if not k.startswith(_NOT_TAGS)
        }
        tags |= {k.removeprefix(TAG_OF_TRACE): str(v) for k, v in root.attributes.items() if k.startswith(TAG_OF_TRACE)}
        fill["name"] = tags.pop(searches.NAME_TAG, None) or root.name
        if run:
            change["runs"] = [run]
    change["fill"] = {k: v for k, v in fill.items() if v is not None}
    if tags:
        change["fill_tags"] = tags
    return change
