"""Objects looked after: damage is mended from wherever bytes still are, and what is lost is named; a store moves to another place and stays readable."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.core.errors import BadInput, Corrupt
from everloop.core.settings import Settings
from everloop.store import moving
from everloop.store.places import Both, Folder
from everloop.web.app import create_app
from tests.store.test_objects import s3, s3_server  # noqa: F401 - fixtures


def served(tmp_path: Path, **more: Any) -> Any:
    return TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False, **more)), base_url="http://127.0.0.1:7600")


def client_of(http: TestClient) -> Client:
    def transport(method, url, body, headers, timeout):
        answer = http.request(method, url, content=body, headers=headers)
        return answer.status_code, answer.headers, answer.content

    return Client(Http("http://127.0.0.1:7600", transport=transport))


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("EVERLOOP_CACHE", str(tmp_path / "cache"))
    with served(tmp_path) as http:
        yield client_of(http)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    base = tmp_path / "photos"
    base.mkdir()
    for i in range(20):
        (base / f"{i:02}.jpg").write_bytes(os.urandom(4_000))
    (base / "big.bin").write_bytes(os.urandom(5_000_000))
    return base


def packs_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "objects" / "default" / "packs").iterdir())


def spoil(file: Path, at: int) -> None:
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def same(one: Path, two: Path) -> bool:
    return {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in two.iterdir()}


def test_what_is_damaged_is_put_again_from_a_working_copy_and_else_named(client: Client, photos: Path, tmp_path: Path) -> None:
    client.data.add("photos", photos)
    for pack in packs_of(tmp_path):
        spoil(pack, len(pack.read_bytes()) - 100)
    assert client.data.verify()["damaged_count"] == len(packs_of(tmp_path)) + 1  # and the list whose chunk is in one of them
    lost = client.data.repair()
    assert {(one["ref"], one["path"]) for one in lost["lost"]} == {("dataset:photos@1", "tree")} and lost["damaged_count"] == 3
    assert client.data.verify()["damaged_count"] == 1  # what is whole stayed, the rest counts as missing; a chunk of the list does
    (tmp_path / "partly").mkdir()
    for name in ("big.bin", "03.jpg"):
        shutil.copy(photos / name, tmp_path / "partly")
    assert client.data.repair(tmp_path / "partly")["lost_count"] == 1
    done = client.data.repair(photos)
    assert done["lost_count"] == 0 and done["restored"] == 3 and not done["damaged"]
    client.data.checkout("photos", tmp_path / "out")
    assert same(photos, tmp_path / "out")


def test_a_header_a_list_and_a_missing_pack_are_mended_too(client: Client, photos: Path, tmp_path: Path) -> None:
    client.data.add("photos", photos)
    spoil(packs_of(tmp_path)[0], 20)
    (lists,) = (tmp_path / "home" / "objects" / "default" / "objects").glob("*/*.list")
    spoil(lists, 80)
    done = client.data.repair(photos)
    assert done["damaged_count"] == 2 and done["lost_count"] == 0
    packs_of(tmp_path)[0].unlink()
    assert client.data.repair(photos)["lost_count"] == 0
    client.data.checkout("photos", tmp_path / "out")
    assert same(photos, tmp_path / "out")


def test_each_file_that_is_lost_is_named_with_its_version(client: Client, photos: Path, tmp_path: Path) -> None:
    client.data.add("photos", photos)
    client.data.add("more", photos)
    data = (photos / "07.jpg").read_bytes()
    pack = next(p for p in packs_of(tmp_path) if data in p.read_bytes())
    spoil(pack, pack.read_bytes().index(data))
    done = client.data.repair()
    assert {(one["ref"], one["path"]) for one in done["lost"]} == {("dataset:photos@1", "07.jpg"), ("dataset:more@1", "07.jpg")}
    (photos / "09.jpg").unlink()
    (photos / "other.jpg").write_bytes(os.urandom(100))
    before = sum(p.stat().st_size for p in packs_of(tmp_path))
    assert client.data.repair(photos)["lost_count"] == 0  # of the folder only what was lost is sent
    assert sum(p.stat().st_size for p in packs_of(tmp_path)) < before + 5_000


def test_another_copy_of_an_object_is_read_where_one_is_damaged(client: Client, photos: Path, tmp_path: Path) -> None:
    client.data.add("photos", photos)
    from everloop.store.objects import Objects

    store = Objects(tmp_path / "home" / "objects", fsync=False)
    data = (photos / "03.jpg").read_bytes()
    digest, _ = store.put("default", data)
    place = store.root / store.loose("default", digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    pack = next(p for p in packs_of(tmp_path) if data in p.read_bytes())
    spoil(pack, pack.read_bytes().index(data) + 10)
    assert Objects(store.root).get("default", digest) == data
    place.unlink()
    with pytest.raises(Corrupt, match="verify --repair"):
        Objects(store.root).get("default", digest)


def finished(client: Client) -> dict[str, Any]:
    for _ in range(300):
        told = client.data.moved()
        if told["state"] != "running":
            return told
        time.sleep(0.05)
    raise AssertionError("the move does not end")


def test_a_store_moves_to_a_bucket_and_back_and_is_read_all_the_while(
    s3: str,  # noqa: F811
    client: Client,
    photos: Path,
    tmp_path: Path,
) -> None:
    client.data.add("photos", photos)
    client.data.move(s3, remove=True)
    client.data.checkout("photos", tmp_path / "during")
    told = finished(client)
    assert told["state"] == "done" and told["copied"] == told["removed"] == told["total"] > 1 and told["to"] == s3
    assert not packs_of(tmp_path)
    (photos / "new.jpg").write_bytes(b"after")
    client.data.add("photos", photos)
    client.data.checkout("photos@2", tmp_path / "after")
    assert same(photos, tmp_path / "after") and not packs_of(tmp_path)
    assert client.data.verify()["damaged_count"] == 0
    root = tmp_path / "home" / "objects"
    assert moving.where("", root) == (s3, None) and moving.where(s3, root) == (s3, None)  # the next start knows
    assert client.data.move("home")["state"] == "running" and finished(client)["state"] == "done" and packs_of(tmp_path)
    assert moving.where("", root) == ("", None)


def test_a_place_that_is_set_anew_is_beside_the_home_until_all_is_moved(
    s3: str,  # noqa: F811
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVERLOOP_CACHE", str(tmp_path / "cache"))
    with served(tmp_path) as http:
        client_of(http).data.add("photos", photos)
    with served(tmp_path, objects=s3) as http:
        client = client_of(http)
        assert client.data.moved() == {"to": s3, "from": "home", "state": "stopped"}
        client.data.checkout("photos", tmp_path / "out")
        spoil(packs_of(tmp_path)[0], 200)
        client.data.move(s3)
        told = finished(client)
        assert told["state"] == "damaged" and len(told["damaged"]) == 1 and told["damaged"][0]["key"].endswith(packs_of(tmp_path)[0].name)
        assert client.data.repair(photos)["lost_count"] == 0
        client.data.move(s3)
        assert finished(client)["state"] == "done"
        shutil.rmtree(tmp_path / "home" / "objects" / "default")
        client.data.checkout("photos", tmp_path / "again")
        assert same(photos, tmp_path / "again")
        with pytest.raises(BadInput, match="no place"):
            client.data.move("ftp://somewhere")


def test_a_move_that_ended_goes_on_with_what_is_not_there(tmp_path: Path) -> None:
    old, new = Folder(tmp_path / "old", False), Folder(tmp_path / "new", False)
    from everloop.store.objects import Objects

    store = Objects(tmp_path / "old", False)
    digests = [store.put("default", os.urandom(1000))[0] for _ in range(20)]
    asked = iter([False] * 7 + [True])
    told = moving.Moved("new", "old")
    moving.move(new, old, ["default"], told, stop=lambda: next(asked))
    assert told.state == "stopped" and told.copied == 7
    both = Objects(tmp_path / "new", False, Both(new, old))
    assert [both.get("default", d) for d in digests] and not both.missing("default", digests)
    told = moving.Moved("new", "old")
    moving.move(new, old, ["default"], told, remove=True)
    assert (told.state, told.copied, told.there, told.removed) == ("done", 13, 7, 20)
    assert not Objects(tmp_path / "new", False).missing("default", digests)
