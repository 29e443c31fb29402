"""The garbage collector keeps all that something refers to, whatever writes beside it and wherever it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.client.upload import Upload
from everloop.core import trees
from everloop.core.errors import BadInput, Forbidden, NotFound
from everloop.core.settings import Settings
from everloop.store.objects import Objects, digest_of
from everloop.store.sweep import sweep, verify
from everloop.web.app import create_app

LONG_AGO = time.time() - 10 * 24 * 3600


@pytest.fixture
def app(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:
        yield http


@pytest.fixture
def client(app: TestClient) -> Client:
    """The SDK against the app, in-process."""

    def transport(method, url, body, headers, timeout):
        answer = app.request(method, url, content=body, headers=headers)
        return answer.status_code, answer.headers, answer.content

    return Client(Http("http://127.0.0.1:7600", transport=transport))


def age(folder: Path) -> None:
    """Let everything have been written long ago."""
    for file in folder.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))


def test_what_anything_refers_to_stays_and_the_rest_goes(client: Client, app: TestClient, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.bin").write_bytes(os.urandom(1000))
    (folder / "big.bin").write_bytes(os.urandom(3_000_000))
    client.data.add("photos", folder)
    client.data.add("t", pd.DataFrame({"x": [1, 2, 3]}))
    run = app.post("/api/v1/runs", json={"name": "r", "kind": "training", "experiment": "e"}).json()["id"]
    app.put(f"/api/v1/runs/{run}/artifacts/f.txt", content=b"artifact")
    traced = app.post("/api/v1/objects", content=b"a span's payload").json()["digest"]
    app.post(f"/api/v1/runs/{run}/log", json={"tags": {"seen": f"object {traced}"}})
    lost = Upload(client._http)
    small, big = lost.put(b"nobody's"), lost.put(os.urandom(2_500_000))
    assert client.data.gc()["deleted"] == 0
    age(tmp_path / "home" / "objects")
    planned = client.data.gc(dry_run=True)
    assert planned["deleted"] > 0 and client._http.get_bytes(f"/api/v1/objects/{small}") == b"nobody's"
    done = client.data.gc()
    assert (done["deleted"], done["deleted_bytes"]) == (planned["deleted"], planned["deleted_bytes"]) and done["deleted_bytes"] > 2_500_000
    for digest in (small, big):
        with pytest.raises(NotFound):
            client._http.get_bytes(f"/api/v1/objects/{digest}")
    client.data.checkout("photos", tmp_path / "out")
    assert (tmp_path / "out" / "big.bin").read_bytes() == (folder / "big.bin").read_bytes()
    assert client.data.frame("t").x.tolist() == [1, 2, 3] and client._http.get_bytes(f"/api/v1/objects/{traced}") == b"a span's payload"
    assert app.get(f"/api/v1/runs/{run}/artifacts/f.txt").content == b"artifact"
    assert client.data.verify()["damaged_count"] == 0 and client.data.verify("photos")["checked"] == 21
    with pytest.raises(BadInput, match="too short"):
        client.data.gc(grace=1)
    key = app.post("/api/v1/keys", json={"name": "e", "role": "editor"}).json()["key"]
    assert app.post("/api/v1/objects/gc", headers={"authorization": f"Bearer {key}"}).status_code == Forbidden.status


def test_a_list_that_cannot_be_read_stops_everything(client: Client, app: TestClient, tmp_path: Path) -> None:
    objects = app.app.state.workspace.objects  # type: ignore[attr-defined]
    entry = {"path": "a", "digest": Upload(client._http).put(b"a"), "size": 1}
    tree = Upload(client._http).put(trees.dump([entry]))
    client._http.post("/api/v1/datasets", json={"name": "photos", "tree": tree})
    Upload(client._http).put(b"nobody's")
    at = objects.index("default").find(tree)
    file = tmp_path / "home" / "objects" / at.key
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[at.offset + 3] ^= 1
    file.write_bytes(data)
    age(tmp_path / "home" / "objects")
    assert app.post("/api/v1/objects/gc").status_code == 500
    assert client.data.verify()["damaged_count"] == 1 and objects.get("default", digest_of(b"nobody's")) == b"nobody's"


def test_a_writer_that_finds_an_old_object_again_keeps_it(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects", fsync=False)
    found = [*objects.put_many("p", [b"one", b"two"]), objects.put("p", b"three"), objects.put("p", os.urandom(2_000_000))]
    digests = [digest for digest, _ in found]
    age(tmp_path / "objects")
    assert objects.missing("p", digests[:1] + digests[2:]) == []
    assert sweep(objects, "p", set(), time.time() - 60).deleted == 0  # two lies in the pack of one
    assert [objects.get("p", digest)[:3] for digest in digests[:3]] == [b"one", b"two", b"thr"]
    age(tmp_path / "objects")
    assert sweep(objects, "p", set(), time.time() - 60).deleted >= 4


def test_a_file_that_is_put_together_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(tmp_path, fsync=False)
    digest, size = objects.put("p", os.urandom(3_000_000))
    collect = lambda live: sweep(objects, "p", live, time.time() - 3600)
    parts = objects.parts

    def slow(project, digest):
        collect({digest})  # just now
        yield from parts(project, digest)
        collect({digest})

    monkeypatch.setattr(objects, "parts", slow)
    whole = objects.path("p", digest)
    assert whole.stat().st_size == size
    collect(set())  # uploaded, read, and not referred to yet
    assert whole.exists()
    age(tmp_path)
    collect(set())
    assert not whole.exists()


def test_many_writers_beside_a_collector_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers put the same few contents again and again, register them and drop them; what is registered can always be read."""
    monkeypatch.setattr("everloop.store.objects.OBJECT_TOUCH_SECONDS", 0.0)
    root, grace = tmp_path / "objects", 0.3
    contents = [os.urandom(size) for size in (10, 1000, 50_000, 1_500_000)]
    live: dict[str, int] = {}
    lock, stop, failures, swept = threading.Lock(), threading.Event(), [], [0]

    def write(seed: int) -> None:
        mine = Objects(root, fsync=False)
        try:
            for turn in range(40):
                data = contents[(seed + turn) % 4] if turn % 3 else os.urandom(20_000)
                digest = mine.put_many("p", [data])[0][0] if turn % 2 else mine.put("p", data)[0]
                if mine.missing("p", [digest]):
                    raise AssertionError("gone before it was registered")
                with lock:
                    live[digest] = live.get(digest, 0) + 1
                time.sleep(0.02 * (seed + 1))
                assert Objects(root, fsync=False).get("p", digest) == data
                with lock:
                    live[digest] -= 1
                time.sleep(0.3 if turn % 10 == 0 else 0)
        except BaseException as error:
            failures.append(error)

    def collect() -> None:
        mine = Objects(root, fsync=False)
        while not stop.is_set():
            before = time.time() - grace
            with lock:
                marked = {digest for digest, n in live.items() if n}
            swept[0] += sweep(mine, "p", marked, before).deleted

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    collector = threading.Thread(target=collect)
    for thread in [*threads, collector]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collector.join()
    assert not failures, failures
    time.sleep(grace + 0.1)
    sweep(Objects(root, fsync=False), "p", set(), time.time() - grace)
    assert swept[0] > 0 and not list((root / "p" / "packs").iterdir())


