"""Sign-in behind a seam: `SignIn` says whether a proof holds. Passwords are one; OpenID Connect (oidc.py) brings its own proof."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from everloop.core.errors import TooMany
from everloop.core.limits import PASSWORDS_AT_ONCE, PASSWORDS_WAITING, SIGN_IN_FAILURES, SIGN_IN_WAIT_SECONDS
from everloop.core.principal import SYSTEM
from everloop.store import identity as store

if TYPE_CHECKING:
    from everloop.workspace.workspace import Workspace

REMEMBERED = 10_000


class SignIn(Protocol):
    """How a person proves who they are."""

    name: str

    async def check(self, proof: dict[str, str]) -> str | None:
        """The user's name if the proof holds, else None; TooMany if it was tried too often."""


class Passwords:
    """Sign-in by a password kept as scrypt. After SIGN_IN_FAILURES wrong ones from one address each next try for that user must wait,
    twice as long each time; an unknown name takes as long as a wrong password."""

    name = "password"

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._failed: dict[tuple[str, str], tuple[int, float]] = {}
        self._threads = ThreadPoolExecutor(PASSWORDS_AT_ONCE, "password")
        self._waiting = 0

    async def check(self, proof: dict[str, str]) -> str | None:
        """The user's name if {user, password} are right; {address} is where the try came from."""
        user, password = proof.get("user", ""), proof.get("password", "")
        place = (user, proof.get("address", ""))
        self._need_patience(place)
        if self._waiting >= PASSWORDS_WAITING:
            raise TooMany(f"{self._waiting} sign-ins are waiting.", "Try again in a second.")
        row = await self.ws.records.read(SYSTEM, lambda tx: store.find_user(tx, user))
        kept = row["password"] if row is not None and row["disabled_at"] is None else store.NOBODY
        self._waiting += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self._threads, store.password_matches, password, kept)
        finally:
            self._waiting -= 1
        if right and row is not None:
            self._failed.pop(place, None)
            return str(row["name"])
        self._failures(place)
        return None

    def _need_patience(self, place: tuple[str, str]) -> None:
        count, until = self._failed.get(place, (0, 0.0))
        wait = until - self.ws.clock.now()
        if count >= SIGN_IN_FAILURES and wait > 0:
            raise TooMany(f"{count} wrong passwords in a row.", f"Try again in {wait:.0f} s.", retry_after=wait)

    def _failures(self, place: tuple[str, str]) -> None:
        if len(self._failed) >= REMEMBERED:
            self._failed.clear()
        count = self._failed.get(place, (0, 0.0))[0] + 1
        wait = min(2.0 ** max(0, count - SIGN_IN_FAILURES), SIGN_IN_WAIT_SECONDS)
        self._failed[place] = (count, self.ws.clock.now() + wait)
