"""Lineage questions, the audit record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.assets import catalog, lineage
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import PAGE_ROWS_MAX
from everloop.core.principal import Principal, Role
from everloop.core.refs import KINDS, cut_part
from everloop.govern import changes, questions
from everloop.store import audit
from everloop.workspace import derivations

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

_TRACE = re.compile(r"([0-9a-f]{32})(?:-(\d+))?")


class Govern:
    """Facade over govern/ and the audit record."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def why(self, who: Principal, id: str) -> dict[str, Any]:
        """What an answer, a version, a run or a decision rests on.

        `id` is a prediction id, a trace id (as an OpenAI or Anthropic client shows it, too), a reference, `run:ID`, a run id or a decision id. Answers {"id", "what", "subject", "nodes",
        "edges", "decisions", "moves"} and, for a trace, "trace" with its inputs, outputs, passages, scores and the release that answered.
        """
        who.need(Role.viewer)
        id = id.strip().removeprefix("chatcmpl-").removeprefix("msg_")
        if id.partition(":")[0] in (*KINDS, "run"):
            return await self._why_ref(who, id)
        match = _TRACE.fullmatch(id)
        if match is None:
            raise BadInput(
                f"{id!r} is neither a reference nor an id.", "Give a prediction id, a trace id, a run id, a decision id, or kind:name@version."
            )
        try:
            trace = await self.ws.traces.get(who, match[1])
        except NotFound:
            return await self._why_record(who, id)
        return await self._why_trace(who, id, match[2], trace)

    async def impact(self, who: Principal, ref: str) -> dict[str, Any]:
        """What rests on an asset version: versions, runs, releases, live endpoints, and how many calls ("answers", a batch is one) and rows
        ("predictions") each release answered; "decisions" are those of gates that asked suites among them.

        `dataset:x@3#row=KEY`, `#number=N`, `#document=PATH` and `#SPLIT` ask about some rows or documents (workspace/derivations.impact).
        """
        who.need(Role.viewer)
        if cut_part(ref)[1]:
            found = await derivations.impact(self.ws, who, ref)
        else:
            found = await self.ws.records.read(who, lambda tx: questions.impact(tx, ref))
        calls, rows = await self.ws.traces.count_by_release(who, found["releases"])
        return {**found, "answers": calls, "predictions": rows}

    async def derive(self, who: Principal, output: str, sources: Mapping[str, Any], run: str = "", why: str = "") -> list[dict[str, Any]]:
        """Keep from which rows or documents a version came; see workspace/derivations."""
        return await derivations.derive(self.ws, who, output, sources, run, why)

    async def derivations(self, who: Principal, ref: str) -> list[dict[str, Any]]:
        """What was declared of where a version or run came from."""
        return await derivations.declared(self.ws, who, ref)

    async def changes(self, who: Principal, ref: str, against: str | None) -> dict[str, Any]:
        """What differs between a version and the one it would replace, in data, code and settings, and who started it (govern.changes)."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: changes.changes(tx, ref, against))

    async def beside(self, who: Principal, runs: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The exact versions that runs read, and those they made: ({run: references}, {run: references})."""
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: lineage.beside(tx, [f"run:{id}" for id in runs]))

    async def audit(
        self, who: Principal, subject: str | None = None, limit: int = 100, before: int | None = None, **only: Any
    ) -> list[dict[str, Any]]:
        """Who did what, newest first; `only` is by, action, since: see `store.audit.rows`."""
        limit = max(1, min(limit, PAGE_ROWS_MAX))
        return await self.ws.records.read(who.need(Role.viewer), lambda tx: audit.rows(tx, subject, limit, before, **only))

    async def verify(self, who: Principal) -> dict[str, Any]:
        """Whether the project's audit chain is whole."""
        return await self.ws.records.read(who.need(Role.viewer), audit.verify)

    async def _why_ref(self, who: Principal, ref: str) -> dict[str, Any]:
        def work(tx: Any) -> dict[str, Any]:
            exact = ref if ref.startswith("run:") else str(catalog.resolve(tx, cut_part(ref)[0]))
            return {"id": ref, "what": exact.partition(":")[0], **questions.why_release(tx, exact)}

        return await self.ws.records.read(who, work)

    async def _why_record(self, who: Principal, id: str) -> dict[str, Any]:
        try:
            decision = await self.ws.gates.decision(who, id)
        except NotFound:
            pass
        else:
            return {**await self._why_ref(who, decision["ref"]), "id": id, "what": "decision", "decision": decision}
        try:
            await self.ws.runs.get(who, id)
        except NotFound:
            raise NotFound(
                f"There is no prediction, trace, run or decision {id!r} in project {who.project!r}.",
                "Ids are answered with each prediction; list traces with: everloop traces list",
            ) from None
        return await self._why_ref(who, f"run:{id}")

    async def _why_trace(self, who: Principal, id: str, row: str | None, trace: dict[str, Any]) -> dict[str, Any]:
        root = next((s for s in trace["spans"] if not s.get("parent_id")), trace["spans"][0] if trace["spans"] else {})
        release = (root.get("attributes") or {}).get("everloop.release") or root.get("release")
        shown = {
            "trace_id": trace["trace_id"],
            "at": root.get("start_ns", 0) / 1e9,
            "endpoint": (root.get("attributes") or {}).get("everloop.endpoint"),
            "release": release,
            "inputs": root.get("inputs"),
            "outputs": root.get("outputs"),
            "scores": trace["scores"],
            "documents": questions.passages_of(trace["spans"]),
            "spans": trace["spans"],
        }
        if row is not None:
            prediction = next((p for p in trace["predictions"] if p["prediction_id"] == id), None)
            if prediction is None:
                raise NotFound(f"Trace {trace['trace_id']} has no prediction {id!r}.", f"It has {len(trace['predictions'])}.")
            scores = [score for score in trace["scores"] if score["subject"] in (id, trace["trace_id"])]
            shown.update(inputs=prediction["features"], outputs=prediction["outputs"], prediction=prediction, scores=scores)
        elif trace["predictions"]:
            shown["predictions"] = trace["predictions"]
        if not release:
            return {
                "id": id,
                "what": "trace",
                "subject": f"trace:{trace['trace_id']}",
                "trace": shown,
                "nodes": [],
                "edges": [],
                "decisions": [],
                "moves": [],
            }
        base = await self._why_ref(who, release)
        return {**base, "id": id, "what": "prediction" if row is not None else "trace", "trace": shown}
