"""Full, read-only and damaged places: what is refused says so, nothing half is kept, reads go on, and all is well once there is space."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from everloop.core.errors import BadInput, Corrupt, NoSpace
from everloop.core.principal import SYSTEM, local_principal
from everloop.core.settings import Settings
from everloop.store.log import MAGIC, Log
from everloop.store.records import Records
from everloop.store.schema import projects
from everloop.web.app import create_app
from tests.store.test_log import everything

WHO = local_principal()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 96 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all space that is left."""
    file = place / "ballast"
    with file.open("ab") as ballast:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(ballast.fileno(), b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return file


def test_a_full_disk_refuses_writes_goes_on_reading_and_recovers(small: Path) -> None:
    with TestClient(create_app(Settings(home=small / "home", workers=0)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        ws = client.app.state.workspace  # type: ignore[attr-defined]
        asset = {"kind": "dataset", "name": "loans", "manifest": {"format": "files", "files": []}, "description": "x" * 5000}
        assert client.post("/api/v1/assets", json=asset).status_code == 201
        digest = client.post("/api/v1/objects", content=b"kept").json()["digest"]
        run = client.post("/api/v1/runs", json={"name": "r"}).json()["id"]
        client.portal.call(ws.telemetry.flush)  # type: ignore[union-attr]
        ballast = fill(small)

        def refused(answer: Any) -> None:
            assert answer.status_code == 507, (answer.request.url, answer.status_code, answer.text)
            body = answer.json()
            assert "full" in body["detail"] and "Free some space" in body["hint"] and answer.headers["retry-after"]

        refused(client.post("/api/v1/objects", content=os.urandom(3_000_000)))
        records = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "y" * 100_000}}]}]}]}
        exported = client.post("/v1/logs", json=records)
        assert (
            exported.status_code == 503 and exported.headers["retry-after"] and "full" in exported.json()["message"]
        )  # exporters never try 507 again
        refused(client.post("/api/v1/scores", json={"subject": "0" * 32, "name": "thumbs", "value": 1, "why": "y" * 100_000}))
        body = b"note,label\n" + b"some words,1\n" * 200_000
        refused(client.post("/api/v1/datasets", data={"name": "full"}, files={"file": ("a.csv", body)}))
        refused(client.put(f"/api/v1/runs/{run}/artifacts/big.bin", content=os.urandom(2_000_000)))
        answers = []
        for i in range(40):  # the records have some room in their log left
            answers.append(client.post("/api/v1/assets", json={**asset, "name": f"n{i}", "description": os.urandom(50_000).hex()}))
            if answers[-1].status_code != 201:
                break
        refused(answers[-1])
        there = {one["name"] for one in client.get("/api/v1/assets").json()["items"]}
        assert there == {"loans", *(f"n{i}" for i, a in enumerate(answers) if a.status_code == 201)}
        assert client.get(f"/api/v1/objects/{digest}").content == b"kept"
        assert client.get("/api/v1/traces").status_code == 200 and client.get("/health").status_code == 200
        assert not [p for p in (small / "home" / "incoming").rglob("*") if p.is_file()]

        ballast.unlink()
        assert client.post("/api/v1/assets", json={**asset, "name": "after"}).status_code == 201
        assert client.post("/api/v1/objects", content=os.urandom(3_000_000)).status_code == 201
        assert client.post("/api/v1/scores", json={"subject": "0" * 32, "name": "thumbs", "value": 1}).status_code == 201
        assert client.post("/api/v1/datasets", data={"name": "full"}, files={"file": ("a.csv", body)}).status_code == 201
        client.portal.call(ws.telemetry.flush)  # type: ignore[union-attr]
        assert len(client.get("/api/v1/scores", params={"subject": "0" * 32}).json()["items"]) == 1
        assert client.get("/api/v1/audit/verify").json()["ok"]


