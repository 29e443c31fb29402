"""Objects: immutable bytes named by their BLAKE3 digest, one namespace a project.

An object up to OBJECT_CHUNK_ABOVE is one file. A larger one is cut where its content says (FastCDC), so that two versions of a file
share the chunks they have in common; a list of the chunks in order, guarded by a checksum, stands for it:

    <root>/<project>/objects/ab/<digest>        the bytes, or
    <root>/<project>/objects/ab/<digest>.list   {"digest", "size", "chunks": [[digest, size], ...]} after a line with its BLAKE3
    <root>/<project>/chunks/cd/<digest>         a chunk, shared by the lists that name it
    <root>/<project>/whole/<digest>             a chunked object put together, for those that need a path; a cache

Each file is written aside, fsynced, renamed into place, and its folder fsynced, so an object is there whole or not at all. Processes
on the same host may put at the same time: putting takes a shared lock on the project, deleting an exclusive one. What is read is
checked against its digest.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import mmap
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson

from everloop.core.errors import BadInput, Corrupt, NotFound
from everloop.core.limits import OBJECT_CHUNK, OBJECT_CHUNK_ABOVE, OBJECT_WHOLE_BYTES, OBJECT_WHOLE_SECONDS
from everloop.store.files import make_folder, sync_folder, temp_name, write_error, write_parts

Source = bytes | Path | BinaryIO
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")
_READ = 1024 * 1024
_STALE_SECONDS = 24 * 3600.0


class ObjectStore(Protocol):
    """What a place for objects can do; a folder now, object storage later. All raise NotFound and Corrupt alike."""

    def put(self, project: str, data: Source) -> tuple[str, int]:
        """Keep the bytes; answers (digest, size) once they are durable."""

    def get(self, project: str, digest: str) -> bytes:
        """All bytes, verified."""

    def open(self, project: str, digest: str) -> BinaryIO:
        """A seekable reader that verifies as it goes."""

    def has(self, project: str, digest: str) -> bool:
        """Whether the project has it."""

    def size(self, project: str, digest: str) -> int:
        """How many bytes it has."""

    def path(self, project: str, digest: str) -> Path:
        """A read-only file with the bytes, verified when it was made."""

    def export(self, project: str, digest: str, target: Path) -> Path:
        """Copy the bytes, verified, to a file of the caller's."""

    def delete(self, project: str, digest: str) -> bool:
        """Remove it with the chunks that nothing else needs; answers whether it was there."""


def digest_of(data: bytes) -> str:
    """BLAKE3 of the bytes, 64 hex characters."""
    from blake3 import blake3

    return blake3(data).hexdigest()


