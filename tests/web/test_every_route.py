"""Every route of the app, also those of protocols, as each role and from another project. A new route is covered by being there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.principal import Principal, Role
from everloop.core.settings import Settings
from everloop.web import routes
from everloop.web.app import create_app
from everloop.web.rights import Rights, allowed
from tests.web import walk

WORKER = Principal("worker", "mine", Role.editor, kind="worker")
ROLES = ["caller", "viewer", "editor", "approver", "admin", "worker"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = create_app(Settings(home=tmp_path_factory.mktemp("home"), workers=0, fsync=False))
    with TestClient(app, base_url="http://127.0.0.1:7600", client=("127.0.0.1", 5)) as client:
        yield client


@pytest.fixture(scope="module")
def seeded(client: TestClient) -> walk.Seeded:
    return walk.seed(client, "mine")


def who_and_headers(client: TestClient, role: str, project: str) -> tuple[Principal, dict[str, str]]:
    ws = client.app.state.workspace  # type: ignore[attr-defined]
    if role == "worker":
        return WORKER, {"authorization": f"Bearer {ws.identity.mint(WORKER.in_project(project), 600)}"}
    return Principal(f"key:{role}", project, Role[role]), walk.key(client, project, role, f"{role}-{len(walk.state(client)['keys'])}")


def table(client: TestClient) -> list[tuple[str, str, str]]:
    found = [(method, path, str(level)) for method, path, level in routes.table(client.app)]  # type: ignore[arg-type]
    assert len(found) > 150 and ("POST", "/v2/models/{name}/infer", "call") in found and ("POST", "/api/2.0/mlflow/runs/create", "editor") in found
    return found


def test_nobody_passes_without_a_principal_beyond_loopback(tmp_path: Path) -> None:
    made = walk.Seeded({}, dict.fromkeys(("runs/id", "experiments/id", "digest", "trace_id", "mlflow-artifacts/path"), "1"))
    with TestClient(create_app(Settings(home=tmp_path, host="0.0.0.0", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as client:
        before = walk.state(client)
        for method, path, level in table(client):
            answer = walk.request(client, method, path, made, {})
            if level == "public":
                assert answer.status_code != 500 and "ev_" not in answer.text, (method, path, answer.text)
            else:
                assert answer.status_code == 401, (method, path, answer.status_code, answer.text)
                assert walk.own_shape(path, answer), (method, path, answer.text)
        assert walk.state(client) == before


@pytest.mark.parametrize("role", ROLES)
def test_a_role_passes_where_it_may_and_changes_nothing_where_it_may_not(client: TestClient, seeded: walk.Seeded, role: str) -> None:
    who, headers = who_and_headers(client, role, "mine")
    before = walk.state(client)
    for method, path, level in table(client):
        if not allowed(level, who):
            answer = walk.request(client, method, path, seeded, headers)
            assert answer.status_code == 403, (method, path, level, answer.status_code, answer.text)
            assert walk.own_shape(path, answer), (method, path, answer.text)
            assert walk.SECRET not in answer.text
    assert changed(before, walk.state(client)) == []
    _, headers = who_and_headers(client, role, "elsewhere")  # where it may, it is not refused; what it asks for need not be there
    for method, path, level in table(client):
        if allowed(level, who) and level != "public":
            answer = walk.request(client, method, path, seeded, headers)
            assert answer.status_code not in (401, 403, 500) or own_name(path), (method, path, level, answer.status_code, answer.text)


def own_name(path: str) -> bool:
    """Routes that a role may use for some names only: one's own password, a project that one is in."""
    return path in ("/api/v1/users/{name}/password", "/session/project")


@pytest.mark.parametrize("role", ["caller", "viewer"])
def test_facades_refuse_by_themselves(client: TestClient, seeded: walk.Seeded, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the layer's table off, what is behind it still refuses."""
    who, headers = who_and_headers(client, role, "mine")
    before = walk.state(client)
    monkeypatch.setattr(Rights, "need", lambda *_: None)
    for method, path, level in table(client):
        if not allowed(level, who) and path != "/":  # which only leads to the UI
            answer = walk.request(client, method, path, seeded, headers)
            page = path.startswith("/ui")  # a page may say no in its text
            assert answer.status_code >= 400 or page or empty(answer), (method, path, answer.status_code, answer.text)
            assert answer.status_code != 500 and (walk.SECRET not in answer.text or (page and role == "viewer")), (method, path, answer.text)
    assert changed(before, walk.state(client)) == []


def test_the_owner_sees_what_others_must_not(client: TestClient, seeded: walk.Seeded) -> None:
    """Without this the tests below could pass by asking for nothing."""
    seen = set()
    for method, path, level in table(client):
        if method == "GET" and level != "public":
            answer = walk.request(client, method, path, seeded, seeded.headers)
            assert answer.status_code not in (401, 403, 500) or level == "site", (method, path, answer.status_code, answer.text)
            if walk.SECRET in answer.text:
                seen.add(path)
    wanted = ("/assets/{kind}/{name}/{at}", "/objects/{digest}", "/runs", "/traces/{trace_id}", "/traces", "/decisions", "/schedules", "/keys")
    assert {f"/api/v1{path}" for path in wanted} <= seen, {f"/api/v1{path}" for path in wanted} - seen
    assert any("mlflow" in path for path in seen)


@pytest.mark.parametrize("role", ["caller", "editor", "admin", "worker"])
def test_nothing_crosses_from_one_project_to_another(client: TestClient, seeded: walk.Seeded, role: str) -> None:
    _, headers = who_and_headers(client, role, f"other-{role}")
    before = walk.state(client, "mine")
    for method, path, level in sorted(table(client), key=lambda route: route[0] != "GET"):  # looked for before anything of the same name is made
        if (role, path) == ("worker", "/api/v1/work/lease"):
            continue  # the server's own workers take the tasks of every project, each with a token that acts in the task's project alone
        answer = walk.request(client, method, path, seeded, headers)
        assert answer.status_code != 500, (method, path, answer.text)
        assert walk.SECRET not in answer.text, (method, path, answer.text[:500])
        if method == "GET" and "{" in path and level == "viewer" and role not in ("caller", "worker") and "/ui" not in path:
            assert answer.status_code in (404, 400) or empty(answer), (method, path, answer.status_code, answer.text[:300])
        if level != "public":
            named = walk.request(client, method, path, seeded, {**headers, "x-everloop-project": "mine"})
            assert named.status_code == 403, (method, path, named.status_code)
    assert changed(before, walk.state(client, "mine")) == []


def empty(answer: Any) -> bool:
    """An answer that lists nothing."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return False
    body = answer.json()
    return isinstance(body, dict) and not any(value for value in body.values() if isinstance(value, list | dict) and value)


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    """What differs between two states: (table, rows gone, rows come)."""
    return [
        (name, [r for r in before[name] if r not in after[name]][:3], [r for r in after[name] if r not in before[name]][:3])
        for name in before
        if before[name] != after[name]
    ]


def test_a_mistyped_path_is_not_found_by_any_role(client: TestClient) -> None:
    for role in ("caller", "viewer", "editor", "worker"):
        _, headers = who_and_headers(client, role, "mine")
        for method in ("GET", "POST"):
            assert client.request(method, "/api/v1/endpionts/x", headers=headers).status_code == 404, (role, method)
