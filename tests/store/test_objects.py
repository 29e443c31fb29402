"""The contract of objects: content-addressed, whole or not at all, one namespace a project."""

from __future__ import annotations

import errno
import io
import os
import random
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from everloop.core import packs
from everloop.core.errors import BadInput, Corrupt, NoSpace, NotFound
from everloop.core.limits import OBJECT_CHUNK_ABOVE
from everloop.store.objects import Chunks, Objects, digest_of


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


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
    before = sum(f.stat().st_size for f in files(objects, "packs"))
    second, _ = objects.put("default", new)
    assert sum(f.stat().st_size for f in files(objects, "packs")) - before < 2_500_000
    assert objects.get("default", second) == new


def test_many_small_objects_are_few_files_and_are_put_once(objects: Objects) -> None:
    items = [noise(100, seed) for seed in range(500)] + [noise(2_000_000)]
    found = objects.put_many("default", items)
    assert len(files(objects, "packs")) == 2 and not [f for f in files(objects, "objects") if f.suffix != ".list"]
    other = Objects(objects.root)  # another process
    assert other.missing("default", [digest for digest, _ in found]) == []
    assert [other.get("default", digest) for digest, _ in found] == items
    assert other.put_many("default", items) == found and other.put("default", items[0]) == found[0]
    assert len(files(objects, "packs")) == 2 and other.size("default", found[3][0]) == 100


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
def test_changed_bytes_are_found_out(objects: Objects, tmp_path: Path, size: int) -> None:
    digest, _ = objects.put("default", noise(size))
    victim = files(objects, "packs" if size > OBJECT_CHUNK_ABOVE else "objects")[0]
    os.chmod(victim, 0o644)
    data = bytearray(victim.read_bytes())
    data[-7] ^= 1
    victim.write_bytes(data)
    for read in (objects.get, objects.path, lambda p, d: objects.export(p, d, tmp_path / "x"), lambda p, d: objects.open(p, d).read()):
        with pytest.raises(Corrupt):
            read("default", digest)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_nothing_behind(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("everloop.store.files.os.write", full)
    for size in (10, 3_000_000):
        with pytest.raises(NoSpace, match="full"):
            objects.put("default", noise(size))
    monkeypatch.undo()
    assert not files(objects, "objects") and not files(objects, "packs") and not files(objects, "tmp")


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


def test_file_and_folder_are_fsynced_before_put_answers(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def count(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr("everloop.store.files.os.fsync", count)
    digest, _ = objects.put("default", b"keep me")
    assert any("/tmp/" in name for name in synced)
    assert any(name.endswith(f"objects/{digest[:2]}") for name in synced)


def test_homes_of_earlier_versions_are_read(objects: Objects, tmp_path: Path) -> None:
    data = noise(3_000_000)
    digest, _ = objects.put("default", data)
    listed = Chunks(objects, "default", digest).chunks
    for name, _ in listed:
        place = objects.root / "default" / "chunks" / name[:2] / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(objects.get("default", name))
    for pack in files(objects, "packs"):
        pack.unlink()
    old = Objects(objects.root)
    assert old.get("default", digest) == data and old.put("default", data)[0] == digest and not files(old, "packs")
