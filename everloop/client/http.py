"""HTTP for the SDK: one pooled connection set, errors as the server meant them, retries only where a repeat is harmless."""

from __future__ import annotations

import json as jsonlib
import time
from typing import Any

from everloop.core.errors import EverloopError, from_problem

RETRIES = 4
RETRY_SECONDS = 0.25
TIMEOUT = 60.0
IDEMPOTENT = {"GET", "PUT", "DELETE"}


class Unreachable(EverloopError):
    """No server answers at the URL."""

    code = "unreachable"


class Http:
    """Requests to one server with one key and project. Paths start with a slash; answers are parsed JSON (None where there is no body)."""

    def __init__(self, url: str, key: str | None = None, project: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        if project:
            self._headers["x-everloop-project"] = project
        self._pool: Any = None

    def get(self, path: str, params: dict[str, Any] | None = None, timeout: float = TIMEOUT) -> Any:
        """GET; None values in params are left out."""
        return self._json("GET", path, params=params, timeout=timeout)

    def post(
        self,
        path: str,
        json: Any = None,
        data: bytes | None = None,
        params: dict[str, Any] | None = None,
        timeout: float = TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """POST a JSON body, or bytes."""
        return self._json("POST", path, json, data, params, timeout, headers)

    def put(self, path: str, json: Any = None, data: bytes | None = None, timeout: float = TIMEOUT) -> Any:
        """PUT a JSON body, or bytes."""
        return self._json("PUT", path, json, data, None, timeout)

    def patch(self, path: str, json: Any = None, timeout: float = TIMEOUT) -> Any:
        """PATCH a JSON body."""
        return self._json("PATCH", path, json, None, None, timeout)

    def delete(self, path: str, timeout: float = TIMEOUT) -> Any:
        """DELETE."""
        return self._json("DELETE", path, timeout=timeout)

    def get_bytes(self, path: str, timeout: float = TIMEOUT) -> bytes:
        """GET the raw body."""
        return bytes(self._send("GET", path, None, None, None, timeout, None).data)

    def _json(
        self,
        method: str,
        path: str,
        json: Any = None,
        data: bytes | None = None,
        params: dict[str, Any] | None = None,
        timeout: float = TIMEOUT,
        headers: dict[str, str] | None = None,
    ) -> Any:
        body = self._send(method, path, json, data, params, timeout, headers).data
        return jsonlib.loads(body) if body else None

    def _send(
        self, method: str, path: str, json: Any, data: bytes | None, params: dict[str, Any] | None, timeout: float, more: dict[str, str] | None
    ) -> Any:
        import urllib3

        if self._pool is None:
            self._pool = urllib3.PoolManager(maxsize=8, retries=False)
        headers = {**self._headers, **(more or {})}
        if data is None and json is not None:
            data = jsonlib.dumps(json).encode()
            headers["content-type"] = "application/json"
        fields = {k: _text(v) for k, v in (params or {}).items() if v is not None}
        url = self.url + path
        if fields:
            from urllib.parse import urlencode

            url += "?" + urlencode(fields)
        for attempt in range(RETRIES + 1):
            last = attempt == RETRIES
            try:
                answer = self._pool.request(method, url, body=data, headers=headers, timeout=timeout)
            except urllib3.exceptions.NewConnectionError as error:  # nothing was sent, so any method may try again
                if last:
                    raise Unreachable(f"No everloop server answers at {self.url}.", "Start one with: everloop up") from error
            except urllib3.exceptions.HTTPError as error:
                if last or method not in IDEMPOTENT:
                    raise Unreachable(f"The server at {self.url} did not answer {method} {path}: {error}.") from error
            else:
                if answer.status != 503 or last:
                    return _checked(answer)
                time.sleep(min(5.0, float(answer.headers.get("retry-after", 0) or 0)))
            time.sleep(RETRY_SECONDS * 2**attempt)
        raise AssertionError("the loop above returns or raises")


def _checked(answer: Any) -> Any:
    if answer.status < 400:
        return answer
    try:
        body = jsonlib.loads(answer.data)
    except ValueError:
        body = {"detail": f"the server answered {answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"}
    raise from_problem(body if isinstance(body, dict) else {}, answer.status)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
