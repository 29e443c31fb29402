"""What all MLflow endpoints share: the table of routes, a call, errors in MLflow's shape, times in milliseconds."""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from everloop.core.errors import (
    BadInput,
    Busy,
    Conflict,
    EverloopError,
    Forbidden,
    GateRefused,
    MissingDependency,
    NotFound,
    TooLarge,
    Unauthorized,
)
from everloop.core.limits import BODY_BYTES
from everloop.core.principal import Principal
from everloop.protocols.mlflow import fields

_CODES: list[tuple[type[EverloopError], str, int]] = [
    (GateRefused, "RESOURCE_CONFLICT", 409),
    (Conflict, "RESOURCE_ALREADY_EXISTS", 400),
    (NotFound, "RESOURCE_DOES_NOT_EXIST", 404),
    (BadInput, "INVALID_PARAMETER_VALUE", 400),
    (Unauthorized, "UNAUTHENTICATED", 401),
    (Forbidden, "PERMISSION_DENIED", 403),
    (Busy, "TEMPORARILY_UNAVAILABLE", 503),
    (MissingDependency, "NOT_IMPLEMENTED", 501),
]


@dataclass
class Call:
    """One request: who asks, the workspace, the body (or the query, where there is none), and the parts of the path."""

    who: Principal
    ws: Any
    body: dict[str, Any]
    path: dict[str, str]

    def need(self, *names: str) -> str:
        """The first of these fields that is there, as text; BadInput naming it if none is."""
        for name in names:
            value = self.body.get(name)
            if value is not None and value != "":
                return str(value)
        raise fields.missing(names[0])

    @property
    def run_id(self) -> str:
        """The run asked for; older clients call it run_uuid."""
        return self.need("run_id", "run_uuid")

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or the default where it is missing or null."""
        value = self.body.get(name)
        return default if value is None else value

    def number(self, name: str, default: int, low: int = 1, high: int = 50_000) -> int:
        """A whole number between two bounds; BadInput if it is not."""
        value = self.get(name, default)
        try:
            found = int(value)
        except (TypeError, ValueError):
            raise fields.invalid(name, value, f" Hint: Value was of type '{type(value).__name__}'.{fields.SEE}") from None
        if not low <= found <= high:
            raise BadInput(f"Invalid value {found} for parameter '{name}' supplied. It must be at least {low} and at most {high}.")
        return found

    def listed(self, name: str) -> list[Any]:
        """A field that is a list (one value becomes a list of it)."""
        value = self.get(name, [])
        return value if isinstance(value, list) else [value]

    def pairs(self, name: str = "tags") -> dict[str, str]:
        """A field of [{"key", "value"}] as a dict."""
        try:
            return {str(item["key"]): str(item.get("value", "")) for item in self.listed(name)}
        except (TypeError, KeyError, AttributeError):
            raise BadInput(f"Invalid value for parameter '{name}' supplied.", 'It must be a list of {"key": ..., "value": ...}.') from None


Handler = Callable[[Call], Awaitable[Any]]


class Routes:
    """(method, path) to handler; a path may hold {names}, which the call then has."""

    def __init__(self, table: list[tuple[str, str, Handler]]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Handler]] = []
        for method, path, handler in table:
            if "{" in path:
                pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
                self._patterns.append((method, pattern, handler))
            else:
                self._exact[method, path] = handler

    async def answer(self, request: Request, ws: Any) -> Response:
        """Run the handler of a request and answer as MLflow does."""
        try:
            path = request.path_params["path"].strip("/")
            handler, parts = self._find(request.method, path)
            body = await body_of(request)
            fields.check(path, body, request.method == "GET")
            result = await handler(Call(request.scope["everloop.who"], ws, body, parts))
        except EverloopError as error:
            return failure(error)
        return result if isinstance(result, Response) else reply(result)

    def _find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        for one, pattern, handler in self._patterns:
            match = pattern.fullmatch(path)
            if match and one == method:
                return handler, match.groupdict()
        taken = {m for m, at in self._exact if at == path} | {m for m, pattern, _ in self._patterns if pattern.fullmatch(path)}
        if taken:
            raise WrongMethod(f"mlflow/{path} does not take {method}.", f"It takes {', '.join(sorted(taken))}.")
        raise Missing(
            f"everloop does not speak {method} mlflow/{path}.", "It serves tracking, artifacts, logged models, registry, prompts and traces."
        )


class Missing(NotFound):
    """An endpoint of MLflow's that everloop does not have."""


class WrongMethod(EverloopError):
    """An endpoint that takes another method."""

    status, code = 405, "method-not-allowed"


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON body, or the query where there is none (a name that comes twice becomes a list)."""
    if request.method in ("GET", "DELETE") and request.url.query:
        query: dict[str, Any] = {}
        for name, value in urllib.parse.parse_qsl(request.url.query, keep_blank_values=True):
            query[name] = [*query[name], value] if isinstance(query.get(name), list) else [query[name], value] if name in query else value
        if request.method == "GET":
            return query
    else:
        query = {}
    raw = await request.body()
    kind = request.headers.get("content-type", "application/json")
    if raw and kind.partition(";")[0].strip().lower() != "application/json":
        raise BadInput("Bad Request. Content-Type must be one of ['application/json'].", f"It was {kind!r}.")
    if len(raw) > BODY_BYTES:
        raise TooLarge(f"The body is {len(raw)} bytes; at most {BODY_BYTES} are allowed.", "Log it in parts.")
    if not raw:
        return query
    try:
        body = orjson.loads(raw)
    except ValueError:
        body = _lenient(raw)
    if not isinstance(body, dict):
        raise BadInput("The body must be a JSON object.")
    return {**query, **body}


def _lenient(raw: bytes) -> Any:
    """Python's own JSON, which reads the bare NaN and Infinity that some clients send."""
    import json

    try:
        return json.loads(raw)
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}.") from None


def reply(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body if body is not None else {}), status, media_type="application/json")


def failure(error: EverloopError) -> Response:
    """An error as MLflow writes it: {"error_code", "message"} with its status."""
    if isinstance(error, WrongMethod):
        return reply({"error_code": "BAD_REQUEST", "message": str(error)}, 405)
    if isinstance(error, Missing):
        return reply({"error_code": "ENDPOINT_NOT_FOUND", "message": str(error)}, 404)
    code = error.details.get("mlflow_code")
    if code:
        return reply({"error_code": code, "message": str(error)}, 400)
    for kind, name, status in _CODES:
        if isinstance(error, kind):
            return reply({"error_code": name, "message": str(error)}, status)
    return reply({"error_code": "INTERNAL_ERROR", "message": str(error)}, 500)


def ms(seconds: float | None) -> int | None:
    """Epoch seconds to MLflow's milliseconds."""
    return None if seconds is None else math.floor(seconds * 1000 + 0.0005)  # as clients cut theirs; what came as milliseconds stays what it was


def seconds(value: Any, name: str = "timestamp") -> float | None:
    """MLflow's milliseconds to epoch seconds; None stays None."""
    if value is None:
        return None
    try:
        return int(value) / 1000.0
    except (TypeError, ValueError):
        raise fields.invalid(name, value, " It must be milliseconds.") from None


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """A dict as [{"key", "value"}]."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def lacking(body: dict[str, Any]) -> dict[str, Any]:
    """The body without its nulls: MLflow's client takes a missing field, not a null one."""
    return {key: value for key, value in body.items() if value is not None}
