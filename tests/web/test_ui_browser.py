"""The UI in Debian's chromium, by the keyboard alone: from home to what an answer rests on, and a decision approved; and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.web.ui.static import url
from tests.conftest import running_server
from tests.web import walk

pytestmark = pytest.mark.browser
TABS = 90
"""Presses of Tab after which something counts as not reachable."""
FOCUSED = (
    "() => { const e = document.activeElement; return (e.getAttribute('aria-label') || e.innerText || e.id || '').replace(/\\s+/g, ' ').trim(); }"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, walk.Seeded]]:
    """A running server whose default project has one of everything."""
    home = tmp_path_factory.mktemp("site")
    with TestClient(create_app(Settings(home=home, workers=0, fsync=False))) as client:
        made = walk.seed(client, "default")
    with running_server(home) as address:
        yield address, made


@pytest.fixture
def page(chromium: Any, site: tuple[str, walk.Seeded]) -> Iterator[Any]:
    """A page of the site; fails at the end if the browser complained (a blocked script, a missing file, an exception)."""
    context = chromium.new_context(base_url=site[0], viewport={"width": 1280, "height": 900}, color_scheme="light")
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    yield page
    context.close()
    assert complaints == []


def tab_to(page: Any, name: str) -> None:
    """Press Tab until what has the focus is called `name` (or begins so)."""
    seen = []
    for _ in range(TABS):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
        if seen[-1].startswith(name):
            return
    pytest.fail(f"{name!r} is not reached by Tab; reached: {seen}")


def enter(page: Any, name: str, address: str) -> None:
    """Go to what is called `name` by Tab, press Enter, and wait for the address."""
    tab_to(page, name)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{address}**")


def test_from_home_to_the_model_behind_an_answer(page: Any, site: tuple[str, walk.Seeded]) -> None:
    made = site[1]
    page.goto("/ui")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    enter(page, walk.NAME, f"/ui/endpoints/{walk.NAME}")
    enter(page, made.ids["trace_id"][:12], f"/ui/traces/{made.ids['trace_id']}")
    enter(page, "Why this answer", "/ui/lineage")
    enter(page, f"model {walk.NAME}@1", f"/ui/assets/model/{walk.NAME}/1")
    assert page.inner_text("h1").startswith("model")
    page.keyboard.press("/")
    page.keyboard.type(f"release:{walk.NAME}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/assets/release/{walk.NAME}/1")


def test_a_decision_is_approved_by_the_keyboard(page: Any, site: tuple[str, walk.Seeded]) -> None:
    decision = site[1].ids["decisions/id"]
    page.goto("/ui")
    enter(page, "Review and decide", f"/ui/decisions/{decision}")
    tab_to(page, "why")
    page.keyboard.type("It holds on every requirement.")
    tab_to(page, "Approve and move champion")
    page.keyboard.press("Space")
    page.wait_for_url("**done=approve**")
    assert "Approved. The alias champion now points to" in page.inner_text("main")
    told = page.request.get(f"/api/v1/decisions/{decision}").json()
    assert (told["approval"], told["approval_why"]) == ("approved", "It holds on every requirement.")


def test_rows_are_labelled_by_the_keyboard(page: Any) -> None:
    page.goto(f"/ui/queues/{walk.NAME}")
    for key in ("2", "4", "c"):
        page.keyboard.press(key)
    page.keyboard.type("s is typed, not skipped")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**done=saved**")
    page.keyboard.press("b")
    page.wait_for_url("**item=**")
    assert page.input_value("#comment") == "s is typed, not skipped" and page.is_checked("input[value=yes]")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_url("**done=saved**")
    page.keyboard.press("s")
    page.wait_for_url("**done=skipped**")
    people = {p["annotator"]: p for p in page.request.get(f"/api/v1/queues/{walk.NAME}").json()["people"]}
    assert (people["local"]["labels"], people["local"]["skipped"]) == (1, 1)
    labels = [i["labels"][0]["answers"] for i in page.request.get(f"/api/v1/queues/{walk.NAME}/items").json()["items"] if i["labels"]]
    assert {"risky": "no", "points": 4} in labels


@pytest.mark.skipif(not url("vendor/uplot.min.js"), reason="the front-end packages are not built in: pip install -e .")
def test_the_theme_is_kept_and_charts_are_drawn(page: Any) -> None:
    page.goto(f"/ui/endpoints/{walk.NAME}")
    page.wait_for_selector(".uplot canvas")
    assert page.get_attribute("html", "data-theme") is None
    tab_to(page, "Signed in as local")
    page.keyboard.press("Enter")
    tab_to(page, "Switch light and dark")
    page.keyboard.press("Enter")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('details.drop[open]')") is None
    page.goto("/ui/traces")
    assert page.get_attribute("html", "data-theme") == "dark", "the server draws the next page in the theme that was chosen"


def test_a_wide_graph_says_that_it_goes_on(chromium: Any, site: tuple[str, walk.Seeded]) -> None:
    context = chromium.new_context(base_url=site[0], viewport={"width": 330, "height": 800})
    page = context.new_page()
    page.goto(f"/ui/lineage?ref=release:{walk.NAME}@1")
    box = page.locator(".graph-box").first
    more = page.get_by_role("button", name="More of the graph to the left")
    assert more.is_visible(), "what the release rests on lies to the left of it"
    before = box.evaluate("e => e.scrollLeft")
    more.click()
    page.wait_for_function("before => document.querySelector('.graph-box').scrollLeft < before", arg=before)
    context.close()


def test_pages_work_without_scripts(chromium: Any, site: tuple[str, walk.Seeded]) -> None:
    context = chromium.new_context(base_url=site[0], java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(f"/ui/endpoints/{walk.NAME}")
    page.fill("[name=x-a]", "4")
    page.fill("[name=x-b]", "1")
    page.get_by_role("button", name="Predict").click()
    assert "Answered by" in page.inner_text("#answer")
    for path in ("", "/traces", "/runs", "/gates", "/monitors", "/assets", "/audit"):
        page.goto(f"/ui{path}")
        wide = page.locator("body").bounding_box()
        assert wide is not None and wide["width"] <= 390, f"/ui{path} is wider than a telephone"
    context.close()
