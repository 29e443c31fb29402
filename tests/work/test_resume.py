"""A real server and its workers: a kill -9 of either mid-pipeline resumes without repeating finished steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from everloop.core.errors import EverloopError
from tests.conftest import free_port

pytestmark = pytest.mark.check

STEPS = """
import os, time
import everloop as el

def note(step, text):
    with open(step.params["file"], "a") as f:
        f.write(f"{text} {os.getpid()}\\n")

@el.step
def first(step):
    note(step, "first")
    return {"n": 1}

@el.step(after=["first"])
def second(step):
    note(step, "second")
    while not os.path.exists(step.params["go"]):
        time.sleep(0.05)
    step.run.log_metric("n", 2)
    return {"n": step.inputs["first"]["n"] + 1}

pipeline = el.pipeline("p", steps=[first, second])
"""


def up(home: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "EVERLOOP_WORKERS": "1"})


def lines(file: Path, word: str, n: int, seconds: float = 60.0) -> list[str]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = [x for x in (file.read_text().splitlines() if file.exists() else []) if x.startswith(word)]
        if len(found) >= n:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{word} was not seen {n} times: {file.read_text() if file.exists() else None}")


def answering(client: Any) -> None:
    """Wait until the server answers."""
    for _ in range(300):
        try:
            client.pipelines.list()
            return
        except EverloopError:
            time.sleep(0.1)
    raise AssertionError("the server did not come up")


@pytest.mark.check
@pytest.mark.parametrize("victim", ["server", "worker"])
def test_a_kill_resumes_without_repeating(tmp_path: Path, victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import everloop as el

    (tmp_path / "user").mkdir()
    (tmp_path / "user" / f"mine_{victim}.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "user"))
    mine = __import__(f"mine_{victim}")
    port, file, go = free_port(), tmp_path / "said", tmp_path / "go"
    server = up(tmp_path / "home", port)
    try:
        client = el.connect(f"http://127.0.0.1:{port}", start=False)
        answering(client)
        client.pipelines.put(mine.pipeline)
        run = client.pipelines.run("p", {"file": str(file), "go": str(go)})["id"]
        pid = int(lines(file, "second", 1)[0].split()[1])
        if victim == "worker":
            os.kill(pid, signal.SIGKILL)
            lines(file, "second", 2, 90)
        else:
            server.kill()
            server.wait()
            server = up(tmp_path / "home", port)
            answering(client)
        go.touch()
        state = client.pipelines.wait(run, 90)
        assert state["tasks"][1]["result"] == {"n": 2}
        assert len(lines(file, "first", 1)) == 1
    finally:
        server.terminate()
        server.wait(30)
