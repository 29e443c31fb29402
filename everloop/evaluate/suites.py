"""Run a suite against a release: cases through the same call shape that production uses, gathered as Results for checks and gates.

The release is handed as a callable (`Serve`); nothing here knows where it came from, so an endpoint, a candidate that no one calls yet, or a
function in a test are evaluated alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.clock import new_span_id, new_trace_id
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.limits import SUITE_CHUNK, SUITE_PARALLEL, SUITE_TIMED_CALLS, SUITE_TIMED_CALLS_MIN
from everloop.core.principal import Principal
from everloop.core.types import Answer, Batch, Call, Chat, Results, Serve, TraceContext


def call_for(inputs: Any, who: Principal, endpoint: str = "suite", **params: Any) -> Call:
    """A call outside production, with a trace of its own."""
    return Call(endpoint, inputs, who, TraceContext(new_trace_id(), new_span_id(), at=time.time()), params=params)


async def run_predictive(
    serve: Serve,
    who: Principal,
    columns: Mapping[str, Sequence[Any]],
    *,
    target: str,
    task: str,
    features: Sequence[str],
    classes: Sequence[Any] = (),
    positive: Any = None,
    protected: Sequence[str] = (),
) -> Results:
    """Every row of a labelled table through a predictive release, in chunks; then single rows, timed, for latency.

    `columns` are equally long. Class labels come out as canonical text (see core/labels). Raises BadInput if the target is missing
    or no row has a label.
    """
    import numpy as np

    if target not in columns:
        raise BadInput(f"The suite's table has no target column {target!r}.", f"Columns: {', '.join(columns)}.")
    labels = list(columns[target])
    keep = [i for i, v in enumerate(labels) if (label(v) is not None)]
    if not keep:
        raise BadInput(f"No row of the suite has a value in the target column {target!r}.")
    inputs = {name: _take(columns[name], keep) for name in features if name in columns}
    n = len(keep)
    outputs: dict[str, list[Any]] = {}
    for start in range(0, n, SUITE_CHUNK):
        part = {name: values[start : start + SUITE_CHUNK] for name, values in inputs.items()}
        answer = await serve(call_for(Batch(part, min(SUITE_CHUNK, n - start)), who))
        for name, values in answer.outputs.columns.items():
            outputs.setdefault(name, []).extend(values)
    timed = await _timed_rows(serve, who, inputs, n)
    if task == "regression":
        y: Any = np.asarray([float(labels[i]) for i in keep])
        prediction: Any = np.asarray(outputs["prediction"], dtype=float)
        probability: Any = None
    else:
        y = np.asarray([label(labels[i]) for i in keep], dtype=object)
        prediction = np.asarray([label(v) for v in outputs["prediction"]], dtype=object)
        probability = _probabilities(outputs, [str(label(c)) for c in classes], None if positive is None else label(positive), task)
    groups = {name: np.asarray([label(v) for v in _take(columns[name], keep)], dtype=object) for name in protected if name in columns}
    return Results(
        n,
        task,
        y=y,
        prediction=prediction,
        probability=probability,
        classes=tuple(str(label(c)) for c in classes) if task != "regression" else (),
        positive=None if positive is None or task == "regression" else label(positive),
        features=groups,
        **timed,
    )


async def run_clusters(
    serve: Serve, who: Principal, columns: Mapping[str, Sequence[Any]], features: Sequence[str], numeric: Sequence[str]
) -> Results:
    """Every row of a table without labels through a clustering release: which cluster each falls into, with the features it was judged by."""
    import numpy as np

    inputs = {name: list(columns[name]) for name in features if name in columns}
    n = len(next(iter(inputs.values()), ()))
    if not n:
        raise BadInput("The suite's table has none of the model's columns, or no rows.", f"The model takes: {', '.join(features)}.")
    said: list[Any] = []
    for start in range(0, n, SUITE_CHUNK):
        part = {name: values[start : start + SUITE_CHUNK] for name, values in inputs.items()}
        said.extend((await serve(call_for(Batch(part, min(SUITE_CHUNK, n - start)), who))).outputs.columns["prediction"])
    kept: dict[str, Any] = {}
    for name, values in inputs.items():
        kept[name] = np.asarray(values, dtype=float) if name in numeric else np.asarray([label(v) for v in values], dtype=object)
    timed = await _timed_rows(serve, who, inputs, n)
    return Results(n, "clustering", prediction=np.asarray([label(v) for v in said], dtype=object), features=kept, **timed)


async def run_chat(serve: Serve, who: Principal, cases: Sequence[Mapping[str, Any]], parallel: int = SUITE_PARALLEL) -> Results:
    """Every case's question through a chat release. A case that fails is kept with its error; it counts as a wrong answer."""
    import numpy as np

    gate = asyncio.Semaphore(parallel)

    async def one(case: Mapping[str, Any]) -> dict[str, Any]:
        messages = case.get("messages") or [{"role": "user", "content": case["question"]}]
        async with gate:
            started = time.perf_counter()
            try:
                answer = await serve(call_for(Chat(messages), who))
            except Exception as error:
                return {
                    **case,
                    "answer": "",
                    "error": str(error),
                    "retrieved": [],
                    "refused": False,
                    "blocked": False,
                    "seconds": time.perf_counter() - started,
                }
            return {**case, **_chat_outcome(answer), "seconds": time.perf_counter() - started}

    done = await asyncio.gather(*[one(case) for case in cases])
    return Results(len(done), "chat", seconds=np.asarray([c["seconds"] for c in done]), cases=done)


