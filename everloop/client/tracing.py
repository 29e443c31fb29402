"""`el.trace`: spans from plain Python, as decorator or context manager, sent in the background to the server's OTLP route.

    @el.trace
    def answer(question): ...

    with el.trace("look up", kind="RETRIEVER", session="s-1", user="u-7") as span:
        span.outputs = search(question)

Spans nest by context (also across `await`); a span that ends is written to a spool on disk (client/spool.py), and a thread sends what has gathered: what a program
that was killed had not sent, the next one with the same key sends. Sending again is harmless: the server joins spans by their ids. `span.traceparent` (W3C Trace Context) carries a trace to another process, `parent=` takes it up there.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import inspect
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

from everloop.client import spool as spools
from everloop.core.errors import BadInput, EverloopError

FLUSH_SECONDS = 0.5
"""How long an ended span waits at most before it is sent."""
WAITING_BYTES = 1024 * 1024 * 1024
"""Bytes of spans that wait on disk while the server is away; what comes beyond is dropped, counted and told."""
ROLL_BYTES = 16 * 1024 * 1024
"""A spool of which so much is sent makes room for a new one."""
EXIT_SECONDS = 15.0
"""How long the end of a program waits for the server."""
KEPT_ITEMS = 1_000
"""Items of a traced generator that its span's outputs keep."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_USAGE = {
    "model": "llm.model_name",
    "provider": "llm.provider",
    "tokens_in": "llm.token_count.prompt",
    "tokens_out": "llm.token_count.completion",
    "tokens_cached": "llm.token_count.prompt_details.cache_read",
    "cost": "llm.cost.total",
}

F = TypeVar("F", bound=Callable[..., Any])
_current: contextvars.ContextVar[LiveSpan | None] = contextvars.ContextVar("everloop_span", default=None)


class LiveSpan:
    """A span that is open. Set `inputs` and `outputs` (anything JSON can carry; else their text), attributes by `set`, an LLM's usage by `usage`."""

    def __init__(self, name: str, kind: str, trace_id: str, parent_id: str | None, attributes: dict[str, Any]) -> None:
        self.name, self.kind, self.trace_id, self.parent_id = name, kind.upper(), trace_id, parent_id
        self.span_id = secrets.token_hex(8)
        self.attributes = attributes
        self.inputs: Any = None
        self.outputs: Any = None
        self.events: list[dict[str, Any]] = []
        self.error = ""
        self.start_ns = time.time_ns()
        self.end_ns = 0

    @property
    def traceparent(self) -> str:
        """This span as a W3C `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def set(self, attributes: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Add attributes: by a mapping where names have dots, by keywords else."""
        self.attributes.update(attributes or {}, **more)

    def usage(self, **usage: Any) -> None:
        """What an LLM call used: model, provider, tokens_in, tokens_out, tokens_cached (counts), cost (US dollars). BadInput for other names."""
        for name, value in usage.items():
            if name not in _USAGE:
                raise BadInput(f"A span's usage has no {name!r}.", f"It can have: {', '.join(_USAGE)}.")
            self.attributes[_USAGE[name]] = value

    def event(self, name: str, **attributes: Any) -> None:
        """Something that happened at a moment within the span."""
        self.events.append({"timeUnixNano": str(time.time_ns()), "name": name, "attributes": _pairs(attributes)})


