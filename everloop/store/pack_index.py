"""Which pack holds which object: the headers of a project's packs, kept in memory as sorted arrays (56 bytes an object).

Packs come by other processes too: a look-up that finds nothing looks whether the folder changed and reads what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from everloop.core import packs
from everloop.core.errors import BadInput, Corrupt
from everloop.store.places import Place

_HEAD_READ = 64 * 1024


class At(NamedTuple):
    """Where an object lies: its pack's key, offset and size."""

    key: str
    offset: int
    size: int


class PackIndex:
    """The packs of one project. Safe to share between threads."""

    def __init__(self, place: Place, project_key: str) -> None:
        self._place = place
        self.prefix = f"{project_key}/packs"
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._known: set[str] = set()
        self._state: object = None
        self._table: Any = None

    def find(self, digest: str, refresh: bool = False) -> At | None:
        """Where an object lies, or None; with `refresh` the packs are looked at anew where they may have changed."""
        if refresh:
            self.refresh()
        return self._find([digest])[0]

    def find_many(self, digests: Sequence[str]) -> list[At | None]:
        """Where each object lies; packs are looked at anew where they may have changed."""
        self.refresh()
        return self._find(digests)

    def refresh(self) -> None:
        """Read headers of packs that came, forget packs that went."""
        with self._lock:
            state = self._place.state(self.prefix)
            if state is not None and state == self._state:
                return
            there = {found.key for found in self._place.list(self.prefix)}
            gone, came = self._known - there, there - self._known
            if gone:
                self._forget(gone)
            self._load(sorted(came))
            self._state = state

    def add(self, key: str, found: Iterable[tuple[str, int, int]]) -> None:
        """Take in a pack that was just written: [(digest, offset, size)]."""
        with self._lock:
            if key not in self._known:
                self._merge([(key, list(found))])

    def forget(self, keys: set[str]) -> None:
        """Drop packs that were deleted."""
        with self._lock:
            self._forget(keys & self._known)

    def entries(self, key: str) -> list[tuple[str, int, int]]:
        """(digest, offset, size) of a pack, read from its header. FileNotFoundError if it is gone, Corrupt if it is damaged."""
        head = self._place.read(key, 0, _HEAD_READ)
        try:
            size = packs.header_size(head)
            if size > len(head):
                head += self._place.read(key, len(head), size - len(head))
            name, found = packs.entries(head[:size])
        except BadInput as error:
            raise Corrupt(f"The pack {key} of the object store is damaged: {error.what}", "Restore it from a backup.") from error
        if name != key.rsplit("/", 1)[-1]:
            raise Corrupt(f"The pack {key} of the object store holds {name}.", "Restore it from a backup.")
        return found

    def _load(self, keys: Sequence[str]) -> None:
        loaded = []
        for key in keys:
            try:
                loaded.append((key, self.entries(key)))
            except (FileNotFoundError, Corrupt):
                self._known.add(key)  # gone meanwhile; or damaged, which `verify` tells: what it held counts as missing
        if loaded:
            self._merge(loaded)

    def _merge(self, loaded: list[tuple[str, list[tuple[str, int, int]]]]) -> None:
        import numpy as np

        tables = [] if self._table is None else [self._table]
        for key, found in loaded:
            self._known.add(key)
            self._names.append(key)
            table = np.zeros(len(found), dtype=[("first", "<u8"), ("digest", "V32"), ("pack", "<u4"), ("offset", "<u8"), ("size", "<u4")])
            raw = b"".join(bytes.fromhex(digest) for digest, _, _ in found)
            table["digest"] = np.frombuffer(raw, dtype="V32")
            table["first"] = np.frombuffer(raw, dtype=">u8").reshape(-1, 4)[:, 0] if found else 0
            table["pack"] = len(self._names) - 1
            table["offset"] = [offset for _, offset, _ in found]
            table["size"] = [size for _, _, size in found]
            tables.append(table)
        joined = np.concatenate(tables)
        self._table = joined[np.argsort(joined["first"], kind="stable")]

    def _forget(self, keys: set[str]) -> None:
        import numpy as np

        if keys and self._table is not None:
            numbers = [number for number, name in enumerate(self._names) if name in keys]
            self._table = self._table[~np.isin(self._table["pack"], numbers)]
        self._known -= keys

    def _find(self, digests: Sequence[str]) -> list[At | None]:
        table = self._table  # one state of it: another thread may put a new one in its place
        if table is None or not len(table) or not digests:
            return [None] * len(digests)
        rows = table[_rows(table, digests)]
        names = self._names
        return [
            At(names[pack], offset, size) if found else None
            for found, pack, offset, size in zip(
                _same(rows, digests), rows["pack"].tolist(), rows["offset"].tolist(), rows["size"].tolist(), strict=True
            )
        ]


def _rows(table: Any, digests: Sequence[str]) -> Any:
    """For each digest the row of the table that has it, or some other row."""
    import numpy as np

    raw = b"".join(bytes.fromhex(digest) for digest in digests)
    first = np.frombuffer(raw, dtype=">u8").reshape(-1, 4)[:, 0].astype("<u8")
    at = np.minimum(np.searchsorted(table["first"], first), len(table) - 1)
    wanted = np.frombuffer(raw, dtype="V32")
    for i in np.flatnonzero((table["digest"][at] != wanted) & (table["first"][at] == first)):  # two digests that begin alike: look on
        row = int(at[i])
        while row < len(table) and table["first"][row] == first[i] and table["digest"][row] != wanted[i]:
            row += 1
        at[i] = min(row, len(table) - 1)
    return at


def _same(rows: Any, digests: Sequence[str]) -> list[bool]:
    import numpy as np

    raw = b"".join(bytes.fromhex(digest) for digest in digests)
    return list((rows["digest"] == np.frombuffer(raw, dtype="V32")).tolist())
