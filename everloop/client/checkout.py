"""Datasets' files brought to this machine: many in one request, verified, skipped where they are there already, and resumed after an interruption."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.client.file_cache import FileCache, Stamp, stamp
from everloop.client.near import Elsewhere, Near
from everloop.core import packs, trees
from everloop.core.errors import BadInput, Conflict, Corrupt, from_problem
from everloop.core.limits import FETCH_OBJECTS

SECONDS = 1800.0
GROUP_BYTES = 256 * 1024 * 1024
"""Bytes fetched in one request, about."""
_READ = 4 * 1024 * 1024
Progress = Callable[[str, int, int], None]


class Checkout:
    """Brings files. `progress` is told what goes on; `force` replaces changed files that are nowhere else."""

    def __init__(self, http: Any, progress: Progress | None = None, force: bool = False) -> None:
        self._http = http
        self._say = progress or (lambda what, done, total: None)
        self._force = force
        self._near = Near(http)
        self.written = 0
        """Files that were written."""

    def folder(self, entries: Sequence[Mapping[str, Any]], target: Path) -> Path:
        """Make the folder `target` hold these entries (core/trees.py). A new folder appears whole, under its name, when all is there.

        Files in it that are not among the entries stay. Conflict where a file in the way was changed and its content is stored nowhere.
        """
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise Conflict(f"{target} is there and is no folder.", "Choose another place to check out to.")
        if target.exists():
            self._fill(entries, target, target)
            return target
        partial = target.with_name(f".{target.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        self._fill(entries, partial, target)
        os.rename(partial, target)
        return target

    def file(self, digest: str, size: int, target: Path) -> Path:
        """Make the file `target` hold one object."""
        if target.is_dir():
            raise Conflict(f"{target} is a folder.", "Name the file to check out to.")
        target.parent.mkdir(parents=True, exist_ok=True)
        entry = {"path": target.name, "digest": digest, "size": size}
        self._fill([entry], target.parent, target.parent)
        return target

    def _fill(self, entries: Sequence[Mapping[str, Any]], base: Path, named: Path) -> None:
        """Write what `base` lacks; `named` is what it will be called, for the cache of digests."""
        cache = FileCache()
        try:
            cache.load(os.path.abspath(named))
            files = [entry for entry in entries if "digest" in entry]
            _folders(entries, base)
            needed = self._needed(files, base, named, cache)
            self._fetch(needed, base, named, cache, len(files))
        finally:
            cache.close()
        for entry in entries:
            if "link" in entry:
                _link(base / entry["path"], trees.check_link(entry["path"], entry["link"]), self._force)

    def _needed(self, files: Sequence[Mapping[str, Any]], base: Path, named: Path, cache: FileCache) -> list[Mapping[str, Any]]:
        """Entries whose file is not there as it should be; Conflict where one would overwrite what is stored nowhere."""
        needed, changed = [], {}
        root = os.path.abspath(named)
        for entry in files:
            place = f"{base}/{entry['path']}"
            try:
                found = os.lstat(place)
            except FileNotFoundError:
                needed.append(entry)
                continue
            digest = cache.get(f"{root}/{entry['path']}", stamp(found)) if base == named else None
            digest = digest or _digest(place)
            if digest != entry["digest"]:
                needed.append(entry)
                changed[digest] = entry["path"]
            elif bool(found.st_mode & 0o100) != (entry.get("mode") == trees.EXECUTABLE):
                os.chmod(place, entry.get("mode", 0o644))
        if changed and not self._force and base == named:
            lost = [changed[d] for d in self._http.post("/api/v1/objects/missing", json={"digests": list(changed)})["missing"]]
            if lost:
                raise Conflict(
                    f"{len(lost):,} files were changed and their content is stored nowhere, among them {named / lost[0]}.",
                    "Add them first (everloop data add), or replace them with --force.",
                )
        return needed

    def _fetch(self, needed: Sequence[Mapping[str, Any]], base: Path, named: Path, cache: FileCache, total: int) -> None:
        places: dict[str, list[Mapping[str, Any]]] = {}
        for entry in needed:
            places.setdefault(entry["digest"], []).append(entry)
        root = os.path.abspath(named)
        done = total - len(needed)
        for group in _groups(places):
            seen: list[tuple[str, Stamp, str]] = []

            def put(digest: str, parts: Iterable[bytes], seen: list[tuple[str, Stamp, str]] = seen) -> None:
                nonlocal done
                first, *others = places[digest]
                at = _write(base / first["path"], parts, digest, first.get("mode"), aside=base == named)
                seen.append((f"{root}/{first['path']}", at, digest))
                for entry in others:
                    _copy(base / first["path"], base / entry["path"], entry.get("mode"))
                done += 1 + len(others)
                self.written += 1 + len(others)
                if done % 500 == 0:
                    self._say("files", done, total)

            rest = dict.fromkeys(group)
            for digest, parts in self._near.objects(group):
                with contextlib.suppress(Elsewhere, Corrupt):  # fetched below, where the server says what is wrong
                    put(digest, parts)
                    del rest[digest]
            if rest:
                with contextlib.closing(self.objects([*rest])) as arriving:
                    for digest, parts in arriving:
                        put(digest, parts)
            cache.put(seen)
            self._say("files", done, total)

    def objects(self, digests: Sequence[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """(digest, its bytes in parts) of each object, in order; the parts must be read before the next. Raises what the server could not read."""
        import json

        pieces = self._http.stream("POST", "/api/v1/objects/fetch", json={"digests": list(digests)}, timeout=SECONDS)
        frames = iter(packs.Frames(pieces))

        def parts() -> Iterator[bytes]:
            for kind, data in frames:
                if kind == packs.FAILED:
                    problem = json.loads(data)
                    raise from_problem(problem, int(problem.get("status", 500)))
                yield data
                if kind == packs.LAST:
                    return
            raise BadInput("The answer was cut short.", "Try again: what is there already is not fetched again.")

        for digest in digests:
            yield digest, parts()


def _groups(places: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for digest, entries in places.items():
        group.append(digest)
        size += entries[0].get("size") or 0
        if size >= GROUP_BYTES or len(group) >= FETCH_OBJECTS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _folders(entries: Iterable[Mapping[str, Any]], base: Path) -> None:
    """Make all folders that entries lie in, none of them through a link."""
    wanted = {entry["path"] if "folder" in entry else entry["path"].rpartition("/")[0] for entry in entries}
    made: set[str] = set()
    for path in sorted(wanted - {""}):
        parts = path.split("/")
        for i in range(len(parts)):
            one = "/".join(parts[: i + 1])
            if one in made:
                continue
            place = base / one
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise Conflict(f"{place} is in the way: a folder is needed there.", "Move it away, or check out to another place.")
            place.mkdir(exist_ok=True)
            made.add(one)


def _write(place: Path, parts: Iterable[bytes], digest: str, mode: int | None, aside: bool) -> Stamp:
    """Write verified bytes; `aside`: to another name first. Answers the stamp. Corrupt where they are not what the digest says."""
    from blake3 import blake3

    temp = f"{place.parent}/.{digest[:16]}.everloop" if aside else str(place)
    seen = blake3(max_threads=blake3.AUTO)
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode or 0o644)
        try:
            for part in parts:
                seen.update(part)
                os.write(fd, part) if len(part) < _READ else _write_all(fd, part)
            if seen.hexdigest() != digest:
                raise Corrupt(f"The bytes that came for {place.name} do not match their digest {digest}.", "Try again.")
            found = os.fstat(fd)
        finally:
            os.close(fd)
        if aside:
            os.rename(temp, place)
        return stamp(found)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise BadInput(f"{place} cannot be written: {error.strerror}.", "Free some space or choose another place; run it again to go on.") from error
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy(source: Path, target: Path, mode: int | None) -> None:
    temp = target.with_name(f".{target.name[:100]}.everloop")
    shutil.copyfile(source, temp)
    os.chmod(temp, mode or 0o644)
    os.replace(temp, target)


def _link(place: Path, target: str, force: bool) -> None:
    if place.is_symlink() and os.readlink(place) == target:
        return
    if place.is_symlink() or (place.exists() and force and not place.is_dir()):
        place.unlink()
    elif place.exists():
        raise Conflict(f"{place} is in the way of a symbolic link.", "Move it away, or replace it with --force.")
    os.symlink(target, place)


def _digest(place: str) -> str:
    """The digest of what is there: a file's content; a link or folder has none."""
    from blake3 import blake3

    if os.path.islink(place) or not os.path.isfile(place):
        raise Conflict(f"{place} is in the way: a file is needed there.", "Move it away, or check out to another place.")
    hasher = blake3(max_threads=blake3.AUTO)
    return str(hasher.update_mmap(place).hexdigest())