class Tracing:
    """What `el.trace(...)` answers: a context manager that opens one span, and a decorator that opens one a call."""

    def __init__(self, name: str, kind: str, settings: dict[str, Any]) -> None:
        self.name, self.kind, self.settings = name, kind, settings
        self._open: list[tuple[LiveSpan, contextvars.Token[LiveSpan | None]]] = []

    def __enter__(self) -> LiveSpan:
        span = _begin(self.name, self.kind, self.settings)
        self._open.append((span, _current.set(span)))
        return span

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        span, token = self._open.pop()
        _current.reset(token)
        _end(span, error, self.settings)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[tuple[LiveSpan, _Step]]:
        """For a generator: the span is open until the generator ends, and current only within each `with step`, not in whoever draws its items."""
        span = _begin(self.name, self.kind, self.settings)
        error: BaseException | None = None
        try:
            yield span, _Step(span)
        except BaseException as problem:
            error = problem
            raise
        finally:
            _end(span, error, self.settings)

    async def __aenter__(self) -> LiveSpan:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """The function with a span around each call: arguments are its inputs, what it answers (or yields) its outputs."""
        name = self.name or function.__qualname__
        kept = self.settings["capture"]
        signature = inspect.signature(function)

        def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tracing:
            one = Tracing(name, self.kind, self.settings)
            if kept and self.settings["inputs"] is None:
                one.settings = {**self.settings, "inputs": _arguments(signature, args, kwargs)}
            return one

        return _wrapped(function, opened, kept)


class _Step:
    """A span made current for a while, any number of times."""

    def __init__(self, span: LiveSpan) -> None:
        self.span = span

    def __enter__(self) -> None:
        self.token = _current.set(self.span)

    def __exit__(self, *_: object) -> None:
        _current.reset(self.token)


