"""The shapes that every room shares: a call and its answer, a score, a check's subjects, a release, a span."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from everloop.core.principal import Principal
from everloop.core.refs import Ref

Verdict = Literal["pass", "fail", "inconclusive", "not_assessed"]


@dataclass(frozen=True)
class Usage:
    """What an answer cost. Tokens are counts, cost is US dollars (None: no price known), seconds are wall time upstream."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    cost: float | None = None
    seconds: float = 0.0
    model: str = ""
    provider: str = ""


@dataclass
class TraceContext:
    """The trace a call belongs to; wrappers append finished spans, the recorder writes them before the answer leaves.

    `at` is when the interaction happened, in epoch seconds: now, unless a replay or a late import says otherwise. `hidden` are texts that a
    policy keeps out of the record, each with what stands in its place.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    at: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)


@dataclass
class Span:
    """One OpenTelemetry span as everloop keeps it. Times are epoch nanoseconds.

    `kind` is OpenInference's span kind in capitals (LLM, RETRIEVER, GUARDRAIL, CHAIN, TOOL, EMBEDDING, ...) or PREDICT.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: Literal["ok", "error", "unset"] = "unset"
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    inputs: Any = None
    outputs: Any = None


@dataclass(frozen=True)
class Call:
    """One request to an endpoint. `inputs` is a `Batch` for predict, a `Chat` for chat. `deadline` is a monotonic time in seconds."""

    endpoint: str
    inputs: Any
    principal: Principal
    trace: TraceContext
    deadline: float = math.inf
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def project(self) -> str:
        """The project the call belongs to: its principal's."""
        return self.principal.project

    def replace(self, **changes: Any) -> Call:
        """The same call with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Batch:
    """Rows by column for a predictive model: `columns[name]` is a sequence of `n` values (None where missing)."""

    columns: Mapping[str, Sequence[Any]]
    n: int


@dataclass(frozen=True)
class Predictions:
    """What a predictive model says of a batch: `columns` by output name (`prediction`, `probability_<class>` ...), `n` values each."""

    columns: Mapping[str, Sequence[Any]]
    n: int


@dataclass(frozen=True)
class Chat:
    """A chat request in OpenAI's message shape; `tools`, `response_format` and others ride in `params` untouched."""

    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed chat answer: text added now; the last one carries finish_reason and usage."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Message:
    """A whole chat answer: text, why it ended, the sources it cites ({"n", "chunk", "document", "text", "score"})."""

    text: str
    finish_reason: str = "stop"
    citations: Sequence[Mapping[str, Any]] = ()
    tool_calls: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Answer:
    """What an endpoint answers: `Predictions`, a `Message`, or an async iterator of `Chunk` when the call asked for a stream."""

    outputs: Any | AsyncIterator[Chunk]
    release: Ref | None = None
    usage: Usage = field(default_factory=Usage)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def streams(self) -> bool:
        """Whether the outputs still have to be drawn, chunk by chunk."""
        return hasattr(self.outputs, "__aiter__")

    def replace(self, **changes: Any) -> Answer:
        """The same answer with some fields changed."""
        return replace(self, **changes)


Serve = Callable[[Call], Awaitable[Answer]]
"""The one call shape: a model, an LLM, a guard, a cache, a canary splitter are all this."""


@dataclass(frozen=True)
class Score:
    """One judgement. `interval` is a (low, high) confidence interval at 95 % unless `details["confidence"]` says otherwise.

    `n` is how many cases or calls stand behind it; `source` is the check, grader, person or file it came from.
    """

    name: str
    value: float | str | bool | None
    verdict: Verdict = "not_assessed"
    n: int = 0
    interval: tuple[float, float] | None = None
    source: str = ""
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain dict that JSON can carry (non-finite numbers become None)."""
        value = self.value
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        interval = None
        if self.interval is not None and all(math.isfinite(x) for x in self.interval):
            interval = [float(self.interval[0]), float(self.interval[1])]
        return {
            "name": self.name,
            "value": value,
            "verdict": self.verdict,
            "n": int(self.n),
            "interval": interval,
            "source": self.source,
            "why": self.why,
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Score:
        """The inverse of `to_json`; unknown keys are dropped."""
        interval = body.get("interval")
        return cls(
            body["name"],
            body.get("value"),
            body.get("verdict", "not_assessed"),
            int(body.get("n") or 0),
            (interval[0], interval[1]) if interval else None,
            body.get("source", ""),
            body.get("why", ""),
            body.get("details") or {},
        )


@dataclass(frozen=True)
class Window:
    """A slice of live traffic beside a reference, for monitors. Columns are numpy arrays or lists, equally long within a side.

    `live` and `reference` hold feature columns, plus `prediction`, `probability`, and `label` where labels have come
    (then aligned with the labelled rows: see `labelled`). `since`, `until`: epoch seconds of event time. `calls` holds columns by call (a call
    may have many rows): `seconds`, `failed`, `blocked`, `refused`, `thumbs_down`, `cost`, `tokens_in`, `tokens_out`; for chats also `answer`.
    `earlier` holds the same columns of the windows before, newest first. `level` is how often this look alone may find an error that is none
    (one-sided), where many looks share one budget (None: the check's own alpha).
    """

    live: Mapping[str, Any]
    reference: Mapping[str, Any]
    n: int
    since: float
    until: float
    labelled: Mapping[str, Any] = field(default_factory=dict)
    reference_labelled: Mapping[str, Any] = field(default_factory=dict)
    calibration: Sequence[Mapping[str, Any]] = ()
    task: str = "binary"
    calls: Mapping[str, Any] = field(default_factory=dict)
    earlier: Sequence[Mapping[str, Any]] = ()
    level: float | None = None


@dataclass(frozen=True)
class Results:
    """A suite's results for one release, for gates. For predictive suites the arrays are aligned by row (numpy):

    `y` labels, `prediction`, `probability` (n, or n x classes), `features` columns, `seconds` and `cpu_seconds` per call.
    For chat suites `cases` holds one dict a case: question, expected sources and answer, answer, retrieved, usage, seconds, flags.
    """

    n: int
    task: str
    y: Any = None
    prediction: Any = None
    probability: Any = None
    classes: Sequence[Any] = ()
    positive: Any = None
    features: Mapping[str, Any] = field(default_factory=dict)
    seconds: Any = None
    cases: Sequence[Mapping[str, Any]] = ()
    cpu_seconds: Any = None


@dataclass(frozen=True)
class Utterance:
    """A text on its way, for guardrails: what a user asks, a retrieved passage, or an answer.

    For an answer, `question` and `sources` (texts it should rest on) ride along.
    """

    text: str
    stage: Literal["input", "retrieved", "tool", "output"] = "input"
    question: str = ""
    sources: Sequence[str] = ()
    context: Mapping[str, Any] = field(default_factory=dict)


class Check(Protocol):
    """Something that judges: a value with one method. The same check runs as guardrail (Utterance or Batch), gate (Results) and monitor (Window)."""

    name: str

    def __call__(self, subject: Any) -> Score | Awaitable[Score]:
        """Judge the subject."""


@dataclass(frozen=True)
class Release:
    """The manifest that pins every version needed to answer. Its digest is its identity; endpoints serve releases and nothing else."""

    name: str
    kind: Literal["predict", "chat"]
    pins: Mapping[str, str]
    params: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest that is stored and hashed."""
        return {"name": self.name, "kind": self.kind, "pins": dict(self.pins), "params": dict(self.params), "policy": self.policy}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Release:
        """The inverse of `to_json`."""
        return cls(body["name"], body["kind"], body.get("pins") or {}, body.get("params") or {}, body.get("policy"))
