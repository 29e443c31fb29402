"""Runs in Debian's chromium: the table by the keyboard, live charts, ranges of a plot, and files whose scripts reach nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.web.ui.static import url
from tests.conftest import running_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not url("vendor/uplot.min.js"), reason="the front-end packages are not built in: pip install -e ."),
]
ESCAPE = """<p id=said>nothing</p><script>
let said = [];
try { said.push("parent " + parent.document.title) } catch (e) { said.push("no parent") }
try { said.push("cookie " + document.cookie) } catch (e) { said.push("no cookie") }
fetch("/api/v1/runs").then(() => said.push("fetched"), () => said.push("no fetch")).then(() => { document.getElementById("said").textContent = said.join(", ") });
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A running server with six runs, one of which is under way and has a file that tries to get out."""
    home = tmp_path_factory.mktemp("site")
    with TestClient(create_app(Settings(home=home, workers=0, fsync=False))) as client:
        ids = []
        for i in range(6):
            body = {"name": f"run-{i}", "params": {"lr": str(0.1 / (i + 1)), "model": "ab"[i % 2]}, "started_at": 1_790_000_000 + i}
            id = client.post("/api/v1/runs", json=body).json()["id"]
            points = [{"key": "loss", "value": 1 / (step + 1), "step": step} for step in range(200)]
            client.post(f"/api/v1/runs/{id}/log", json={"metrics": [*points, {"key": "auc", "value": 0.5 + i / 100, "step": 0}]})
            if i:
                client.patch(f"/api/v1/runs/{id}", json={"status": "finished"})
            ids.append(id)
        client.put(f"/api/v1/runs/{ids[0]}/artifacts/page.html", content=ESCAPE.encode())
    with running_server(home) as address:
        yield address, ids


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained about."""
    return []


@pytest.fixture
def page(chromium: Any, site: tuple[str, list[str]], complaints: list[str]) -> Iterator[Any]:
    """A page of the site; fails at the end if the browser complained."""
    context = chromium.new_context(base_url=site[0], viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    yield page
    context.close()
    assert complaints == []


def test_runs_are_chosen_and_compared_by_the_keyboard(page: Any, site: tuple[str, list[str]]) -> None:
    page.goto("/ui/runs")
    for key in ("j", "x", "j", "j", "x"):
        page.keyboard.press(key)
    assert page.inner_text("[data-count]") == "2 runs chosen"
    page.keyboard.press("c")
    page.wait_for_url("**/ui/runs/compare**")
    assert page.url.count("run=") == 2 and site[1][5] in page.url and site[1][3] in page.url


def test_columns_are_picked_and_kept_in_the_address(page: Any) -> None:
    page.goto("/ui/runs?order=metrics.auc+DESC")
    page.click("summary:has-text('Columns')")
    page.fill("#narrow", "auc")
    assert page.locator(".picker [data-key]:visible").count() == 1
    page.fill("#narrow", "")
    page.locator(".picker .ticks input:checked").evaluate_all("boxes => boxes.forEach(box => box.click())")
    page.check(".picker input[value='metrics.auc']")
    page.click("text=Show these")
    page.wait_for_url("**col=metrics.auc**")
    assert page.locator("table.runs thead th").count() == 3 and "order=metrics.auc" in page.url


def test_charts_follow_a_run_under_way(page: Any, site: tuple[str, list[str]]) -> None:
    ids = site[1]
    page.goto(f"/ui/runs/compare?run={ids[0]}&run={ids[1]}")
    page.wait_for_selector("[data-metric=loss] canvas")
    last = "document.querySelector('[data-metric=loss]')._chart.data[0].at(-1)"
    assert page.evaluate(last) == 199
    page.request.post(f"/api/v1/runs/{ids[0]}/log", data={"metrics": [{"key": "loss", "value": 0.1, "step": 500}]})
    page.wait_for_function(f"() => {last} === 500", timeout=15_000)
    page.focus("#live-smooth")
    page.keyboard.press("ArrowRight")
    page.check("input[name=log]")
    page.select_option("#live-x", "relative")
    page.wait_for_function(
        "() => location.search.includes('x=relative') && location.search.includes('log=1') && location.search.includes('smooth=0.01')"
    )
    page.fill("#live-find", "nothing is called so")
    assert page.locator("[data-metric=loss]").is_hidden() and page.locator("[data-none]").is_visible()


def test_ranges_of_a_plot_work_by_fields_and_by_drag(page: Any) -> None:
    page.goto("/ui/runs/plot?axis=params.lr&axis=params.model&axis=metrics.auc")
    page.select_option("#range-1", "0")
    page.wait_for_function("() => document.querySelector('[data-within]').textContent === '3 of 6 runs'")
    assert page.locator("[data-within-table] tbody tr").count() == 3 and page.locator("[data-compare]").get_attribute("href").count("run=") == 3
    page.click("text=Clear ranges")
    page.wait_for_function("() => document.querySelector('[data-within]').textContent === 'all 6 runs'")
    grip = page.locator(".parallel .grip").nth(2)
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('[data-within]').textContent === '3 of 6 runs'")
    assert page.locator(".parallel .brush").count() == 1


def test_a_script_in_a_file_reaches_nothing(page: Any, site: tuple[str, list[str]], complaints: list[str]) -> None:
    for address in (f"/ui/runs/{site[1][0]}?tab=artifacts&path=page.html", f"/ui/runs/{site[1][0]}/file/page.html"):
        page.goto(address)
        inside = page.frames[-1]
        inside.wait_for_function("() => document.getElementById('said').textContent !== 'nothing'")
        assert inside.inner_text("#said") in ("no parent, no cookie, no fetch", "parent , no cookie, no fetch"), (
            "opened by itself its parent is itself"
        )
    assert complaints and all("Content Security Policy" in told or "connect" in told for told in complaints)
    complaints.clear()


def test_no_page_of_runs_is_wider_than_a_telephone(chromium: Any, site: tuple[str, list[str]]) -> None:
    address, ids = site
    context = chromium.new_context(base_url=address, viewport={"width": 400, "height": 800})
    page = context.new_page()
    paths = ["/ui/runs", "/ui/runs?group=params.model", "/ui/runs/columns", "/ui/runs/plot", f"/ui/runs/compare?run={ids[0]}&run={ids[1]}"]
    for path in [*paths, *(f"/ui/runs/{ids[0]}?tab={tab}" for tab in ("", "metrics", "artifacts&path=page.html", "lineage", "code", "traces"))]:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, path
    context.close()