def _wrapped(function: Any, opened: Callable[..., Tracing], kept: bool) -> Any:
    """`function` of any of the four kinds (plain, async, generator, async generator) within the span that `opened(args, kwargs)` opens."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with opened(args, kwargs).stepping() as (span, step):
                items = function(*args, **kwargs)
                while True:
                    with step:
                        try:
                            item = await anext(items)
                        except StopAsyncIteration:
                            return
                    _keep(span, item, kept)
                    yield item

        return stream
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with opened(args, kwargs).stepping() as (span, step):
                items = function(*args, **kwargs)
                while True:
                    with step:
                        try:
                            item = next(items)
                        except StopIteration as end:
                            return end.value
                    _keep(span, item, kept)
                    yield item

        return generate
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            with opened(args, kwargs) as span:
                answer = await function(*args, **kwargs)
                span.outputs = answer if kept and span.outputs is None else span.outputs
                return answer

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with opened(args, kwargs) as span:
            answer = function(*args, **kwargs)
            span.outputs = answer if kept and span.outputs is None else span.outputs
            return answer

    return call


@overload
def trace(name: F) -> F: ...


@overload
def trace(
    name: str = "",
    *,
    kind: str = "CHAIN",
    inputs: Any = None,
    attributes: Mapping[str, Any] | None = None,
    session: str | None = None,
    user: str | None = None,
    parent: str | None = None,
    capture: bool = True,
    client: Any = None,
) -> Tracing: ...


def trace(
    name: Any = "",
    *,
    kind: str = "CHAIN",
    inputs: Any = None,
    attributes: Mapping[str, Any] | None = None,
    session: str | None = None,
    user: str | None = None,
    parent: str | None = None,
    capture: bool = True,
    client: Any = None,
) -> Any:
    """A span around a block (`with el.trace("name") as span`) or around each call of a function (`@el.trace`, `@el.trace(kind="TOOL")`).

    `kind` is OpenInference's span kind (CHAIN, LLM, RETRIEVER, TOOL, AGENT, EMBEDDING ...); `session` and `user` hold for the spans within, too;
    `parent` is another process's `traceparent`; without `capture` a function's arguments and answer are not kept; `client` is one from
    `el.connect()` (one is made at the first span else). BadInput for a `parent` that is no traceparent.
    """
    if callable(name):
        return trace()(name)
    if parent is not None and not _TRACEPARENT.fullmatch(parent.strip().lower()):
        raise BadInput(f"The parent {parent!r} is no W3C traceparent.", "Give the other span's `traceparent`: 00-<32 hex>-<16 hex>-01.")
    carried = {"session.id": session, "user.id": user}
    settings = {
        "inputs": inputs,
        "attributes": dict(attributes or {}),
        "carried": {k: v for k, v in carried.items() if v is not None},
        "parent": parent,
        "capture": capture,
        "client": client,
    }
    return Tracing(name, kind, settings)


def current_span() -> LiveSpan | None:
    """The innermost span that is open here; None outside of any."""
    return _current.get()


def flush(seconds: float = EXIT_SECONDS) -> int:
    """Send all ended spans now, trying again for up to `seconds`; answers how many could not be sent (they stay queued)."""
    return sum(sender.flush(time.monotonic() + seconds) for sender in list(_senders.values()))


def _begin(name: str, kind: str, settings: Mapping[str, Any]) -> LiveSpan:
    above = _current.get()
    trace_id, parent_id = (above.trace_id, above.span_id) if above else (secrets.token_hex(16), None)
    if settings["parent"]:
        found = _TRACEPARENT.fullmatch(settings["parent"].strip().lower())
        assert found is not None  # `trace` has checked it
        trace_id, parent_id = found.groups()
    inherited = {k: above.attributes[k] for k in ("session.id", "user.id") if k in above.attributes} if above else {}
    span = LiveSpan(name or "span", kind, trace_id, parent_id, {**inherited, **settings["carried"], **settings["attributes"]})
    span.inputs = settings["inputs"]
    return span


def _end(span: LiveSpan, error: BaseException | None, settings: Mapping[str, Any]) -> None:
    span.end_ns = max(span.start_ns, time.time_ns())
    if error is not None and not isinstance(error, GeneratorExit):
        span.error = f"{type(error).__name__}: {error}"
        span.event("exception", **{"exception.type": type(error).__name__, "exception.message": str(error)})
    _sender(settings["client"]).add(span)


def _keep(span: LiveSpan, item: Any, kept: bool) -> None:
    if kept:
        span.outputs = span.outputs if isinstance(span.outputs, list) else []
        if len(span.outputs) < KEPT_ITEMS:
            span.outputs.append(item)


def _arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, without `self` and `cls`; what does not fit the signature is kept as it is (the call itself will say so)."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {"args": list(args), **kwargs}
    return {k: v for k, v in bound.arguments.items() if k not in ("self", "cls")}


class Sender:
    """Ended spans on their way to one server: each lies in a spool on disk when `add` returns, so that not even a kill loses it."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self._begin()

    def _begin(self) -> None:
        self._lock, self._sending, self._wake = threading.RLock(), threading.Lock(), threading.Event()
        self._spool: spools.Spool | None = None
        self._rolled: list[spools.Spool] = []
        self._added = self._done = self._dropped = 0
        self._thread: threading.Thread | None = None

    def add(self, span: LiveSpan) -> None:
        """Keep a span as OTLP's JSON; returns at once, and never raises for the disk's sake: what it does not take is counted and told."""
        encoded = spools.encoded(_otlp(span))
        with self._lock:
            try:
                spool = self._spool or self._open()
                if spool.size > WAITING_BYTES:
                    raise OSError(f"{WAITING_BYTES >> 20} MB of spans wait for the server")
                spool.add(spools.SPAN, encoded)
            except OSError as problem:
                self._dropped += 1
                if self._dropped == 1:
                    print(f"everloop: spans are not kept: {problem}. Newer ones are dropped until that is over.", file=sys.stderr)
                return
            self._added += 1
            if self._left() >= spools.SPANS:
                self._wake.set()

    def flush(self, until: float) -> int:
        """Send what is queued, trying again until the monotonic time `until`; how many spans are left (they stay in the spool)."""
        while True:
            try:
                self._send()
                return self._left()
            except (EverloopError, OSError) as problem:
                left = self._left()
                if time.monotonic() > until:
                    print(f"everloop: {problem} {left} spans were not sent; they wait in {self._spool and self._spool.path}.", file=sys.stderr)
                    return left
                time.sleep(0.2)

    def close(self, until: float) -> None:
        """Flush at the end of a program; a spool that is sent whole is removed."""
        if self.flush(until) == 0 and self._spool is not None:
            with self._sending, self._lock:
                if self._spool is not None and self._spool.empty:
                    self._done += self._spool.sent
                    self._spool.close(remove=True)
                    self._spool = None

    def after_fork(self) -> None:
        """In a child: what the parent had is the parent's to send, and the child's hold on its files would keep others from them."""
        for one in (self._spool, *self._rolled):
            if one is not None:
                one.close()
        self._begin()

    def _left(self) -> int:
        """Spans that are not sent yet."""
        with self._lock:
            return self._added - self._done - sum(one.sent for one in (self._spool, *self._rolled) if one is not None)

    def _open(self) -> spools.Spool:
        place = spools.folder()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        head = {"server": self._http.url, "sender": spools.sender_of(self._http), "resource": _RESOURCE}
        self._spool = spools.Spool(place / f"spans-{os.getpid()}-{os.urandom(4).hex()}{spools.SUFFIX}", head)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="everloop-traces", daemon=True)
            self._thread.start()
        return self._spool

    def _loop(self) -> None:
        leftovers = True
        while True:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            try:
                self._send()
                if leftovers:
                    spools.sync(self._http, offline=False)
                    leftovers = False
            except (EverloopError, OSError):
                time.sleep(1.0)  # they stay queued; the exit tells of what is left

    def _send(self) -> None:
        """All that waits, in turn; raises what the server says where it may take it later."""
        with self._sending:
            spool = self._spool
            if spool is None:
                return
            if spool.offset > ROLL_BYTES:  # what is sent need not lie there for ever: go on in a new file
                with self._lock:
                    self._rolled.append(spool)
                    spool = self._open()
            for old in list(self._rolled):
                old.send(self._http)
                with self._lock:
                    self._done += old.sent
                    self._rolled.remove(old)
                old.close(remove=True)
            spool.send(self._http)
            self._dropped = 0


