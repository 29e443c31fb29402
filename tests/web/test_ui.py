"""The UI, called in-process: every page answers, with data and without; what users wrote is shown as text; roles and forms."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from everloop.core.settings import Settings
from everloop.web.app import create_app
from tests.web import walk

HTML = {"accept": "text/html"}
HOSTILE_NAME = "<b onclick=zq()>zq & \"zq'"
HOSTILE_TEXT = "<img src=x onerror=zq()><script>zq()"
LINK = re.compile(r'(?:href|src|hx-get)="([^"]*)"')
PAGES = (
    "",
    "/endpoints",
    "/traces",
    "/monitors",
    "/assets",
    "/queues",
    "/runs",
    "/pipelines",
    "/gates",
    "/lineage",
    "/audit",
    "/settings",
    "/search",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[TestClient]:
    """The app of an empty home, as a browser on this machine sees it."""
    with TestClient(create_app(Settings(home=tmp_path, workers=0, fsync=False)), headers=HTML) as client:
        yield client


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, walk.Seeded]]:
    """An app whose default project has one of everything, all with hostile names and texts."""
    home = tmp_path_factory.mktemp("ui")
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(Settings(home=home, workers=0, fsync=False)), headers=HTML) as client:
        patch.setattr(walk, "NAME", HOSTILE_NAME)
        patch.setattr(walk, "SECRET", HOSTILE_TEXT)
        made = walk.seed(client, "default")
        chat(client, made)
        yield client, made


def chat(client: TestClient, made: walk.Seeded) -> None:
    """What a language model's case has besides: a second prompt, documents, an index, questions, and a trace with passages and a guardrail."""

    def register(kind: str, manifest: dict[str, object]) -> None:
        answer = client.post("/api/v1/assets", json={"kind": kind, "name": HOSTILE_NAME, "manifest": manifest}, headers=made.headers)
        assert answer.status_code < 300, answer.text

    question = b'{"id": "q1", "question": "Why <b>?", "kind": "answerable", "expected_sources": ["<i>.md"]}\n'
    cases = client.post("/api/v1/objects", content=question, headers=made.headers).json()
    register("suite", {"task": "chat", "cases": cases})
    register("prompt", {"messages": [{"role": "system", "content": HOSTILE_TEXT}, {"role": "user", "content": "{{ question }}"}], "syntax": "jinja2"})
    register("index", {"documents": f"dataset:{HOSTILE_NAME}@1", "count": 3, "chunking": {"chars": 800}, "embedder": {"name": HOSTILE_TEXT}})
    files = {"files": ("a.md", f"# {HOSTILE_TEXT}\n\nText of the page.".encode())}
    assert client.post("/api/v1/datasets", data={"name": "pages"}, files=files, headers=made.headers).status_code < 300
    said = [(f"retrieval.documents.0.document.{key}", value) for key, value in (("id", "d"), ("content", HOSTILE_TEXT))]
    spans = [
        span("1", "", "CHAIN", [("input.value", HOSTILE_TEXT), ("output.value", HOSTILE_TEXT), ("everloop.endpoint", HOSTILE_TEXT)]),
        span("2", "1", "RETRIEVER", said),
        span("3", "1", "GUARDRAIL", [("guardrail.check", HOSTILE_TEXT), ("guardrail.verdict", "fail"), ("guardrail.action", "block")]),
    ]
    sent = client.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, headers=made.headers)
    assert sent.status_code == 200, sent.text
    client.portal.call(client.app.state.workspace.telemetry.flush)  # type: ignore[union-attr, attr-defined]


