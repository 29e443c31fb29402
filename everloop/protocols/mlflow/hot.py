"""The requests of a training loop, taken directly (see web/direct.py): metrics, batches, params, tags, and runs made, read, changed and searched.

A body is decoded into a struct and logged as one entry, with what other requests log at the same moment. What is anything but plain (a key with
unusual characters, a value that is no number, more than a batch may hold, a metric of a logged model) is left to `tracking.py`, and so is every error.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson

from everloop.assets.run_metrics import STEP_MAX
from everloop.assets.run_series import Columns
from everloop.assets.runs import Entry
from everloop.core.errors import EverloopError
from everloop.core.principal import Principal
from everloop.protocols.mlflow import fields, histories, tracking
from everloop.protocols.mlflow.wire import Call

Handler = Callable[[Principal, bytes, bytes], Awaitable[bytes | None]]
NOTHING = b"{}"
NAME = "mlflow.runName"
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_ .:-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_ .:-]*)*")
TIME_MAX = 10**15
"""Milliseconds; what is above is not plain."""
BATCH_PAIRS, BATCH_ALL = 100, 1_000
"""Params or tags, and all together, of a batch that is plain."""


class _Metric(msgspec.Struct):
    key: str
    value: float
    timestamp: int
    step: int = 0
    run_id: str = ""
    model_id: str | None = None
    dataset_name: str | None = None


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Keyed(msgspec.Struct):
    run_id: str
    key: str
    value: str


class _Batch(msgspec.Struct):
    run_id: str
    metrics: list[_Metric] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


_metric = msgspec.json.Decoder(_Metric, strict=False)
_batch = msgspec.json.Decoder(_Batch, strict=False)
_keyed = msgspec.json.Decoder(_Keyed)


@lru_cache(maxsize=4096)
def plain(key: str) -> bool:
    """Whether a key is one that nobody could object to."""
    return len(key) <= 250 and _PLAIN.fullmatch(key) is not None


def entry_of_metric(raw: bytes) -> Entry | None:
    """What runs/log-metric logs; None where it is not plain."""
    one = _metric.decode(raw)
    if not one.run_id:
        return None
    found = _columns([one])
    return None if found is None else Entry(one.run_id, found)


def entry_of_batch(raw: bytes) -> Entry | None:
    """What runs/log-batch logs; None where it is not plain."""
    body = _batch.decode(raw)
    metrics, params, tags = body.metrics, body.params, body.tags
    sizes = len(metrics), len(params), len(tags)
    if not body.run_id or max(sizes[1:]) > BATCH_PAIRS or sum(sizes) > BATCH_ALL:
        return None
    series = _columns(metrics)
    given, tagged = _pairs(params), _pairs(tags)
    if series is None or given is None or tagged is None:
        return None
    return Entry(body.run_id, series, given, tagged, tagged.get(NAME, ""))


def entry_of_param(raw: bytes) -> Entry | None:
    """What runs/log-parameter logs; None where it is not plain."""
    one = _keyed.decode(raw)
    given = _pairs([one])
    return Entry(one.run_id, params=given) if one.run_id and given else None


def entry_of_tag(raw: bytes) -> Entry | None:
    """What runs/set-tag logs; None where it is not plain."""
    one = _keyed.decode(raw)
    given = _pairs([one])
    return Entry(one.run_id, tags=given, name=given.get(NAME, "")) if one.run_id and given else None


def _columns(metrics: list[_Metric]) -> dict[str, Columns] | None:
    found: dict[str, Columns] = {}
    for one in metrics:
        at = one.timestamp
        if one.model_id or one.dataset_name or not 0 <= at < TIME_MAX or not -STEP_MAX <= one.step <= STEP_MAX:
            return None
        columns = found.get(one.key)
        if columns is None:
            if not plain(one.key):
                return None
            columns = found[one.key] = Columns([], [], [])
        columns.at.append(at / 1000.0)
        columns.step.append(one.step)
        columns.value.append(one.value)
    return found


def _pairs(rows: list[Any]) -> dict[str, str] | None:
    found = {one.key: one.value for one in rows}
    if len(found) < len(rows) or not all(plain(key) and len(value) <= 500 for key, value in found.items()):
        return None
    return found


def handlers(ws: Any) -> dict[tuple[str, str], Handler]:
    """(method, path below /api/N/mlflow/) to handler."""

    def logging(read: Callable[[bytes], Entry | None]) -> Handler:
        async def log(who: Principal, raw: bytes, query: bytes) -> bytes | None:
            try:
                entry = read(raw)
                if entry is None:
                    return None
                await ws.runs.log_entry(who, entry)
            except (msgspec.DecodeError, EverloopError):
                return None
            return NOTHING

        return log

    def asking(path: str, answer: Callable[[Call], Awaitable[Any]], by_query: bool = False) -> Handler:
        async def ask(who: Principal, raw: bytes, query: bytes) -> bytes | None:
            try:
                body = _query(query) if by_query else orjson.loads(raw)
                if not isinstance(body, dict) or (query and not by_query):
                    return None
                fields.check(path, body, by_query)
                return orjson.dumps(await answer(Call(who, ws, body, {})))
            except (ValueError, TypeError, EverloopError):
                return None

        return ask

    return {
        ("POST", "runs/log-metric"): logging(entry_of_metric),
        ("POST", "runs/log-batch"): logging(entry_of_batch),
        ("POST", "runs/log-parameter"): logging(entry_of_param),
        ("POST", "runs/set-tag"): logging(entry_of_tag),
        ("POST", "runs/create"): asking("runs/create", tracking.create_run),
        ("POST", "runs/update"): asking("runs/update", tracking.update_run),
        ("POST", "runs/search"): asking("runs/search", tracking.search_runs),
        ("GET", "runs/get"): asking("runs/get", tracking.get_run, True),
        ("GET", "metrics/get-history"): asking("metrics/get-history", histories.history, True),
    }


def _query(query: bytes) -> dict[str, Any] | None:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    return found if len(found) == len(pairs) else None
