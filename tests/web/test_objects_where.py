"""Where objects lie is told on this host alone, also behind a proxy that runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app


@pytest.mark.parametrize("header", [{"x-forwarded-for": "203.0.113.7"}, {"forwarded": "for=203.0.113.7"}, {"x-real-ip": "203.0.113.7"}])
def test_a_client_behind_a_proxy_of_this_host_is_not_told_paths(tmp_path: Path, header: dict[str, str]) -> None:
    app = create_app(Settings(home=tmp_path, workers=0, fsync=False))
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50000)) as web:
        digest = web.post("/api/v1/objects", content=b"some bytes").json()["digest"]
        key = web.post("/api/v1/keys", json={"name": "far", "role": "viewer"}).json()["key"]
        signed = {"authorization": f"Bearer {key}"}
        asked = {"digests": [digest]}
        assert web.post("/api/v1/objects/where", json=asked, headers=signed).json()["objects"][digest]
        assert web.post("/api/v1/objects/where", json=asked, headers=signed | header).json() == {"objects": {}}
