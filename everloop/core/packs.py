"""What a client and a store must agree on to move many objects at once: names by content, where a large object is cut, and packs.

An object's name is the BLAKE3 of its bytes (64 hex characters). One up to OBJECT_CHUNK_ABOVE bytes is whole; a larger one is cut where its
content says (FastCDC), so versions share what they have in common, and a list of its chunks stands for it. Small objects and chunks travel and
lie in packs:

    8 bytes    EVPACK1\\n
    4 + 4      number of entries, little-endian; zero
    36 each    digest (32 bytes) and size (4 bytes, little-endian)
    32         BLAKE3 of all before; in hex it is the pack's name
    ...        the bytes of the entries, one after the other

Many objects go over the wire as frames: kind (1 byte: PART, LAST of an object, or FAILED) and length (4 bytes), then that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import OBJECT_CHUNK, PACK_BYTES, PACK_ENTRIES

MAGIC = b"EVPACK1\n"
HEAD = struct.Struct("<8sII")
ENTRY = struct.Struct("<32sI")
SUM = 32
FRAME = struct.Struct("<BI")
PART, LAST, FAILED = 0, 1, 2
_WINDOW = 16 * 1024 * 1024


def digest_of(data: Any) -> str:
    """BLAKE3 of the bytes, 64 hex characters."""
    from blake3 import blake3

    return blake3(data).hexdigest()


def cut(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The chunks of a large object, in order, of what `read(size)` answers until it is empty. Holds some 20 MB at most."""
    from fastcdc import fastcdc

    held, ended = b"", False
    while not ended:
        block = read(_WINDOW)
        ended = not block
        held += block
        done = 0
        for found in fastcdc(memoryview(held), *OBJECT_CHUNK):
            if not ended and found.offset + OBJECT_CHUNK[2] > len(held):
                break  # with more bytes behind it, it may end elsewhere
            yield held[found.offset : found.offset + found.length]
            done = found.offset + found.length
        held = held[done:]


def build(entries: Sequence[tuple[str, bytes]]) -> tuple[str, list[bytes]]:
    """(name, parts) of a pack of (digest, bytes) entries; the parts joined are the file."""
    head = HEAD.pack(MAGIC, len(entries), 0) + b"".join(ENTRY.pack(bytes.fromhex(digest), len(data)) for digest, data in entries)
    name = digest_of(head)
    return name, [head + bytes.fromhex(name), *(data for _, data in entries)]


def header_size(head: bytes) -> int:
    """Bytes of a pack's header, from its first HEAD.size bytes; BadInput if it is no pack."""
    if len(head) < HEAD.size:
        raise BadInput("The pack is cut short.", "Send it again.")
    magic, count, _ = HEAD.unpack_from(head)
    if magic != MAGIC or count > PACK_ENTRIES:
        raise BadInput("This is not a pack of objects.", "A client makes them; see everloop/core/packs.py for the format.")
    return HEAD.size + int(count) * ENTRY.size + SUM


def entries(header: bytes) -> tuple[str, list[tuple[str, int, int]]]:
    """(name, [(digest, offset in the file, size)]) of a pack's header; BadInput if it is cut short or damaged."""
    total = header_size(header)
    body, told = header[: total - SUM], header[total - SUM : total]
    name = digest_of(body)
    if len(told) < SUM or bytes.fromhex(name) != told:
        raise BadInput("The header of the pack does not match its checksum.", "It was cut short or changed on its way: send it again.")
    found, at = [], total
    for digest, size in ENTRY.iter_unpack(body[HEAD.size :]):
        found.append((digest.hex(), at, size))
        at += size
    return name, found


class Batch:
    """Collects objects until they fill a pack."""

    def __init__(self, limit: int = PACK_BYTES) -> None:
        self.limit = limit
        self.items: dict[str, bytes] = {}
        self.bytes = 0

    def add(self, digest: str, data: bytes) -> None:
        """Take an object in; one that is there already is not taken twice."""
        if digest not in self.items:
            self.items[digest] = data
            self.bytes += len(data)

    @property
    def full(self) -> bool:
        """Whether it is time to send it."""
        return self.bytes >= self.limit or len(self.items) >= PACK_ENTRIES

    def take(self) -> list[tuple[str, bytes]]:
        """What was collected; the batch is empty after."""
        found = list(self.items.items())
        self.items, self.bytes = {}, 0
        return found


def framed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """One object's parts as frames, the last one marked."""
    held: bytes | None = None
    for part in parts:
        if held is not None:
            yield FRAME.pack(PART, len(held)) + held
        held = part
    yield FRAME.pack(LAST, len(held or b"")) + (held or b"")


class Frames:
    """Reads frames out of pieces of any size: iterate to get (kind, bytes)."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while True:
            while len(self._held) < FRAME.size:
                if not self._more():
                    if self._held:
                        raise BadInput("The answer was cut short.", "Try again.")
                    return
            kind, size = FRAME.unpack_from(self._held)
            while len(self._held) < FRAME.size + size:
                if not self._more():
                    raise BadInput("The answer was cut short.", "Try again.")
            at = 0
            while len(self._held) - at >= FRAME.size:  # all frames that are whole, then one deletion
                kind, size = FRAME.unpack_from(self._held, at)
                if len(self._held) - at < FRAME.size + size:
                    break
                yield kind, bytes(self._held[at + FRAME.size : at + FRAME.size + size])
                at += FRAME.size + size
            del self._held[:at]

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._held += piece
        return True
