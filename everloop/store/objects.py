"""Objects: immutable bytes named by their BLAKE3 digest, one namespace a project, in a folder or a bucket (store/places.py).

An object up to OBJECT_CHUNK_ABOVE put alone is one file; many small ones put together lie in packs. A larger one is cut where its content says
(FastCDC), its chunks lie in packs, so versions share what they have in common, and a list of the chunks, guarded by a checksum, stands for it:

    <project>/objects/ab/<digest>        the bytes, or
    <project>/objects/ab/<digest>.list   {"digest", "size", "chunks": [[digest, size], ...]} after a line with its BLAKE3
    <project>/packs/<name>               objects and chunks (core/packs.py says how)
    <project>/chunks/cd/<digest>         a chunk of its own, as earlier versions wrote them
    <project>/whole/<digest>             on this host: an object put together, for those that need a path; a cache

What is read is checked against its digest. Processes on one host may put at the same time: putting takes a shared lock on the project, sweeping
(store/sweep.py) an exclusive one; what is found again counts as just written, so that no sweep takes it before it is referred to.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import orjson

from everloop.core import packs
from everloop.core.errors import BadInput, Corrupt, NotFound
from everloop.core.limits import OBJECT_CHUNK_ABOVE, OBJECT_TOUCH_SECONDS, OBJECT_WHOLE_BYTES, OBJECT_WHOLE_SECONDS, OBJECTS_ASKED
from everloop.core.packs import digest_of
from everloop.store.files import make_folder, sync_folder, temp_name, write_error, write_parts
from everloop.store.pack_index import PackIndex
from everloop.store.places import Folder, Place

__all__ = ["Objects", "digest_of"]

Source = bytes | Path | BinaryIO
DIGEST = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
_READ = 1024 * 1024


class Objects:
    """Objects in a place; without one in the folder `root`, which else holds only locks and the cache. `fsync=False` is for tests of other things."""

    def __init__(self, root: Path, fsync: bool = True, place: Place | None = None) -> None:
        self.root = Path(root)
        self.fsync = fsync
        self.place: Place = place or Folder(self.root, fsync)
        self._indexes: dict[str, PackIndex] = {}
        self._lock = threading.Lock()

    # -- writing ------------------------------------------------------------------------------------------------------------------------

    def put(self, project: str, data: Source) -> tuple[str, int]:
        """Keep bytes, a file's content or a stream, in `project`; answers (digest, size in bytes) once durable.

        Raises NoSpace where the disk is full or read-only, NotFound where the file to read is missing; nothing is kept then.
        """
        if isinstance(data, Path):
            try:
                source = open(data, "rb")  # noqa: SIM115 - closed below
            except OSError as error:
                raise NotFound(f"The file {data} cannot be read: {error.strerror}.") from error
            with source:
                return self.put(project, source)
        with self._writing():
            if isinstance(data, (bytes, bytearray, memoryview)):
                if len(data) <= OBJECT_CHUNK_ABOVE:
                    return self._put_small(project, bytes(data))
                data = io.BytesIO(data)
            return self._put_stream(project, data)

    def put_many(self, project: str, items: Iterable[bytes]) -> list[tuple[str, int]]:
        """Keep many small objects in packs; answers (digest, size) of each. A large one among them is put as `put` does."""
        found, batch = [], packs.Batch()
        with self._writing(), self.lock(project, exclusive=False):
            for data in items:
                if len(data) > OBJECT_CHUNK_ABOVE:
                    found.append(self._put_large(project, io.BytesIO(data).read))
                    continue
                digest = digest_of(data)
                found.append((digest, len(data)))
                if not self._found_again(project, digest):
                    batch.add(digest, data)
                    if batch.full:
                        self._put_pack(project, batch)
            self._put_pack(project, batch)
        return found

    def put_blob(self, project: str, data: bytes) -> str:
        """Keep bytes in one piece whatever their size, as a chunk is; answers the digest."""
        batch = packs.Batch()
        digest = digest_of(data)
        with self._writing(), self.lock(project, exclusive=False):
            if not self._found_again(project, digest):
                batch.add(digest, data)
                self._put_pack(project, batch)
        return digest

    def set_place(self, place: Place) -> None:
        """Read and write another place from now on."""
        with self._lock:
            self.place = place
            self._indexes = {}

    def add_pack(self, project: str, file: Path) -> int:
        """Take in a pack that a client made, a file that nobody writes to any more; answers how many objects it has.

        BadInput where it is cut short, or where bytes do not match the digest they are said to have; nothing is kept then.
        """
        name, found = _checked_pack(file)
        key = f"{self.key(project)}/packs/{name}"
        with self._writing(), self.lock(project, exclusive=False):
            self.place.take(key, file)
        self.index(project).add(key, found)
        return len(found)

    def add_list(self, project: str, digest: str, size: int, chunks: Sequence[tuple[str, int]]) -> None:
        """Make an object of chunks that are there. NotFound names a chunk that is not; BadInput where the whole is not what its digest says."""
        from blake3 import blake3

        self._need(digest)
        if sum(n for _, n in chunks) != size:
            raise BadInput(f"The chunks of {digest} have {sum(n for _, n in chunks)} bytes together, not {size}.", "Send the list again.")
        whole = blake3()
        for name, length in chunks:
            data = self.get_blob(project, name)
            if data is None or len(data) != length:
                raise NotFound(f"The chunk {name} of {digest} is not here.", "Send its pack first: POST /api/v1/objects/packs")
            whole.update(data)
        if whole.hexdigest() != digest:
            raise BadInput(f"The chunks sent make {whole.hexdigest()}, not {digest}.", "The file changed while it was read: add it again.")
        with self._writing(), self.lock(project, exclusive=False):
            self._put_list(project, digest, size, chunks)

    def missing(self, project: str, digests: Sequence[str]) -> list[str]:
        """Those of the digests that the project has not; the others count as just written (see store/sweep.py)."""
        if len(digests) > OBJECTS_ASKED:
            raise BadInput(f"{len(digests):,} digests were asked for; at most {OBJECTS_ASKED:,} go in one question.", "Ask in parts.")
        for digest in digests:
            self._need(digest)
        with self.lock(project, exclusive=False):
            at = self.index(project).find_many(digests)
            for key in {found.key for found in at if found is not None}:
                self._touch(key)
            return [d for d, found in zip(digests, at, strict=True) if found is None and not self._touch_loose(project, d)]

    # -- reading ------------------------------------------------------------------------------------------------------------------------

    def get(self, project: str, digest: str) -> bytes:
        """All bytes of an object. NotFound if the project has none such, Corrupt if what is stored does not match the digest."""
        return b"".join(self.parts(project, digest))

    def parts(self, project: str, digest: str) -> Iterator[bytes]:
        """An object's bytes piece by piece, each verified before it is handed on, and the whole of a chunked one at the end."""
        data = self.get_blob(project, digest)
        if data is not None:
            yield data
            return
        from blake3 import blake3

        whole = blake3()
        for part in Chunks(self, project, digest).parts():
            whole.update(part)
            yield part
        if whole.hexdigest() != digest:
            raise _damaged(f"The object {digest}")

    def open(self, project: str, digest: str) -> BinaryIO:
        """A seekable reader of an object; small ones are verified now, chunked ones chunk by chunk as they are read."""
        data = self.get_blob(project, digest)
        if data is not None:
            return io.BytesIO(data)
        return io.BufferedReader(Chunks(self, project, digest), buffer_size=_READ)

    def has(self, project: str, digest: str) -> bool:
        """Whether the project has this object. What is found counts as just written."""
        return not self.missing(project, [digest])

    def size(self, project: str, digest: str) -> int:
        """Size of an object in bytes; NotFound if the project has none such."""
        self._need(digest)
        at = self.index(project).find(digest) or self.index(project).find(digest, refresh=True)
        if at is not None:
            return at.size
        found = self.place.stat(self.loose(project, digest))
        return found.size if found else Chunks(self, project, digest).total

    def path(self, project: str, digest: str) -> Path:
        """A read-only file with the object's bytes, for libraries that want a path. Do not write to it, do not keep it for hours."""
        self._need(digest)
        file = self.place.file(self.loose(project, digest))
        if file is not None:
            self.get(project, digest)
            return file
        whole = self.root / self.key(project) / "whole" / digest
        if whole.exists():
            with contextlib.suppress(OSError):
                os.utime(whole)
            return whole
        make_folder(whole.parent, self.fsync)
        _trim(whole.parent)
        return self._copy(project, digest, whole, mode=0o444)

    def export(self, project: str, digest: str, target: Path) -> Path:
        """Copy an object, verified, to `target` (replaced if it exists); it is the caller's file, free to edit."""
        return self._copy(project, digest, Path(target), mode=0o644)

    def get_blob(self, project: str, digest: str) -> bytes | None:
        """An object or chunk that lies in one piece, verified; None where there is none."""
        self._need(digest)
        index, damaged = self.index(project), ""
        for refresh in (False, True):
            at = index.find(digest, refresh=refresh)
            keys = [] if refresh else [self.loose(project, digest), f"{self.key(project)}/chunks/{digest[:2]}/{digest}"]
            for key in ([at.key] if at is not None else []) + keys:
                try:
                    data = self.place.read(key, at.offset, at.size) if at is not None and key == at.key else self.place.read(key)
                except FileNotFoundError:
                    continue
                if digest_of(data) == digest:
                    return data
                damaged = damaged or key
        if damaged:
            raise _damaged(f"The object {digest} (in {damaged})")
        return None

    def check(self) -> None:
        """Raise what is wrong with a place that is not a folder of this host (a missing bucket, refused credentials), before it is needed."""
        look = getattr(self.place, "check", None)
        if look is not None:
            look()

    # -- places -------------------------------------------------------------------------------------------------------------------------

    def key(self, project: str) -> str:
        """The project's folder: its name where that is safe on every file system, else a digest of it."""
        return project if _PLAIN.fullmatch(project) else "~" + digest_of(project.encode())[:40]

    def loose(self, project: str, digest: str) -> str:
        """The key of an object of its own file."""
        return f"{self.key(project)}/objects/{digest[:2]}/{digest}"

    def index(self, project: str) -> PackIndex:
        """What the project's packs hold."""
        with self._lock:
            if project not in self._indexes:
                self._indexes[project] = PackIndex(self.place, self.key(project))
            return self._indexes[project]

    @contextlib.contextmanager
    def lock(self, project: str, exclusive: bool) -> Iterator[None]:
        """The project's lock, between threads and between processes of this host."""
        base = self.root / self.key(project)
        if not base.is_dir():
            make_folder(base, self.fsync)
        fd = os.open(base / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(error, self.root) from error

    def _put_small(self, project: str, data: bytes) -> tuple[str, int]:
        digest = digest_of(data)
        with self.lock(project, exclusive=False):
            if not self._found_again(project, digest, len(data)):
                self.place.write(self.loose(project, digest), [data])
        return digest, len(data)

    def _put_stream(self, project: str, source: BinaryIO) -> tuple[str, int]:
        head = source.read(OBJECT_CHUNK_ABOVE + 1)
        if len(head) <= OBJECT_CHUNK_ABOVE:
            return self._put_small(project, head)
        held = [head]
        with self.lock(project, exclusive=False):
            return self._put_large(project, lambda size: held.pop() if held else source.read(size))

    def _put_large(self, project: str, read: Callable[[int], bytes]) -> tuple[str, int]:
        """Cut what `read` answers into chunks, keep those that are new, then their list (called with the lock held)."""
        from blake3 import blake3

        whole, chunks, batch = blake3(), [], packs.Batch()
        for part in packs.cut(read):
            whole.update(part)
            name = digest_of(part)
            chunks.append((name, len(part)))
            if not self._found_again(project, name):
                batch.add(name, part)
                if batch.full:
                    self._put_pack(project, batch)
        self._put_pack(project, batch)
        digest, size = whole.hexdigest(), sum(n for _, n in chunks)
        self._put_list(project, digest, size, chunks)
        return digest, size

    def _put_pack(self, project: str, batch: packs.Batch) -> None:
        items = batch.take()
        if items:
            name, parts = packs.build(items)
            key = f"{self.key(project)}/packs/{name}"
            self.place.write(key, parts)
            self.index(project).add(key, packs.entries(parts[0])[1])

    def _put_list(self, project: str, digest: str, size: int, chunks: Sequence[tuple[str, int]]) -> None:
        body = orjson.dumps({"digest": digest, "size": size, "chunks": chunks})
        self.place.write(self.loose(project, digest) + ".list", [digest_of(body).encode() + b"\n" + body])

    def _found_again(self, project: str, digest: str, size: int | None = None) -> bool:
        """Whether an object or chunk lies somewhere in one piece; it then counts as just written. A file of another size is no find."""
        at = self.index(project).find(digest)
        if at is not None and self.place.stat(at.key) is not None:
            self._touch(at.key)
            return True
        key = self.loose(project, digest)
        for place in (key, f"{self.key(project)}/chunks/{digest[:2]}/{digest}"):
            found = self.place.stat(place)
            if found is not None and (size is None or found.size == size):
                self._touch(place)
                if self.fsync and (file := self.place.file(place)) is not None:
                    sync_folder(file.parent)  # whoever put it may not have come so far yet
                return True
        return False

    def _touch_loose(self, project: str, digest: str) -> bool:
        key = self.loose(project, digest)
        return any(self._touch(one) for one in (key, key + ".list", f"{self.key(project)}/chunks/{digest[:2]}/{digest}"))

    def _touch(self, key: str) -> bool:
        found = self.place.stat(key)
        if found is not None and found.at < time.time() - OBJECT_TOUCH_SECONDS:
            self.place.touch(key)
        return found is not None

    def _copy(self, project: str, digest: str, target: Path, mode: int) -> Path:
        """Write an object's verified bytes beside `target`, then rename it there."""
        temp = temp_name(target.parent)
        try:
            write_parts(temp, self.parts(project, digest), self.fsync, mode)
            os.replace(temp, target)
            if self.fsync:
                sync_folder(target.parent)
        except OSError as error:
            temp.unlink(missing_ok=True)
            raise write_error(error, target.parent) from error
        return target

    def _need(self, digest: str) -> None:
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise BadInput(f"{str(digest)[:80]!r} is not a digest.", "A digest is 64 lowercase hex characters (BLAKE3).")


class Chunks(io.RawIOBase):
    """A chunked object as a readable, seekable file; each chunk is checked when it is read."""

    def __init__(self, store: Objects, project: str, digest: str) -> None:
        self._store, self._project = store, project
        key = store.loose(project, digest) + ".list"
        try:
            head, _, body = store.place.read(key).partition(b"\n")
        except FileNotFoundError:
            raise NotFound(f"The project {project!r} has no object {digest}.", "Put it first: POST /api/v1/objects") from None
        if digest_of(body) != head.decode(errors="replace"):
            raise _damaged(f"The list of chunks of the object {digest}")
        listed = orjson.loads(body)
        self.chunks: list[tuple[str, int]] = [(name, size) for name, size in listed["chunks"]]
        self.total: int = listed["size"]
        self._starts = [0]
        for _, size in self.chunks:
            self._starts.append(self._starts[-1] + size)
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def parts(self) -> Iterator[bytes]:
        """All chunks in order, each checked."""
        for index in range(len(self.chunks)):
            yield self._chunk(index)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.total}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at >= self.total:
            return 0
        import bisect

        index = bisect.bisect_right(self._starts, self._at) - 1
        data = self._chunk(index)
        begin = self._at - self._starts[index]
        part = data[begin : begin + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _chunk(self, index: int) -> bytes:
        if self._held[0] == index:
            return self._held[1]
        name, _ = self.chunks[index]
        data = self._store.get_blob(self._project, name)
        if data is None:
            raise Corrupt(f"The chunk {name} of an object is missing.", "Restore it from a backup, or make the asset anew.")
        self._held = (index, data)
        return data


def _checked_pack(file: Path) -> tuple[str, list[tuple[str, int, int]]]:
    """(name, entries) of a pack file whose every byte was checked."""
    try:
        with open(file, "rb") as source:
            head = source.read(packs.HEAD.size)
            header = head + source.read(packs.header_size(head) - len(head))
            name, found = packs.entries(header)
            for digest, _, size in found:
                data = source.read(size)
                if len(data) < size:
                    raise BadInput(f"The pack was cut short: {len(data)} of {size} bytes of {digest} came.", "Send it again.")
                if digest_of(data) != digest:
                    raise BadInput(f"Bytes sent as {digest} are {digest_of(data)}.", "They changed on their way: send the pack again.")
            if source.read(1):
                raise BadInput("The pack goes on after its last object.", "Send it again.")
            return name, found
    except OSError as error:
        raise NotFound(f"The file {file} cannot be read: {error.strerror}.") from error


def _trim(folder: Path) -> None:
    """Keep the assembled objects within OBJECT_WHOLE_BYTES, longest unused first, none used in the last OBJECT_WHOLE_SECONDS."""
    files = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread's, renamed just now
            files.append((file.stat(), file))
    files.sort(key=lambda pair: pair[0].st_mtime)
    total = sum(stat.st_size for stat, _ in files)
    for stat, file in files:
        if total <= OBJECT_WHOLE_BYTES or stat.st_mtime > time.time() - OBJECT_WHOLE_SECONDS:
            return
        file.unlink(missing_ok=True)
        total -= stat.st_size


def _damaged(what: str) -> Corrupt:
    return Corrupt(
        f"{what} does not match its digest.",
        "The file was changed on disk: everloop data verify --repair looks for another copy; else restore it from a backup, or make the asset anew.",
    )
