"""`el.run` against a real server: buffered points arrive, a failure is kept with the run, a killed program's points too."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.client import Client, connect, environment, spool, system
from everloop.client.http import Http, Unreachable
from everloop.client.runs import Runs
from tests.conftest import running_server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield connect(url, start=False)


def test_a_run_arrives_whole(client: Client) -> None:
    with client.runs.start("forest", experiment="credit", params={"depth": 3}) as run:
        for step in range(7000):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_metrics({"auc": 0.8, "odd": float("nan")})
        run.log_artifact(b"hello", "notes/a.txt")
    found = client.runs.get(run.id)
    assert (found["status"], found["params"], found["metrics"]["auc"], found["metrics"]["odd"]) == ("finished", {"depth": "3"}, 0.8, "NaN")
    assert [point["step"] for point in client.runs.history(run.id, "loss")] == list(range(7000))
    assert client.runs.get_artifact(run.id, "notes/a.txt") == b"hello"
    chart = client.runs.chart(run.id, "loss", 50)
    assert len(chart) == 50 and chart[0]["max"] == 1.0 and chart[-1]["step"] == 6999 and client.runs.chart(run.id, "odd")[0]["value"] == "NaN"
    with pytest.raises(ZeroDivisionError), client.runs.start("breaks") as broken:
        print(1 / 0)
    assert client.runs.get(broken.id)["status"] == "failed" and "ZeroDivisionError" in client.runs.get(broken.id)["error"]


def test_a_terminated_program_leaves_its_points(client: Client, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import faulthandler, time\nfaulthandler.dump_traceback_later(60)\n"  # should it hang, this says where
        f"from everloop.client import connect\nrun = connect({client.url!r}, start=False).runs.start('cut')\n"
        "run.log_metric('loss', 1.0)\nrun.log_metric('loss', 0.5, step=1)\nprint(run.id, flush=True)\ntime.sleep(300)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    found = client.runs.get(id)
    assert found["status"] == "killed" and found["metrics"]["loss"] == 0.5


PROGRAM = """
import os, sys, time
from everloop.client import connect
run = connect({url!r}, start=False).runs.start("killed", system_metrics=0)
for step in range(3000):
    run.log({{"loss": 1.0 / (step + 1), "odd": float("nan")}}, step=step)
print(run.id, flush=True)
time.sleep({wait})
{end}
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, so that no other test's leftovers are in it."""
    monkeypatch.setenv("EVERLOOP_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "runs"


def program(tmp_path: Path, url: str, wait: float, end: str) -> tuple[subprocess.Popen[str], str]:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM.format(url=url, wait=wait, end=end))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


class Flaky:
    """A network that can be taken away: a transport of `Http`."""

    def __init__(self) -> None:
        self.inner, self.away, self.calls = Http("http://127.0.0.1:1")._transport, False, 0

    def __call__(self, method: str, url: str, *more: Any) -> Any:
        self.calls += 1
        if self.away:
            raise Unreachable(url, "taken away", sent=True)
        return self.inner(method, url, *more)


def test_what_a_killed_program_had_spooled_is_sent_by_the_next_one(client: Client, tmp_path: Path, state: Path) -> None:
    flaky = Flaky()
    process, id = program(tmp_path, client.url, 0.4, "time.sleep(60)")
    time.sleep(0.3)
    process.kill()
    process.wait()
    left = list(state.glob("*.spool"))
    assert len(left) == 1  # the run did not end, so its file is there, whether sent or not
    again = Runs(Http(client.url, transport=flaky))
    with again.start("next", system_metrics=0):
        deadline = time.time() + 20
        while list(state.glob(f"{id}*")) and time.time() < deadline:
            time.sleep(0.05)
    assert [point["step"] for point in client.runs.history(id, "loss")] == list(range(3000))
    assert client.runs.sync() == {"runs": [], "spans": 0, "messages": 0, "refused": [], "elsewhere": []} and list(state.iterdir()) == []


def test_sending_twice_changes_nothing(client: Client, state: Path) -> None:
    with client.runs.start("once", system_metrics=0) as run:
        run.log({"a": 1.0, "b": math.inf})
        run.flush()
        copy = run._spool.path.read_bytes()
    path = state / f"{run.id}-again.spool"
    path.write_bytes(copy + b'L{"series":{"torn')
    assert client.runs.sync()["runs"] == [run.id]
    assert len(client.runs.history(run.id, "a")) == 1 and client.runs.get(run.id)["status"] == "finished"


