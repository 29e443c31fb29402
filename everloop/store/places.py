"""Where objects' files lie: a folder, or a bucket of object storage, behind one small seam. Keys are `<project>/<part>/<name>`.

A file is there whole or not at all, and durable once `write` answers. Every place passes the same tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from everloop.core.errors import BadInput
from everloop.store.files import make_folder, sync_file, sync_folder, temp_name, write_error, write_parts

_STALE_SECONDS = 24 * 3600.0


class Found(NamedTuple):
    """A file of a place: its key, size in bytes, and when it was last written or touched."""

    key: str
    size: int
    at: float


class Place(Protocol):
    """What a place can do. A file that is not there: FileNotFoundError when read, None from `stat`."""

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Keep the joined parts under `key`, durable; replaces what is there. NoSpace or UpstreamFailed if that fails, and nothing is kept."""

    def take(self, key: str, file: Path) -> None:
        """Keep a finished file of this host; nobody writes to it any more."""

    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        """A file, or `size` bytes of it from `offset`."""

    def stat(self, key: str) -> Found | None:
        """Size and time of a file, or None."""

    def touch(self, key: str) -> None:
        """Make a file count as just written (it was found and will be used again)."""

    def remove(self, key: str) -> bool:
        """Delete a file; answers whether it was there."""

    def list(self, prefix: str) -> Iterator[Found]:
        """Files whose key begins with `prefix` + "/", in no order."""

    def state(self, prefix: str) -> object:
        """A value that is another one after a file directly below `prefix` came or went; None where that cannot be told."""

    def file(self, key: str) -> Path | None:
        """The file itself where it lies on this host and is there."""


class Folder:
    """Files below a folder of this host. `fsync=False` is for tests of other things."""

    def __init__(self, root: Path, fsync: bool = True) -> None:
        self.root = Path(root)
        self.fsync = fsync
        self._ready: set[Path] = set()

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        """Written aside, fsynced, renamed, and its folder fsynced."""
        place = self.root / key
        try:
            folder = self._folder(place.parent)
            temp = temp_name(self._folder(self.root / key.split("/", 1)[0] / "tmp"))
            write_parts(temp, parts, self.fsync)
            self._rename(temp, place, folder)
        except OSError as error:
            raise write_error(error, self.root) from error

    def take(self, key: str, file: Path) -> None:
        """A second name of the file where the file system is the same, else a copy."""
        place = self.root / key
        try:
            folder = self._folder(place.parent)
            temp = temp_name(self._folder(self.root / key.split("/", 1)[0] / "tmp"))
            try:
                os.link(file, temp)
            except OSError:
                shutil.copyfile(file, temp)
            if self.fsync:
                sync_file(temp)
            os.chmod(temp, 0o444)
            self._rename(temp, place, folder)
        except OSError as error:
            raise write_error(error, self.root) from error

    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        fd = os.open(self.root / key, os.O_RDONLY)
        try:
            if size is None:
                with open(fd, "rb", closefd=False) as file:
                    file.seek(offset)
                    return file.read()
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def stat(self, key: str) -> Found | None:
        try:
            found = os.stat(self.root / key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Found(key, found.st_size, found.st_mtime)

    def touch(self, key: str) -> None:
        with contextlib.suppress(OSError):
            os.utime(self.root / key)

    def remove(self, key: str) -> bool:
        place = self.root / key
        try:
            place.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise write_error(error, self.root) from error
        self._sync(place.parent)
        return True

    def list(self, prefix: str) -> Iterator[Found]:
        stack = [self.root / prefix]
        while stack:
            folder = stack.pop()
            try:
                with os.scandir(folder) as inside:
                    for entry in inside:
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(Path(entry.path))
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            found = entry.stat()
                            yield Found(os.path.relpath(entry.path, self.root), found.st_size, found.st_mtime)
            except FileNotFoundError:
                continue

    def state(self, prefix: str) -> object:
        """The folder's time of change; None while it may change again within the clock's grain."""
        try:
            changed = os.stat(self.root / prefix).st_mtime_ns
        except FileNotFoundError:
            return 0
        return changed if time.time_ns() - changed > 50_000_000 else None

    def file(self, key: str) -> Path | None:
        place = self.root / key
        return place if place.exists() else None

    def _rename(self, temp: Path, place: Path, folder: Path) -> None:
        try:
            os.rename(temp, place)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        self._sync(folder)

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


class Both:
    """Two places while files move from the `old` one to the `new` one: written to the new one, read wherever they are."""

    def __init__(self, new: Place, old: Place) -> None:
        self.new, self.old = new, old

    def write(self, key: str, parts: Iterable[bytes]) -> None:
        self.new.write(key, parts)

    def take(self, key: str, file: Path) -> None:
        self.new.take(key, file)

    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        for place in (self.new, self.old):
            with contextlib.suppress(FileNotFoundError):
                return place.read(key, offset, size)
        return self.new.read(key, offset, size)  # it moved between the two looks

    def stat(self, key: str) -> Found | None:
        return self.new.stat(key) or self.old.stat(key) or self.new.stat(key)

    def touch(self, key: str) -> None:
        for place in (self.new, self.old):
            if place.stat(key) is not None:
                place.touch(key)

    def remove(self, key: str) -> bool:
        there = [place.remove(key) for place in (self.old, self.new)]
        return any(there)

    def list(self, prefix: str) -> Iterator[Found]:
        """Each key once, with the later of its times."""
        seen = {found.key: found for found in self.old.list(prefix)}
        for found in self.new.list(prefix):
            other = seen.pop(found.key, None)
            yield found if other is None else found._replace(at=max(found.at, other.at))
        yield from seen.values()

    def state(self, prefix: str) -> object:
        found = self.new.state(prefix), self.old.state(prefix)
        return None if None in found else found

    def file(self, key: str) -> Path | None:
        return self.new.file(key) or self.old.file(key)

    def check(self) -> None:
        """Raise what is wrong with either place, before it is needed."""
        for place in (self.new, self.old):
            look = getattr(place, "check", None)
            if look is not None:
                look()


def open_place(url: str, root: Path, fsync: bool = True) -> Place:
    """The place that a setting names: "" is the folder `root`, s3://BUCKET/PREFIX a bucket. BadInput for anything else."""
    if not url:
        return Folder(root, fsync)
    if url.startswith("s3://"):
        from everloop.store.bucket import Bucket

        bucket: Place = Bucket(url)
        return bucket
    raise BadInput(f"EVERLOOP_OBJECTS={url!r} names no place for objects.", "Leave it out for a folder of the home, or give s3://BUCKET/PREFIX.")
