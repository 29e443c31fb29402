"""What a telemetry record holds, and how it becomes rows: spans, predictions and scores in one frame of the log.

Writing must be quick (it happens before an answer leaves), so a frame is the caller's values packed as they are; columns are worked out
when the log is drained. Both OpenInference's and OpenTelemetry GenAI's attribute names are understood, old and new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from everloop.core.types import Span
from everloop.store.telemetry_infos import checked
from everloop.store.telemetry_signals import log_row, metric_row

Row = tuple[Any, ...]
Price = Callable[[str | None, str, int, int, int], float | None]
"""US dollars for (provider, model, tokens in, out, cached); None where no price is known."""
PARTS = ("spans", "predictions", "scores", "infos", "metrics", "logs")
"""What one write holds, in this order."""
TRACE_ID = re.compile(r"[0-9a-f]{32}")

SPAN_COLUMNS = (
    "project",
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "kind",
    "start_ns",
    "end_ns",
    "status",
    "error",
    "entry",
    "root",
    "rolled",
    "endpoint",
    "release",
    "alias",
    "principal",
    "model",
    "provider",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "cost",
    "session",
    "user",
    "inputs",
    "outputs",
    "attributes",
    "events",
    "received_at",
)
PREDICTION_COLUMNS = (
    "project",
    "prediction_id",
    "trace_id",
    "endpoint",
    "release",
    "alias",
    "at",
    "session",
    "user",
    "features",
    "outputs",
    "received_at",
)
SCORE_COLUMNS = ("project", "id", "subject", "trace_id", "name", "value", "raw", "source", "why", "at", "by", "received_at", "details")

ENDPOINT, RELEASE, ALIAS, PRINCIPAL, REMOTE = (
    "everloop.endpoint",
    "everloop.release",
    "everloop.alias",
    "everloop.principal",
    "everloop.remote_parent",
)
MODEL = (
    "llm.model_name",
    "llm.response.model_name",
    "gen_ai.response.model",
    "llm.request.model_name",
    "gen_ai.request.model",
    "embedding.model_name",
    "reranker.model_name",
    "mlflow.llm.model",
)
PROVIDER = ("llm.provider", "gen_ai.provider.name", "llm.system", "gen_ai.system", "mlflow.llm.provider")
TOKENS_IN = ("llm.token_count.prompt", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
TOKENS_OUT = ("llm.token_count.completion", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
TOKENS_CACHED = ("llm.token_count.prompt_details.cache_read", "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
COST = ("llm.cost.total", "gen_ai.usage.cost")
SESSION = ("session.id", "gen_ai.conversation.id")
USER = ("user.id", "enduser.id")
ERROR = ("otel.status_description", "error.message", "exception.message")
MLFLOW_USAGE, MLFLOW_COST = "mlflow.chat.tokenUsage", "mlflow.llm.cost"
"""MLflow's client counts in one attribute, {"input_tokens", "output_tokens", "cache_read_input_tokens"?}, and {"total_cost"} in US dollars."""
_USAGE = (("llm.token_count.prompt", "input_tokens"), ("llm.token_count.completion", "output_tokens"), (TOKENS_CACHED[0], "cache_read_input_tokens"))


_IN = frozenset(TOKENS_IN)
LLM_NAMES = frozenset((*MODEL, *PROVIDER, *TOKENS_IN, *TOKENS_OUT, *TOKENS_CACHED, *COST))
"""A span that has none of these called no model."""