def _finish() -> None:
    until = time.monotonic() + EXIT_SECONDS
    for sender in list(_senders.values()):
        sender.close(until)


_senders: dict[Any, Sender] = {}
_RESOURCE = [{"key": "service.name", "value": {"stringValue": os.environ.get("OTEL_SERVICE_NAME") or "python"}}]


def _sender(client: Any) -> Sender:
    if client is None:
        from everloop.client.base import default

        client = default()
    http = client._http
    sender = _senders.get(http)
    if sender is None:
        if not _senders:
            atexit.register(_finish)
            os.register_at_fork(after_in_child=lambda: [one.after_fork() for one in list(_senders.values())])
        sender = _senders.setdefault(http, Sender(http))
    return sender


def _otlp(span: LiveSpan) -> dict[str, Any]:
    """A span in OTLP's JSON encoding, with OpenInference's attribute names."""
    attributes = {"openinference.span.kind": span.kind, **span.attributes}
    for side, value in (("input", span.inputs), ("output", span.outputs)):
        if value is not None:
            plain = isinstance(value, str)
            attributes[f"{side}.value"] = value if plain else _json(value)
            attributes[f"{side}.mime_type"] = "text/plain" if plain else "application/json"
    made = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _pairs(attributes),
        "events": span.events,
        "status": {"code": 2, "message": span.error} if span.error else {"code": 1},
    }
    return made | ({"parentSpanId": span.parent_id} if span.parent_id else {})


def _json(value: Any) -> str:
    import orjson

    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):  # nested too deep, or a text that is no UTF-8
        return repr(value)


def _plain(value: Any) -> Any:
    """What JSON does not know: sets as lists, pydantic models as their fields, the rest as text."""
    if isinstance(value, set | frozenset):
        return list(value)
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else str(value)


def _pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": str(k), "value": _value(v)} for k, v in attributes.items() if v is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if value == value and abs(value) != float("inf") else str(value)}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _pairs(value)}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(v) for v in value]}}
    return {"stringValue": value if isinstance(value, str) else str(value)}
