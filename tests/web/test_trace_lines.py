"""The table of traces: the filter line by REST and as a page, histogram, completion, neighbours, saved views, chosen ones."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.web.test_traffic import chat, http, send

__all__ = ["http"]


@pytest.fixture
def filled(http: TestClient) -> TestClient:
    for n in range(12):
        more: dict[str, Any] = {"everloop.blocked": True} if n == 3 else {}
        send(http, chat(n, 100 * (n + 1), f"s{n % 3}", user=f"u{n % 2}", failed=n in (7, 8), **more))
    http.post("/api/v1/scores", json={"subject": f"{5:032x}", "name": "tone", "value": "kind"})
    http.post(f"/api/v1/traces/{3:032x}/feedback", json={"value": -1})
    http.post(f"/api/v1/traces/{5:032x}/feedback", json={"value": 1})
    return http


def found(http: TestClient, query: str) -> list[int]:
    answer = http.get("/api/v1/traces", params={"query": query})
    assert answer.status_code == 200, answer.text
    return [int(one["trace_id"], 16) - 1 for one in answer.json()["items"]]


@pytest.mark.parametrize(
    "query, expected",
    [
        ("status:error", [8, 7]),
        ("status:error,blocked", [8, 7, 3]),
        ("ms>1s user:u1", [11]),
        ("-user:u1 ms>=900", [10, 8]),
        ("ms<=200", [1, 0]),
        ("score.thumbs<0", [2]),
        ("score.thumbs:1", [4]),
        ("score.tone:kind", [4]),
        ("session:s1 -status:error", [10, 4, 1]),
        ("tokens:110 id:*1", [0]),
        ("model:gpt-4o* user:u0 ms<400", [2, 0]),
        ("attr.llm.token_count.prompt>=100 ms<200", [0]),
        ("attr.user.id:u1 ms<300", [1]),
        ("kind:LLM cost>0 ms<200", [0]),
        ('"question 7"', [7]),
        ("question -user:u0 -status:error ms>1s", [11]),
    ],
)
def test_lines_select(filled: TestClient, query: str, expected: list[int]) -> None:
    assert found(filled, query) == expected


def test_a_line_that_cannot_be_read_is_refused_at_its_place(filled: TestClient) -> None:
    refused = filled.get("/api/v1/traces", params={"query": "status:ok colour:red"})
    assert refused.status_code == 400 and "character 11" in refused.text
    page = filled.get("/ui/traces", params={"q": "status:ok colour:<b>"})
    assert page.status_code == 200 and "<mark>colour</mark>:&lt;b&gt;" in page.text


def test_histogram_completion_and_neighbours(filled: TestClient) -> None:
    drawn = filled.get("/api/v1/traces/histogram", params={"query": "user:u1"}).json()
    assert drawn["total"] == 6 and [sum(one[s] for one in drawn["items"]) for s in ("ok", "error", "blocked", "refused")] == [4, 1, 1, 0]
    offered = lambda line: [one["text"] for one in filled.get("/api/v1/traces/complete", params={"query": line}).json()["items"]]
    assert offered("user:") == ["user:u0", "user:u1"] and offered("ms>3 -sta") == ["-status:"]
    assert offered("score.t") == ["score.thumbs:", "score.tone:"] and offered("score.tone:") == ["score.tone:kind"]
    assert offered("status:error,b") == ["status:error,blocked"] and "endpoint:" in offered("")
    page = filled.get(f"/ui/traces/{8:032x}", params={"q": "user:u1"}).text
    assert f"/ui/traces/{10:032x}?q=user%3Au1" in page and f"/ui/traces/{6:032x}?q=user%3Au1" in page
    assert filled.post(f"/ui/traces/{8:032x}/score", data={"name": "helpful", "value": "4"}, follow_redirects=False).status_code == 303
    assert found(filled, "score.helpful>3") == [7]


def test_views_columns_and_export_of_what_is_chosen(filled: TestClient) -> None:
    saved = filled.post("/ui/traces/views", data={"name": "errors", "query": "q=status%3Aerror&col=user&col=ms"}, follow_redirects=False)
    assert saved.status_code == 303 and saved.headers["location"].startswith("/ui/traces?q=status%3Aerror")
    assert [view["name"] for view in filled.get("/api/v1/trace-views").json()["items"]] == ["errors"]
    page = filled.get(saved.headers["location"]).text
    assert "errors</a>" in page and '<th scope="col">User</th>' in page and "Answered</th>" not in page
    chosen = filled.get("/ui/traces/export", params={"format": "csv", "trace": [f"{1:032x}", f"{2:032x}"]})
    assert chosen.status_code == 200 and chosen.text.count("\n") == 3
    every = filled.get("/ui/traces/export", params={"format": "jsonl", "all": "1", "q": "status:error"})
    assert len(every.text.splitlines()) == 2
    assert filled.delete("/api/v1/trace-views/errors").status_code == 204
    assert filled.delete("/api/v1/trace-views/errors").status_code == 404


def test_chosen_traces_become_a_suite_a_dataset_and_a_queue(filled: TestClient) -> None:
    ids = [f"{n:032x}" for n in (1, 2)]
    for what, name in (("suite", "asked"), ("dataset", "seen"), ("queue", "look")):
        done = filled.post("/ui/traces/chosen", data={"do": what, "to": name, "trace": ids, "q": "ms<300"}, follow_redirects=False)
        assert done.status_code == 303 and f"done={what}" in done.headers["location"] and "n=2" in done.headers["location"], done.text
        assert "2 traces added to" in filled.get(done.headers["location"]).text
    every = filled.post("/ui/traces/chosen", data={"do": "dataset", "to": "seen", "all": "1", "q": "ms<500"}, follow_redirects=False)
    assert "n=2" in every.headers["location"]  # two of the four are in it already
    case = filled.post(f"/ui/traces/{6:032x}/suite", data={"suite": "asked", "expected": "It is six."}, follow_redirects=False)
    assert case.status_code == 303, case.text
    suite = filled.get("/api/v1/assets/suite/asked/latest").json()
    cases = filled.get(f"/api/v1/objects/{suite['manifest']['cases']['digest']}").text
    assert suite["version"] == 2 and "It is six." in cases and cases.count("question ") == 3
    assert filled.post("/ui/traces/chosen", data={"do": "suite", "to": "asked"}).status_code == 400
