"""One HTTP client for all LLM providers: a shared aiohttp session a loop, retries that honour Retry-After, and server-sent events."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from everloop.core.errors import UpstreamFailed
from everloop.core.limits import LLM_ANSWER_BYTES, LLM_ATTEMPTS, LLM_CONNECT_SECONDS, LLM_FIRST_BYTE_SECONDS, LLM_RETRY_MAX_SECONDS, LLM_RETRY_SECONDS
from everloop.engines import reach

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request is sent again."""
_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bool, Any]] = weakref.WeakKeyDictionary()


def session(named: bool = False) -> Any:
    """The running loop's aiohttp session for hosts that are (`named`) or are not allowed by name (see engines/reach.py); made at first use."""
    import aiohttp

    mine = _sessions.setdefault(asyncio.get_running_loop(), {})
    found = mine.get(named)
    if found is None or found.closed:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=300, keepalive_timeout=60, socket_factory=reach.opener(named))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=LLM_CONNECT_SECONDS, sock_read=LLM_FIRST_BYTE_SECONDS)
        jar = aiohttp.DummyCookieJar()
        found = mine[named] = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=_proxied(), cookie_jar=jar)
    return found


def _proxied() -> bool:
    """Whether the environment names a proxy (looking one up, and .netrc, for every request costs as much as the rest of it)."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    return any(os.environ.get(name) or os.environ.get(name.upper()) for name in names)


async def close() -> None:
    """Close the running loop's sessions, if there are any."""
    for found in _sessions.pop(asyncio.get_running_loop(), {}).values():
        if not found.closed:
            await found.close()


async def _session_for(url: str) -> Any:
    """The session that a URL is asked by. Through a proxy, which is the operator's and connects itself, the host's addresses are judged before."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not _proxied():
        return session(reach.current().names(host))
    if bad := await asyncio.to_thread(reach.resolved, host, parts.port or (443 if parts.scheme == "https" else 80)):
        raise _out_of_reach(url, f"{reach.REFUSED} ({bad[0]})")
    return session(named=True)


def _out_of_reach(url: str, told: str) -> UpstreamFailed:
    return UpstreamFailed(f"{_host(url)} is not called: {told}.", reach.HINT.format(host=urlsplit(url).hostname), upstream_status=None)


async def post(url: str, headers: Mapping[str, str], body: bytes, *, deadline: float = float("inf"), attempts: int = LLM_ATTEMPTS) -> Any:
    """POST until a response with status 200 begins; the caller reads and releases it.

    Connection failures and the statuses in RETRIED are tried again, after Retry-After or a doubling pause, while the deadline (monotonic
    seconds) allows and the pause is bearable: a longer one is the client's to wait. UpstreamFailed carries `upstream_status` and the provider's own words.
    """
    import aiohttp

    failure: UpstreamFailed | None = None
    for attempt in range(attempts):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        pause = LLM_RETRY_SECONDS * 2**attempt
        try:
            async with asyncio.timeout(min(left, LLM_FIRST_BYTE_SECONDS)):
                response = await (await _session_for(url)).post(url, data=body, headers=headers, allow_redirects=False)
                if response.status == 200:
                    return response
                text = (await response.content.read(20_000)).decode("utf-8", "replace")
            response.release()
            failure = _refused(url, response.status, text)
            if response.status not in RETRIED:
                raise failure
            pause = _retry_after(response.headers, pause)
            failure.details["retry_after"] = pause
            if pause > LLM_RETRY_MAX_SECONDS:
                break
        except TimeoutError:
            failure = UpstreamFailed(f"{_host(url)} began no answer within {min(left, LLM_FIRST_BYTE_SECONDS):.0f} s.", upstream_status=504)
        except (aiohttp.ClientError, OSError) as error:
            if reach.REFUSED in str(error):
                raise _out_of_reach(url, _refusal(error)) from error
            failure = UpstreamFailed(
                f"{_host(url)} cannot be reached: {_why(error)}.",
                "Check that the server is up and its base_url.",
                upstream_status=None,
            )
        if attempt + 1 < attempts:
            if time.monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
    raise failure or UpstreamFailed(f"No time was left to ask {_host(url)}.", upstream_status=504)


async def read_json(response: Any, deadline: float = float("inf")) -> dict[str, Any]:
    """The response's JSON object; UpstreamFailed if it is none, too large or comes too late."""
    import aiohttp
    import orjson

    try:
        async with asyncio.timeout(None if deadline == float("inf") else max(0.0, deadline - time.monotonic())):
            data = bytearray()
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > LLM_ANSWER_BYTES:
                    raise UpstreamFailed(f"{_host(str(response.url))} answered over {LLM_ANSWER_BYTES} bytes.", upstream_status=200)
        body = orjson.loads(data)
    except TimeoutError:
        raise UpstreamFailed(f"{_host(str(response.url))} did not finish its answer in time.", upstream_status=504) from None
    except (aiohttp.ClientError, orjson.JSONDecodeError) as error:
        raise UpstreamFailed(f"{_host(str(response.url))} answered something that is not JSON: {error}.", upstream_status=200) from error
    finally:
        response.close() if not response.content.at_eof() else response.release()
    if not isinstance(body, dict):
        raise UpstreamFailed(f"{_host(str(response.url))} answered JSON that is not an object.", upstream_status=200)
    return body


