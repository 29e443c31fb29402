"""Damaged objects mended: what is damaged is taken out, so that it counts as missing, and what is missing is put again from wherever it still is.

Taken out: a pack is written anew with those of its objects that are whole; a damaged file or list goes. So the bytes can be put again by anyone who has
them: another place (the folder that a move left, a second bucket), a file put together for reading, or a client's working copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from everloop.core import packs
from everloop.core.errors import BadInput, EverloopError
from everloop.store.moving import damage
from everloop.store.objects import DIGEST, Objects, digest_of
from everloop.store.places import Place


@dataclass
class Taken:
    """What was taken out: files, and digests of which no whole copy was found in them."""

    files: list[dict[str, str]] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)


def take_out(store: Objects, project: str) -> Taken:
    """Take damaged bytes out of a project's files. Whole objects beside them stay. Blocking."""
    done = Taken()
    base = store.key(project)
    for part in ("objects", "chunks", "packs"):
        for found in list(store.place.list(f"{base}/{part}")):
            try:
                data = store.place.read(found.key)
            except FileNotFoundError:
                continue
            why = damage(found.key, data)
            if not why:
                continue
            with store.lock(project, exclusive=True):
                if part == "packs":
                    done.digests |= _pack(store, project, found.key, data)
                else:
                    store.place.remove(found.key)
                    done.digests.add(found.key.rsplit("/", 1)[-1].removesuffix(".list"))
            done.files.append({"key": found.key, "error": why})
    return done


def restore(store: Objects, project: str, wanted: Iterable[str], others: Iterable[Place]) -> dict[str, str]:
    """Put missing objects and chunks again from other places, and chunks from objects that were put together here: {digest: where from}. Blocking."""
    left = [*dict.fromkeys(wanted)]
    found: dict[str, str] = {}
    for place in others:
        other = Objects(store.root, fsync=False, place=place)
        for digest in [d for d in left if d not in found]:
            with contextlib.suppress(EverloopError):
                if _from_place(store, other, project, digest):
                    found[digest] = "another place"
    for digest in _from_whole(store, project, {d for d in left if d not in found}):
        found[digest] = "a file put together here"
    return found


def lacking(store: Objects, project: str, digest: str) -> list[str]:
    """What is missing of an object: itself, or chunks of it; nothing where it is whole as far as files are there."""
    at = store.index(project).find(digest, refresh=True)
    if at is not None or store.place.stat(store.loose(project, digest)) is not None:
        return []
    chunks = _listed(store, project, digest)
    return [digest] if chunks is None else store.missing(project, [name for name, _ in chunks])


def _pack(store: Objects, project: str, key: str, data: bytes) -> set[str]:
    """Write a damaged pack anew with what of it is whole; answers the digests that are not."""
    good, bad = [], set()
    for digest, offset, size in _entries(data):
        part = data[offset : offset + size]
        if len(part) == size and digest_of(part) == digest:
            good.append((digest, part))
        else:
            bad.add(digest)
    store.place.remove(key)
    store.index(project).forget({key})
    if good:
        name, parts = packs.build(good)
        new = f"{store.key(project)}/packs/{name}"
        store.place.write(new, parts)
        store.index(project).add(new, packs.entries(parts[0])[1])
    return bad


def _entries(data: bytes) -> Iterator[tuple[str, int, int]]:
    """(digest, offset, size) of a pack whose header may be damaged: what it says is only believed where the bytes agree."""
    try:
        at = packs.header_size(data)
    except BadInput:
        return
    for digest, size in packs.ENTRY.iter_unpack(data[packs.HEAD.size : at - packs.SUM]):
        yield digest.hex(), at, size
        at += size


def _listed(store: Objects, project: str, digest: str) -> list[tuple[str, int]] | None:
    """The chunks of a list, or None where there is no whole list."""
    try:
        head, _, body = store.place.read(store.loose(project, digest) + ".list").partition(b"\n")
    except FileNotFoundError:
        return None
    if digest_of(body) != head.decode(errors="replace"):
        return None
    return [(name, size) for name, size in orjson.loads(body)["chunks"]]


def _from_place(store: Objects, other: Objects, project: str, digest: str) -> bool:
    """Put an object, chunk or list again from another place, checked."""
    data = other.get_blob(project, digest)
    if data is not None:
        store.put_blob(project, data)
        return True
    chunks = _listed(other, project, digest)
    if chunks is None:
        return False
    for name in store.missing(project, [name for name, _ in chunks]):
        piece = other.get_blob(project, name)
        if piece is not None:
            store.put_blob(project, piece)
    store.add_list(project, digest, sum(size for _, size in chunks), chunks)
    return True


def _from_whole(store: Objects, project: str, wanted: set[str]) -> Iterator[str]:
    """Chunks (and whole objects) that are in the cache of files put together."""
    folder = store.root / store.key(project) / "whole"
    for file in sorted(folder.iterdir()) if wanted and folder.is_dir() else ():
        with open(file, "rb") as source:
            for part in packs.cut(source.read):
                name = digest_of(part)
                if name in wanted:
                    store.put_blob(project, part)
                    wanted.discard(name)
                    yield name
        if file.name in wanted:
            with open(file, "rb") as source, contextlib.suppress(EverloopError):
                if store.put(project, source)[0] == file.name:
                    wanted.discard(file.name)
                    yield file.name


def named(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path or name, digest) of everything in a manifest that names an object."""
    if isinstance(value, dict):
        if isinstance(value.get("digest"), str) and DIGEST.fullmatch(value["digest"]):
            yield str(value.get("path") or path), value["digest"]
        for key, inside in value.items():
            if key != "documents":  # the files that documents were read from are told by "files"
                yield from named(inside, key)
    elif isinstance(value, list):
        for inside in value:
            yield from named(inside, path)
