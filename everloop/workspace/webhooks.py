"""Webhooks' verbs, and the loop that delivers: signed as MLflow signs, tried again with growing pauses, never to an inner address unless the
server's owner allows it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import socket
import urllib.parse
from typing import TYPE_CHECKING, Any

from everloop.assets import webhooks
from everloop.core.errors import BadInput, EverloopError
from everloop.core.limits import WEBHOOK_ANSWER_BYTES, WEBHOOK_ATTEMPTS, WEBHOOK_PARALLEL, WEBHOOK_SECONDS, WEBHOOK_WAIT_SECONDS
from everloop.core.principal import SYSTEM, Principal, Role
from everloop.engines.reach import Reach
from everloop.store.secret import home_secret, seal, unseal

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

log = logging.getLogger("everloop.webhooks")
OUTER = Reach(loopback=False)
"""Addresses of the public internet; link-local ones and clouds' metadata services are never called, whatever the owner allows."""
_POLL, _IDLE = 0.5, 30.0
"""Seconds between two looks for something to deliver: where there are hooks, and where there are none."""


class Webhooks:
    """Facade over webhooks; reading and changing them is for editors, for a hook sees what changes."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._woken = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    async def on_start(self) -> None:
        """Start delivering, with what a stop or crash left."""
        self._task = self.ws.spawn(self._deliver())

    async def on_stop(self) -> None:
        """Stop delivering; what is not delivered waits in the records."""
        if self._task is not None:
            self._task.cancel()

    async def create(self, who: Principal, name: str, url: str, events: list[str], secret: str = "", **more: str) -> dict[str, Any]:
        """A new webhook; `more` is description, status."""
        who.need(Role.editor, "make a webhook")
        await self._check_url(url)
        sealed = self._seal(secret)
        made = await self.ws.records.write(who, lambda tx: webhooks.create(tx, name, url, events, secret=sealed, **more))
        self._woken.set()
        return made

    async def update(self, who: Principal, id: str, **changes: Any) -> dict[str, Any]:
        """Change name, url, events, description, status or secret of a webhook."""
        who.need(Role.editor, "change a webhook")
        if "url" in changes:
            await self._check_url(changes["url"])
        if "secret" in changes:
            changes["secret"] = self._seal(changes["secret"])
        return await self.ws.records.write(who, lambda tx: webhooks.update(tx, id, changes))

    async def get(self, who: Principal, id: str) -> dict[str, Any]:
        """One webhook."""
        who.need(Role.editor, "see webhooks")
        return await self.ws.records.read(who, lambda tx: webhooks.get(tx, id))

    async def list(self, who: Principal) -> list[dict[str, Any]]:
        """The project's webhooks, newest first."""
        who.need(Role.editor, "see webhooks")
        return await self.ws.records.read(who, webhooks.every)

    async def delete(self, who: Principal, id: str) -> None:
        """Remove a webhook."""
        who.need(Role.editor, "delete a webhook")
        await self.ws.records.write(who, lambda tx: webhooks.delete(tx, id))

    async def test(self, who: Principal, id: str, event: str | None = None) -> dict[str, Any]:
        """Send an example once, now: {"success", "status", "body", "error"}."""
        who.need(Role.editor, "try a webhook")
        hook = await self.get(who, id)
        event = event or hook["events"][0]
        now = self.ws.clock.now()
        try:
            status, body = await self._send(hook, self.ws.clock.new_id(), webhooks.payload(event, webhooks.example(event), now))
        except _FAILURES as error:
            return {"success": False, "status": None, "body": "", "error": _told(error)}
        return {"success": status < 400, "status": status, "body": body, "error": "" if status < 400 else f"HTTP {status}"}

    async def _deliver(self) -> None:
        while True:
            wait = _IDLE
            try:
                if await self.ws.records.read(SYSTEM, webhooks.count_everywhere):
                    wait = _POLL
                    now = self.ws.clock.now()
                    found = [one for one in await self.ws.records.read(SYSTEM, lambda tx: webhooks.due(tx, True)) if one["due"] <= now]
                    await asyncio.gather(*(self._one(delivery) for delivery in found[:WEBHOOK_PARALLEL]))
            except EverloopError as error:
                log.warning("webhooks wait: %s", error)
            except Exception:  # whatever one delivery does, the others go on
                log.exception("webhooks wait")
            try:
                await asyncio.wait_for(self._woken.wait(), wait)
            except TimeoutError:
                pass
            self._woken.clear()

    async def _one(self, delivery: dict[str, Any]) -> None:
        who = Principal("webhooks", delivery["project"], Role.admin, kind="system")
        try:
            hook = await self.ws.records.read(who, lambda tx: webhooks.get(tx, delivery["hook"]))
            status, _ = await self._send(hook, delivery["id"], delivery["payload"])
            again = status == 429 or status >= 500
            why = f"HTTP {status}"
        except _FAILURES as error:
            again, why = True, _told(error)
        if again and delivery["attempts"] + 1 < WEBHOOK_ATTEMPTS:
            pause = min(WEBHOOK_WAIT_SECONDS, 2.0 ** delivery["attempts"]) * (1 + random.random() / 4)
            until = self.ws.clock.now() + pause
            await self.ws.records.write(who, lambda tx: webhooks.put_off(tx, delivery, until))
            return
        if why != "HTTP 200":
            log.info("webhook %s, delivery %s after %d tries: %s", delivery["hook"], delivery["id"], delivery["attempts"] + 1, why)
        await self.ws.records.write(who, lambda tx: webhooks.sent(tx, delivery["id"]))

    async def _send(self, hook: dict[str, Any], id: str, payload: str) -> tuple[int, str]:
        """(status, beginning of the body) of one POST; redirects are not followed, and each address is looked at as it is connected to."""
        import aiohttp

        await self._check_url(hook["url"])
        at = str(int(self.ws.clock.now()))
        headers = {"content-type": "application/json", "X-MLflow-Delivery-Id": id, "X-MLflow-Timestamp": at}
        secret = unseal(home_secret(self.ws.home), hook["secret"]) if hook["secret"] else ""
        if secret:
            headers["X-MLflow-Signature"] = signature(secret, id, at, payload)
        connector = aiohttp.TCPConnector(resolver=_outer_resolver(self.ws.settings.webhooks_inner), force_close=True)
        timeout = aiohttp.ClientTimeout(total=WEBHOOK_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(hook["url"], data=payload.encode(), headers=headers, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(WEBHOOK_ANSWER_BYTES)
                return answer.status, body.decode("utf-8", "replace")
        except aiohttp.ClientError as error:
            raise OSError(_told(error)) from error

    def _seal(self, secret: str) -> str:
        return seal(home_secret(self.ws.home), secret) if secret else ""

    async def _check_url(self, url: str) -> None:
        inner = self.ws.settings.webhooks_inner
        try:
            parts = urllib.parse.urlparse(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadInput(f"Invalid webhook URL {url!r}: {error}.") from None
        schemes = ("https", "http") if inner else ("https",)
        if parts.scheme not in schemes:
            raise BadInput(f"Invalid webhook URL scheme: {parts.scheme!r}. Allowed schemes are: {', '.join(schemes)}.", "" if inner else _HOW)
        if not host:
            raise BadInput(f"Webhook URL must include a hostname: {url!r}")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
            raise BadInput(f"The webhook's host {host!r} has no address: {getattr(error, 'strerror', None) or error}.") from None
        for _, _, _, _, address in found:
            if not OUTER.allows(str(address[0]), inner):
                raise BadInput(f"Webhook URL must not resolve to a non-public IP address: {host!r}.", _HOW)


_HOW = "An admin of the server allows inner addresses and http with EVERLOOP_WEBHOOKS_INNER=1."


def signature(secret: str, delivery: str, timestamp: str, payload: str) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over "delivery.timestamp.payload", as MLflow's documentation has it."""
    digest = hmac.new(secret.encode(), f"{delivery}.{timestamp}.{payload}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _outer_resolver(inner: bool) -> Any:
    """Names to addresses, none of them inner: a name that changes its address between the check and the connection gains nothing."""
    from aiohttp.resolver import ThreadedResolver

    class Outer(ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            if not all(OUTER.allows(one["host"], inner) for one in found):
                raise OSError(f"{host} is an inner address")
            return found

    return Outer()


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


_FAILURES = (OSError, TimeoutError, EverloopError)
"""How a delivery fails; what aiohttp raises besides is made one of these."""