def span(id: str, parent: str, kind: str, attributes: list[tuple[str, str]]) -> dict[str, object]:
    """A span as OTLP's JSON has it."""
    now = time.time_ns()
    listed = [{"key": k, "value": {"stringValue": v}} for k, v in [("openinference.span.kind", kind), *attributes]]
    ids = {"traceId": "ab" * 16, "spanId": id * 16, "parentSpanId": parent * 16}
    return {**ids, "name": HOSTILE_TEXT, "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 10**7), "attributes": listed}


class Elements(HTMLParser):
    """What a page has that ours never have: elements that only hostile text brings, code in attributes, scripts with no address."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that must not be there."""
        given = dict(attrs)
        bad = tag in ("img", "b", "i", "iframe", "object") and given.get("style") is None
        if bad or any(name.startswith("on") for name in given) or (tag == "script" and not given.get("src")):
            self.forbidden.append(f"{tag} {given}")


def links(page: str) -> set[str]:
    """The addresses that a page links to, without their fragments."""
    return {html.unescape(found).partition("#")[0] for found in LINK.findall(page)} - {""}


def crawl(client: TestClient, headers: dict[str, str], most: int = 600) -> dict[str, str]:
    """Every page that links lead to from /ui: {address: text}. Fails at the first dead link. The frame's time ranges are followed once."""
    waiting, seen, pages = ["/ui"], {"/ui"}, {}
    while waiting:
        assert len(pages) < most, "the crawl does not end"
        address = waiting.pop()
        answer = client.get(address, headers=headers)
        assert answer.status_code == 200, (address, answer.status_code, answer.text[-600:])
        if "text/html" not in answer.headers["content-type"]:
            continue
        pages[address] = answer.text
        for link in links(answer.text):
            parts = urlsplit(link)
            assert not parts.netloc, f"{address} links to another origin: {link}"
            variant = (
                "?" in address and "?" in link and parts.path == urlsplit(address).path in ("/ui/runs", "/ui/traces")
            )  # columns, pins and orders multiply
            narrowed = ("since=" in link and address != "/ui/traces") or ("q=" in link and "q=" in address)  # filters and bars multiply
            once = variant or narrowed or ("range=" in link and address != "/ui")
            if link not in seen and not once:
                seen.add(link)
                waiting.append(link)
    return pages


def test_no_link_is_dead_and_what_users_wrote_is_text(full: tuple[TestClient, walk.Seeded]) -> None:
    client, made = full
    pages = crawl(client, made.headers)
    paths = {urlsplit(address).path for address in pages}
    for part in ("endpoints/", "traces/", "decisions/", "runs/", "pipelines/", "monitors/", "assets/prompt/", "assets/index/", "assets/suite/"):
        assert any(path.startswith(f"/ui/{part}") for path in paths), f"the crawl found no page below /ui/{part}"
    for address, text in pages.items():
        found = Elements(text)
        assert not found.forbidden, (address, found.forbidden)
    assert any(html.escape(HOSTILE_NAME, quote=False)[:12] in text for text in pages.values())


@pytest.mark.parametrize("path", PAGES)
def test_pages_of_an_empty_workspace_say_what_to_do(browser: TestClient, path: str) -> None:
    page = browser.get(f"/ui{path}")
    assert page.status_code == 200, page.text
    assert path in ("/audit", "/lineage") or 'class="empty"' in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_pages_keep_the_time_range_in_their_links(full: tuple[TestClient, walk.Seeded]) -> None:
    client, made = full
    page = client.get("/ui/endpoints", params={"range": "7d"}, headers=made.headers)
    inside = [link for link in links(page.text) if link.startswith("/ui/") and "range=" not in link]
    assert "/ui/traces?range=7d" in links(page.text)
    assert [link for link in inside if link != "/ui/settings"] == ["/ui/endpoints"], "the one link without it is the range `all`"
    old = client.get("/ui/traces", params={"since": "2001-01-01", "until": "2001-02-01"}, headers=made.headers)
    assert "No trace fits." in old.text


def test_a_viewer_sees_pages_and_no_form_that_changes_anything(full: tuple[TestClient, walk.Seeded]) -> None:
    client, _made = full
    viewer = walk.key(client, "default", "viewer", "looks")
    pages = crawl(client, viewer)
    for address, text in pages.items():
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', text)
        assert set(forms) <= {"/session/project", "/logout"}, (address, forms)
    decision = next(address for address in pages if address.startswith("/ui/decisions/") and "waits for a person" in pages[address])
    assert "You are viewer." in pages[decision] and "Approve and move" not in pages[decision]
    refused = client.post(f"{urlsplit(decision).path}/approve", data={"why": "no"}, headers=viewer)
    assert refused.status_code == 403 and "text/html" in refused.headers["content-type"] and "Not allowed" in refused.text


def test_a_person_approves_with_a_reason_and_the_token_of_the_session(browser: TestClient) -> None:
    made = walk.seed(browser, "default")
    admin = {"name": "ann", "password": "correct horse battery", "role": "approver"}
    assert browser.post("/api/v1/users", json=admin, headers=made.headers).status_code < 300
    signed = browser.post("/login", data={"user": "ann", "password": admin["password"]}, follow_redirects=False)
    assert signed.status_code == 303
    browser.headers["cookie"] = signed.headers["set-cookie"].partition(";")[0]
    where = f"/ui/decisions/{made.ids['decisions/id']}"
    page = browser.get(where)
    assert page.status_code == 200, page.text
    token = html.unescape(re.search(r'name="csrf" value="([^"]+)"', page.text)[1])  # type: ignore[index]
    own = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert browser.post(f"{where}/approve", data={"why": "good"}, headers=own).status_code == 403
    assert browser.post(f"{where}/approve", data={"why": "good", "csrf": "x" * len(token)}, headers=own).status_code == 403
    foreign = browser.post(f"{where}/approve", data={"why": "good", "csrf": token}, headers={"origin": "http://elsewhere.example"})
    assert foreign.status_code == 403
    empty = browser.post(f"{where}/approve", data={"why": " ", "csrf": token}, headers=own)
    assert empty.status_code == 400 and "The reason is empty." in empty.text
    done = browser.post(f"{where}/approve", data={"why": "good <b>", "csrf": token}, headers=own)
    assert done.status_code == 200 and "Approved. The alias champion now points to" in done.text and "good &lt;b&gt;" in done.text
    settled = browser.get(f"/api/v1{where.removeprefix('/ui')}").json()
    assert (settled["approval"], settled["approved_by"]) == ("approved", "user:ann")


def test_the_form_to_try_an_endpoint_makes_a_real_call(browser: TestClient) -> None:
    walk.seed(browser, "default")
    page = browser.get(f"/ui/endpoints/{walk.NAME}")
    assert 'name="x-a"' in page.text
    answer = browser.post(f"/ui/endpoints/{walk.NAME}/try", data={"x-a": "4", "x-b": "1"})
    trace = re.search(r"/ui/traces/([0-9a-f]{32})\"", answer.text.partition('id="answer"')[2])
    assert trace is not None, answer.text[-2000:]
    assert browser.get(f"/ui/traces/{trace[1]}").status_code == 200
    wrong = browser.post(f"/ui/endpoints/{walk.NAME}/try", data={"x-a": "four", "x-b": "1"})
    assert "a is &#39;four&#39;; it must be a number." in wrong.text


def test_a_thumb_from_the_page_is_a_score_of_the_trace(browser: TestClient) -> None:
    made = walk.seed(browser, "default")
    trace = made.ids["trace_id"]
    assert browser.post(f"/ui/traces/{trace}/feedback", data={"value": "-1", "why": "off"}).status_code == 200
    browser.portal.call(browser.app.state.workspace.telemetry.flush)  # type: ignore[union-attr, attr-defined]
    scores = browser.get("/api/v1/scores", params={"subject": trace}).json()
    assert any(s["name"] == "thumbs" and s["value"] == -1 and s["why"] == "off" for s in scores["items"])


def test_search_goes_to_what_an_id_or_a_reference_names(full: tuple[TestClient, walk.Seeded]) -> None:
    client, made = full
    trace, run, decision = made.ids["trace_id"], made.ids["runs/id"], made.ids["decisions/id"]
    for text, page in (
        (f"  {trace} ", f"/ui/traces/{trace}"),
        (f"{trace}-0", f"/ui/traces/{trace}?row=0"),
        (run, f"/ui/runs/{run}"),
        (decision, f"/ui/decisions/{decision}"),
        ("dataset:pages", "/ui/assets/dataset/pages/1"),
    ):
        answer = client.get("/ui/search", params={"q": text}, headers=made.headers, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) == (303, page), text
    listed = client.get("/ui/search", params={"q": "page"}, headers=made.headers)
    assert 'href="/ui/assets/dataset/pages"' in listed.text
    nothing = client.get("/ui/search", params={"q": "0" * 32}, headers=made.headers)
    assert nothing.status_code == 200 and "Nothing here is called" in nothing.text


def test_errors_are_pages_for_a_browser_and_problems_for_a_program(browser: TestClient) -> None:
    page = browser.get("/ui/no-such-page")
    assert page.status_code == 404 and "text/html" in page.headers["content-type"] and "There is nothing at GET /ui/no-such-page." in page.text
    told = browser.get("/ui?range=eternity")
    assert told.status_code == 400 and "There is no time range" in told.text
    missing = browser.get("/ui/assets/model/none")
    assert missing.status_code == 404 and "There is no asset" in missing.text
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


def test_manifests_of_any_shape_have_a_page(browser: TestClient) -> None:
    for i, manifest in enumerate(({}, {"schema": 3, "stats": [], "roles": "x", "files": "none"}, {"schema": [{"name": None}], "stats": {"": 1}})):
        for kind in ("dataset", "model", "index", "adapter"):
            answer = browser.post("/api/v1/assets", json={"kind": kind, "name": f"odd{i}", "manifest": manifest})
            if answer.status_code >= 300:  # some kinds refuse it at the door
                continue
            page = browser.get(f"/ui/assets/{kind}/odd{i}")
            assert page.status_code == 200, (kind, manifest, page.text)


def test_the_page_of_an_index_shows_its_passages_and_what_a_question_finds(browser: TestClient) -> None:
    from everloop.engines.lsa import Lsa
    from everloop.store.vectors import indexed, stores
    from tests.store.test_vectors import TEXTS, passages

    def put(data: bytes) -> dict[str, object]:
        return browser.post("/api/v1/objects", content=data).json()  # type: ignore[no-any-return]

    chunks = passages(TEXTS)
    embedder = Lsa.fit([indexed(c) for c in chunks], {"dims": 3})
    manifest = stores.get("arrays").create(chunks, embedder).save(put)
    first = manifest["segments"][0]["chunks"]
    manifest |= {"embedder": {"name": "lsa", "dims": 3, "file": put(embedder.save())["digest"]}, "chunks": first, "count": len(chunks)}
    assert browser.post("/api/v1/assets", json={"kind": "index", "name": "notes", "manifest": manifest}).status_code == 201
    page = browser.get("/ui/assets/index/notes", params={"question": "When is an invoice sent by ship?", "k": 1})
    found = page.text.partition("What a question finds")[2].partition("Passages as stored")
    assert "invoice" in found[0] and found[0].count("score ") == 1
    assert found[2].count('<th scope="row">') >= 2, "the passages as they are stored"
    wrong = browser.get("/ui/assets/index/notes", params={"question": "a", "k": "many"})
    assert wrong.status_code == 200 and "k is how many passages to take" in wrong.text
