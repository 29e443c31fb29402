"""The garbage collector's second half: delete what nothing refers to. The first half, what is referred to, is workspace/data_gc.py's.

Sound without stopping writers: an object that is put, or found again, counts as just written, and nothing written after `before` goes. So a writer
has from there on the time of grace to register what it put, and registering looks once more that all is there. Each deletion is decided anew
under the project's exclusive lock, which writers share. Killed in the middle, it leaves more than needed, never less: a pack is written anew
before the old one goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from everloop.core import packs
from everloop.core.errors import Corrupt, EverloopError
from everloop.core.limits import PACK_WASTE
from everloop.store.objects import Chunks, Objects, digest_of


@dataclass
class Swept:
    """What a sweep found and did; with `dry_run`, what it would do."""

    kept: int = 0
    kept_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    young: int = 0
    """Files that nothing refers to and that are too young to go."""
    packs_rewritten: int = 0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)


def erase(store: Objects, project: str, digests: set[str]) -> Swept:
    """Delete just these objects now, with chunks that no other object has, also out of packs; blocking. Nothing may refer to them any more."""
    objects, packed, chunks = _all(store, project)
    own = set().union(*(parts for name, parts in chunks.items() if name in digests))
    shared = set().union(*(parts for name, parts in chunks.items() if name not in digests))
    loose = {_name(found.key) for found in store.place.list(f"{store.key(project)}/chunks")}
    return sweep(store, project, (objects | packed | loose) - digests - (own - shared), time.time() + 60, waste=0.0)


def orphans(store: Objects, project: str, live: set[str]) -> set[str]:
    """Digests of objects that are not in `live`; chunks of larger ones are not among them. Blocking."""
    objects, packed, chunks = _all(store, project)
    return (objects | packed) - live - set().union(*chunks.values())


def _all(store: Objects, project: str) -> tuple[set[str], set[str], dict[str, set[str]]]:
    """(objects of their own file or list, what lies in packs, the chunks of each list) of a project."""
    objects, chunks = set(), {}
    for found in list(store.place.list(f"{store.key(project)}/objects")):
        objects.add(_name(found.key))
        if found.key.endswith(".list"):
            chunks[_name(found.key)] = {name for name, _ in Chunks(store, project, _name(found.key)).chunks}
    packs_there = list(store.place.list(f"{store.key(project)}/packs"))
    return objects, {digest for found in packs_there for digest, _, _ in store.index(project).entries(found.key)}, chunks


def sweep(store: Objects, project: str, live: set[str], before: float, dry_run: bool = False, waste: float = PACK_WASTE) -> Swept:
    """Delete objects of a project that are not in `live` (digests) and were last written or found before that time. Blocking.

    A pack is written anew where more than the share `waste` of it goes. Chunks of live and of young objects stay. Raises what the place raises; what was deleted until then is gone, nothing else is.
    """
    done = Swept()
    chunks = _loose(store, project, live, before, dry_run, done)
    needed = live | chunks
    for found in list(store.place.list(f"{store.key(project)}/chunks")):
        _decide(store, project, found.key, found.size, found.at, _name(found.key) in needed, before, dry_run, done)
    for found in list(store.place.list(f"{store.key(project)}/packs")):
        _pack(store, project, found.key, found.size, needed, before, dry_run, done, waste)
    if not dry_run:
        _cache(store, project, live, before)
    return done


def verify(store: Objects, project: str, digests: Iterator[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read everything a project has and check it: {"key" or "digest", "bytes", "error": "" or what is wrong}, one by one. Blocking.

    With `digests` only those objects, each whole.
    """
    if digests is not None:
        for digest in digests:
            size, error = 0, ""
            try:
                size = sum(len(part) for part in store.parts(project, digest))
            except EverloopError as problem:
                error = problem.what
            yield {"digest": digest, "bytes": size, "error": error}
        return
    base = store.key(project)
    for part in ("objects", "chunks", "packs"):
        for found in store.place.list(f"{base}/{part}"):
            yield {"key": found.key, "bytes": found.size, "error": _damage(store, project, found.key, part)}