KILLED = """
import os, signal, sys, time
from pathlib import Path
from everloop.store import objects as module, places
from everloop.store.sweep import sweep
store = module.Objects(Path(sys.argv[1]), fsync=False)
left, real = [int(sys.argv[2])], places.Folder.remove
def remove(self, key):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, key)
places.Folder.remove = remove
sweep(store, "p", set(sys.argv[3:]), time.time() - 60)
"""


@pytest.mark.parametrize("removals", [0, 1, 2])
def test_killed_in_the_middle_it_has_deleted_nothing_that_is_needed(tmp_path: Path, removals: int) -> None:
    root = tmp_path / "objects"
    objects = Objects(root, fsync=False)
    keep = [*objects.put_many("p", [b"a" * 2000, b"b" * 10]), objects.put("p", b"c"), objects.put("p", os.urandom(2_000_000))]
    for seed in range(3):
        objects.put_many("p", [os.urandom(5000), b"d%d" % seed])
        keep.append(objects.put_many("p", [os.urandom(9000), b"e%d" % seed])[1])
    objects.put("p", os.urandom(100))
    needed = [digest for digest, _ in keep]
    age(root)
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(removals), *needed], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for _ in range(2):
        again = Objects(root, fsync=False)
        assert all(digest_of(again.get("p", digest)) == digest for digest in needed)
        assert not [one for one in verify(again, "p") if one["error"]]
        age(root)
        sweep(again, "p", set(needed), time.time() - 60)
    assert sum(f.stat().st_size for f in (root / "p" / "packs").iterdir()) < 2_020_000
