"""The SDK against a server: errors come back as the same classes, calls are retried only where that is safe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import ATTEMPTS, Http, Unreachable, error_of
from everloop.core.errors import Forbidden, NotFound
from everloop.core.settings import Settings
from everloop.web.app import create_app


def in_process(app: TestClient) -> Any:
    """A transport that calls an app with no socket."""

    def call(method: str, url: str, body: Any, headers: dict[str, str], timeout: float) -> tuple[int, Mapping[str, str], bytes]:
        answer = app.request(method, url, content=body, headers=headers)
        return answer.status_code, answer.headers, answer.content

    return call


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as app:
        yield Client(Http("http://127.0.0.1:7600", transport=in_process(app)))


def test_namespaces_are_the_files_of_the_folder(client: Client) -> None:
    assert client.me()["name"] == "local"
    assert client.assets is client.assets and "runs" in dir(client)
    with pytest.raises(AttributeError, match=r"it has: .*assets"):
        client.nothing  # noqa: B018


def test_the_servers_errors_come_back_as_the_same_classes(client: Client) -> None:
    with pytest.raises(NotFound, match="model:x") as found:
        client.assets.get("model:x@1")
    assert found.value.status == 404
    assert isinstance(error_of(403, "application/problem+json", Forbidden("no").__str__().encode()), Exception)
    assert "teapot" in str(error_of(418, "text/plain", b"teapot"))


@pytest.mark.parametrize(("method", "sent", "tries"), [("GET", True, ATTEMPTS), ("POST", True, 1), ("POST", False, ATTEMPTS)])
def test_a_call_is_tried_again_only_where_that_is_safe(monkeypatch: pytest.MonkeyPatch, method: str, sent: bool, tries: int) -> None:
    monkeypatch.setattr("everloop.client.http.time.sleep", lambda _: None)
    seen = []

    def broken(*call: Any) -> Any:
        seen.append(call)
        raise Unreachable("http://x", "refused", sent=sent)

    with pytest.raises(Unreachable, match="No everloop server answers at http://x: refused"):
        Http("http://x", transport=broken).request(method, "/a", json={})
    assert len(seen) == tries


def test_busy_is_waited_for_and_parameters_are_spelled_as_json_would() -> None:
    answers = [(503, {"retry-after": "0"}, b""), (200, {"content-type": "application/json"}, b'{"ok":true}')]
    urls = []

    def transport(method: str, url: str, *_: Any) -> Any:
        urls.append(url)
        return answers.pop(0)

    http = Http("http://x/", transport=transport)
    assert http.get("/a", params={"limit": 3, "all": True, "none": None, "tag": ["x", "y z"]}) == {"ok": True}
    assert urls == ["http://x/a?limit=3&all=true&tag=x&tag=y+z"] * 2
