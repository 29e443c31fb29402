"""The UI, called in-process: every page answers, with data and without; what users wrote is shown as text; roles and forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app

HTML = {"accept": "text/html"}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[TestClient]:
    """The app of an empty home, as a browser on this machine sees it."""
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), headers=HTML) as client:
        yield client


def test_the_home_of_an_empty_workspace_says_what_to_do(browser: TestClient) -> None:
    page = browser.get("/ui")
    assert page.status_code == 200
    assert "Nothing is served yet." in page.text and "everloop init" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_errors_are_pages_for_a_browser_and_problems_for_a_program(browser: TestClient) -> None:
    page = browser.get("/ui/no-such-page")
    assert page.status_code == 404 and "text/html" in page.headers["content-type"] and "There is nothing at GET /ui/no-such-page." in page.text
    told = browser.get("/ui?range=eternity")
    assert told.status_code == 400 and "There is no time range" in told.text
    program = browser.get("/ui/no-such-page", headers={"accept": "application/json"})
    assert program.headers["content-type"] == "application/problem+json"


def test_static_files_are_named_by_their_content(browser: TestClient) -> None:
    from everloop.web.ui.static import url

    kept = browser.get(url("everloop.css"))
    assert kept.status_code == 200 and "immutable" in kept.headers["cache-control"]
    plain = browser.get("/static/everloop.css")
    assert plain.headers["cache-control"] == "no-cache"
    assert browser.get("/static/everloop.css", headers={"if-none-match": plain.headers["etag"]}).status_code == 304
    assert browser.get("/static/../app.py").status_code == 404


def test_a_hostile_search_is_shown_as_text(browser: TestClient) -> None:
    page = browser.get("/ui/search", params={"q": "<script>alert(1)</script>"})
    assert page.status_code == 200
    assert "<script>alert" not in page.text and "&lt;script&gt;alert" in page.text
