"""Time and ids behind one seam, so that tests count 1, 2, 3 and a clock steps as told."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What time it is and what the next id is."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def new_id(self) -> str:
        """32 lowercase hex characters, rising with time."""


class SystemClock:
    """The machine's clock; ids are UUIDv7-shaped: 48 bits of milliseconds, then a counter and random bits, so they sort by time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._count = 0

    def now(self) -> float:
        return time.time()

    def new_id(self) -> str:
        with self._lock:
            ms = time.time_ns() // 1_000_000
            if ms <= self._last:
                ms = self._last
                self._count += 1
            else:
                self._last, self._count = ms, 0
            count = self._count
        return f"{ms:012x}{count & 0xFFFF:04x}{os.urandom(8).hex()}"


class FakeClock:
    """A clock for tests: starts at `start`, steps `step` seconds at each look; ids are 1, 2, 3 in hex."""

    def __init__(self, start: float = 1_700_000_000.0, step: float = 1.0) -> None:
        self.time, self.step, self.count = start, step, 0

    def now(self) -> float:
        self.time += self.step
        return self.time

    def new_id(self) -> str:
        self.count += 1
        return f"{self.count:032x}"


def new_trace_id() -> str:
    """A random W3C trace id: 32 lowercase hex characters, never all zero."""
    return os.urandom(16).hex()


def new_span_id() -> str:
    """A random W3C span id: 16 lowercase hex characters."""
    return os.urandom(8).hex()


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds; None stays None."""
    if seconds is None:
        return None
    from datetime import datetime, timezone

    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> float:
    """ISO 8601 (or a plain number) to seconds since the epoch; a time without zone is taken as UTC. BadInput if neither."""
    from datetime import datetime, timezone

    from everloop.core.errors import BadInput

    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BadInput(f"{text!r} is not a time.", "Write it as 2026-11-24 or 2026-11-24T08:00:00Z.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
