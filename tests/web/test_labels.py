"""Annotation queues through the SDK: order, assignment and overlap, annotators who are viewers, agreement, the dataset that comes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from everloop.client.base import Client
from everloop.client.http import Http
from everloop.core.clock import FakeClock
from everloop.core.errors import BadInput, Conflict, Forbidden, NotFound
from everloop.core.limits import QUEUE_CLAIM_SECONDS
from everloop.core.settings import Settings
from everloop.web.app import create_app
from everloop.workspace.workspace import Workspace
from tests.web import walk
from tests.web.test_traces import send

CSV = "text,probability\nsure yes,0.97\nunsure,0.52\nsure no,0.03\nhalf,0.6\n"
RUBRIC = [
    {"name": "quality", "classes": ["bad", "fair", "good"], "ordered": True, "instructions": "How good is it?"},
    {"name": "points", "type": "score", "min": 1, "max": 5, "required": False},
    {"name": "note", "type": "text"},
]
As = Callable[[str, str], Client]


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(home=tmp_path / "home", workers=0, fsync=False)), base_url="http://127.0.0.1:7600") as http:
        yield http


@pytest.fixture
def acting(http: TestClient) -> As:
    """The SDK as a key of a role ("" is the local admin)."""

    def made(role: str = "", name: str = "") -> Client:
        key = walk.key(http, "default", role, name) if role else {}

        def transport(method, url, body, headers, timeout):
            answer = http.request(method, url, content=body, headers={**headers, **key})
            return answer.status_code, answer.headers, answer.content

        return Client(Http("http://127.0.0.1:7600", transport=transport))

    return made


@pytest.fixture
def table(acting: As, tmp_path: Path) -> Client:
    (tmp_path / "texts.csv").write_text(CSV)
    client = acting()
    client.data.add("texts", tmp_path / "texts.csv")
    return client


def test_the_least_sure_comes_first_and_the_result_is_a_dataset_with_lineage(table: Client, acting: As) -> None:
    order = {"by": "uncertainty", "column": "probability"}
    made = table.labels.make("texts-queue", "dataset:texts", RUBRIC, annotators=["key:ann", "key:bob"], overlap=2, extra=1, order=order)
    assert (made["items"], made["done"], made["spec"]["source"]) == (4, 0, "dataset:texts@1")
    ann, bob = acting("viewer", "ann"), acting("viewer", "bob")
    item = ann.labels.next("texts-queue")
    assert item["item"] == "1" and item["shown"] == {"text": "unsure"} and item["why"] == pytest.approx(0.02)
    assert bob.labels.next("texts-queue")["item"] == "1"  # two labels are wanted of each
    said = {"1": ("good", "good"), "3": ("bad", "fair"), "0": ("good", "good"), "2": ("bad", "bad")}
    for person, who in ((0, ann), (1, bob)):
        for _ in said:
            item = who.labels.next("texts-queue")
            who.labels.label("texts-queue", item["item"], {"quality": said[item["item"]][person], "points": 3 + person}, comment="so it is")
        assert who.labels.next("texts-queue") is None
    assert {i["item"]: len(i["labels"]) for i in ann.labels.items("texts-queue")} == {"1": 1, "3": 1, "0": 1, "2": 1}  # their own, no one else's
    found = table.labels.get("texts-queue")
    assert (found["done"], found["labels"], found["contested"]) == (4, 8, 4)  # points differ everywhere
    assert found["agreement"]["quality"]["level"] == "ordinal" and 0.8 < found["agreement"]["quality"]["alpha"] < 1
    assert found["agreement"]["points"]["alpha"] < 0 and "note" not in found["agreement"]
    third = table.labels.next("texts-queue")  # extra=1: where labels differ a third is wanted
    table.labels.label("texts-queue", third["item"], {"quality": "good"})
    dataset = table.labels.dataset("texts-queue", target="quality")
    assert dataset["ref"] == "dataset:texts-queue@1" and (dataset["labelled"], dataset["tied"]) == (4, 1)
    assert dataset["manifest"]["roles"]["target"] == "quality" and dataset["manifest"]["source"]["annotators"] == ["key:ann", "key:bob", "local"]
    frame = table.data.frame("texts-queue").set_index("row")
    assert (
        list(frame.loc[["1", "3"], "quality"].fillna("")) == ["good", ""]
        and frame.loc["1", "quality_n"] == 3
        and frame.loc["3", "quality_share"] == 0.5
    )
    assert '"by":"key:ann"' in frame.loc["0", "labels"] and frame.loc["0", "points"] == 3.5
    assert "dataset:texts-queue@1" in str(table.impact("dataset:texts@1"))


def test_who_may_label_and_what_is_refused(table: Client, acting: As) -> None:
    table.labels.make("few", "dataset:texts", RUBRIC, annotators=["key:ann"], limit=2, columns=["text"])
    ann, other, editor = acting("viewer", "ann"), acting("viewer", "other"), acting("editor", "ed")
    for refused in (lambda: other.labels.next("few"), lambda: other.labels.label("few", "0", {"quality": "bad"}), lambda: ann.labels.dataset("few")):
        with pytest.raises(Forbidden):
            refused()
    with pytest.raises(Forbidden):
        acting("caller", "app").labels.next("few")
    for answers, told in (
        ({}, "'quality' has no answer"),
        ({"quality": "great"}, "cannot be answered by 'great'. It takes one of: bad, fair, good"),
        ({"quality": "bad", "points": 2.5}, "from 1 to 5, in steps of 1"),
        ({"quality": "bad", "colour": "red"}, "does not ask 'colour'"),
    ):
        with pytest.raises(BadInput) as error:
            ann.labels.label("few", "0", answers)
        assert told in f"{error.value.what} {error.value.hint}"
    with pytest.raises(NotFound, match="no item '7'"):
        ann.labels.label("few", "7", {"quality": "bad"})
    with pytest.raises(BadInput, match="No item of the queue"):
        table.labels.dataset("few")
    assert (ann.labels.next("few")["item"], editor.labels.next("few")["item"]) == ("0", "1")  # one label wanted: what ann looks at is kept for her
    ann.labels.skip("few", "0")
    editor.labels.skip("few", "1")
    assert ann.labels.next("few")["item"] == "1"
    assert editor.labels.label("few", "0", {"quality": "fair"})["first"] and not editor.labels.label("few", "0", {"quality": "bad"})["first"]
    table.labels.change("few", closed=True)
    with pytest.raises(Conflict, match="closed"):
        ann.labels.next("few")
    assert table.labels.get("few")["labels"] == 1 and table.labels.list()[0]["skipped"] == 2


def test_what_somebody_looks_at_is_kept_for_them_over_a_restart(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", workers=0, fsync=False)
    clock = FakeClock()
    keys: dict[str, dict[str, str]] = {}

    def upcoming(http: TestClient, name: str) -> Any:
        return http.post("/api/v1/queues/q/next", headers=keys[name]).json()["item"]

    with TestClient(create_app(settings, Workspace(settings, clock))) as http:
        keys |= {name: walk.key(http, "default", "editor", name) for name in ("ann", "bob")}
        files = {"file": ("t.csv", b"text\na\nb\n")}
        assert http.post("/api/v1/datasets", data={"name": "t"}, files=files).status_code == 201
        assert http.put("/api/v1/queues/q", json={"source": "dataset:t", "rubric": RUBRIC}).status_code == 201
        assert upcoming(http, "ann")["item"] == "0"
    with TestClient(create_app(settings, Workspace(settings, clock))) as http:
        assert upcoming(http, "bob")["item"] == "1" and upcoming(http, "ann")["item"] == "0"
        clock.time += QUEUE_CLAIM_SECONDS + 60  # both went for lunch: who comes first takes the first
        assert upcoming(http, "bob")["item"] == "0" and upcoming(http, "ann")["item"] == "1"
        assert http.post("/api/v1/queues/q/labels", json={"item": "0", "answers": {"quality": "bad"}}, headers=keys["bob"]).status_code == 201
        assert upcoming(http, "bob") is None


def test_a_queue_is_made_by_a_form(http: TestClient, table: Client) -> None:
    page = http.get("/ui/queues?source=dataset:texts@1").text
    assert 'value="dataset:texts@1"' in page and 'href="/ui/queues?source=dataset%3Atexts%401#make"' in http.get("/ui/assets/dataset/texts/1").text
    csrf = re.findall(r'name="csrf" value="([^"]*)"', page)[0]
    form = {
        "csrf": csrf,
        "name": "by-form",
        "source": "dataset:texts",
        "rubric": "quality=bad<good\nscore=1..3\nnote\n",
        "annotators": "key:ann, bob",
    }
    form |= {"overlap": "2", "order": "uncertainty", "figure": "probability", "limit": "3", "columns": "text", "instructions": "Be kind."}
    for change, words in (
        ({"rubric": "quality=bad"}, "2 to 50 different classes"),
        ({"limit": "many"}, "no whole number"),
        ({"source": "x"}, "cannot be labelled"),
    ):
        answer = http.post("/ui/queues", data={**form, **change})
        assert answer.status_code == 400 and words in answer.text and "Be kind." in answer.text and table.labels.list() == []
    answer = http.post("/ui/queues", data=form, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/queues/by-form?items=1&done=made")
    made = table.labels.get("by-form")
    assert made["items"] == 3 and made["spec"]["annotators"] == ["key:ann", "user:bob"] and made["spec"]["order"]["column"] == "probability"
    assert [(q["name"], q["type"]) for q in made["spec"]["rubric"]] == [("quality", "class"), ("score", "score"), ("note", "text")]
    assert table.labels.next("by-form")["shown"] == {"text": "unsure"}
    again = http.post("/ui/queues", data=form)
    assert again.status_code == 409 and "a queue &#39;by-form&#39; already" in again.text
    viewer = walk.key(http, "default", "viewer", "v")
    assert (
        http.post("/ui/queues", data=form, headers=viewer).status_code == 403 and "Make the queue" not in http.get("/ui/queues", headers=viewer).text
    )


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"rubric": []}, "needs a rubric"),
        ({"rubric": [{"name": "q", "classes": ["a"]}]}, "2 to 50 different classes"),
        ({"rubric": [{"name": "text", "classes": ["a", "b"]}]}, "'text', which is a column"),
        ({"source": "dataset:none"}, "dataset:none"),
        ({"source": "model:x"}, "cannot be labelled"),
        ({"source": "endpoint:none"}, "nothing to label"),
        ({"overlap": 2, "assignment": "dealt", "annotators": ["ann"]}, "at least 2 annotators"),
        ({"order": "sideways"}, "cannot be ordered by 'sideways'"),
        ({"order": "uncertainty"}, "no probability"),
        ({"order": {"by": "score", "score": "thumbs"}}, "Only traces have scores"),
        ({"colour": "red"}, "no 'colour'"),
    ],
)
def test_a_queue_that_cannot_be_is_refused_and_nothing_made(table: Client, spec: dict, told: str) -> None:
    full = {"source": "dataset:texts", "rubric": RUBRIC, **spec}
    with pytest.raises((BadInput, NotFound)) as error:
        table.labels.make("bad", full.pop("source"), full.pop("rubric"), **full)
    assert told in f"{error.value.what} {error.value.hint}" and table.labels.list() == []


def test_items_are_dealt_evenly(table: Client, acting: As) -> None:
    table.labels.make("dealt", "dataset:texts", RUBRIC, annotators=["key:a", "key:b", "key:c"], overlap=2, assignment="dealt")
    dealt = [i["assigned"] for i in table.labels.items("dealt")]
    assert all(len(set(names)) == 2 for names in dealt) and {sum(n in names for names in dealt) for n in ("key:a", "key:b", "key:c")} <= {2, 3}
    with pytest.raises(Forbidden, match="is dealt to"):
        acting("viewer", next(n for n in ("a", "b", "c") if f"key:{n}" not in dealt[0])).labels.label("dealt", "0", {"quality": "bad"})


def test_labels_of_traces_are_scores_and_the_worst_comes_first(http: TestClient, acting: As) -> None:
    good, bad = send(http, "What is a loan?"), send(http, [{"role": "user", "content": "What is a bond?"}], start=2000.0)
    client = acting()
    client.traces.add_score(good, "thumbs", 1)
    client.traces.add_score(bad, "thumbs", -1)
    http.portal.call(http.app.state.workspace.telemetry.flush)  # type: ignore[union-attr, attr-defined]
    client.labels.make("answers", "endpoint:tutor", RUBRIC, order={"by": "score", "score": "thumbs"}, annotators=["*"])
    ann = acting("viewer", "ann")
    item = ann.labels.next("answers")
    assert item["item"] == bad and item["shown"]["question"] == "What is a bond?"
    ann.labels.label("answers", bad, {"quality": "bad"})
    ann.labels.label("answers", bad, {"quality": "fair", "points": 2}, comment="nearly")
    scores = {s["name"]: s for s in client.traces.get(bad)["scores"]}
    assert (scores["quality"]["value"], scores["quality"]["why"], scores["points"]["value"]) == ("fair", "nearly", 2)
    assert len([s for s in client.traces.get(bad)["scores"] if s["name"] == "quality"]) == 1
    assert client.labels.dataset("answers")["manifest"]["rows"] == 1


def test_documents_are_labelled_whole(acting: As, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Bicycles\n\nThey have two wheels.\n")
    client = acting()
    client.data.add_documents("docs", tmp_path / "docs")
    client.labels.make("pages", "dataset:docs", RUBRIC)
    item = client.labels.next("pages")
    assert item["shown"]["path"] == "a.md" and "two wheels" in item["shown"]["text"]
    client.labels.label("pages", item["item"], {"quality": "good"})
    assert client.data.frame(client.labels.dataset("pages")["ref"]).quality[0] == "good"


def test_the_rows_and_traces_that_a_release_is_least_sure_of_come_first(http: TestClient, acting: As) -> None:
    """Both orders are those of the probabilities that the release answers by itself."""
    walk.seed(http, "default")
    client = acting()
    table = client.data.frame(f"dataset:{walk.NAME}").head(30)
    answer = client.endpoints.predict(walk.NAME, [{"a": int(a), "b": int(b)} for a, b in zip(table.a, table.b, strict=True)])
    sure = [abs(p["probability_1"] - 0.5) for p in answer["predictions"]]
    order = {"by": "uncertainty", "release": f"release:{walk.NAME}"}
    client.labels.make("rows", f"dataset:{walk.NAME}", [{"name": "risky", "classes": ["no", "yes"]}], order=order)
    first = client.labels.next("rows")
    assert first["why"] == pytest.approx(min(sure), abs=1e-4) == pytest.approx(sure[int(first["item"]) % 35], abs=1e-4)
    clear = client.endpoints.predict(walk.NAME, [{"a": 6, "b": 0}])["trace_id"]
    client.labels.make("calls", f"endpoint:{walk.NAME}", [{"name": "risky", "classes": ["no", "yes"]}], order="uncertainty")
    items = [i["item"] for i in client.labels.items("calls")]
    assert items[0] == answer["trace_id"] and items.index(clear) > 0
    whole = [i["why"] for i in client.labels.items("calls")]
    assert whole == sorted(whole)
