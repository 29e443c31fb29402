"""Files and folders to the server's object store: read once, hashed here, and only what the server has not is sent, many files in one request.

Interrupted, it goes on where it was: what was sent is there, and what was read is remembered (client/file_cache.py).
"""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from everloop.client.file_cache import FileCache, Stamp, stamp
from everloop.client.http import ATTEMPTS, Unreachable
from everloop.core import packs, trees
from everloop.core.errors import BadInput
from everloop.core.limits import OBJECT_CHUNK_ABOVE, PACK_BYTES, PACK_ENTRIES

Progress = Callable[[str, int, int], None]
"""Called with (what is done, files or bytes done, of how many)."""
SECONDS = 1800.0
ASKED = 20_000
"""Files whose digests are asked for in one question."""
SKIPPED = {".git", ".everloop"}
"""Folders that are never part of a dataset: a repository's own and a server's state."""


class Upload:
    """Sends files' bytes. `progress` is told what goes on."""

    def __init__(self, http: Any, progress: Progress | None = None) -> None:
        self._http = http
        self._say = progress or (lambda what, done, total: None)
        self._batch = packs.Batch()
        self.sent = 0
        """Bytes that were sent, because the server had not got them."""

    def folder(self, base: Path) -> str:
        """Send a folder (or one file); answers the digest of its list of files. BadInput for what cannot be read or kept, by name."""
        found = local_entries(base)
        files = [one for one in found if one[1] is not None]
        if not files:
            raise BadInput(f"The folder {base} holds no files.", "Give a folder with files in it.")
        entries = [entry for _, at, entry in found if at is None]
        cache = FileCache()
        try:
            cache.load(os.path.abspath(base))
            entries += self._files(files, cache)
        finally:
            cache.close()
        return self.put(trees.dump(entries))

    def put(self, data: bytes) -> str:
        """Send bytes as one object; answers its digest."""
        digest = packs.digest_of(data)
        if digest in self._missing([digest]):
            if len(data) > OBJECT_CHUNK_ABOVE:
                return self._large(io.BytesIO(data), "list of files", len(data))[0]
            self._batch.add(digest, data)
            self._flush()
        return digest

    def _files(self, files: Sequence[tuple[str, Stamp | None, dict[str, Any]]], cache: FileCache) -> Iterator[dict[str, Any]]:
        done = 0
        for begin in range(0, len(files), ASKED):
            waiting: list[tuple[str, Stamp, dict[str, Any]]] = []
            size = 0
            for path, at, entry in files[begin : begin + ASKED]:
                assert at is not None
                waiting.append((path, at, entry))
                size += min(at[0], OBJECT_CHUNK_ABOVE)
                if size >= PACK_BYTES:
                    self._group(waiting, cache)
                    done += len(waiting)
                    self._say("files", done, len(files))
                    yield from (entry for _, _, entry in waiting)
                    waiting, size = [], 0
            self._group(waiting, cache)
            done += len(waiting)
            self._say("files", done, len(files))
            yield from (entry for _, _, entry in waiting)

    def _group(self, files: Sequence[tuple[str, Stamp, dict[str, Any]]], cache: FileCache) -> None:
        """Hash what is not known, ask what is missing, send that; each entry gets its digest and size."""
        held: dict[str, bytes] = {}
        seen: list[tuple[str, Stamp, str]] = []
        for path, at, entry in files:
            known = cache.get(path, at)
            if known is None and at[0] <= OBJECT_CHUNK_ABOVE:
                data, at = _read(path)
                known = packs.digest_of(data)
                held[known] = data
                seen.append((path, at, known))
            elif known is None:
                known, at = self._large_file(path)
                seen.append((path, at, known))
            entry |= {"digest": known, "size": at[0]}
        gone = set(self._missing([entry["digest"] for _, _, entry in files]))
        for path, _, entry in files:
            if entry["digest"] not in gone:
                continue
            gone.discard(entry["digest"])
            if entry["size"] > OBJECT_CHUNK_ABOVE:
                entry["digest"], (entry["size"], *_) = self._large_file(path)
                continue
            data = held.get(entry["digest"]) or _read(path)[0]
            entry |= {"digest": packs.digest_of(data), "size": len(data)}
            self._batch.add(entry["digest"], data)
            if self._batch.full:
                self._flush()
        self._flush()
        cache.put(seen)

    def _large_file(self, path: str) -> tuple[str, Stamp]:
        """Send what is missing of a large file; answers its digest, and the stamp that it had before it was read."""
        with _opened(path) as file:
            at = stamp(os.fstat(file.fileno()))
            digest, size = self._large(file, os.path.basename(path), at[0])
        return digest, (size, *at[1:])

    def _large(self, file: BinaryIO, name: str, total: int) -> tuple[str, int]:
        """Cut a large object into chunks, send those that are missing, then the list of them; answers (digest, size)."""
        from blake3 import blake3

        whole, chunks, done = blake3(max_threads=blake3.AUTO), [], 0
        waiting: dict[str, bytes] = {}
        held = 0
        for part in packs.cut(file.read):
            whole.update(part)
            digest = packs.digest_of(part)
            chunks.append((digest, len(part)))
            waiting[digest] = part
            done += len(part)
            held += len(part)
            if held >= PACK_BYTES:
                self._chunks(waiting)
                waiting, held = {}, 0
                self._say(name, done, total)
        self._chunks(waiting)
        digest = whole.hexdigest()
        if self._missing([digest]):
            body = {"digest": digest, "size": done, "chunks": chunks}
            self._again(lambda: self._http.post("/api/v1/objects/lists", json=body, timeout=SECONDS))
        return digest, done

    def _chunks(self, waiting: dict[str, bytes]) -> None:
        for digest in self._missing(waiting):
            self._batch.add(digest, waiting[digest])
        self._flush()

    def _missing(self, digests: Iterable[str]) -> list[str]:
        asked = list(dict.fromkeys(digests))
        if not asked:
            return []
        return list(self._again(lambda: self._http.post("/api/v1/objects/missing", json={"digests": asked}))["missing"])

    def _flush(self) -> None:
        """Send what is collected, as one pack."""
        items = self._batch.take()
        for begin in range(0, len(items), PACK_ENTRIES):
            body = b"".join(packs.build(items[begin : begin + PACK_ENTRIES])[1])
            self._again(lambda body=body: self._http.post("/api/v1/objects/packs", data=body, timeout=SECONDS))  # type: ignore[misc]
            self.sent += len(body)

    def _again(self, call: Callable[[], Any]) -> Any:
        """A call that may be repeated without harm, tried again where no answer came."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except Unreachable:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")


def local_files(base: Path, cache: FileCache) -> list[dict[str, Any]]:
    """The entries of a folder (or one file) as `Upload.folder` would send them, hashed here and not sent."""
    found = local_entries(base)
    seen: list[tuple[str, Stamp, str]] = []
    try:
        cache.load(os.path.abspath(base))
        for path, at, entry in found:
            if at is None:
                continue
            digest = cache.get(path, at)
            if digest is None:
                digest, at = _hash(path)
                seen.append((path, at, digest))
            entry |= {"digest": digest, "size": at[0]}
        cache.put(seen)
    finally:
        cache.close()
    return [entry for _, _, entry in found]


def local_entries(base: Path) -> list[tuple[str, Stamp | None, dict[str, Any]]]:
    """(absolute path, stamp or None, entry) of all in a folder, or of one file; not hashed yet."""
    return [*_walk(base)] if base.is_dir() else [_one(base)]


def _walk(base: Path) -> Iterator[tuple[str, Stamp | None, dict[str, Any]]]:
    """(absolute path, stamp or None, entry) of all in a folder: files, links that stay inside, empty folders. Others are refused by name."""
    root = os.path.abspath(base)
    stack = [("", root)]
    while stack:
        inside, folder = stack.pop()
        try:
            with os.scandir(folder) as listed:
                children = list(listed)
        except OSError as error:
            raise BadInput(f"The folder {folder} cannot be read: {error.strerror}.", "Give yourself the right to read it.") from None
        if not children and inside:
            yield folder, None, {"path": inside, "folder": True}
        for entry in children:
            path = trees.check_path(f"{inside}/{entry.name}" if inside else entry.name)
            if entry.is_symlink():
                yield entry.path, None, {"path": path, "link": trees.check_link(path, os.readlink(entry.path))}
            elif entry.is_dir():
                if entry.name not in SKIPPED:
                    stack.append((path, entry.path))
            else:
                yield entry.path, *_described(path, entry.stat())


def _one(file: Path) -> tuple[str, Stamp, dict[str, Any]]:
    try:
        found = file.stat()
    except OSError as error:
        raise BadInput(f"The file {file} cannot be read: {error.strerror}.", "Check the name and that you may read it.") from None
    return os.path.abspath(file), *_described(trees.check_path(file.name), found)


def _described(path: str, found: os.stat_result) -> tuple[Stamp, dict[str, Any]]:
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{path} is neither a file, a folder nor a link.", "Leave it out: sockets, pipes and devices cannot be kept.")
    entry: dict[str, Any] = {"path": path, "digest": "", "size": found.st_size}
    if found.st_mode & 0o100:
        entry["mode"] = trees.EXECUTABLE
    return stamp(found), entry


def _opened(path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadInput(f"The file {path} cannot be read: {error.strerror}.", "Give yourself the right to read it, or leave it out.") from None


def _read(path: str) -> tuple[bytes, Stamp]:
    """A file's bytes, with the stamp that it had before they were read."""
    with _opened(path) as file:
        at = stamp(os.fstat(file.fileno()))
        data = file.read()
    return data, (len(data), *at[1:])


def _hash(path: str) -> tuple[str, Stamp]:
    """A file's digest, with the stamp that it had before it was read."""
    from blake3 import blake3

    hasher, size = blake3(), 0
    with _opened(path) as file:
        at = stamp(os.fstat(file.fileno()))
        while block := file.read(4 * 1024 * 1024):
            hasher.update(block)
            size += len(block)
    return hasher.hexdigest(), (size, *at[1:])
