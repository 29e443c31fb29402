"""How much may be under way at once: a count of bytes that requests hold in memory, so that a flood is refused before memory grows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from everloop.core.errors import TooMany
from everloop.core.limits import INGEST_BYTES, INGEST_FACTOR


class Intake:
    """Bytes in memory of what is taken in now. Thread-safe."""

    def __init__(self, most: int = INGEST_BYTES) -> None:
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[Claim]:
        """Hold what a request of `size` bytes takes, until the end of the block; TooMany where others hold too much. One alone always may."""
        claim = Claim(self)
        claim.grow(size)
        try:
            yield claim
        finally:
            with self._lock:
                self.held -= claim.held


class Claim:
    """What one request holds."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.held = 0

    def grow(self, size: int) -> None:
        """Hold more: the request turned out larger (it was compressed). TooMany where that is too much now."""
        need = size * INGEST_FACTOR
        intake = self._intake
        with intake._lock:
            if need and intake.held - self.held and intake.held + need > intake.most:
                raise TooMany(f"Telemetry under way takes {intake.held >> 20} MB of the server's memory.", "Send again in a second.", retry_after=1.0)
            intake.held += need
            self.held += need