def _chat_outcome(answer: Answer) -> dict[str, Any]:
    message, notes, usage = answer.outputs, answer.notes, answer.usage
    unasked = bool(notes.get("blocked")) and not usage.model  # the policy stopped the question, so no LLM was paid
    cost = 0.0 if unasked and usage.cost is None else usage.cost
    return {
        "answer": message.text,
        "citations": list(message.citations),
        "finish_reason": message.finish_reason,
        "retrieved": list(notes.get("retrieved", ())),
        "blocked": bool(notes.get("blocked", False)),
        "refused": bool(notes.get("refused", False)) or bool(notes.get("blocked", False)),
        "flags": list(notes.get("flags", ())),
        "usage": {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out, "cost": cost},
        "cost": cost,
        "error": "",
    }


async def _timed_rows(serve: Serve, who: Principal, inputs: Mapping[str, Sequence[Any]], n: int) -> dict[str, Any]:
    """{"seconds", "cpu_seconds"} of calls of one row: by the clock, and of processor time that this process spent meanwhile."""
    import numpy as np

    timed = []
    step, calls = max(1, n // SUITE_TIMED_CALLS), min(SUITE_TIMED_CALLS, max(n, SUITE_TIMED_CALLS_MIN))
    for i in range(0, calls * step, step):
        row = {name: [values[i % n]] for name, values in inputs.items()}
        started, busy = time.perf_counter(), time.process_time()
        await serve(call_for(Batch(row, 1), who))
        timed.append((time.perf_counter() - started, time.process_time() - busy))
    seconds, cpu = np.asarray(timed[3:] or timed).T
    return {"seconds": seconds, "cpu_seconds": cpu}


def _probabilities(outputs: Mapping[str, list[Any]], classes: list[str], positive: str | None, task: str) -> Any:
    import numpy as np

    columns = [outputs.get(f"probability_{c}") for c in classes]
    if not columns or any(c is None for c in columns):
        return None
    table = np.asarray(columns, dtype=float).T
    if task == "binary" and positive in classes:
        return table[:, classes.index(positive)]
    return table


def _take(values: Sequence[Any], keep: list[int]) -> list[Any]:
    return [values[i] for i in keep]