def _damage(store: Objects, project: str, key: str, part: str) -> str:
    try:
        if part == "packs":
            for digest, offset, size in store.index(project).entries(key):
                if digest_of(store.place.read(key, offset, size)) != digest:
                    return f"{digest} in it does not match its digest"
        elif key.endswith(".list"):
            for name, _ in Chunks(store, project, _name(key)).chunks:
                if store.get_blob(project, name) is None:
                    return f"its chunk {name} is missing"
        elif digest_of(store.place.read(key)) != _name(key):
            return "it does not match its digest"
    except FileNotFoundError:
        return ""  # deleted meanwhile
    except EverloopError as error:
        return error.what
    return ""


def _loose(store: Objects, project: str, live: set[str], before: float, dry_run: bool, done: Swept) -> set[str]:
    """Sweep objects of their own file and lists; answers the chunks of lists that stay."""
    chunks: set[str] = set()
    for found in list(store.place.list(f"{store.key(project)}/objects")):
        digest = _name(found.key)
        stays = _decide(store, project, found.key, found.size, found.at, digest in live, before, dry_run, done)
        if stays and found.key.endswith(".list"):
            try:
                chunks.update(name for name, _ in Chunks(store, project, digest).chunks)
            except Corrupt as error:
                raise Corrupt(f"{error.what} Nothing is deleted while it is so.", "Restore it from a backup; see everloop data verify.") from error
    return chunks


def _decide(store: Objects, project: str, key: str, size: int, at: float, wanted: bool, before: float, dry_run: bool, done: Swept) -> bool:
    """Delete one file, or keep it; answers whether it stays."""
    if wanted or at >= before:
        done.young += not wanted
        done.kept, done.kept_bytes = done.kept + 1, done.kept_bytes + size
        return True
    if not dry_run and not _remove(store, project, key, before):
        done.young, done.kept, done.kept_bytes = done.young + 1, done.kept + 1, done.kept_bytes + size
        return True
    done.deleted, done.deleted_bytes = done.deleted + 1, done.deleted_bytes + size
    return False


def _remove(store: Objects, project: str, key: str, before: float) -> bool:
    """Delete a file if it still was not written or found again since; alone with the project."""
    with store.lock(project, exclusive=True):
        now = store.place.stat(key)
        if now is not None and now.at >= before:
            return False
        store.place.remove(key)
        return True


def _pack(store: Objects, project: str, key: str, size: int, needed: set[str], before: float, dry_run: bool, done: Swept, waste: float) -> None:
    """Delete a pack of which nothing is needed; write one anew of which much is not."""
    found = store.place.stat(key)
    if found is None:
        return
    try:
        entries = store.index(project).entries(key)
    except Corrupt as error:
        done.notes.append(error.what)
        return
    kept = [(digest, offset, length) for digest, offset, length in entries if digest in needed]
    wasted = sum(length for _, _, length in entries) - sum(length for _, _, length in kept)
    young = found.at >= before
    if young or (kept and wasted <= waste * size):
        done.young += young and not kept
        done.kept, done.kept_bytes = done.kept + len(entries), done.kept_bytes + size
        return
    done.kept, done.kept_bytes = done.kept + len(kept), done.kept_bytes + size - wasted
    done.deleted, done.deleted_bytes = done.deleted + len(entries) - len(kept), done.deleted_bytes + wasted
    done.packs_rewritten += bool(kept)
    if dry_run:
        return
    if kept:
        name, parts = packs.build([(digest, store.place.read(key, offset, length)) for digest, offset, length in kept])
        new = f"{store.key(project)}/packs/{name}"
        store.place.write(new, parts)
        store.index(project).add(new, packs.entries(parts[0])[1])
    if _remove(store, project, key, before):
        store.index(project).forget({key})


def _cache(store: Objects, project: str, live: set[str], before: float) -> None:
    """Drop objects put together for a path that nothing refers to any more; what is young may be read, or still be written, right now."""
    folder = store.root / store.key(project) / "whole"
    for file in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if file.name not in live and file.stat().st_mtime < before:
                file.unlink()


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".list")
