"""The log: an fsync before each acknowledgement, torn tails cut, nothing read twice, bounded."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from everloop.core.errors import Busy, NoSpace, TooLarge
from everloop.core.limits import LOG_FRAME_BYTES
from everloop.store.log import Log, Position


def everything(log: Log) -> list[bytes]:
    found, position = [], Position(0, 0)
    while True:
        frames, position = log.read(position, most=1000)
        if not frames:
            return found
        found += frames


def test_an_fsync_is_seen_before_each_acknowledgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path)
    synced = {"size": 0}
    real = os.fdatasync

    def sync(fd: int) -> None:
        size = os.fstat(fd).st_size
        real(fd)
        synced["size"] = size

    monkeypatch.setattr("everloop.store.log.os.fdatasync", sync)
    log.open()
    for i in range(20):
        position = log.append(b"x" * i).result(10)
        assert synced["size"] >= position.offset
    assert log.syncs >= 20
    before = log.syncs
    futures = [log.append(b"shared") for _ in range(500)]
    [f.result(10) for f in futures]
    assert log.syncs - before < 250
    log.close()


def test_append_soon_is_in_the_file_at_once_and_fsynced_within_100_ms(tmp_path: Path) -> None:
    log = Log(tmp_path).open()
    time.sleep(0.2)
    before = log.syncs
    log.append_soon(b"hello")
    assert b"hello" in next(tmp_path.glob("*.log")).read_bytes()
    deadline = time.monotonic() + 2
    while log.syncs == before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert log.syncs > before
    log.close()


@pytest.mark.parametrize("tail", [b"\x05", b"\x05\0\0\0\1\2\3\4abc", b"\x03\0\0\0\1\2\3\4abc", b"\xff" * 100])
def test_a_torn_tail_is_cut_and_what_was_acknowledged_stays(tmp_path: Path, tail: bytes) -> None:
    log = Log(tmp_path).open()
    [log.append(b"%d" % i).result(10) for i in range(5)]
    log.close()
    [file] = tmp_path.glob("*.log")
    with open(file, "ab") as f:
        f.write(tail)
    log = Log(tmp_path).open()
    assert log.torn_bytes == len(tail)
    log.append(b"next").result(10)
    assert everything(log) == [b"0", b"1", b"2", b"3", b"4", b"next"]
    log.close()


def test_segments_roll_and_go_once_drained(tmp_path: Path) -> None:
    log = Log(tmp_path, fsync=False, segment_bytes=1000).open()
    sent = [bytes([65 + i % 26]) * 300 for i in range(20)]
    for payload in sent:
        log.append_soon(payload)
    assert len(log.segments()) > 5
    assert everything(log) == sent
    log.drop_before(log.end.segment)
    assert log.segments() == [log.end.segment]
    backlog = log.backlog
    assert 0 < backlog <= 1000
    last = log.end.segment
    log.close()
    log = Log(tmp_path).open(after=last + 7)
    assert log.end.segment == last + 8
    log.close()


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.store.log.LOG_QUEUE_BYTES", 1000)
    monkeypatch.setattr("everloop.store.log.SYNC_SECONDS", 0.5)
    log = Log(tmp_path).open()
    with pytest.raises(TooLarge):
        log.append(b"x" * (LOG_FRAME_BYTES + 1))
    log.append_soon(b"x" * 900)
    with pytest.raises(Busy):
        log.append_soon(b"x" * 900)
    log.close()
    with pytest.raises(Busy, match="stopping"):
        log.append(b"late")


def test_a_failed_fsync_acknowledges_nothing_and_the_next_segment_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path).open()
    log.append(b"good").result(10)
    real, broken = os.fdatasync, {"fd": True}

    def sync(fd: int) -> None:
        if broken.pop("fd", None):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr("everloop.store.log.os.fdatasync", sync)
    with pytest.raises(NoSpace):
        log.append(b"lost").result(10)
    log.append(b"after").result(10)
    assert everything(log)[-1] == b"after" and len(log.segments()) == 2
    log.close()


def test_a_full_disk_keeps_the_log_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path).open()
    log.append(b"one").result(10)
    real = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 100:
            return real(fd, data)
        if len(data) > 500:
            return real(fd, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("everloop.store.files.os.write", half)
    with pytest.raises(NoSpace, match="full"):
        log.append(b"x" * 550)
    monkeypatch.undo()
    log.append(b"two").result(10)
    assert everything(log) == [b"one", b"two"]
    log.close()


def test_who_stops_waiting_for_the_disk_harms_nobody(tmp_path: Path) -> None:
    log = Log(tmp_path, fsync=False).open()
    try:
        assert not log.append(b"given up").cancel()
        assert log.append(b"after it").result(5).offset > 0
    finally:
        log.close()
