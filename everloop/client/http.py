"""The client's HTTP: pooled connections, careful retries, and the server's errors as the same classes here."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from everloop.core.errors import EverloopError, UpstreamFailed, from_problem

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
ATTEMPTS = 5
"""How often a call is tried where trying again cannot do harm."""
RETRY_SECONDS = 10.0
"""Longest wait between two tries, whatever Retry-After says."""
POOL = 16
"""Connections kept open to the server."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})

Body = bytes | IO[bytes] | Iterable[bytes] | None
Transport = Callable[[str, str, Body, dict[str, str], float], tuple[int, Mapping[str, str], bytes]]
"""(method, url, body, headers, seconds) -> (status, headers, body); raises Unreachable where no answer came."""


class Unreachable(UpstreamFailed):
    """No answer came. `sent` is False where the request surely did not leave, so that trying again is safe for any method."""

    code, exit_code = "unreachable", 2

    def __init__(self, url: str, why: str, sent: bool) -> None:
        super().__init__(f"No everloop server answers at {url}: {why}.", "Start one with `everloop up`, or set EVERLOOP_URL.")
        self.sent = sent


class Http:
    """Calls to one server with one key. `transport` replaces the network (tests call an app in-process with it)."""

    def __init__(self, url: str, key: str | None = None, project: str | None = None, transport: Transport | None = None) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self._headers = {"user-agent": "everloop", "accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        if project:
            self._headers["x-everloop-project"] = project
        self._transport = transport or Pool()

    def get(self, path: str, params: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """GET; answers the parsed JSON."""
        return self.request("GET", path, params=params, **more)

    def post(self, path: str, json: Any = None, data: Body = None, **more: Any) -> Any:
        """POST JSON or bytes; answers the parsed JSON (None for an empty answer)."""
        return self.request("POST", path, json=json, data=data, **more)

    def put(self, path: str, json: Any = None, data: Body = None, **more: Any) -> Any:
        """PUT JSON or bytes; answers the parsed JSON."""
        return self.request("PUT", path, json=json, data=data, **more)

    def patch(self, path: str, json: Any = None, data: Body = None, **more: Any) -> Any:
        """PATCH with JSON or bytes; answers the parsed JSON."""
        return self.request("PATCH", path, json=json, data=data, **more)

    def delete(self, path: str, params: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """DELETE; answers the parsed JSON (None for an empty answer)."""
        return self.request("DELETE", path, params=params, **more)

    def get_bytes(self, path: str, params: Mapping[str, Any] | None = None, timeout: float | None = None) -> bytes:
        """GET; answers the body as it came."""
        return self._call("GET", path, params, None, {"accept": "*/*"}, timeout)[1]

    def upload(self, path: str, fields: Mapping[str, str], files: Iterable[tuple[str, str, bytes]], timeout: float | None = None) -> Any:
        """POST multipart/form-data; `files` are (field, file name, bytes)."""
        from urllib3.filepost import encode_multipart_formdata

        body, kind = encode_multipart_formdata([*fields.items(), *((field, (name, data)) for field, name, data in files)])
        return self.request("POST", path, data=body, headers={"content-type": kind}, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        data: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Any method; answers the parsed JSON. Raises the server's error as the same class (core/errors), Unreachable where none answers."""
        import orjson

        sent = dict(headers or {})
        if json is not None:
            data = orjson.dumps(json, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
            sent.setdefault("content-type", "application/json")
        elif data is not None:
            sent.setdefault("content-type", "application/octet-stream")
        kind, body = self._call(method, path, params, data, sent, timeout)
        if not body:
            return None
        if "json" in kind:
            return orjson.loads(body)
        return body.decode("utf-8", "replace")

    def stream(self, method: str, path: str, json: Any = None, timeout: float | None = None) -> Iterator[bytes]:
        """The body in pieces as they arrive (server-sent events, large downloads); an in-process transport gives it in one. Not retried."""
        return self.download(method, path, json=json, timeout=timeout)[1]

    def download(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None, timeout: float | None = None
    ) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """(headers, the body in pieces): read the pieces to their end. A body that breaks off raises Unreachable. Not retried."""
        import orjson

        body = orjson.dumps(json) if json is not None else None
        headers = {**self._headers, "accept": "*/*"} | ({"content-type": "application/json"} if body else {})
        url = self.url + path + query_text(params)
        if isinstance(self._transport, Pool):
            return self._transport.download(method, url, body, headers, timeout or READ_SECONDS)
        status, told, data = self._transport(method, url, body, headers, timeout or READ_SECONDS)
        if status >= 400:
            raise error_of(status, told.get("content-type", ""), data)
        return told, iter([data])

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with every request: the key, the project."""
        return self._headers

    def close(self) -> None:
        """Close the connections."""
        if isinstance(self._transport, Pool):
            self._transport.close()

    def _call(
        self, method: str, path: str, params: Mapping[str, Any] | None, body: Body, headers: Mapping[str, str], timeout: float | None
    ) -> tuple[str, bytes]:
        url = self.url + path + query_text(params)
        sent = {**self._headers, **headers}
        again = body is None or isinstance(body, bytes)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, answered, data = self._transport(method, url, body, sent, timeout or READ_SECONDS)
            except Unreachable as error:
                if attempt == ATTEMPTS or not again or (error.sent and method not in IDEMPOTENT):
                    raise
                time.sleep(min(0.1 * 2**attempt, RETRY_SECONDS))
                continue
            if status < 400:
                return answered.get("content-type", ""), data
            wait = answered.get("retry-after", "")
            if status == 503 and wait.isdigit() and again and method in IDEMPOTENT and attempt < ATTEMPTS:
                time.sleep(min(float(wait), RETRY_SECONDS))
                continue
            raise error_of(status, answered.get("content-type", ""), data)
        raise AssertionError("unreachable")


class Pool:
    """The network: urllib3's pool, emptied in a forked child so that two processes never share a connection."""

    def __init__(self) -> None:
        self._manager: Any = None
        _pools.add(self)

    def __call__(self, method: str, url: str, body: Body, headers: dict[str, str], timeout: float) -> tuple[int, Mapping[str, str], bytes]:
        """One request, the whole answer in memory."""
        answer = self._open(method, url, body, headers, timeout, preload=True)
        return answer.status, answer.headers, answer.data

    def download(self, method: str, url: str, body: Body, headers: dict[str, str], timeout: float) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """One request: its answer's headers, and the body in pieces."""
        import urllib3

        answer = self._open(method, url, body, headers, timeout, preload=False)
        if answer.status >= 400:
            try:
                raise error_of(answer.status, answer.headers.get("content-type", ""), answer.read())
            finally:
                answer.release_conn()

        def pieces() -> Iterator[bytes]:
            try:
                yield from answer.stream(65536)
            except urllib3.exceptions.HTTPError as error:
                raise Unreachable(_origin(url), _told(error), sent=True) from error
            finally:
                answer.release_conn()

        return answer.headers, pieces()

    def close(self) -> None:
        """Drop all connections; the next call opens new ones."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.clear()

    def _open(self, method: str, url: str, body: Body, headers: dict[str, str], timeout: float, preload: bool) -> Any:
        import urllib3

        if self._manager is None:
            self._manager = urllib3.PoolManager(maxsize=POOL, retries=False)
        wait = urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout)
        try:
            return self._manager.request(method, url, body=body, headers=headers, timeout=wait, redirect=False, preload_content=preload)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.LocationValueError) as error:
            raise Unreachable(_origin(url), _told(error), sent=False) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(_origin(url), _told(error), sent=True) from error


def error_of(status: int, kind: str, body: bytes) -> EverloopError:
    """The error that an answer tells, as a class of core/errors."""
    import orjson

    problem: Any = None
    if "json" in kind:
        try:
            problem = orjson.loads(body)
        except orjson.JSONDecodeError:
            problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"The server answered {status}: {body[:300].decode('utf-8', 'replace')}"}
    error = from_problem(problem, status)
    error.status = status
    return error


def query_text(params: Mapping[str, Any] | None) -> str:
    """`?a=1&b=2`; None is left out, booleans are true and false, lists repeat the name."""
    from urllib.parse import urlencode

    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return "?" + urlencode(pairs) if pairs else ""


def _origin(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _told(error: BaseException) -> str:
    text = str(error).rsplit(": ", 1)[-1].strip()
    return text.rstrip(".") or type(error).__name__


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_connections() -> None:
    for pool in list(_pools):
        pool._manager = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
