"""Shared fixtures: principals, a store on every records backend, a PostgreSQL server on loopback where Debian's is installed."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everloop.core.clock import FakeClock
from everloop.core.principal import Principal, Role, local_principal
from everloop.store.records import Records

os.environ.setdefault("EVERLOOP_STATE", tempfile.mkdtemp(prefix="everloop-state-"))  # what runs spool stays out of the user's own folder
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def who() -> Principal:
    """The local admin of the default project."""
    return local_principal()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Clients of tests keep their cache apart from the user's."""
    os.environ["EVERLOOP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def other() -> Principal:
    """An editor of another project, who must see nothing of the default one."""
    return Principal("key:other", "other", Role.editor)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the project; the test skips where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}")
    return folder


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running_server(home: Path, workers: int = 0, **env: str) -> Iterator[str]:
    """A real `everloop up` on a free port of loopback, ready when this answers its address; told to stop and waited for at the end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(home)]
    process = subprocess.Popen(command, env={**os.environ, "EVERLOOP_WORKERS": str(workers), **env}, stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, f"the server ended with {process.returncode}"
                time.sleep(0.2)
        else:
            raise AssertionError("the server was not ready within a minute")
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A throw-away PostgreSQL server; skips where initdb is missing."""
    places = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    initdb = next((p for p in places if p), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="everloop-postgres-"))  # not pytest's own folder: another session may tidy that up
    as_root = os.geteuid() == 0
    if as_root and subprocess.run(["id", "nobody"], capture_output=True).returncode:
        pytest.skip("PostgreSQL does not run as root and there is no user nobody")
    data = folder / "data"
    prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if as_root else []
    if as_root:
        shutil.chown(folder, "nobody", "nogroup")
        for parent in [folder, *folder.parents][:4]:
            os.chmod(parent, os.stat(parent).st_mode | 0o055)
    made = subprocess.run(
        [*prefix, initdb, "-D", str(data), "-U", "test", "--auth=trust", "-E", "UTF8", "--no-sync"], capture_output=True, text=True, cwd=folder
    )
    if made.returncode:
        pytest.skip(f"initdb failed: {made.stderr[-300:]}")
    port = free_port()
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [
                *prefix,
                str(Path(initdb).with_name("postgres")),
                "-D",
                str(data),
                "-p",
                str(port),
                "-k",
                str(folder),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        time.sleep(0.5)
        yield f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    """An empty records store, once on each backend."""
    if request.param == "sqlite":
        store = Records.at(tmp_path, clock=FakeClock(), fsync=False).open()
        yield store
        store.close()
        return
    import sqlalchemy as sa

    url = request.getfixturevalue("postgres_url")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"t{os.getpid()}_{time.time_ns()}"
    with admin.connect() as conn:
        conn.execute(sa.text(f'create database "{name}"'))
    store = Records(url.rsplit("/", 1)[0] + f"/{name}", clock=FakeClock()).open()
    yield store
    store.close()
    with admin.connect() as conn:
        conn.execute(sa.text(f'drop database "{name}" with (force)'))
    admin.dispose()
