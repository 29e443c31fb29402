"""The contract of objects: content-addressed, whole or not at all, one namespace a project."""

from __future__ import annotations

import errno
import io
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from everloop.core import packs
from everloop.core.errors import BadInput, Corrupt, NoSpace, NotFound, UpstreamFailed
from everloop.core.limits import OBJECT_CHUNK_ABOVE
from everloop.store.objects import Chunks, Objects, digest_of
from everloop.store.places import open_place
from everloop.store.sweep import sweep, verify


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """moto's S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket there, named as a setting names it; the environment says where and who."""
    import boto3

    more = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_server}
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{time.time_ns()}"
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store, once in every place: the contract that all keep."""
    if request.param == "folder":
        return Objects(tmp_path / "objects")
    url = request.getfixturevalue("s3")
    return Objects(tmp_path / "objects", place=open_place(url, tmp_path / "objects"))


@pytest.fixture
def local(tmp_path: Path) -> Objects:
    """A store in a folder, for what only a folder has."""
    return Objects(tmp_path / "objects")


def size_of(objects: Objects, part: str) -> int:
    return sum(found.size for found in objects.place.list(f"default/{part}"))


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def files(objects: Objects, part: str) -> list[Path]:
    return [f for f in objects.root.glob(f"*/{part}/**/*") if f.is_file()]


@pytest.mark.parametrize("size", [0, 1, OBJECT_CHUNK_ABOVE, OBJECT_CHUNK_ABOVE + 1, 5_000_000])
@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
def test_what_is_put_comes_back(objects: Objects, tmp_path: Path, size: int, form: str) -> None:
    data = noise(size)
    (tmp_path / "in").write_bytes(data)
    source = {"bytes": data, "path": tmp_path / "in", "stream": io.BytesIO(data)}[form]
    digest, length = objects.put("default", source)
    assert (digest, length) == (blake3(data).hexdigest(), size)
    assert objects.get("default", digest) == data
    assert objects.size("default", digest) == size
    assert objects.path("default", digest).read_bytes() == data
    assert objects.export("default", digest, tmp_path / "out").read_bytes() == data
    with objects.open("default", digest) as reader:
        reader.seek(size // 3)
        assert reader.read(1000) == data[size // 3 : size // 3 + 1000]
        reader.seek(0)
        assert reader.read() == data
    assert not files(objects, "tmp")
    assert objects.has("default", digest) and objects.missing("default", [digest, "0" * 64]) == ["0" * 64]


def test_versions_share_their_chunks(objects: Objects) -> None:
    old = noise(8_000_000)
    new = old[:4_000_000] + noise(1000, 2) + old[4_000_000:]
    objects.put("default", old)
    before = size_of(objects, "packs")
    second, _ = objects.put("default", new)
    assert size_of(objects, "packs") - before < 2_500_000
    assert objects.get("default", second) == new


def test_many_small_objects_are_few_files_and_are_put_once(objects: Objects) -> None:
    items = [noise(100, seed) for seed in range(500)] + [noise(2_000_000)]
    found = objects.put_many("default", items)
    packed = [found.key for found in objects.place.list("default/packs")]
    assert len(packed) == 2 and all(found.key.endswith(".list") for found in objects.place.list("default/objects"))
    other = Objects(objects.root, place=objects.place)  # another process
    assert other.missing("default", [digest for digest, _ in found]) == []
    assert [other.get("default", digest) for digest, _ in found] == items
    assert other.put_many("default", items) == found and other.put("default", items[0]) == found[0]
    assert [found.key for found in objects.place.list("default/packs")] == packed and other.size("default", found[3][0]) == 100


def test_a_pack_is_taken_in_whole_or_not_at_all(objects: Objects, tmp_path: Path) -> None:
    items = [(digest_of(data), data) for data in (b"one", b"", b"three")]
    _, parts = packs.build(items)
    whole = b"".join(parts)
    bad = {"cut": whole[:-1], "header": whole[:20], "longer": whole + b"x", "changed": whole[:-2] + b"xx", "none": b"no pack at all, this one"}
    for how, data in bad.items():
        (tmp_path / "pack").write_bytes(data)
        with pytest.raises(BadInput):
            objects.add_pack("default", tmp_path / "pack")
        assert len(objects.missing("default", [digest for digest, _ in items])) == 3, how
    (tmp_path / "pack").write_bytes(whole)
    assert objects.add_pack("default", tmp_path / "pack") == 3
    assert [objects.get("default", digest) for digest, _ in items] == [b"one", b"", b"three"]


def test_a_list_of_chunks_must_make_its_object(objects: Objects) -> None:
    first, second = objects.put_many("default", [b"a" * 10, b"b" * 20])
    whole = digest_of(b"a" * 10 + b"b" * 20)
    for size, chunks, error in ((31, [first, second], BadInput), (30, [second, first], BadInput), (30, [first, ("0" * 64, 20)], NotFound)):
        with pytest.raises(error):
            objects.add_list("default", whole, size, chunks)
        assert not objects.has("default", whole)
    objects.add_list("default", whole, 30, [first, second])
    assert objects.get("default", whole) == b"a" * 10 + b"b" * 20


def test_projects_do_not_see_each_other(objects: Objects) -> None:
    digest, _ = objects.put("Team A/ü".replace("/", " "), b"secret")
    assert not objects.has("default", digest)
    for read in (objects.get, objects.open, objects.size, objects.path):
        with pytest.raises(NotFound):
            read("default", digest)


@pytest.mark.parametrize("digest", ["", "../" * 10 + "etc/passwd", "A" * 64, "0" * 63])
def test_only_a_digest_is_a_digest(objects: Objects, digest: str) -> None:
    with pytest.raises(BadInput):
        objects.get("default", digest)


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_changed_bytes_are_found_out(local: Objects, tmp_path: Path, size: int) -> None:
    digest, _ = local.put("default", noise(size))
    victim = files(local, "packs" if size > OBJECT_CHUNK_ABOVE else "objects")[0]
    os.chmod(victim, 0o644)
    data = bytearray(victim.read_bytes())
    data[-7] ^= 1
    victim.write_bytes(data)
    for read in (local.get, local.path, lambda p, d: local.export(p, d, tmp_path / "x"), lambda p, d: local.open(p, d).read()):
        with pytest.raises(Corrupt):
            read("default", digest)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_nothing_behind(local: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("everloop.store.files.os.write", full)
    for size in (10, 3_000_000):
        with pytest.raises(NoSpace, match="full"):
            local.put("default", noise(size))
    monkeypatch.undo()
    assert not files(local, "objects") and not files(local, "packs") and not files(local, "tmp")


def test_many_writers_at_once(tmp_path: Path) -> None:
    data = [noise(2_000_000, seed) for seed in range(3)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            mine = Objects(tmp_path / "objects", fsync=False)
            for i in range(6):
                digest, _ = mine.put("default", data[(seed + i) % 3])
                assert mine.get("default", digest) == data[(seed + i) % 3]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures
    assert len([f for f in files(Objects(tmp_path / "objects"), "objects") if f.suffix == ".list"]) == 3


def test_file_and_folder_are_fsynced_before_put_answers(local: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def count(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr("everloop.store.files.os.fsync", count)
    digest, _ = local.put("default", b"keep me")
    assert any("/tmp/" in name for name in synced)
    assert any(name.endswith(f"objects/{digest[:2]}") for name in synced)


def test_homes_of_earlier_versions_are_read(local: Objects, tmp_path: Path) -> None:
    data = noise(3_000_000)
    digest, _ = local.put("default", data)
    listed = Chunks(local, "default", digest).chunks
    for name, _ in listed:
        place = local.root / "default" / "chunks" / name[:2] / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(local.get("default", name))
    for pack in files(local, "packs"):
        pack.unlink()
    old = Objects(local.root)
    assert old.get("default", digest) == data and old.put("default", data)[0] == digest and not files(old, "packs")


def test_a_sweep_deletes_what_is_not_needed_in_every_place(objects: Objects) -> None:
    needed = [*objects.put_many("default", [noise(50_000, seed) for seed in range(4)])[:2], objects.put("default", noise(2_000_000))]
    gone = [objects.put("default", b"one"), objects.put("default", noise(2_000_000, 9))]
    live = {digest for digest, _ in needed}
    assert sweep(objects, "default", live, time.time() - 3600).deleted == 0
    done = sweep(objects, "default", live, time.time() + 5)
    assert done.packs_rewritten == 1 and done.deleted_bytes > 2_050_000
    again = Objects(objects.root, place=objects.place)
    assert again.missing("default", [digest for digest, _ in [*needed, *gone]]) == [digest for digest, _ in gone]
    assert all(digest_of(again.get("default", digest)) == digest for digest in live)
    assert not [one for one in verify(again, "default") if one["error"]] and sweep(again, "default", live, time.time() + 5).deleted == 0


def test_what_is_found_again_in_a_bucket_counts_as_new(s3: str, tmp_path: Path) -> None:
    place = open_place(s3, tmp_path)
    place.write("p/packs/x", [b"one ", b"two"])
    first = place.stat("p/packs/x")
    time.sleep(1.1)
    place.touch("p/packs/x")
    assert first is not None and place.stat("p/packs/x").at > first.at and [f.key for f in place.list("p/packs")] == ["p/packs/x"]
    assert place.read("p/packs/x", 2, 3) == b"e t" and place.remove("p/packs/x") and not place.remove("p/packs/x")
    with pytest.raises(FileNotFoundError):
        place.read("p/packs/x")


def test_a_large_file_goes_to_a_bucket_in_parts(s3: str, tmp_path: Path) -> None:
    data = noise(20_000_000)
    (tmp_path / "large").write_bytes(data)
    place = open_place(s3, tmp_path)
    place.take("p/packs/large", tmp_path / "large")
    place.write("p/packs/other", [data])
    assert place.read("p/packs/large") == data == place.read("p/packs/other")


def test_a_bucket_that_cannot_be_used_says_why(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="bucket of s3://no-such-bucket does not exist"):
        Objects(tmp_path, place=open_place("s3://no-such-bucket", tmp_path)).check()
    with pytest.raises(BadInput, match="names no place"):
        open_place("ftp://somewhere", tmp_path)
    monkeypatch.setattr("everloop.store.bucket.BUCKET_RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UpstreamFailed, match="does not answer"):
        Objects(tmp_path, place=open_place(s3, tmp_path)).check()