def first(attributes: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of `names` that the attributes have; None if none."""
    for name in names:
        value = attributes.get(name)
        if value is not None:
            return value
    return None


def pack(
    project: str,
    received_at: float,
    spans: Sequence[Span] = (),
    predictions: Sequence[Mapping[str, Any]] = (),
    scores: Sequence[Mapping[str, Any]] = (),
    infos: Sequence[Mapping[str, Any]] = (),
    metrics: Sequence[Mapping[str, Any]] = (),
    logs: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """One frame of the log. `infos` are changes of what is known of whole traces (see telemetry_infos.py)."""
    frame: tuple[Any, ...] = (project, received_at, spans, predictions, scores)
    if metrics or logs:
        frame = (*frame, infos, metrics, logs)
    elif infos:
        frame = (*frame, infos)
    try:
        return _encoder.encode(frame)
    except (OverflowError, UnicodeEncodeError, TypeError, ValueError):
        plain = [{name: getattr(span, name) for name in span.__dataclass_fields__} for span in spans]
        return _encoder.encode(_plain((project, received_at, plain, predictions, scores, infos, metrics, logs)))


def unpack(payload: bytes, price: Price | None = None) -> dict[str, list[Any]]:
    """A frame as rows of PARTS, in the order of the column lists here and in telemetry_signals.py; changes of traces (infos) are dicts.
    `price` fills in missing costs."""
    project, received, spans, predictions, scores, *rest = _decoder.decode(payload)
    infos, metrics, logs = [*rest, [], [], []][:3]
    return {
        "spans": _span_rows(project, received, spans, price) if spans else [],
        "predictions": [_prediction_row(project, received, p) for p in predictions],
        "scores": [_score_row(project, received, s) for s in scores],
        "infos": [checked({**change, "project": project, "received_at": received}) for change in infos],
        "metrics": [metric_row(project, received, one) for one in metrics],
        "logs": [log_row(project, received, one) for one in logs],
    }


def _span_rows(project: str, received: float, spans: list[dict[str, Any]], price: Price | None) -> list[Row]:
    """Rows of a frame's spans: children inherit endpoint, release, session and user from a root in the same frame; a span whose usage
    only repeats its children's is marked as rolled up, so that sums count every token once."""
    parents = {(s["trace_id"], s["span_id"]): s["parent_id"] for s in spans}
    for s in spans:
        if MLFLOW_USAGE in s["attributes"] or MLFLOW_COST in s["attributes"]:
            s["counts"] = _mlflow_counts(s["attributes"])
    calls = sorted((s for s in spans if ENDPOINT in s["attributes"]), key=lambda s: (s["start_ns"], s["span_id"]), reverse=True)
    roots = {s["trace_id"]: s["attributes"] for s in calls}  # the first call of each trace
    rolled = _rolled(spans, parents)
    rows: list[Row] = []
    for s in spans:
        a, trace, parent = s["attributes"], s["trace_id"], s["parent_id"]
        u = s.get("counts", a)
        above = roots.get(trace, a)
        own = ENDPOINT in a
        model = provider = tokens_in = tokens_out = cached = cost = None
        if not LLM_NAMES.isdisjoint(u):
            model, provider = _text(first(a, MODEL)), _text(first(a, PROVIDER))
            tokens_in, tokens_out, cached = _count(first(u, TOKENS_IN)), _count(first(u, TOKENS_OUT)), _count(first(u, TOKENS_CACHED))
            cost = _number(first(u, COST))
            if cost is None and price is not None and model and (tokens_in or tokens_out):
                cost = price(provider, model, tokens_in or 0, tokens_out or 0, cached or 0)
        rows.append(
            (
                project,
                trace,
                s["span_id"],
                parent,
                s["name"],
                s["kind"],
                s["start_ns"],
                s["end_ns"],
                s["status"],
                _text(first(a, ERROR)),
                parent is None or own or REMOTE in a or (trace, parent) not in parents,
                parent is None or own,
                (trace, s["span_id"]) in rolled,
                _text(above.get(ENDPOINT)),
                _text(above.get(RELEASE)),
                _text(above.get(ALIAS)),
                _text(above.get(PRINCIPAL)),
                model,
                provider,
                tokens_in,
                tokens_out,
                cached,
                cost,
                _text(first(a, SESSION) or first(above, SESSION)),
                _text(first(a, USER) or first(above, USER)),
                _json(s["inputs"]),
                _json(s["outputs"]),
                _json(a),
                _json(s["events"]) if s["events"] else None,
                received,
            )
        )
    return rows


def _mlflow_counts(a: dict[str, Any]) -> dict[str, Any]:
    """A span's attributes with MLflow's counts beside them under OpenInference's names (which win where they are there)."""
    usage, cost = _object(a.get(MLFLOW_USAGE)), _object(a.get(MLFLOW_COST))
    counts = {name: usage[key] for name, key in _USAGE if usage.get(key) is not None}
    if cost.get("total_cost") is not None:
        counts[COST[0]] = cost["total_cost"]
    return {**counts, **a}


def _object(value: Any) -> dict[str, Any]:
    """A dict, also where it came as JSON text; empty where it is none."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


def _rolled(spans: list[dict[str, Any]], parents: dict[tuple[str, str], str | None]) -> set[tuple[str, str]]:
    """Spans with token counts above another span with token counts."""
    counted = {
        (s["trace_id"], s["span_id"]) for s in spans if not _IN.isdisjoint(u := s.get("counts", s["attributes"])) and first(u, TOKENS_IN) is not None
    }
    if len(counted) < 2:
        return set()
    rolled: set[tuple[str, str]] = set()
    for trace, span in counted:
        at, seen = parents.get((trace, span)), {span}
        while at and at not in seen:
            seen.add(at)
            if (trace, at) in counted:
                rolled.add((trace, at))
            at = parents.get((trace, at))
    return rolled


def _prediction_row(project: str, received: float, p: dict[str, Any]) -> Row:
    identity = str(p["prediction_id"])
    return (
        project,
        identity,
        p.get("trace_id") or trace_of(identity),
        _text(p.get("endpoint")),
        _text(p.get("release")),
        _text(p.get("alias")),
        float(p["at"]),
        _text(p.get("session")),
        _text(p.get("user")),
        _json(p.get("features")),
        _json(p.get("outputs")),
        received,
    )


def _score_row(project: str, received: float, s: dict[str, Any]) -> Row:
    """The row of a score. A later one with the same id takes its place; one without a name takes it away."""
    value = s.get("value")
    return (
        project,
        str(s["id"]),
        str(s["subject"]),
        _text(s.get("trace_id")) or trace_of(str(s["subject"])),
        _text(s.get("name")),
        _number(value),
        _json(value),
        _text(s.get("source")) or "",
        _text(s.get("why")) or "",
        float(s["at"]),
        _text(s.get("by")) or "",
        received,
        _json(s.get("details")),
    )


def trace_of(subject: str) -> str | None:
    """The trace id that a trace, span (`TRACE-SPAN`) or prediction id begins with; None for other subjects."""
    return subject[:32] if TRACE_ID.match(subject) and (len(subject) == 32 or subject[32] in "-:/") else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and -(2**31) < number < 2**31 else None


def _json(value: Any) -> str | None:
    """JSON text; None stays None. What JSON cannot carry becomes text; numbers that are not finite become null."""
    if value is None:
        return None
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return orjson.dumps(_plain(value), default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _hook(value: Any) -> Any:
    """Values that msgpack does not know: numpy's scalars and arrays by their Python equivalents, others as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (Mapping, Sequence)):
        return dict(value) if isinstance(value, Mapping) else list(value)
    return str(value)


def _plain(value: Any) -> Any:
    """The same value with what cannot be packed replaced by text: integers beyond 64 bits, broken surrogates, odd keys."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return _plain(_hook(value))


_encoder = msgspec.msgpack.Encoder(enc_hook=_hook)
_decoder = msgspec.msgpack.Decoder()
