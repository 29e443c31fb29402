"""Pages of versions, called in-process: two compared, described, staged, deleted and restored; a table's rows in pages; a folder's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from tests.web import walk

HTML = {"accept": "text/html"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), headers=HTML) as client:
        yield client


def load(client: TestClient, rows: list[tuple[int, int]], columns: str = "id,amount") -> None:
    body = columns + "\n" + "\n".join(f"{i},{v}" for i, v in rows)
    sent = client.post("/api/v1/datasets", data={"name": "loans", "roles": '{"id": "id"}'}, files={"file": ("a.csv", body.encode())})
    assert sent.status_code == 201, sent.text


def test_two_versions_of_a_table_are_compared_row_by_row(client: TestClient) -> None:
    load(client, [(i, i * 10) for i in range(100)])
    load(client, [(i, i * 10 + (i == 7)) for i in range(5, 110)])
    page = client.get("/ui/assets/dataset/loans/compare").text
    figures = page.partition("<h2>Rows")[2].partition("Changed row")[0]
    assert [f'figure">{n}<' in figures for n in (10, 5, 1, 94)] == [True] * 4, "added, removed, changed, the same"
    assert "id 7" in page and 'class="removed-cell">70<' in page and 'class="added-cell">71<' in page
    rows = client.get("/ui/assets/dataset/loans", params={"rows": 40}).text
    assert "41 to 60 of 105" in rows and 'rel="next"' in rows


def test_a_model_is_described_staged_deleted_and_restored_with_confirmation(client: TestClient) -> None:
    for v in range(2):
        file = client.post("/api/v1/objects", content=b"weights %d" % v).json()
        manifest = {"format": "other", "files": [{"path": "m.bin", **file}], "figures": {"auc": {"value": 0.7 + v / 10}}}
        sent = client.post("/api/v1/assets", json={"kind": "model", "name": "m", "manifest": manifest, "tags": {"v": str(v)}})
        assert sent.status_code == 201, sent.text
    compared = client.get("/ui/assets/model/m/compare").text
    assert "holdout auc" in compared and "+0.1" in compared and "m.bin" in compared
    where = "/ui/assets/model/m/1"
    about = {"description": "<b>first</b>", "key": "team", "value": "risk", "stage": "Staging"}
    page = client.post(f"{where}/about", data=about).text
    assert "&lt;b&gt;first&lt;/b&gt;" in page and "Staging" in page and "risk" in page
    wrong = client.post(f"{where}/delete", data={"confirm": "yes"})
    assert wrong.status_code == 400 and "Write model:m@1 to confirm." in wrong.text
    client.post(f"{where}/delete", data={"confirm": "model:m@1"})
    assert client.get(where).status_code == 404
    assert "model:m@1" in client.get("/ui/assets", params={"view": "deleted"}).text
    client.post(f"{where}/restore")
    assert client.get(where).status_code == 200
    viewer = {**HTML, **walk.key(client, "default", "viewer")}
    seen = client.get(where, headers=viewer)
    assert seen.status_code == 200 and 'method="post" action="/ui/assets' not in seen.text
    for verb in ("about", "delete", "restore"):
        assert client.post(f"{where}/{verb}", data={"confirm": "model:m@1"}, headers=viewer).status_code == 403


def test_what_is_needed_says_why_it_stays(client: TestClient) -> None:
    walk.seed(client, "default")
    page = client.get(f"/ui/assets/model/{walk.NAME}/1").text
    assert "It cannot be deleted now" in page and f"release release:{walk.NAME}@1 pins it" in page
    assert f'href="/ui/endpoints/{walk.NAME}"' in page and f'href="/ui/assets/release/{walk.NAME}/1"' in page


def test_what_breaks_a_contract_is_listed_by_row(client: TestClient) -> None:
    contract = '{"columns": {"amount": {"max": 50}}, "rows": {"min": 1}, "on_violation": "record"}'
    data = {"name": "loans", "contract": contract}
    sent = client.post("/api/v1/datasets", data=data, files={"file": ("a.csv", b"id,amount\n1,10\n2,99\n3,70\n")})
    assert sent.status_code == 201, sent.text
    page = client.get("/ui/assets/dataset/loans").text.partition("<h2>Contract")[2]
    assert "2 violations" in page and "amount: max" in page and page.count('scope="row">amount') >= 2
