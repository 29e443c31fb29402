"""The telemetry log: append-only segments of checked frames, one owner process, fsync shared by whoever waits.

A frame is the payload's length and CRC-32 (little endian, 4 bytes each), then the payload. A write reaches the operating system before
`append` or `append_soon` returns, so it survives the death of the process; a thread fsyncs what was written, at once when someone waits
for it, else within SYNC_SECONDS. Opening cuts off a torn tail and always starts a new segment, so a position once read never means
something else. Whoever drains the log tells it which segments may go.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import threading
import zlib
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from everloop.core.errors import Busy, Conflict, TooLarge
from everloop.core.limits import LOG_BACKLOG_BYTES, LOG_FRAME_BYTES, LOG_QUEUE_BYTES, SEGMENT_BYTES
from everloop.store.files import make_folder, sync_folder, write_all, write_error

MAGIC = b"EVRLOG\x00\x01"
SYNC_SECONDS = 0.05
"""How long `append_soon` may wait for its fsync to be shared; with the fsync itself, under 100 ms."""
_HEAD = struct.Struct("<II")
_logger = logging.getLogger("everloop.telemetry")


class Position(NamedTuple):
    """A place in the log: number of the segment, offset in bytes. Positions compare in the order of writing."""

    segment: int
    offset: int


class Log:
    """The log in a folder. `open` before use; `close` fsyncs what is written.

    `syncs` counts fsyncs of data; `torn_bytes` is what `open` had to cut off at an end; `damaged_bytes` is what could not be read between
    whole frames (a bad disk: a crash does not do this). A damaged segment is kept in `damaged/`, and the server's log says so.
    """

    def __init__(self, folder: Path, fsync: bool = True, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = Path(folder)
        self.fsync = fsync
        self.segment_bytes = segment_bytes
        self.syncs = 0
        self.torn_bytes = 0
        self.damaged_bytes = 0
        self._lock = threading.Lock()
        self._fd = -1
        self._segment = 0
        self._size = 0
        self._waiting: list[Future[Position]] = []
        self._unsynced = 0
        self._rolled: list[int] = []
        self._new_name = False
        self._backlog = 0
        self._wake, self._urgent = threading.Event(), threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._owner = -1

    def open(self, after: int = 0) -> Log:
        """Take the folder, cut torn tails, start a segment numbered above all others and above `after`, and start the fsync thread.

        Conflict if another process has the log open, NoSpace if the folder cannot be written.
        """
        try:
            make_folder(self.folder, self.fsync)
            self._own()
            for number in self.segments():
                self._cut(number)
            self._backlog = sum(self._path(n).stat().st_size for n in self.segments())
            self._start(max([after, *self.segments()]) + 1)
        except OSError as error:
            raise write_error(error, self.folder) from error
        self._thread = threading.Thread(target=self._sync_loop, name="log-sync", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """fsync what is written, resolve who waits, let go of the folder. Appending after this raises Busy."""
        with self._lock:
            if self._fd < 0:
                return
            self._stop = True
        self._wake.set()
        self._urgent.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            os.close(self._fd)
            self._fd = -1
        os.close(self._owner)

    def append(self, payload: bytes) -> Future[Position]:
        """Write a frame; the future gives the position after it once it is fsynced.

        Raises Busy when LOG_QUEUE_BYTES wait for fsync or LOG_BACKLOG_BYTES to be drained, TooLarge above LOG_FRAME_BYTES.
        """
        done: Future[Position] = Future()
        done.set_running_or_notify_cancel()  # whoever stops waiting must not be able to cancel it: the sync thread would die of that
        with self._lock:
            self._write(payload)
            self._waiting.append(done)
        self._wake.set()
        self._urgent.set()
        return done

    def append_soon(self, payload: bytes) -> Position:
        """Write a frame to the operating system (it survives `kill -9` from here on); fsynced within 100 ms. Raises as `append`."""
        with self._lock:
            self._write(payload)
            position = Position(self._segment, self._size)
        if not self._wake.is_set():
            self._wake.set()
        return position

    def roll(self) -> None:
        """Begin the next segment, so that those before it go once they are drained. Raises Busy after `close`, NoSpace where it cannot be made."""
        with self._lock:
            if self._fd < 0 or self._stop:
                raise Busy("The server is stopping.", "Try again when it is up.")
            if self._size > len(MAGIC):
                try:
                    self._roll()
                except OSError as error:
                    raise write_error(error, self.folder) from error
        self._wake.set()
        self._urgent.set()

    @property
    def end(self) -> Position:
        """The position after the last frame written."""
        with self._lock:
            return Position(self._segment, self._size)

    @property
    def backlog(self) -> int:
        """Bytes in segments that are not removed yet."""
        return self._backlog

    def segments(self) -> list[int]:
        """Numbers of the segments on disk, rising."""
        return sorted(int(p.stem) for p in self.folder.glob("*.log"))

    def read(self, start: Position, most: int = 8 * 1024 * 1024) -> tuple[list[bytes], Position]:
        """Frames from `start` on, about `most` bytes of them, and the position to go on from. No frames: nothing new yet.

        Frames damaged on disk are left out (see `damaged_bytes`); reading goes on with the next whole one.
        """
        end = self.end
        segment, offset = start
        while True:
            there = [n for n in self.segments() if n >= segment]
            if not there or Position(there[0], 0) > end:
                return [], Position(segment, offset)
            if there[0] != segment:
                segment, offset = there[0], len(MAGIC)
            stop = end.offset if segment == end.segment else self._path(segment).stat().st_size
            frames, offset = self._frames(segment, max(offset, len(MAGIC)), stop, most)
            if not frames and offset < stop:
                offset = self._skip(segment, offset, stop)
                if offset < stop:
                    continue
            if frames or segment == end.segment:
                return frames, Position(segment, offset)
            segment, offset = segment + 1, len(MAGIC)

    def drop_before(self, segment: int) -> None:
        """Remove the segments numbered below `segment`: all of theirs is safe elsewhere."""
        for number in self.segments():
            if number >= min(segment, self._segment):
                return
            path = self._path(number)
            size = path.stat().st_size
            path.unlink(missing_ok=True)
            with self._lock:
                self._backlog -= size

    # -- inside -------------------------------------------------------------------------------------------------------------------------

    def _own(self) -> None:
        self._owner = os.open(self.folder / "owner", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._owner)
            raise Conflict(
                f"The home {self.folder.parent} is in use by another server.", "Stop that one, or choose another with --home DIR."
            ) from None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:016d}.log"

    def _start(self, number: int) -> None:
        self._fd = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        write_all(self._fd, MAGIC)
        self._segment, self._size, self._new_name = number, len(MAGIC), True
        self._backlog += len(MAGIC)

    def _roll(self) -> None:
        """Start the next segment (lock held); the old one is fsynced and closed by the sync thread."""
        self._rolled.append(self._fd)
        self._start(self._segment + 1)

    def _write(self, payload: bytes) -> None:
        """One frame to the operating system (lock held). A write that fails halfway is cut off again."""
        size = len(payload) + _HEAD.size
        if len(payload) > LOG_FRAME_BYTES:
            raise TooLarge(f"A telemetry record has {len(payload)} bytes; at most {LOG_FRAME_BYTES} are allowed.", "Send fewer or smaller spans.")
        if self._fd < 0 or self._stop:
            raise Busy("The server is stopping.", "Try again when it is up.")
        if self._unsynced + size > LOG_QUEUE_BYTES and self._unsynced:
            raise Busy(f"{self._unsynced} bytes of telemetry wait for the disk.", "Try again in a second.")
        if self._backlog > LOG_BACKLOG_BYTES:
            raise Busy(f"{self._backlog} bytes of telemetry wait to be moved into the database.", "Try again in some seconds.", retry_after=5.0)
        try:
            if self._size + size > self.segment_bytes and self._size > len(MAGIC):
                self._roll()
            write_all(self._fd, _HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise write_error(error, self.folder) from error
        self._size += size
        self._unsynced += size
        self._backlog += size

    def _sync_loop(self) -> None:
        while True:
            self._wake.wait()
            self._urgent.wait(SYNC_SECONDS)
            self._wake.clear()
            self._urgent.clear()
            self._sync()
            with self._lock:
                if self._stop and not self._waiting and not self._rolled:
                    return

    def _sync(self) -> None:
        """fsync all that is written, then resolve who waited for it. A failed fsync fails them: those bytes may never reach the disk."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            rolled, self._rolled = self._rolled, []
            fd, size, new_name, position = self._fd, self._unsynced, self._new_name, Position(self._segment, self._size)
            self._new_name = False
        failure: OSError | None = None
        if self.fsync:
            try:
                for old in (*rolled, fd):
                    os.fdatasync(old)
                    self.syncs += 1
                if new_name:
                    sync_folder(self.folder)
            except OSError as error:
                failure = error
        for old in rolled:
            os.close(old)
        with self._lock:
            self._unsynced -= size
            if failure is not None:
                self._new_name = True
                with contextlib.suppress(OSError):
                    self._roll()  # what comes next goes to a file whose fsync has not failed
        for done in waiting:
            if failure is None:
                done.set_result(position)
            else:
                done.set_exception(write_error(failure, self.folder))

    def _frames(self, segment: int, offset: int, stop: int, most: int) -> tuple[list[bytes], int]:
        """Whole frames of one segment between two offsets, and the offset after the last."""
        frames: list[bytes] = []
        with open(self._path(segment), "rb") as file:
            file.seek(offset)
            block = file.read(min(stop - offset, most))
            if len(block) >= _HEAD.size:
                first = _HEAD.unpack_from(block)[0] + _HEAD.size
                if len(block) < first <= stop - offset:
                    block += file.read(first - len(block))
        at = 0
        while at + _HEAD.size <= len(block):
            length, crc = _HEAD.unpack_from(block, at)
            payload = block[at + _HEAD.size : at + _HEAD.size + length]
            if len(payload) < length or zlib.crc32(payload) != crc:
                break
            frames.append(payload)
            at += _HEAD.size + length
        return frames, offset + at

    def _next_whole(self, segment: int, offset: int, stop: int) -> int:
        """The offset of the next whole frame after a damaged one at `offset`; `stop` if there is none."""
        data = self._path(segment).read_bytes()[:stop]
        at = data.find(b"\x00", offset + 4)  # no frame is over 16 MB, so the length's last byte is 0
        while 0 <= at < stop - 4:
            start = at - 3
            length, crc = _HEAD.unpack_from(data, start) if start + _HEAD.size <= stop else (0, 0)
            if 0 < length <= min(LOG_FRAME_BYTES, stop - start - _HEAD.size):
                body = memoryview(data)[start + _HEAD.size : start + _HEAD.size + length]
                if zlib.crc32(body) == crc:
                    return start
            at = data.find(b"\x00", at + 1)
        return stop

    def _skip(self, segment: int, offset: int, stop: int) -> int:
        """Go over damage at `offset`: keep the segment aside, say so, answer where the next whole frame is (`stop`: nowhere)."""
        whole = self._next_whole(segment, offset, stop)
        self.damaged_bytes += whole - offset
        aside = self.folder / "damaged"
        aside.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(self._path(segment), aside / self._path(segment).name)
        _logger.error(
            "telemetry: %s is damaged on disk: %d bytes from byte %d on could not be read; what follows was. The file is kept in %s.",
            self._path(segment),
            whole - offset,
            offset,
            aside,
        )
        return whole

    def _cut(self, number: int) -> None:
        """Cut off what is torn at the end of a segment; remove it if nothing is left."""
        path = self._path(number)
        size = path.stat().st_size
        if size < len(MAGIC):
            path.unlink()
            return
        good = len(MAGIC)
        while good < size:
            frames, after = self._frames(number, good, size, 8 * 1024 * 1024)
            if not frames:
                whole = self._next_whole(number, after, size)
                if whole == size:
                    break
                after = self._skip(number, after, size)
            good = after
        if good < size:
            self.torn_bytes += size - good
            os.truncate(path, good)
        if good == len(MAGIC):
            path.unlink()
