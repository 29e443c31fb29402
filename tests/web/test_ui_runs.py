"""The pages of runs, called in-process: the table's views, many runs changed at once, comparisons, and files whose scripts stay in their box."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from tests.web import walk

HTML = {"accept": "text/html"}
BAD = "<script>zq()</script>"
ROW = re.compile(r'<th scope="row" class="name"><a href="/ui/runs/(\w+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, list[str]]]:
    """An app with twelve runs of three models, and one whose every name is hostile."""
    with TestClient(create_app(Settings(home=tmp_path_factory.mktemp("runs"), workers=0, fsync=False)), headers=HTML) as client:
        ids = []
        for i in range(12):
            params = {"model": "abc"[i % 3], "lr": str(0.1 / (i + 1)), "an odd `key`": "=1+1"}
            body = {
                "name": f"run-{i}",
                "params": params,
                "tags": {"team": "risk" if i % 2 else "growth"},
                "code": {"commit": f"c{i % 2}", "dirty": True},
            }
            id = client.post("/api/v1/runs", json={**body, "started_at": 1_790_000_000 + i}).json()["id"]
            points = [{"key": "loss", "value": 10 / (step + 1) + i, "step": step} for step in range(30)]
            client.post(f"/api/v1/runs/{id}/log", json={"metrics": [*points, {"key": "auc", "value": 0.5 + i / 100, "step": 0}]})
            ids.append(id)
        bad = {"name": BAD, "experiment": BAD, "params": {BAD: BAD}, "tags": {BAD: BAD}, "started_at": 1_780_000_000}
        ids.append(client.post("/api/v1/runs", json=bad).json()["id"])
        client.post(f"/api/v1/runs/{ids[-1]}/log", json={"metrics": [{"key": BAD, "value": s, "step": s} for s in range(5)]})
        yield client, ids


def shown(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/ui/runs", params=query)
    assert answer.status_code == 200, answer.text[-500:]
    return ROW.findall(answer.text)


def test_the_table_orders_filters_pages_and_pins_by_its_address(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    assert shown(client, order="metrics.auc ASC", filter="metrics.auc > 0.55") == ids[6:12]
    first = client.get(
        "/ui/runs",
        params={"order": "metrics.auc DESC", "n": 25, "filter": "params.model = 'a'", "col": ["params.lr", "metrics.auc"], "pin": "metrics.auc"},
    )
    heads = re.findall(r'title="((?:params|metrics|attributes)\.[^"]+)"', first.text)
    assert heads == ["metrics.auc", "params.lr"], "pinned columns come first, and only what was named is shown"
    assert ROW.findall(first.text) == [ids[9], ids[6], ids[3], ids[0]]
    wrong = client.get("/ui/runs", params={"filter": "metrics.auc > 'high'"})
    assert wrong.status_code == 200 and 'aria-invalid="true"' in wrong.text and "which is not a number" in wrong.text
    listed = client.get("/ui/runs/columns").text
    assert 'value="params.an odd `key`"' in listed and 'value="tags.team"' in listed
    odd = client.get("/ui/runs", params={"col": "params.an odd `key`"})
    assert "order=params.%22an+odd+%60key%60%22+DESC" in odd.text, "a key with backticks is ordered by in other quotes"


def test_groups_show_figures_and_lead_to_their_runs(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    page = client.get("/ui/runs", params={"group": "params.model", "col": "metrics.auc"}).text
    row = page.partition(">a</a>")[2].partition("</tr>")[0]
    assert re.findall(r">([\d.]+)<", row.replace(" ", "")) == ["4", "0.545", "0.5", "0.59"], row
    inside = re.search(r'href="(/ui/runs\?[^"]+)">a</a>', page)
    assert inside and ROW.findall(client.get(inside[1].replace("&amp;", "&")).text) == [ids[9], ids[6], ids[3], ids[0]]
    assert "Runs cannot be grouped by" in client.get("/ui/runs", params={"group": "metrics.auc"}).text


def test_the_file_has_every_run_and_no_formula(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    rows = list(csv.DictReader(io.StringIO(client.get("/ui/runs/export", params={"filter": "params.model = 'b'"}).text)))
    assert [row["id"] for row in rows] == [ids[10], ids[7], ids[4], ids[1]]
    assert {row["params.an odd `key`"] for row in rows} == {"'=1+1"} and rows[0]["metrics.auc"] == "0.6"
    assert client.get("/ui/runs/export", params={"filter": "nonsense"}).status_code == 400


def test_many_runs_are_tagged_deleted_and_restored_by_editors_only(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), headers=HTML) as client:
        ids = [client.post("/api/v1/runs", json={"name": f"r{i}"}).json()["id"] for i in range(3)]
        client.post("/ui/runs/chosen", data={"run": ids[:2], "do": "tag", "key": "k", "value": "v"})
        assert [client.get(f"/api/v1/runs/{id}").json()["tags"].get("k") for id in ids] == ["v", "v", None]
        client.post("/ui/runs/chosen", data={"run": ids[:2], "do": "delete"})
        assert shown(client) == [ids[2]] and set(shown(client, view="deleted")) == set(ids[:2])
        nothing = client.post("/ui/runs/chosen", data={"run": [ids[0], "0" * 32], "do": "restore"})
        assert nothing.status_code == 404 and shown(client) == [ids[2]], "all or none"
        client.post("/ui/runs/chosen", data={"run": ids[:2], "do": "restore"})
        assert set(shown(client)) == set(ids)
        viewer = {**HTML, **walk.key(client, "default", "viewer")}
        page = client.get("/ui/runs/chosen", params={"run": ids}, headers=viewer)
        assert page.status_code == 200 and 'method="post" action="/ui/runs' not in page.text
        assert client.post("/ui/runs/chosen", data={"run": ids, "do": "delete"}, headers=viewer).status_code == 403


def test_a_comparison_shows_what_differs_first(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    page = client.get("/ui/runs/compare", params={"run": [ids[0], ids[3]]}).text
    differ, _, same = page.partition("The same in all")
    assert 'scope="row">lr' in differ and 'scope="row">commit' in differ and 'scope="row">model' not in differ and 'scope="row">model' in same
    assert 'data-metric="loss"' in page and 'data-metric="auc"' not in page, "one point makes no chart"
    assert client.get("/ui/runs/compare", params={"run": ids[0]}).status_code == 400


def test_a_series_is_thinned_and_told_again_only_when_it_grew(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    asked: dict[str, Any] = {"run": [ids[0], ids[1]], "key": "loss", "points": 10}
    body = client.get("/ui/runs/series", params=asked).json()
    assert [len(one["step"]) for one in body["series"]] == [10, 10] and body["running"]
    assert body["series"][0]["max"][0] == 10 and body["series"][0]["min"][0] == pytest.approx(10 / 3, rel=1e-4), "no peak is lost"
    assert client.get("/ui/runs/series", params={**asked, "known": body["version"]}).status_code == 304
    client.post(f"/api/v1/runs/{ids[1]}/log", json={"metrics": [{"key": "loss", "value": 0.0, "step": 99}]})
    assert client.get("/ui/runs/series", params={**asked, "known": body["version"]}).status_code == 200


def test_plots_take_numbers_words_and_a_filter(site: tuple[TestClient, list[str]]) -> None:
    import html as escapes
    import json

    client, _ = site
    page = client.get("/ui/runs/plot", params={"axis": ["params.lr", "params.model", "metrics.auc"], "filter": "params.model != 'c'"}).text
    spec = json.loads(escapes.unescape(re.search(r'data-plots="([^"]+)"', page)[1]))  # type: ignore[index]
    assert [(axis["kind"], len(axis["values"])) for axis in spec["axes"]] == [("number", 8), ("category", 8), ("number", 8)]
    assert spec["axes"][1]["names"] == ["a", "b"] and spec["colour"] == 2


FILES = {
    "page.html": "<script>parent.zq()</script>",
    "pic.svg": '<svg xmlns="http://www.w3.org/2000/svg"><script>zq()</script></svg>',
    "t.csv": "a,b\n" + "".join(f"{i},<b>{i}</b>\n" for i in range(120)),
    "t.json": '[{"a": 1, "b": {"c": 2}}, {"a": "<i>"}]',
    "confusion.json": '{"labels": ["x", "y"], "matrix": [[8, 2], [1, 9]]}',
    "roc.json": '{"fpr": [0, 0.5, 1], "tpr": [0, 0.9, 1]}',
    "notes.md": f"# Title\n\n{BAD}\n",
    "broken.json": "{",
    f"{BAD.replace('/', '|')}.txt": BAD,
}


def test_files_are_shown_by_what_they_are_and_nothing_in_them_runs(site: tuple[TestClient, list[str]]) -> None:
    client, ids = site
    for path, text in FILES.items():
        assert client.put(f"/api/v1/runs/{ids[-1]}/artifacts/{path}", content=text.encode()).status_code < 300
    wanted = {
        "page.html": 'sandbox="allow-scripts"', "pic.svg": "<img src=", "t.csv": "Rows 1 to 50 of 120", "t.json": "{&#34;c&#34;:2}", "confusion.json": "80 %",
        "roc.json": "data-chart", "notes.md": "<h1>Title</h1>", "broken.json": "It is not JSON",
    }  # fmt: skip
    for path in FILES:
        page = client.get(f"/ui/runs/{ids[-1]}", params={"tab": "artifacts", "path": path})
        assert page.status_code == 200 and wanted.get(path, "&lt;script&gt;") in page.text, path
        assert "<script>zq()" not in page.text and "<b>1</b>" not in page.text, path
    assert "Rows 101 to 120" in client.get(f"/ui/runs/{ids[-1]}", params={"tab": "artifacts", "path": "t.csv", "offset": 100}).text
    document = client.get(f"/ui/runs/{ids[-1]}/file/page.html")
    policy = document.headers["content-security-policy"]
    assert (
        "sandbox allow-scripts" in policy
        and "allow-same-origin" not in policy
        and "connect-src 'none'" in policy
        and "frame-ancestors 'self'" in policy
    )
    picture = client.get(f"/ui/runs/{ids[-1]}/file/pic.svg").headers["content-security-policy"]
    assert picture.endswith("sandbox") and "script-src" not in picture
    assert client.get(f"/ui/runs/{ids[-1]}/file/t.csv").headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("tab", ["", "metrics", "artifacts", "lineage", "code", "traces"])
def test_every_tab_of_a_hostile_run_is_text(site: tuple[TestClient, list[str]], tab: str) -> None:
    client, ids = site
    page = client.get(f"/ui/runs/{ids[-1]}", params={"tab": tab})
    assert page.status_code == 200 and BAD not in page.text and "&lt;script&gt;zq()" in page.text
