"""The SDK and the CLI against a real server process, as a user has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.client import Client, connect
from everloop.core.errors import NotFound
from tests.conftest import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    process = subprocess.Popen([sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(home)], stdout=subprocess.DEVNULL)
    client = connect(f"http://127.0.0.1:{port}", start=False)
    for _ in range(150):
        try:
            client.health()
            break
        except Exception:
            time.sleep(0.2)
    yield client.url, process, home
    if process.poll() is None:
        process.terminate()
        process.wait(30)


@pytest.fixture
def client(server: tuple[str, subprocess.Popen[bytes], Path]) -> Client:
    return connect(server[0], start=False)


def cli(server: tuple[str, subprocess.Popen[bytes], Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EVERLOOP_URL": server[0]}
    return subprocess.run([sys.executable, "-m", "everloop", *arguments], capture_output=True, text=True, env=env, timeout=60)


def test_assets_go_round(client: Client) -> None:
    files = client.assets.put_files({"b.txt": b"two", "a.txt": b"one"})
    made = client.assets.register("dataset", "loans", {"format": "files", "files": files})
    assert [f["path"] for f in client.assets.get("dataset:loans@latest")["manifest"]["files"]] == ["a.txt", "b.txt"]
    assert client.assets.get_object(files[0]["digest"]) == b"one"
    assert client.assets.move_alias(made["ref"], "golden")["ungated"]
    with pytest.raises(NotFound, match="Did you mean: loans"):
        client.assets.get("dataset:laons")


def test_why_answers_over_http(client: Client) -> None:
    client._http.post("/api/v1/assets", json={"kind": "prompt", "name": "tutor", "manifest": {"messages": [{"role": "user", "content": "{{q}}"}]}})
    why = client.why("prompt:tutor@1")
    assert why["subject"] == "prompt:tutor@1" and why["nodes"][0]["by"] == "local"


def test_runs_are_tracked(client: Client) -> None:
    run = client.runs.start("first", kind="training")
    with run:
        run.log_params({"depth": 3})
        for step in range(10):
            run.log_metric("loss", 1 / (step + 1), step=step)
    found = client.runs.get(run.id)
    assert found["status"] == "finished" and found["params"] == {"depth": "3"} and found["metrics"]["loss"] == pytest.approx(0.1)


def test_the_command_line_says_what_it_did_and_what_is_wrong(server: tuple[str, subprocess.Popen[bytes], Path], client: Client) -> None:
    client.assets.register("policy", "safe", {"rules": []})
    assert "you are local, admin of project default" in cli(server, "health").stdout
    assert "(ungated)" in cli(server, "alias", "policy:safe@1", "staging").stdout
    assert "policy:safe@1" in cli(server, "why", "policy:safe").stdout
    wrong = cli(server, "alias", "policy:sfae@1", "staging")
    assert wrong.returncode == 2 and "Did you mean: safe?" in wrong.stderr and "Traceback" not in wrong.stderr
    key = cli(server, "keys", "create", "ci", "--role", "viewer").stdout.strip()
    assert connect(server[0], key=key, start=False).me()["role"] == "viewer"
    home_taken = cli(server, "up", "--port", str(free_port()), "--home", str(server[2]))
    assert home_taken.returncode == 2 and "is in use" in home_taken.stderr


def test_sigterm_drains_and_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        port = free_port()
        command = [sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(tmp_path)]
        for turn in range(2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            client = connect(f"http://127.0.0.1:{port}", start=False)
            for _ in range(150):
                try:
                    client.health()
                    break
                except Exception:
                    time.sleep(0.2)
            if turn == 0:
                made = client.assets.register("policy", how.name, {"rules": [], "refusal": "No."})
            else:
                assert client.assets.get(f"policy:{how.name}")["digest"] == made["digest"]
            process.send_signal(how if turn == 0 else signal.SIGTERM)
            code = process.wait(30)
            assert turn == 0 or code in (0, -signal.SIGTERM)
