"""A run made again from what was kept with it: the commit, the uncommitted changes, the program that git does not know, the data it read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.client import Client, connect, reproduce
from everloop.core.errors import BadInput, Conflict
from tests.conftest import running_server

PROGRAM = """
import sys
import everloop as el
from lib import FACTOR

rows = [float(line) for line in open(sys.argv[1]).read().split()]
with el.run("sum", seed=3, system_metrics=0) as run:
    run.log({"sum": FACTOR * sum(rows)})
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield connect(url, start=False)


def test_a_dirty_run_is_made_again_with_the_same_metrics(client: Client, tmp_path: Path) -> None:
    repository = tmp_path / "project"
    (repository / "src").mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)

    git("init", "-q")
    (repository / "src" / "lib.py").write_text("FACTOR = 1\n")
    (repository / "src" / "rows.txt").write_text("1\n2\n3.5\n")
    git("add", "."), git("commit", "-qm", "first")
    (repository / "src" / "lib.py").write_text("FACTOR = 10\n")
    (repository / "src" / "train.py").write_text(PROGRAM)
    env = {**os.environ, "EVERLOOP_URL": client.url, "EVERLOOP_STATE": str(tmp_path / "state")}
    subprocess.run([sys.executable, "train.py", "rows.txt"], cwd=repository / "src", env=env, check=True)
    first = client.runs.search("attributes.name = 'sum'")["items"][0]
    assert first["metrics"] == {"sum": 65.0} and first["environment"]["seeds"] == {"seed": 3}
    (repository / "src" / "lib.py").write_text("FACTOR = 99\n")  # the world goes on
    made = reproduce.prepare(client, f"run:{first['id']}", tmp_path / "again")
    assert (tmp_path / "again" / "src" / "lib.py").read_text() == "FACTOR = 10\n" and made.work == tmp_path / "again" / "src"
    found = reproduce.again(client, made)
    assert found["same"] and found["metrics"] == [{"key": "sum", "then": 65.0, "now": 65.0, "same": True}]
    assert client.runs.get(found["run"])["tags"][reproduce.TAG] == first["id"]
    with pytest.raises(Conflict, match="not empty"):
        reproduce.prepare(client, first["id"], tmp_path / "again")


def test_a_run_without_code_says_so(client: Client, tmp_path: Path) -> None:
    id = client._http.post("/api/v1/runs", json={"name": "bare"})["id"]
    with pytest.raises(BadInput, match="kept no code"):
        reproduce.prepare(client, id, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_metrics_side_by_side() -> None:
    rows = reproduce.compare({"a": 1.0, "b": "NaN", "c": 2.0, "system/x": 1.0}, {"a": 1.0 + 1e-9, "b": "NaN", "d": 1.0})
    assert [(row["key"], row["same"]) for row in rows] == [("a", True), ("b", True), ("c", False), ("d", False)]