async def events(response: Any, deadline: float = float("inf")) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream, until `[DONE]` or its end. UpstreamFailed if it breaks, is too large, says nothing for
    LLM_FIRST_BYTE_SECONDS, or speaks after the deadline (a caller that waits no longer cancels).
    """
    import aiohttp
    import orjson

    buffer, total = b"", 0
    try:
        while True:
            piece = await response.content.readany()
            if time.monotonic() > deadline:
                raise TimeoutError
            if not piece:
                return
            total += len(piece)
            if total > LLM_ANSWER_BYTES:
                raise UpstreamFailed(f"{_host(str(response.url))} streamed over {LLM_ANSWER_BYTES} bytes.", upstream_status=200)
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                if data:
                    yield orjson.loads(data)
    except TimeoutError:
        raise UpstreamFailed(f"{_host(str(response.url))} stopped in the middle of its answer.", upstream_status=504) from None
    except (aiohttp.ClientError, orjson.JSONDecodeError) as error:
        raise UpstreamFailed(f"The stream from {_host(str(response.url))} broke: {type(error).__name__}: {error}.", upstream_status=200) from error
    finally:
        response.close()


def words_of(body: Any, otherwise: str = "") -> str:
    """What a provider says in an error body ({"error": {"message"}} or {"error": "..."}), at most 500 characters."""
    error = body.get("error") if isinstance(body, Mapping) else None
    said = error.get("message") if isinstance(error, Mapping) else error
    return str(said or otherwise or body).strip()[:500]


def _refused(url: str, status: int, text: str) -> UpstreamFailed:
    import orjson

    try:
        said = words_of(orjson.loads(text), text)
    except orjson.JSONDecodeError:
        said = text.strip()[:500]
    hint = {401: "The provider does not accept the key.", 403: "The key may not use this model.", 404: "Check base_url and the model's name."}.get(
        status, ""
    )
    return UpstreamFailed(f"{_host(url)} answered {status}: {said or 'nothing'}", hint, upstream_status=status)


def _retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, min(float(headers[name]) / scale, 60.0))
        except (KeyError, ValueError):
            continue
    return otherwise


def _why(error: Exception) -> str:
    """Why a connection failed, in the operating system's words where it has some."""
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(cause, "strerror", None) or error or type(error).__name__)


def _refusal(error: Exception) -> str:
    """Which address a connection was refused to, where several were tried the first."""
    text = str(error)
    return text[text.index(reach.REFUSED) :].partition(")")[0] + ")"


def _host(url: str) -> str:
    return urlsplit(url).netloc or url