def test_nothing_is_lost_while_the_server_is_away(client: Client, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flaky = Flaky()
    runs = Runs(Http(client.url, transport=flaky))
    run = runs.start("away", system_metrics=0)
    run.log({"loss": 0.0}, step=0)
    run.flush()
    flaky.away = True
    for step in range(1, 500):
        run.log({"loss": float(step)}, step=step)
    (tmp_path / "f.bin").write_bytes(b"x" * 100_000)
    run.set_tags({"while": "away"})
    run.log_artifact(tmp_path / "f.bin")
    flaky.away = False
    run.finish()
    assert [point["step"] for point in client.runs.history(run.id, "loss")] == list(range(500))
    assert client.runs.get(run.id)["tags"]["while"] == "away" and len(client.runs.get_artifact(run.id, "f.bin")) == 100_000
    assert list(state.glob("*.spool")) == []


def test_a_run_logged_offline_is_sent_whole_later(client: Client, state: Path) -> None:
    with Runs(None).start("offline", params={"lr": 0.1}, offline=True, system_metrics=0) as run:
        run.log({"loss": 0.5}, step=3)
        run.log_text("hello", "notes.txt")
    assert client.runs.sync()["runs"] == [run.id]
    found = client.runs.get(run.id)
    assert (found["name"], found["status"], found["params"], found["metrics"]) == ("offline", "finished", {"lr": "0.1"}, {"loss": 0.5})
    assert client.runs.get_artifact(run.id, "notes.txt") == b"hello" and abs(found["started_at"] - time.time()) < 60


def test_what_waits_goes_to_its_own_project_alone(client: Client, state: Path) -> None:
    client._http.post("/api/v1/projects", json={"name": "other"})
    with client.runs.start("mine", system_metrics=0) as run:
        run.flush()
        copy = run._spool.path.read_bytes()
    (state / f"{run.id}-left.spool").write_bytes(copy + b'L{"series":{"late":{"value":[1.0],"step":[0],"at":[1.0]}}}\n')
    with Runs(None).start("offline", offline=True, system_metrics=0):
        pass
    theirs = Runs(Http(client.url, project="other"))
    with theirs.start("theirs", system_metrics=0) as other:
        other._send_leftovers()
    assert [one["name"] for one in theirs.search()["items"]] == ["theirs"]  # nobody said that what was logged offline belongs here
    assert [one["run"] for one in theirs.sync()["elsewhere"]] == [run.id]
    assert client.runs.sync()["runs"] == [run.id] and client.runs.get(run.id)["metrics"]["late"] == 1.0


def test_a_spool_that_is_being_made_is_left_alone(state: Path) -> None:
    state.mkdir(parents=True)
    for name, age in (("new", 0.0), ("old", 3600.0)):
        (state / f"{name}.spool").touch()
        os.utime(state / f"{name}.spool", (time.time() - age, time.time() - age))
    assert list(spool.leftovers()) == []
    assert [path.name for path in state.glob("*.spool")] == ["new.spool"]


@pytest.mark.parametrize("sent_before", (False, True))
def test_what_the_server_refuses_is_kept_and_told(client: Client, state: Path, capsys: pytest.CaptureFixture[str], sent_before: bool) -> None:
    run = client.runs.start("refused", system_metrics=0)
    client.runs.delete(run.id)
    run.log({"loss": 1.0})
    if sent_before:  # the thread is refused while nobody waits for it
        ends = time.monotonic() + 30
        while not list(state.glob("*.refused")) and time.monotonic() < ends:
            time.sleep(0.02)
    with pytest.raises(Exception, match="active"):
        run.flush()
    run.finish()
    assert "is kept in" in capsys.readouterr().err and len(list(state.glob("*.refused"))) >= 1


def test_bad_values_are_told_where_they_are_written(client: Client, state: Path) -> None:
    with client.runs.start("bad", system_metrics=0) as run:
        for bad, error in (({"k" * 300: 1.0}, ValueError), ({"": 1.0}, ValueError), ({"a": "text"}, TypeError), ({"a": object()}, TypeError)):
            with pytest.raises(error):
                run.log(bad)
        with pytest.raises(ValueError, match="64 bits"):
            run.log({"a": 1.0}, step=2**70)
        with pytest.raises(ValueError, match="no time"):
            run.log_metric("a", 1.0, at=math.inf)
        run.log({"good": np.float32(2.0), "count": 3, "flag": True}, step=1)
        run.log({"good": 5.0}, step=1)  # the same step again: both are kept
        run.log_metric("good", 1.0, step=2, at=1.0)  # a clock that was wrong
    assert sorted(p["value"] for p in client.runs.history(run.id, "good")) == [1.0, 2.0, 5.0]
    assert client.runs.get(run.id)["metrics"] == {"good": 1.0, "count": 3.0, "flag": 1.0}


def test_pictures_tables_and_figures_become_files(client: Client, state: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with client.runs.start("media", system_metrics=0) as run:
        run.log({"sample": np.random.default_rng(0).random((8, 6, 3)), "rows": [{"a": 1, "b": "x"}], "loss": 1.0}, step=7)
        run.log_table(pandas.DataFrame({"a": [1, 2]}), "table.csv")
        run.log_json({"n": np.int64(3)}, "deep/facts.json")
    files = {one["path"] for one in client.runs.artifacts(run.id)}
    assert {"sample/7.png", "rows/7.parquet", "table.csv", "deep/facts.json"} <= files
    assert client.runs.get_artifact(run.id, "table.csv") == b'"a"\n1\n2\n'
    picture = client.runs.get_artifact(run.id, "sample/7.png")
    assert struct.unpack(">II", picture[16:24]) == (6, 8)


def test_the_machines_load_is_logged(client: Client, state: Path) -> None:
    with client.runs.start("busy", system_metrics=0.1) as run:
        time.sleep(1.0)
    found = client.runs.get(run.id)["metrics"]
    assert found["system/memory_percent"] > 0 and "system/process_cpu_percent" in found and system.hardware()["cpus"] == os.cpu_count()


def test_the_environment_has_the_patch_and_the_untracked_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)

    git("init", "-q", "-b", "trunk")
    (tmp_path / "lib.py").write_text("x = 1\n")
    git("add", "."), git("commit", "-qm", "first")
    (tmp_path / "lib.py").write_text("x = 2\n")
    (tmp_path / "new.py").write_text("print(1)\n")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "new.py"), "--api-key", "s3cret"])
    monkeypatch.chdir(tmp_path)
    environment.code.cache_clear()
    found, kept = environment.code(), dict(environment.sources())
    environment.code.cache_clear()
    assert (found["branch"], found["dirty"], found["folder"], len(found["commit"])) == ("trunk", True, ".", 40) and "s3cret" not in str(found)
    assert b"+x = 2" in kept["code/dirty.patch"] and kept["code/untracked/new.py"] == b"print(1)\n"


