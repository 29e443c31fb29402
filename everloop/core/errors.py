"""Every error that everloop raises on purpose, as one tree.

    EverloopError            500  something is wrong; the base, never raised itself
    ├── BadInput             400  the caller sent something that cannot be used
    │   └── TooLarge         413  ... because it is over a named limit
    ├── Unauthorized         401  no or an unknown key or session
    ├── Forbidden            403  the principal's role or project does not allow it
    ├── NotFound             404  no such thing in this project
    ├── Conflict             409  it exists, or changed meanwhile
    │   └── GateRefused      409  the alias is protected and the decision does not allow the move
    ├── Busy                 503  a bound was reached; try again after `retry_after` seconds
    │   ├── TooMany          429  this caller asks too often; try again after `retry_after` seconds
    │   └── NoSpace          507  the home's disk is full or cannot be written; nothing was kept
    ├── UpstreamFailed       502  an LLM provider or other server failed
    ├── MissingDependency    501  an optional package is not installed
    └── Corrupt              500  stored bytes do not match their digest

Each says what was wanted, what was found and what to do. `problem()` gives RFC 9457 problem+json for /api/v1; protocol
files turn the same error into their own protocol's shape.
"""

from __future__ import annotations

from typing import Any


class EverloopError(Exception):
    """Base of the tree. `what` is one sentence; `hint` says what to do; `details` is machine-readable context."""

    status = 500
    code = "internal"
    exit_code = 1

    def __init__(self, what: str, hint: str = "", **details: Any) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.what}  {self.hint}" if self.hint else self.what

    def problem(self) -> dict[str, Any]:
        """This error as an RFC 9457 problem document."""
        body: dict[str, Any] = {"type": f"urn:everloop:error:{self.code}", "title": type(self).__name__, "status": self.status, "detail": self.what}
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return body


class BadInput(EverloopError):
    status, code, exit_code = 400, "bad-input", 2


class TooLarge(BadInput):
    status, code = 413, "too-large"


class Unauthorized(EverloopError):
    status, code, exit_code = 401, "unauthorized", 3


class Forbidden(EverloopError):
    status, code, exit_code = 403, "forbidden", 3


class NotFound(EverloopError):
    status, code, exit_code = 404, "not-found", 2


class Conflict(EverloopError):
    status, code, exit_code = 409, "conflict", 2


class GateRefused(Conflict):
    code, exit_code = "gate-refused", 4


class Busy(EverloopError):
    status, code = 503, "busy"

    def __init__(self, what: str, hint: str = "", retry_after: float = 1.0, **details: Any) -> None:
        super().__init__(what, hint, **details)
        self.retry_after = retry_after


class TooMany(Busy):
    status, code = 429, "too-many"


class NoSpace(Busy):
    status, code, exit_code = 507, "no-space", 2


class UpstreamFailed(EverloopError):
    status, code = 502, "upstream-failed"


class MissingDependency(EverloopError):
    status, code, exit_code = 501, "missing-dependency", 2

    def __init__(self, package: str, why: str, extra: str = "") -> None:
        name = f"everloop[{extra}]" if extra else package
        super().__init__(f"{package} is needed {why}, and is not installed.", f"Install it with: pip install '{name}'")


class Corrupt(EverloopError):
    code = "corrupt"


_BY_CODE: dict[str, type[EverloopError]] = {}


def from_problem(problem: dict[str, Any], status: int) -> EverloopError:
    """The error a server sent as problem+json, as the same class here (unknown codes become EverloopError)."""
    if not _BY_CODE:
        stack: list[type[EverloopError]] = [EverloopError]
        while stack:
            cls = stack.pop()
            _BY_CODE[cls.code] = cls
            stack.extend(cls.__subclasses__())
    code = str(problem.get("type", "")).rsplit(":", 1)[-1]
    cls = _BY_CODE.get(code, EverloopError)
    what = str(problem.get("detail") or problem.get("message") or problem.get("title") or f"the server answered {status}")
    if cls is MissingDependency:
        error: EverloopError = EverloopError(what)
        error.status, error.exit_code = MissingDependency.status, MissingDependency.exit_code
    else:
        error = cls(what)
    error.hint = str(problem.get("hint", ""))
    error.details = dict(problem.get("details") or {})
    return error
