"""No key, password, token or session reaches the server's log, its audit, or an error's text, however a request goes wrong."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.conftest import free_port

PASSWORD = "a password that nobody may see"


def test_secrets_stay_out_of_the_log_and_the_audit(tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "home"
    env = {**os.environ, "EVERLOOP_ADMIN_PASSWORD": PASSWORD, "PYTHONWARNINGS": "default"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(home), "--host", "0.0.0.0", "--workers", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
        )
        assert server.stdout is not None and b"answers at" in server.stdout.readline()
        said: list[str] = []

        def ask(method: str, path: str, secret: str, body: bytes | None = None, kind: str = "Bearer") -> str:
            value = base64.b64encode(f"admin:{secret}".encode()).decode() if kind == "Basic" else secret
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{path}", body, {"authorization": f"{kind} {value}", "content-type": "application/json"}, method=method
            )
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                said.append(error.read().decode(errors="replace"))
                return said[-1]

        key = ask("POST", "/api/v1/keys", PASSWORD, b'{"name": "ci", "role": "viewer"}', "Basic").split('"key":"')[1].split('"')[0]
        wrong = "ev_" + "wrong0secret" * 3
        for secret, kind in ((key, "Bearer"), (wrong, "Bearer"), (PASSWORD, "Basic"), (PASSWORD + "!", "Basic")):
            for method, path, body in (
                ("GET", "/api/v1/runs", None),
                ("POST", "/api/v1/assets", b"{broken json"),
                ("POST", "/v2/models/none/infer", b"\xff\xfe"),
                ("POST", "/api/2.0/mlflow/runs/create", b"[]"),
                ("POST", "/v1/traces", b"not a protobuf"),
                ("GET", "/nowhere", None),
            ):
                ask(method, path, secret, body, kind)
        ask("POST", "/api/v1/login", wrong, b'{"user": "admin", "password": "' + PASSWORD.encode() + b'?"}')
        for _ in range(50):  # refusals are gathered for a second before they are written
            audit = ask("GET", "/api/v1/audit?limit=100", PASSWORD, None, "Basic")
            if "access.refused" in audit:
                break
            time.sleep(0.2)
        server.terminate()
        assert server.wait(40) == 0
    everything = (tmp_path / "log").read_text() + audit + "".join(said)
    for secret in (key, wrong, PASSWORD, base64.b64encode(f"admin:{PASSWORD}".encode()).decode()):
        assert secret not in everything
    assert len(said) > 10 and "access.refused" in audit, "the requests went wrong as they should"
    kept = b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    assert key.encode() not in kept and PASSWORD.encode() not in kept, "keys and passwords are kept as digests"