def test_a_spool_is_one_programs(state: Path) -> None:
    state.mkdir(parents=True)
    held = spool.Spool(state / "a.spool", {"id": "a", "server": "http://x"})
    assert list(spool.leftovers("http://x")) == []
    held.add(spool.LOG, b"{}")
    held.close()
    assert [one.head["id"] for one in spool.leftovers("http://x")] == ["a"] and list(spool.leftovers("http://y")) == []


def test_secrets_of_a_command_and_of_changed_code_are_masked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "sk-" + "a1" * 12
    words = ["t.py", "--api-key", "x", "--auth=y", "--db", "postgres://u:pw@h/x", "--header", "Authorization: Bearer abcdefgh", key]
    shown = ["t.py", "--api-key", "***", "--auth=***", "--db", "postgres://u:***@h/x", "--header", "Authorization: Bearer ***", "***"]
    assert environment.masked(words) == shown
    plain = ["t.py", "--tokenizer", "bert-base", "--max_tokens", "5", "--author", "ann", "--use-token-cache", "--lr", "0.1", "dataset:credit@3"]
    assert environment.masked(plain) == plain

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)

    git("init", "-q")
    old = "".join(f"line = {i}\n" for i in range(9))
    (tmp_path / "lib.py").write_text(f"OLD = '{key}'\n" + old)
    git("add", "."), git("commit", "-qm", "first")
    (tmp_path / "lib.py").write_text(f"OLD = '{key}'\n" + old + f"KEY = '{key}'\nPASSWORD = 'hunter2'\n")
    (tmp_path / "train.py").write_text(f"api_key = '{key}'\nrate = 0.1\n")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    environment.code.cache_clear()
    kept = dict(environment.sources())
    environment.code.cache_clear()
    assert kept["code/untracked/train.py"] == b"api_key = '***'\nrate = 0.1\n"
    patch = kept["code/dirty.patch"]
    assert key.encode() not in patch and b"+KEY = '***'\n+PASSWORD = '***'\n" in patch
    git("checkout", "-q", "lib.py")
    done = subprocess.run(["git", "-C", str(tmp_path), "apply", "-"], input=patch, capture_output=True)
    assert done.returncode == 0, done.stderr  # masked, it applies all the same
