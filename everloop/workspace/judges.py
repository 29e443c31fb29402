"""Online judging: a share of live traces is judged by checks or an LLM, beside the traffic, within a budget, each trace once.

What came is found by when it came (a cursor a rule, in the records). Judgements are durable scores before the cursor moves, and their ids are made of rule, trace
and check, so a crash between judges nothing twice. A rule that cannot keep up drops the oldest traces, and counts them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.errors import BadInput, EverloopError, NotFound
from everloop.core.limits import JUDGE_BACKLOG, JUDGE_LOOK, JUDGE_PARALLEL, JUDGE_SETTLE_SECONDS, JUDGES_MAX
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.core.refs import check_name
from everloop.core.types import Call, Chat, Span, TraceContext, Utterance
from everloop.evaluate import judging, selections
from everloop.store import audit, project_settings
from everloop.store import telemetry_scores as found
from everloop.store.records import Tx
from everloop.store.schema import documents
from everloop.store.telemetry_queries import Filter

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

SETTING, KIND = "judges", "judge"
LOOK_SECONDS = 1.0
COUNTS = ("judged", "passed_over", "over_budget", "dropped", "errors", "tokens_in", "tokens_out")
_logger = logging.getLogger("everloop.judges")


class Judges:
    """Facade over online judging. Declaring needs editor (an LLM that judges costs money), seeing viewer."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws

    async def on_start(self) -> None:
        """Judge what comes, from now on."""
        self.ws.spawn(self._look())

    async def put(self, who: Principal, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Declare or change a rule (see evaluate/judging). It judges what comes from now on. BadInput for one that cannot be."""
        who.need(Role.editor, "declare a judge")
        full = await asyncio.to_thread(judging.checked, spec)
        await self.ws.records.write(who, lambda tx: put(tx, name, full))
        return await self.get(who, name)

    async def list(self, who: Principal) -> list[dict[str, Any]]:
        """Rules by name: {"name", "spec", "today", "stopped", "cursor"}."""

        def work(tx: Any) -> list[dict[str, Any]]:
            return [_shown(tx, name, spec) for name, spec in sorted((project_settings.get(tx, SETTING) or {}).items())]

        return await self.ws.records.read(who.need(Role.viewer), work)

    async def get(self, who: Principal, name: str) -> dict[str, Any]:
        """One rule, with "scores": what it judged by release (see ws.reports.scores). NotFound where there is none such."""
        rules = {one["name"]: one for one in await self.list(who)}
        if name not in rules:
            raise NotFound(f"There is no judge {name!r}.", f"There are: {', '.join(rules) or 'none yet'}.")
        await self.ws.telemetry.flush()
        scores = await self.ws.reports.scores(who, "release", source=f"online:{name}")
        return {**rules[name], "scores": [one for one in scores if one["n"]]}

    async def delete(self, who: Principal, name: str) -> None:
        """Take a rule away; its scores stay. NotFound where there is none such."""
        who.need(Role.editor, "take a judge away")

        def work(tx: Tx) -> None:
            rules = project_settings.get(tx, SETTING) or {}
            if name not in rules:
                raise NotFound(f"There is no judge {name!r}.", f"There are: {', '.join(rules) or 'none yet'}.")
            project_settings.put(tx, SETTING, {key: value for key, value in rules.items() if key != name} or None)
            tx.run(documents.delete().where(documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == name))
            audit.record(tx, "judge.delete", f"judge:{name}")

        await self.ws.records.write(who, work)

    async def run_due(self, project: str, name: str, spec: Mapping[str, Any], now: float) -> int:
        """Judge what came since the rule last looked and can be queried since `now`; how many traces it took. One caller a rule at a time."""
        who = Principal(f"judge:{name}", project, Role.editor, kind="system")
        state = await self.ws.records.read(who, lambda tx: _state(tx, name))
        until = now - JUDGE_SETTLE_SECONDS
        wanted = Filter(**{key: spec[key] for key in judging.FILTERS})
        rows = await self.ws.telemetry.query(lambda con: found.arrived(con, project, wanted, state["cursor"], until, JUDGE_LOOK))
        cut, end = len(rows) == JUDGE_LOOK, until
        if cut:  # others may have come in the last moment: it is left to the next look, unless it is all there is
            rows = [row for row in rows if row[1] < rows[-1][1]] or rows
            end = rows[-1][1]
        chosen = [row for row in rows if judging.sampled(row[0], spec["rate"])]
        counts = _today(state, now)
        counts["passed_over"] += len(rows) - len(chosen)
        names = [judging.name_of(one) for one in spec["checks"]]
        ids = {judging.score_id(project, name, trace, names[0]): trace for trace, _ in chosen}
        known = await self.ws.telemetry.query(lambda con: found.there(con, project, [*ids]))
        chosen = [row for row in chosen if judging.score_id(project, name, row[0], names[0]) not in known]
        if len(chosen) > JUDGE_BACKLOG:
            counts["dropped"] += len(chosen) - JUDGE_BACKLOG
            chosen = chosen[-JUDGE_BACKLOG:]
        waiting = list(chosen)
        while waiting:
            room = _room(spec, counts, min(len(waiting), JUDGE_PARALLEL))
            part, waiting = (waiting[:room], waiting[room:]) if room else (waiting, [])
            counts["over_budget"] += 0 if room else len(part)
            done = await asyncio.gather(*(self._judge(who, name, spec, trace) for trace, _ in part[:room]))
            await self._keep(who, name, spec, state, counts, [row for rows in done for row in rows], part[-1][1])
        if chosen or end - state["cursor"] > 60 or cut:
            await self._save(who, name, {**state, "cursor": max(end, state["cursor"])})
        return len(chosen)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                there = await self.ws.records.read(SYSTEM, lambda tx: project_settings.everywhere(tx, SETTING))
                due = [(p, name, spec) for p, rules in there.items() for name, spec in rules.items() if spec["enabled"]]
                if due:
                    now = self.ws.clock.now()
                    await self.ws.telemetry.flush()
                    ended = await asyncio.gather(*(self.run_due(*one, now) for one in due), return_exceptions=True)
                    for (project, name, _), problem in zip(
                        due, ended, strict=True
                    ):  # the next look begins when all are done: none runs twice at once
                        if isinstance(problem, Exception):
                            _logger.error("judge %s of %s waits: %s", name, project, problem, exc_info=problem)
            except EverloopError as error:
                _logger.warning("judging waits: %s", error)
            except Exception:  # whatever one look does, the next one comes
                _logger.exception("judging waits")

    async def _judge(self, who: Principal, name: str, spec: Mapping[str, Any], trace_id: str) -> list[dict[str, Any]]:
        """What the rule's checks say of a trace: [{"judgement" or "error", "trace", "ms"}]. An LLM's questions are a trace of their own, marked as a judge's."""
        page = await self.ws.traces.list(who, traces=[trace_id], limit=1)
        if not page["items"]:
            return []
        item, trace = page["items"][0], await self.ws.traces.get(who, trace_id)
        text = selections.answer_of(item["outputs"])
        if not text:
            return []
        subject = Utterance(text, "output", selections.question_of(item["inputs"])[0], selections.sources_of(trace))
        own = TraceContext(new_trace_id(), new_span_id(), at=self.ws.clock.now())
        call = Call(f"{found.JUDGES}{name}", Chat([]), who, own)
        start, told = time.time_ns(), []
        for one in spec["checks"]:
            began = time.perf_counter()
            try:
                told.append({"trace": trace_id, "judgement": await judging.judge(one, call, subject)})
            except Exception as error:  # an engine, or a third party's check, may raise anything; the other checks judge all the same
                told.append({"trace": trace_id, "error": str(error), "name": judging.name_of(one)})
            told[-1]["ms"] = (time.perf_counter() - began) * 1000
        if own.spans:
            marks = {"everloop.endpoint": call.endpoint, "everloop.principal": who.name, "everloop.judged": trace_id}
            status = "error" if any("error" in one for one in told) else "ok"
            said = {one["judgement"].name: one["judgement"].value for one in told if "judgement" in one}
            root = Span(own.trace_id, own.span_id, None, f"judge {name}", "EVALUATOR", start, time.time_ns(), status, marks, [], trace_id, said)  # type: ignore[arg-type]
            self.ws.traces.record(who, [root, *own.spans])
        return told

    async def _keep(
        self,
        who: Principal,
        name: str,
        spec: Mapping[str, Any],
        state: dict[str, Any],
        counts: dict[str, Any],
        told: Sequence[Mapping[str, Any]],
        came: float,
    ) -> None:
        """Make scores durable, count, and move the cursor."""
        now, rows = self.ws.clock.now(), []
        counts["judged"] += len({one["trace"] for one in told})
        for one in told:
            counts["ms"] += one["ms"]
            if "error" in one:
                counts["errors"] += 1
                state["error"] = {"at": now, "check": one["name"], "what": one["error"][:500]}
                continue
            made: judging.Judgement = one["judgement"]
            counts["tokens_in"] += made.usage.tokens_in
            counts["tokens_out"] += made.usage.tokens_out
            counts["cost"] += made.usage.cost or 0.0
            if made.llm and made.usage.cost is None and spec["budget"] is not None:
                counts["unpriced"] = made.usage.model or "the model"
            if made.value is not None:
                id = judging.score_id(who.project, name, one["trace"], made.name)
                score = {
                    "id": id,
                    "subject": one["trace"],
                    "name": made.name,
                    "value": made.value,
                    "source": f"online:{name}",
                    "why": made.why or None,
                }
                rows.append({**score, "at": now, "by": who.name})
        if rows:
            await self.ws.telemetry.add_durable(who.project, scores=rows)
        state["cursor"] = max(state["cursor"], came - 1e-6)  # others may have come in the same moment
        await self._save(who, name, state)

    async def _save(self, who: Principal, name: str, state: dict[str, Any]) -> None:
        body = {**state, "days": dict(sorted(state["days"].items())[-31:])}

        def work(tx: Tx) -> None:
            if name in (project_settings.get(tx, SETTING) or {}):
                row = {"project": tx.project, "kind": KIND, "name": name, "body": body, "updated_at": tx.now, "updated_by": who.name}
                tx.upsert(documents, row)

        await self.ws.records.write(who, work)


def put(tx: Tx, name: str, full: dict[str, Any]) -> None:
    """Write a rule, as judging.checked made it; a new one begins with what comes now."""
    check_name(name, "judge's name")
    rules = project_settings.get(tx, SETTING) or {}
    if name not in rules and len(rules) >= JUDGES_MAX:
        raise BadInput(f"A project has at most {JUDGES_MAX} judges.")
    if name not in rules:
        body = {"cursor": tx.now, "days": {}, "error": None}
        tx.upsert(documents, {"project": tx.project, "kind": KIND, "name": name, "body": body, "updated_at": tx.now, "updated_by": tx.who.name})
    project_settings.put(tx, SETTING, {**rules, name: full})
    audit.record(tx, "judge.set", f"judge:{name}", rule=full)


def rule(tx: Tx, name: str) -> dict[str, Any] | None:
    """The rule of that name, or None."""
    found_rule: dict[str, Any] | None = (project_settings.get(tx, SETTING) or {}).get(name)
    return found_rule


def _state(tx: Tx, name: str) -> dict[str, Any]:
    row = tx.row(sa.select(documents.c.body).where(documents.c.project == tx.project, documents.c.kind == KIND, documents.c.name == name))
    return dict(row["body"]) if row else {"cursor": tx.now, "days": {}, "error": None}


def _today(state: dict[str, Any], now: float) -> dict[str, Any]:
    """The counts of the day (UTC), made where it is new."""
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    empty = {**dict.fromkeys(COUNTS, 0), "cost": 0.0, "ms": 0.0, "unpriced": None}
    counts: dict[str, Any] = state["days"].setdefault(day, empty)
    return counts


def _room(spec: Mapping[str, Any], counts: Mapping[str, Any], asked: int) -> int:
    """How many of the next traces the day's budget lets be judged."""
    if stopped(spec, counts):
        return 0
    left = asked if spec["per_day"] is None else spec["per_day"] - counts["judged"]
    if spec["budget"] is not None and counts["judged"] and counts["cost"]:
        left = min(left, int((spec["budget"] - counts["cost"]) / (counts["cost"] / counts["judged"])) + 1)  # at most one judgement over it
    elif spec["budget"] is not None:
        left = min(left, 1)  # the first tells what one costs
    return max(0, min(asked, left))


def stopped(spec: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """Why a rule judges no more today; "" where it does."""
    if spec["budget"] is not None and counts.get("unpriced"):
        return f"no price of {counts['unpriced']} is known, so the budget cannot be held: give the engine prices, or bound it by per_day"
    if spec["budget"] is not None and counts["cost"] >= spec["budget"]:
        return f"the day's budget of ${spec['budget']:g} is spent"
    if spec["per_day"] is not None and counts["judged"] >= spec["per_day"]:
        return f"the day's {spec['per_day']} traces are judged"
    return ""


def _shown(tx: Tx, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    state = _state(tx, name)
    counts = _today(state, tx.now)
    told = {"name": name, "spec": spec, "today": counts, "days": state["days"], "error": state["error"], "cursor": state["cursor"]}
    return {**told, "stopped": "it is switched off" if not spec["enabled"] else stopped(spec, counts)}
