"""Where objects' bytes lie in files of this host, for a client on it that may read them itself. Whoever reads checks them against their digests."""

from __future__ import annotations

from collections.abc import Sequence

from everloop.core.errors import EverloopError
from everloop.store.objects import Chunks, Objects

Piece = tuple[str, int, int]
"""(path, offset, size); size -1 means all of the file."""


def located(store: Objects, project: str, digests: Sequence[str]) -> dict[str, list[Piece]]:
    """The pieces of each object whose bytes all lie in files of this host; others are left out. Blocking."""
    known: dict[str, str | None] = {}

    def file_of(key: str) -> str | None:
        if key not in known:
            found = store.place.file(key)
            known[key] = None if found is None else str(found.absolute())
        return known[key]

    def single(digest: str, at: object) -> Piece | None:
        if at is not None and (path := file_of(at.key)) is not None:  # type: ignore[attr-defined]
            return path, at.offset, at.size  # type: ignore[attr-defined]
        path = file_of(store.loose(project, digest))
        return None if path is None else (path, 0, -1)

    found: dict[str, list[Piece]] = {}
    index = store.index(project)
    for digest, at in zip(digests, index.find_many(digests), strict=True):
        piece = single(digest, at)
        if piece is not None:
            found[digest] = [piece]
            continue
        if file_of(store.loose(project, digest) + ".list") is None:
            continue
        try:
            names = [name for name, _ in Chunks(store, project, digest).chunks]
        except EverloopError:
            continue  # told by who fetches it
        pieces = [single(name, at) for name, at in zip(names, index.find_many(names), strict=True)]
        whole = [piece for piece in pieces if piece is not None]
        if len(whole) == len(names):
            found[digest] = whole
    return found
