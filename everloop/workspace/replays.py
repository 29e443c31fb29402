"""Replay: what a release answers to what traces were asked, beside what was answered then. Nothing of it is recorded as production traffic."""

from __future__ import annotations

import asyncio
import inspect
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import SUITE_PARALLEL
from everloop.core.principal import Principal
from everloop.core.types import Batch, Chat, Serve, Utterance
from everloop.evaluate import selections
from everloop.evaluate.suites import call_for

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace


async def run(ws: Workspace, who: Principal, release: str, items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """{"release", "items": [{"trace_id", "question", "before", "after", "changed"}], "summary"}.

    `before` and `after` are {"answer" or "predictions", "ms", "cost", "tokens_in", "tokens_out", "checks": {name: verdict}}, `after` perhaps {"error"}.
    `summary` is {"n", "failed", "changed", "ms": {"before", "after"} (medians), "cost": {"before", "after"} (sums, None where not known), "checks": {name:
    {"before", "after"} (shares that pass, with n and interval)}, "right": {...} the share of labelled predictions that are right}.
    """
    made = _checks(names)
    serve = await ws.endpoints.run_release(who, release)
    gate = asyncio.Semaphore(SUITE_PARALLEL)

    async def one(item: Mapping[str, Any]) -> dict[str, Any]:
        async with gate:
            trace = await ws.traces.get(who.reading(), item["trace_id"])
            predicts = item["kind"] == selections.PREDICT
            told = await (_predicted(serve, who, item, trace) if predicts else _answered(serve, who, item, trace, made))
            return {"trace_id": item["trace_id"], "release": item["release"], **told}

    done = await asyncio.gather(*[one(item) for item in items])
    return {"release": release, "items": done, "summary": _summary(done, names)}


def _checks(names: Sequence[str]) -> dict[str, Any]:
    from everloop.checks import checks

    found = {}
    for name in names:
        cls = checks.get(str(name))
        if not hasattr(cls, "judge"):
            raise BadInput(f"The check {name!r} does not judge a text.", "For example: groundedness, pii, harm, injection.")
        found[str(name)] = cls()
    return found


async def _answered(serve: Serve, who: Principal, item: Mapping[str, Any], trace: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    asked, messages = selections.question_of(item["inputs"])
    said = selections.answer_of(item["outputs"])
    before = {**_used(item), "answer": said, "checks": await _judged(made, said, asked, selections.sources_of(trace))}
    if not messages:
        return {"question": "", "before": before, "after": {"error": "The trace holds no question."}, "changed": None}
    started = time.perf_counter()
    try:
        answer = await serve(call_for(Chat(messages), who, "replay"))
        text = str(answer.outputs.text)
    except EverloopError as error:
        return {"question": asked, "before": before, "after": {"error": str(error)}, "changed": None}
    except AttributeError:
        return {"question": asked, "before": before, "after": {"error": "The release predicts; it answers no question."}, "changed": None}
    usage, ms = answer.usage, (time.perf_counter() - started) * 1000
    sources = [str(one.get("text") or "") for one in answer.notes.get("retrieved", ())]
    after = {"answer": text, "ms": ms, "cost": usage.cost, "tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
    return {"question": asked, "before": before, "after": {**after, "checks": await _judged(made, text, asked, sources)}, "changed": text != said}


async def _predicted(serve: Serve, who: Principal, item: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    rows = trace["predictions"]
    before = {**_used(item), "predictions": [row["outputs"] for row in rows], "labels": [row["label"] for row in rows]}
    names = list(dict.fromkeys(name for row in rows for name in row["features"] or {}))
    if not names:
        return {"question": "", "before": before, "after": {"error": "The trace holds no features."}, "changed": None}
    columns = {name: [(row["features"] or {}).get(name) for row in rows] for name in names}
    started = time.perf_counter()
    try:
        answer = await serve(call_for(Batch(columns, len(rows)), who, "replay"))
        found = answer.outputs.columns
    except EverloopError as error:
        return {"question": "", "before": before, "after": {"error": str(error)}, "changed": None}
    except AttributeError:
        return {"question": "", "before": before, "after": {"error": "The release answers chats; it predicts nothing."}, "changed": None}
    said = [{name: _plain(values[i]) for name, values in found.items()} for i in range(len(rows))]
    after = {"predictions": said, "ms": (time.perf_counter() - started) * 1000, "cost": None, "tokens_in": None, "tokens_out": None}
    told = [(one or {}).get("prediction") for one in before["predictions"]]
    return {"question": "", "before": before, "after": after, "changed": [_same(one.get("prediction")) for one in said] != [_same(v) for v in told]}


async def _judged(made: Mapping[str, Any], text: str, asked: str, sources: Sequence[str]) -> dict[str, str]:
    found = {}
    for name, check in made.items():
        score = await asyncio.to_thread(check, Utterance(text, "output", asked, list(sources)))
        found[name] = (await score if inspect.isawaitable(score) else score).verdict
    return found


def _summary(done: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    good = [one for one in done if "error" not in one["after"]]
    sides = ("before", "after")

    def total(side: str, key: str) -> float | None:
        values = [one[side][key] for one in good]
        return None if not values or any(value is None for value in values) else float(sum(values))

    told: dict[str, Any] = {"n": len(done), "failed": len(done) - len(good), "changed": sum(bool(one["changed"]) for one in good)}
    told["ms"] = {side: statistics.median(one[side]["ms"] for one in good) if good else None for side in sides}
    told["cost"] = {side: total(side, "cost") for side in sides}
    told["checks"] = {name: {side: _passed(good, side, name) for side in sides} for name in names}
    right = {side: _right(good, side) for side in sides}
    return told | ({"right": right} if right["before"] else {})


def _passed(good: Sequence[Mapping[str, Any]], side: str, name: str) -> dict[str, Any] | None:
    from everloop.workspace.reports import share

    said = [one[side]["checks"].get(name) for one in good if "checks" in one[side]]
    judged = [one for one in said if one in ("pass", "fail")]
    return share(sum(one == "pass" for one in judged), len(judged))


def _right(good: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any] | None:
    from everloop.workspace.reports import share

    pairs = [
        (_same((said or {}).get("prediction")), _same(true))
        for one in good
        for said, true in zip(one[side].get("predictions") or (), one["before"].get("labels") or (), strict=False)
        if true is not None
    ]
    return share(sum(said == true for said, true in pairs), len(pairs))


def _used(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("ms", "cost", "tokens_in", "tokens_out", "scores")}


def _same(value: Any) -> Any:
    from everloop.core.labels import label

    return label(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