class Objects:
    """Objects in a folder. `fsync=False` is for tests of other things."""

    def __init__(self, root: Path, fsync: bool = True) -> None:
        self.root = Path(root)
        self.fsync = fsync
        self._ready: set[Path] = set()

    def put(self, project: str, data: Source) -> tuple[str, int]:
        """Keep bytes, a file's content or a stream, in `project`; answers (digest, size in bytes) once durable.

        Raises NoSpace where the disk is full or read-only, NotFound where the file to read is missing; nothing is kept then.
        """
        base = self._base(project)
        if isinstance(data, Path):
            try:
                source = open(data, "rb")  # noqa: SIM115 - closed below
            except OSError as error:
                raise NotFound(f"The file {data} cannot be read: {error.strerror}.") from error
            with source:
                return self.put(project, source)
        try:
            if isinstance(data, (bytes, bytearray, memoryview)):
                if len(data) <= OBJECT_CHUNK_ABOVE:
                    with self._lock(base, exclusive=False):
                        return self._put_small(base, bytes(data))
                return self._put_view(base, memoryview(data))
            return self._put_stream(base, data)
        except OSError as error:
            raise write_error(error, self.root) from error

    def get(self, project: str, digest: str) -> bytes:
        """All bytes of an object. NotFound if the project has none such, Corrupt if what is stored does not match the digest."""
        place = self._place(project, digest)
        try:
            data = place.read_bytes()
        except FileNotFoundError:
            reader = _Chunks(self, project, digest)
            data = b"".join(reader.parts())
        _check(data, digest, place)
        return data

    def open(self, project: str, digest: str) -> BinaryIO:
        """A seekable reader of an object; small ones are verified now, chunked ones chunk by chunk as they are read."""
        place = self._place(project, digest)
        if place.exists():
            return io.BytesIO(self.get(project, digest))
        return io.BufferedReader(_Chunks(self, project, digest), buffer_size=_READ)

    def has(self, project: str, digest: str) -> bool:
        """Whether the project has this object."""
        place = self._place(project, digest)
        return place.exists() or _list_of(place).exists()

    def size(self, project: str, digest: str) -> int:
        """Size of an object in bytes; NotFound if the project has none such."""
        try:
            return self._place(project, digest).stat().st_size
        except FileNotFoundError:
            return _Chunks(self, project, digest).total

    def path(self, project: str, digest: str) -> Path:
        """A read-only file with the object's bytes, for libraries that want a path. Do not write to it, do not keep it for hours."""
        place = self._place(project, digest)
        if place.exists():
            self.get(project, digest)
            return place
        whole = self._base(project) / "whole" / digest
        if whole.exists():
            with contextlib.suppress(OSError):
                os.utime(whole)
            return whole
        self._folder(whole.parent)
        self._trim(whole.parent)
        return self._copy(project, digest, whole, mode=0o444)

    def export(self, project: str, digest: str, target: Path) -> Path:
        """Copy an object, verified, to `target` (replaced if it exists); it is the caller's file, free to edit."""
        return self._copy(project, digest, Path(target), mode=0o644)

    def delete(self, project: str, digest: str) -> bool:
        """Remove an object and the chunks that no other object of the project has; answers whether it was there."""
        place = self._place(project, digest)
        base = self._base(project)
        if not base.is_dir():
            return False
        try:
            with self._lock(base, exclusive=True):
                (base / "whole" / digest).unlink(missing_ok=True)
                if place.exists():
                    place.unlink()
                    self._sync(place.parent)
                    return True
                if not _list_of(place).exists():
                    return False
                gone = {chunk for chunk, _ in _Chunks(self, project, digest).chunks}
                _list_of(place).unlink()
                self._sync(place.parent)
                self._drop_chunks(base, project, gone)
                return True
        except OSError as error:
            raise write_error(error, self.root) from error

    def digests(self, project: str) -> Iterator[str]:
        """The digests of all objects of a project, in order of their folders."""
        for file in sorted((self._base(project) / "objects").glob("*/*")):
            yield file.name.removesuffix(".list")

    # -- writing ------------------------------------------------------------------------------------------------------------------------

    def _put_small(self, base: Path, data: bytes) -> tuple[str, int]:
        digest = digest_of(data)
        self._store(base, "objects", digest, data)
        return digest, len(data)

    def _put_stream(self, base: Path, source: BinaryIO) -> tuple[str, int]:
        """A stream that fits in one object is put at once; a longer one is mapped where it is a file, else spooled to a file first."""
        head = source.read(OBJECT_CHUNK_ABOVE + 1)
        if len(head) <= OBJECT_CHUNK_ABOVE:
            with self._lock(base, exclusive=False):
                return self._put_small(base, head)
        temp = temp_name(self._folder(base / "tmp"))
        try:
            with open(temp, "wb") as spool:  # a copy: the caller's file may change while we cut it
                spool.write(head)
                while block := source.read(_READ):
                    spool.write(block)
            with open(temp, "rb") as spooled, mmap.mmap(spooled.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return self._put_view(base, memoryview(mapped))
        finally:
            temp.unlink(missing_ok=True)

    def _put_view(self, base: Path, view: memoryview) -> tuple[str, int]:
        from blake3 import blake3
        from fastcdc import fastcdc

        whole = blake3()
        chunks: list[tuple[str, int]] = []
        least, average, most = OBJECT_CHUNK
        try:
            with self._lock(base, exclusive=False):
                for cut in fastcdc(view, least, average, most):
                    part = bytes(view[cut.offset : cut.offset + cut.length])
                    whole.update(part)
                    name = digest_of(part)
                    self._store(base, "chunks", name, part)
                    chunks.append((name, len(part)))
                digest, size = whole.hexdigest(), len(view)
                body = orjson.dumps({"digest": digest, "size": size, "chunks": chunks})
                self._store(base, "objects", digest + ".list", digest_of(body).encode() + b"\n" + body)
                return digest, size
        finally:
            view.release()

    def _store(self, base: Path, part: str, name: str, data: bytes) -> None:
        """Put one file in place. One that is there already is trusted if its size fits, else replaced; its folder is fsynced either
        way, since whoever put it may not have come so far yet."""
        folder = self._folder(base / part / name[:2])
        place = folder / name
        try:
            there = place.stat().st_size == len(data)
        except FileNotFoundError:
            there = False
        if not there:
            temp = temp_name(self._folder(base / "tmp"))
            write_parts(temp, [data], self.fsync)
            try:
                os.rename(temp, place)
            except BaseException:
                temp.unlink(missing_ok=True)
                raise
        self._sync(folder)

    def _copy(self, project: str, digest: str, target: Path, mode: int) -> Path:
        """Write an object's verified bytes beside `target`, then rename it there."""
        from blake3 import blake3

        place = self._place(project, digest)
        parts = [self.get(project, digest)] if place.exists() else _Chunks(self, project, digest).parts()
        seen = blake3()

        def checked() -> Iterator[bytes]:
            for part in parts:
                seen.update(part)
                yield part
            if seen.hexdigest() != digest:
                raise Corrupt(f"The object {digest} does not match its digest.", "Restore it from a backup, or make the asset anew.")

        temp = temp_name(target.parent)
        try:
            write_parts(temp, checked(), self.fsync, mode)
            os.replace(temp, target)
            self._sync(target.parent)
        except OSError as error:
            temp.unlink(missing_ok=True)
            raise write_error(error, target.parent) from error
        return target

    def _drop_chunks(self, base: Path, project: str, gone: set[str]) -> None:
        """Remove the chunks in `gone` that no list still names (called with the exclusive lock held)."""
        for file in (base / "objects").glob("*/*.list"):
            gone -= {chunk for chunk, _ in _Chunks(self, project, file.name.removesuffix(".list")).chunks}
        for chunk in gone:
            (base / "chunks" / chunk[:2] / chunk).unlink(missing_ok=True)
        for folder in {base / "chunks" / chunk[:2] for chunk in gone}:
            self._sync(folder)

    def _trim(self, folder: Path) -> None:
        """Keep the assembled objects within OBJECT_WHOLE_BYTES, longest unused first, none used in the last OBJECT_WHOLE_SECONDS."""
        files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda pair: pair[0].st_mtime)
        total = sum(stat.st_size for stat, _ in files)
        for stat, file in files:
            if total <= OBJECT_WHOLE_BYTES or stat.st_mtime > time.time() - OBJECT_WHOLE_SECONDS:
                return
            file.unlink(missing_ok=True)
            total -= stat.st_size

    # -- places -------------------------------------------------------------------------------------------------------------------------

    def _base(self, project: str) -> Path:
        """The project's folder: its name where that is safe on every file system, else a digest of it."""
        return self.root / (project if _PLAIN.fullmatch(project) else "~" + digest_of(project.encode())[:40])

    def _place(self, project: str, digest: str) -> Path:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BadInput(f"{str(digest)[:80]!r} is not a digest.", "A digest is 64 lowercase hex characters (BLAKE3).")
        return self._base(project) / "objects" / digest[:2] / digest

    def _folder(self, folder: Path) -> Path:
        """The folder, made and durable; looked at once a process."""
        if folder not in self._ready:
            make_folder(folder, self.fsync)
            if folder.name == "tmp":
                self._clear(folder)
            self._ready.add(folder)
        elif not folder.is_dir():
            make_folder(folder, self.fsync)
        return folder

    def _clear(self, folder: Path) -> None:
        """Remove what writers that died left behind a day ago or longer."""
        for file in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < time.time() - _STALE_SECONDS:
                    file.unlink()

    def _sync(self, folder: Path) -> None:
        if self.fsync:
            sync_folder(folder)

    @contextlib.contextmanager
    def _lock(self, base: Path, exclusive: bool) -> Iterator[None]:
        """The project's lock, between threads and between processes of this host."""
        self._folder(base)
        fd = os.open(base / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)


class _Chunks(io.RawIOBase):
    """A chunked object as a readable, seekable file; each chunk is checked when it is read."""

    def __init__(self, store: Objects, project: str, digest: str) -> None:
        place = store._place(project, digest)
        self._folder = store._base(project) / "chunks"
        try:
            head, _, body = _list_of(place).read_bytes().partition(b"\n")
        except FileNotFoundError:
            raise NotFound(f"The project {project!r} has no object {digest}.", "Put it first: POST /api/v1/objects") from None
        _check(body, head.decode(errors="replace"), _list_of(place))
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
        place = self._folder / name[:2] / name
        try:
            data = place.read_bytes()
        except FileNotFoundError:
            raise Corrupt(f"The chunk {name} of an object is missing.", "Restore it from a backup, or make the asset anew.") from None
        _check(data, name, place)
        self._held = (index, data)
        return data


def _list_of(place: Path) -> Path:
    return place.with_name(place.name + ".list")


def _check(data: bytes, digest: str, place: Path) -> None:
    if digest_of(data) != digest:
        raise Corrupt(f"{place} does not match its digest.", "The file was changed on disk: restore it from a backup, or make the asset anew.")
