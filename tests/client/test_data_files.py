"""Files and folders as versions: only what is new travels, what comes back is what went in, what cannot be kept is refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.client.upload import Upload
from everloop.core import trees
from everloop.core.errors import BadInput, Conflict, Corrupt, NotFound
from everloop.core.settings import Settings
from everloop.web.app import create_app
from tests.conftest import running_server


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The SDK against the app, in-process."""
    monkeypatch.setenv("EVERLOOP_CACHE", str(tmp_path / "cache"))
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:

        def transport(method, url, body, headers, timeout):
            answer = http.request(method, url, content=body, headers=headers)
            return answer.status_code, answer.headers, answer.content

        yield Client(Http("http://127.0.0.1:7600", transport=transport))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a folder may hold."""
    base = tmp_path / "photos"
    (base / "a" / "deep").mkdir(parents=True)
    (base / "empty").mkdir()
    for i in range(50):
        (base / "a" / f"{i:02}.jpg").write_bytes(os.urandom(500 + i))
    (base / "a" / "same.jpg").write_bytes((base / "a" / "00.jpg").read_bytes())
    (base / "a" / "deep" / "größe 'x'\n.bin").write_bytes(b"")
    (base / "big.bin").write_bytes(os.urandom(3_000_000))
    (base / "run.sh").write_text("echo")
    (base / "run.sh").chmod(0o755)
    (base / "link").symlink_to("a/00.jpg")
    return base


def content(base: Path) -> dict[str, object]:
    """All that a folder holds, to compare."""
    found: dict[str, object] = {}
    for path in sorted(base.rglob("*")):
        name = path.relative_to(base).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        else:
            found[name] = None
    return found


def test_a_folder_comes_back_as_it_went_and_only_what_is_new_travels(client: Client, folder: Path, tmp_path: Path) -> None:
    asset = client.data.add("photos", folder, description="first")
    assert asset["ref"] == "dataset:photos@1" and (asset["manifest"]["count"], asset["manifest"]["links"], asset["manifest"]["folders"]) == (54, 1, 1)
    assert client.data.add("photos", folder)["ref"] == "dataset:photos@1"
    for place in (tmp_path / "out", None):
        done = client.data.checkout("photos@1", place) if place else client.data.dataset("photos").path
        assert content(place or done) == content(folder)
    (folder / "a" / "07.jpg").write_bytes(b"new")
    (folder / "a" / "08.jpg").rename(folder / "moved.jpg")
    big = bytearray((folder / "big.bin").read_bytes())
    big[2_900_000:2_900_010] = b"0123456789"
    (folder / "big.bin").write_bytes(big)
    up = Upload(client._http)
    up.folder(folder)
    assert up.sent < 2_200_000
    client.data.add("photos", folder)
    found = client.data.diff("photos@1", "photos@2")["files"]
    assert found["counts"] == {"added": 0, "removed": 0, "changed": 2, "renamed": 1, "same": 53}
    assert found["renamed"][0]["from"] == "a/08.jpg" and [f["path"] for f in found["changed"]] == ["a/07.jpg", "big.bin"]
    assert client.data.checkout("photos@2", tmp_path / "out")["written"] == 3
    page = client.data.files("photos@2", prefix="a/", limit=3)
    assert [f["path"] for f in page["items"]] == ["a/00.jpg", "a/01.jpg", "a/02.jpg"] and page["next"] == "a/02.jpg" and page["total"] == 54
    assert client.data.files("photos@2", limit=1, after="a/02.jpg")["items"][0]["path"] == "a/03.jpg"
    assert client.data.dataset("photos@2").open("a/07.jpg").read() == b"new"


def test_a_single_file_is_kept_as_it_is(client: Client, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    client.data.add("weights", tmp_path / "model.bin")
    assert client.data.checkout("weights", tmp_path / "back.bin")["files"] == 1
    assert (tmp_path / "back.bin").read_bytes() == b"weights"


def test_changed_files_are_not_overwritten_unless_their_content_is_stored(client: Client, folder: Path, tmp_path: Path) -> None:
    client.data.add("photos", folder)
    (folder / "a" / "07.jpg").write_bytes(b"second")
    client.data.add("photos", folder)
    client.data.checkout("photos@1", folder)
    assert (folder / "a" / "07.jpg").read_bytes() != b"second"
    (folder / "a" / "07.jpg").write_bytes(b"precious")
    (folder / "other.txt").write_text("mine")
    with pytest.raises(Conflict, match="a/07.jpg"):
        client.data.checkout("photos@2", folder)
    assert (folder / "a" / "07.jpg").read_bytes() == b"precious"
    client.data.checkout("photos@2", folder, force=True)
    assert (folder / "a" / "07.jpg").read_bytes() == b"second" and (folder / "other.txt").read_text() == "mine"


def test_what_cannot_be_kept_is_refused_by_name(client: Client, folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="'out' leads out of the folder"):
        client.data.add("photos", folder)
    (folder / "out").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInput, match="pipe is neither a file"):
        client.data.add("photos", folder)
    (folder / "pipe").unlink()
    (tmp_path / "none").mkdir()
    for path in (tmp_path / "none", tmp_path / "missing"):
        with pytest.raises(BadInput):
            client.data.add("photos", path)
    bad = [[{"path": p, "digest": "0" * 64, "size": 1}] for p in ("../x", "/etc/x", "a/../b", "a//b", "", "a\0b")]
    bad += [[{"path": "a", "link": "../b"}], [{"path": "a", "link": "/etc"}], [{"path": "a", "digest": "zz", "size": 1}], [{"path": "a"}], []]
    bad += [[{"path": "a", "link": "b"}, {"path": "a/x", "digest": "0" * 64, "size": 1}]]
    for entries in bad:
        tree = Upload(client._http).put(trees.dump(entries))
        with pytest.raises(BadInput):
            client._http.post("/api/v1/datasets", json={"name": "photos", "tree": tree})
    tree = Upload(client._http).put(trees.dump([{"path": "a", "digest": "0" * 64, "size": 1}]))
    with pytest.raises(NotFound, match="among them 'a'"):
        client._http.post("/api/v1/datasets", json={"name": "photos", "tree": tree})
    assert client.data.list() == []


def test_damage_is_found_and_named(client: Client, folder: Path, tmp_path: Path) -> None:
    client.data.add("photos", folder)
    for pack in (tmp_path / "home" / "objects" / "default" / "packs").iterdir():
        pack.chmod(0o644)
        data = bytearray(pack.read_bytes())
        data[-100] ^= 1
        pack.write_bytes(data)
    with pytest.raises(Corrupt, match="does not match its digest"):
        client.data.checkout("photos", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_checkout_goes_on(client: Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.data.add("photos", folder)
    whole = client._http.stream

    def cut(*args, **more):
        data = b"".join(whole(*args, **more))
        yield data[:9_000]
        raise KeyboardInterrupt

    monkeypatch.setattr(client._http, "stream", cut)
    with pytest.raises(KeyboardInterrupt):
        client.data.checkout("photos", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(client._http, "stream", whole)
    done = client.data.checkout("photos", tmp_path / "out")
    assert 0 < done["written"] < 50 and content(tmp_path / "out") == content(folder)


def test_pins_bring_back_what_a_commit_had(client: Client, folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / ".gitignore").write_text("*.pyc")
    table, single = repo / "loans.csv", repo / "my model.bin"
    folder.rename(repo / "photos")
    before = content(repo / "photos")
    table.write_text("x;y\n1;2\n3;4\n")
    single.write_bytes(b"weights")
    for name, path in (("loans", table), ("weights", single), ("photos", repo / "photos")):
        client.data.pin(client.data.add(name, path, keep_file=True), path)
    assert (repo / ".gitignore").read_text().splitlines() == ["*.pyc", "/loans.csv", "/my\\ model.bin", "/photos"]
    assert {one["state"] for one in client.data.status(repo)} == {"same"}
    single.unlink()
    table.write_text("x;y\n1;2\n")
    (repo / "photos" / "a" / "01.jpg").unlink()
    (repo / "photos" / "new.jpg").write_bytes(b"")
    client.data.add("loans", table)
    told = {Path(one["path"]).name: one for one in client.data.status(repo)}
    assert [told[n]["state"] for n in ("my model.bin", "loans.csv", "photos")] == ["missing", "changed", "changed"] and told["loans.csv"][
        "newer"
    ] == 2
    assert (told["photos"]["added"], told["photos"]["removed"], told["photos"]["changed"]) == (["new.jpg"], ["a/01.jpg"], [])
    with pytest.raises(Conflict):
        client.data.restore(repo)
    client.data.restore(repo, force=True)
    (repo / "photos" / "new.jpg").unlink()
    assert table.read_text() == "x;y\n1;2\n3;4\n" and single.read_bytes() == b"weights" and content(repo / "photos") == before
    pin = repo / "loans.csv.everloop"
    good = pin.read_text()
    for text in ("", good.replace("loans.csv", "../loans.csv"), "<<<<<<< HEAD\n" + good, good.replace("version: 1", "version: x")):
        pin.write_text(text)
        with pytest.raises(BadInput):
            client.data.restore(pin)


def test_a_client_on_the_same_host_reads_the_files_itself_and_checks_them(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    real = Http.stream

    def counted(self, method, path, **more):
        asked.append(path)
        return real(self, method, path, **more)

    monkeypatch.setattr(Http, "stream", counted)
    with running_server(tmp_path / "home") as url:
        client = Client(Http(url))
        client.data.add("photos", folder)
        client.data.checkout("photos", tmp_path / "near")
        assert content(tmp_path / "near") == content(folder) and "/api/v1/objects/fetch" not in asked
        for pack in (tmp_path / "home" / "objects" / "default" / "packs").iterdir():
            pack.chmod(0o644)
            data = bytearray(pack.read_bytes())
            data[-100] ^= 1
            pack.write_bytes(data)
        with pytest.raises(Corrupt, match="does not match its digest"):  # it asks the server for what is not right, which says so
            client.data.checkout("photos", tmp_path / "damaged")