def test_an_engine_that_rolls_everything_back_fails_all_writes_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records.at(tmp_path, fsync=False).open()

    def put(name: str) -> Any:
        return lambda tx: tx.run(projects.insert().values(name=name, created_at=0.0, created_by="t", settings={}))

    def full(tx: Any) -> None:
        tx.run(projects.insert().values(name="second", created_at=0.0, created_by="t", settings={}))
        tx.conn.connection.dbapi_connection.execute("ROLLBACK")  # as SQLite does by itself where a page cannot be written
        orig = sqlite3.OperationalError("database or disk is full")
        orig.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise sa.exc.OperationalError("insert", {}, orig)

    async def together() -> list[Any]:
        begun, gate = threading.Event(), threading.Event()
        first = asyncio.ensure_future(records.write(SYSTEM, lambda tx: (begun.set(), gate.wait(30))))
        await asyncio.to_thread(begun.wait, 30)  # the writer is in the first one: the next three wait, and share a transaction
        rest = [asyncio.ensure_future(records.write(SYSTEM, work)) for work in (put("first"), full, put("third"))]
        while records._queue.qsize() < 3:
            await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    found = asyncio.run(together())
    assert [type(f) for f in found[1:]] == [NoSpace] * 3
    assert records.read_sync(SYSTEM, lambda tx: tx.rows(sa.select(projects.c.name).where(projects.c.name.in_(("first", "second", "third"))))) == []
    records.write_sync(SYSTEM, put("first"))
    records.close()


def test_damaged_records_say_so(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"this is no database, but long enough to look at" * 100)
    with pytest.raises(BadInput, match=r"records\.db cannot be opened: file is not a database"):
        Records.at(tmp_path).open()
    (tmp_path / "records.db").unlink()
    records = Records.at(tmp_path, fsync=False).open()
    records.write_sync(
        SYSTEM, lambda tx: [tx.run(projects.insert().values(name=f"p{i}", created_at=0.0, created_by="t" * 500, settings={})) for i in range(200)]
    )
    records.close()
    records = Records.at(tmp_path, fsync=False).open()
    with (tmp_path / "records.db").open("r+b") as file:
        size = file.seek(0, 2)
        for page in range(size // 4096 // 2, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(Corrupt, match="damaged"):
        records.read_sync(SYSTEM, lambda tx: tx.rows(sa.select(projects)))
    records.close()


@pytest.mark.parametrize("spot", ["payload", "length", "two frames"])
def test_damage_in_the_middle_of_a_segment_loses_only_what_is_damaged(tmp_path: Path, spot: str, caplog: pytest.LogCaptureFixture) -> None:
    frames = [bytes([i]) * (1000 + i) + b"\0\0\0\0" * i for i in range(20)]
    log = Log(tmp_path, fsync=False).open()
    [log.append(frame).result(10) for frame in frames]
    log.close()
    file = next(tmp_path.glob("*.log"))
    data = bytearray(file.read_bytes())
    start = len(MAGIC) + sum(8 + len(frame) for frame in frames[:5])
    lost = {"payload": [5], "length": [5], "two frames": [5, 6]}[spot]
    if spot == "payload":
        data[start + 500] ^= 0xFF
    elif spot == "length":
        data[start : start + 4] = b"\x10\x27\x00\x00"
    else:
        data[start + 100 : start + 8 + len(frames[5]) + 100] = b"\xee" * (8 + len(frames[5]))
    file.write_bytes(data)
    log = Log(tmp_path, fsync=False).open()
    assert everything(log) == [frame for i, frame in enumerate(frames) if i not in lost]
    assert log.damaged_bytes >= sum(8 + len(frames[i]) for i in lost) and log.torn_bytes == 0
    assert "is damaged on disk" in caplog.text and (tmp_path / "damaged" / file.name).exists()
    log.drop_before(1000)
    assert (tmp_path / "damaged" / file.name).read_bytes() == bytes(data)
    log.close()
