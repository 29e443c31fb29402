"""What a server cannot start with, by the real command: a sentence saying what, where and what to do; exit code 2; nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port

Damage = Callable[[Path], object]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EVERLOOP_ADMIN_PASSWORD": "", **environment}
    return subprocess.run([sys.executable, "-m", "everloop", *words], capture_output=True, text=True, timeout=60, env=env)


def up(home: Path, *more: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    return command("up", "--home", str(home), "--port", str(port or free_port()), "--workers", "0", *more)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = done.stderr
    assert done.returncode == 2, (done.returncode, said)
    assert "Traceback" not in said and "answers at" not in done.stdout, said
    assert len([line for line in said.splitlines() if " ERROR " not in line]) == 2, said  # the sentence, and what to do
    for word in words:
        assert word in said, said


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A server and its home."""
    home, port = tmp_path_factory.mktemp("running") / "home", free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop", "up", "--home", str(home), "--port", str(port), "--workers", "0"], stdout=subprocess.DEVNULL
    )
    for _ in range(150):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield home, f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that a server has had, with an asset and a trace in it."""
    from starlette.testclient import TestClient

    from everloop.core.settings import Settings
    from everloop.web.app import create_app

    home = tmp_path_factory.mktemp("used") / "home"
    with TestClient(create_app(Settings(home=home, workers=0)), base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        assert client.post("/api/v1/assets", json={"kind": "dataset", "name": "d", "manifest": {"format": "files", "files": []}}).status_code == 201
        assert client.post("/api/v1/scores", json={"subject": "0" * 32, "name": "thumbs", "value": 1}).status_code == 201
    return home


def test_a_port_or_home_in_use_names_who_has_it(running: tuple[Path, str], tmp_path: Path) -> None:
    home, url = running
    port = int(url.rsplit(":", 1)[1])
    refused(up(tmp_path / "other", port=port), f"Port {port} of 127.0.0.1 is in use by an everloop server", "--port N")
    refused(up(home), f"The home {home} is in use by the server with pid", url, "everloop down", "--home DIR")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused(up(tmp_path / "other", port=other.getsockname()[1]), "is in use by another program")
    refused(up(tmp_path / "other", port=99999), "Port 99999 is not between 0 and 65535")


def test_unknown_references_say_what_there_is(running: tuple[Path, str]) -> None:
    there = {"EVERLOOP_URL": running[1]}
    assert command("alias", "policy:safe@1", "champion", **there).returncode == 2
    refused(command("why", "model:credit@3", **there), 'There is no asset "model:credit@3"', "no model in project 'default' yet")
    refused(command("impact", "nonsense", **there), "'nonsense' is not a reference: the kind is missing", "kind:name@version")
    refused(command("why", "0123", **there), "No trace among the newest 500 has an id that begins with '0123'", "Give the whole id")
    refused(command("why", "zz", **there), "'zz' is neither a reference nor an id")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    refused(up(file), f"The home {file} cannot be a folder: there is a file of that name")
    place = tmp_path / "read-only"
    place.mkdir()
    if os.geteuid():
        place.chmod(0o500)
        refused(up(place), f"The home {place} cannot be written", "--home DIR")
        place.chmod(0o700)
        return
    for options, words in (("ro,size=90m", "cannot be written: Read-only file system"), ("size=8m", "8 MB free; at least 64 MB are needed")):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            refused(up(place), f"{place} ", words, "--home DIR")
            assert not [p for p in place.iterdir() if p.name.startswith(".probe")]
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


def newer(home: Path) -> None:
    db = sqlite3.connect(home / "records.db", isolation_level=None)
    db.execute("update alembic_version set version_num = '9999'")
    db.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (newer, ("schema '9999', which this everloop does not know", "newer everloop")),
        (lambda home: (home / "records.db").write_bytes(os.urandom(5000)), ("records.db cannot be opened: file is not a database", "backup")),
        (lambda home: (home / "telemetry.duckdb").write_bytes(os.urandom(5000)), ("telemetry", "not a valid DuckDB database file", "backup")),
    ],
    ids=["newer schema", "broken records", "broken telemetry"],
)
def test_a_home_of_another_version_or_damaged(used: Path, tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    shutil.copytree(used, home)
    damage(home)
    kept = {p.name: p.read_bytes() for p in home.iterdir() if p.suffix in (".db", ".duckdb")}
    refused(up(home), str(home), *words)
    assert {name: (home / name).read_bytes() for name in kept} == kept, "a server that does not start leaves what is there alone"


def test_a_damaged_index_of_texts_is_made_anew(used: Path, tmp_path: Path) -> None:
    from everloop.store.telemetry import Telemetry

    home = tmp_path / "home"
    shutil.copytree(used, home)
    (home / "telemetry-text.db").write_bytes(os.urandom(5000))
    telemetry = Telemetry(home, fsync=False).open()
    telemetry.wait_open()
    telemetry.flush_sync()
    assert telemetry.query_sync(lambda con: con.execute("select count(*) from scores").fetchone()) == (1,)
    telemetry.close()
    assert (home / "telemetry-text.damaged").exists()


def test_nobody_can_sign_in_beyond_loopback(tmp_path: Path) -> None:
    refused(up(tmp_path / "home", "--host", "0.0.0.0"), "Others can reach 0.0.0.0, and there is no admin yet", "everloop admin create NAME")
    refused(up(tmp_path / "home", "--host", "203.0.113.9"), "203.0.113.9", "cannot be bound", "--host 127.0.0.1")
