"""Small durable steps on files: write whole or not at all, make folders that stay, and say plainly what failed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from everloop.core.errors import EverloopError, NoSpace

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_error(error: OSError, where: Path) -> EverloopError:
    """The operating system's refusal to write below `where`, as an error that says what to do."""
    if error.errno in _FULL:
        return NoSpace(f"The disk of {where} is full.", "Free some space and try again; nothing of this write was kept.", retry_after=10.0)
    if error.errno in _DENIED:
        return NoSpace(
            f"{where} cannot be written: {error.strerror}.",
            "Make it writable or choose another --home; nothing of this write was kept.",
            retry_after=10.0,
        )
    return NoSpace(f"Writing below {where} failed: {error.strerror or error}.", "Nothing of this write was kept.", retry_after=10.0)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that names made or removed in it survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(file: Path) -> None:
    """fsync a file that someone else wrote."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path, fsync: bool) -> None:
    """Make a folder with its parents and, with `fsync`, make their names durable (also those that another process just made)."""
    folder.mkdir(parents=True, exist_ok=True)
    if fsync:
        for parent in list(folder.parents)[:3]:
            sync_folder(parent)


def temp_name(folder: Path) -> Path:
    """A new name in `folder` that no one else uses."""
    return folder / f"{os.getpid()}-{secrets.token_hex(8)}"


def write_parts(path: Path, parts: Iterable[bytes | memoryview], fsync: bool, mode: int = 0o444) -> None:
    """Create the file `path` from `parts`; on any failure it is removed again. OSError as the system raised it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        for part in parts:
            write_all(fd, part)
        if fsync:
            os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """os.write until everything is written."""
    written = os.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)
    while written < len(view):
        written += os.write(fd, view[written:])
