"""Sign-in, keys, projects and isolation, through the app as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.core.principal import Principal, Role
from everloop.core.settings import Settings
from everloop.web.app import create_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path, workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600") as client:
        yield client


def key_of(client: TestClient, role: str, project: str = "default") -> dict[str, str]:
    made = client.post("/api/v1/keys", json={"name": f"{role}-{project}", "role": role}, headers={"x-everloop-project": project})
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


def test_health_and_version(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/version").text.startswith("3.")


def test_on_loopback_one_is_the_local_admin_of_the_default_project(client: TestClient) -> None:
    me = client.get("/api/v1/me").json()
    assert (me["name"], me["project"], me["role"]) == ("local", "default", "admin")


def test_a_wrong_key_is_refused_even_on_loopback(client: TestClient) -> None:
    answer = client.get("/api/v1/me", headers={"authorization": "Bearer ev_wrong"})
    assert answer.status_code == 401 and answer.headers["content-type"] == "application/problem+json"


def test_a_rebound_name_and_a_foreign_page_are_refused(client: TestClient) -> None:
    assert client.get("/api/v1/me", headers={"host": "evil.example"}).status_code == 403
    assert client.post("/api/v1/projects", json={"name": "x"}, headers={"origin": "http://evil.example"}).status_code == 403


def test_keys_carry_project_and_role_and_stop_when_revoked(client: TestClient) -> None:
    assert client.post("/api/v1/projects", json={"name": "school"}).status_code == 201
    viewer, editor = key_of(client, "viewer"), key_of(client, "editor", "school")
    assert client.get("/api/v1/me", headers=editor).json()["project"] == "school"
    assert client.get("/api/v1/keys", headers=viewer).status_code == 403
    body = {"kind": "prompt", "name": "p", "manifest": {"messages": [{"role": "system", "content": "Be kind."}]}}
    assert client.post("/api/v1/assets", json=body, headers=viewer).status_code == 403
    assert client.post("/api/v1/assets", json=body, headers=editor).status_code == 201
    assert client.get("/api/v1/assets/prompt/p/1", headers=editor).status_code == 200
    assert client.get("/api/v1/assets/prompt/p/1", headers=viewer).status_code == 404
    assert client.get("/api/v1/me", headers={**viewer, "x-everloop-project": "school"}).status_code == 403
    assert client.delete("/api/v1/keys/viewer-default").status_code == 204
    assert client.get("/api/v1/me", headers=viewer).status_code == 401


def test_basic_and_header_keys_are_the_same_key(client: TestClient) -> None:
    key = key_of(client, "editor")["authorization"].removeprefix("Bearer ")
    assert client.get("/api/v1/me", auth=("api", key)).json()["role"] == "editor"
    assert client.get("/api/v1/me", headers={"x-api-key": key}).json()["role"] == "editor"


def test_a_minted_token_acts_for_its_principal_until_it_expires(client: TestClient) -> None:
    identity = client.app.app.state.workspace.identity if hasattr(client.app, "app") else client.app.state.workspace.identity  # type: ignore[attr-defined]
    token = identity.mint(Principal("pipeline:credit", "default", Role.editor, kind="pipeline"), 60)
    assert client.get("/api/v1/me", headers={"authorization": f"Bearer {token}"}).json()["name"] == "pipeline:credit"
    stale = identity.mint(Principal("pipeline:credit", "default", Role.editor), -1)
    assert client.get("/api/v1/me", headers={"authorization": f"Bearer {stale}"}).status_code == 401
    assert client.get("/api/v1/me", headers={"authorization": f"Bearer {token[:-3]}abc"}).status_code == 401


def test_objects_come_back_and_belong_to_their_project(client: TestClient) -> None:
    client.post("/api/v1/projects", json={"name": "school"})
    put = client.post("/api/v1/objects", content=b"hello").json()
    assert client.get(f"/api/v1/objects/{put['digest']}").content == b"hello"
    assert client.get(f"/api/v1/objects/{put['digest']}", headers={"x-everloop-project": "school"}).status_code == 404
