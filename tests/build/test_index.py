"""The index step through the app: documents in, an index version out, and one document indexed anew."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from everloop.build import index
from everloop.core.errors import BadInput, NotFound
from everloop.serve.retrieve import load_index
from tests.web.test_data import client  # noqa: F401 - a fixture

DOCS = {
    "install.md": b"# Installing\n\nRun the installer, then restart the machine.\n\n## On Linux\n\nUse apt to fetch the package.",
    "billing.html": b"<title>Billing</title><h1>Invoices</h1><p>An invoice is sent each month. Refunds take ten days.</p>",
    "notes.txt": b"Whales are mammals.\n\nThey breathe air and nurse their young.",
}


def run_step(client, **params):  # noqa: F811
    said: list[str] = []
    with client.runs.start("index") as run:
        made = index.build(SimpleNamespace(params=params, inputs={}, client=client, run=run, log=said.append))
    return made, said


def test_documents_become_an_index_with_lineage_and_figures(client) -> None:  # noqa: F811
    client.data.add_documents("handbook", DOCS)
    made, said = run_step(client, documents="dataset:handbook", name="handbook", chars="200", overlap=40)
    assert made["index"] == "index:handbook@1" and made["count"] >= 3 and "explained" in made and "passages of 3 documents" in said[-1]
    asset = client.assets.get(made["index"])
    assert asset["manifest"]["documents"] == "dataset:handbook@1" and asset["manifest"]["chunking"] == {"chars": 200, "overlap": 40}
    found = load_index(asset["manifest"], client.assets.get_object)
    best = found.search("how long do refunds take?", 2)[0]
    assert best["document"] == "billing.html" and best["title"] == "Billing" and "ten days" in best["text"]
    assert client.runs.get(asset["run"])["metrics"]["passages"] == made["count"]
    assert "index:handbook@1" in str(client.impact("dataset:handbook@1"))
    assert load_index(asset["manifest"], client.assets.get_object) is found
    assert client.indexes.search("handbook", "how long do refunds take?", 2)[0] == best
    with pytest.raises(NotFound, match="dataset:nothing"):
        client.indexes.build("handbook", "nothing")
    with pytest.raises(BadInput, match="k is 0"):
        client.indexes.search("index:handbook@1", "x", 0)


def test_an_update_indexes_only_what_changed(client) -> None:  # noqa: F811
    pages = {f"page-{i}.md": f"# Page {i}\n\nThe animal of this page is number {i}, a beast of burden.".encode() for i in range(20)}
    client.data.add_documents("zoo", pages)
    run_step(client, documents="dataset:zoo", name="zoo", update=True)
    changed = {**pages, "page-3.md": b"# Page 3\n\nHere lives the okapi."}
    del changed["page-5.md"]
    client.data.add_documents("zoo", changed)
    made, _ = run_step(client, documents="dataset:zoo", name="zoo", update=True)
    asset = client.assets.get(made["index"])
    assert asset["version"] == 2 and made["how"].startswith("1 documents anew, 1 gone") and made["count"] == 19
    assert [s["count"] for s in asset["manifest"]["segments"]] == [20, 1]
    found = load_index(asset["manifest"], client.assets.get_object)
    assert found.search("okapi", 1)[0]["document"] == "page-3.md"
    assert not [p for p in found.search("beast of burden number 5", 30) if p["document"] in ("page-3.md", "page-5.md")]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"name": "x"}, "needs the param 'documents'"),
        ({"documents": "dataset:handbook", "name": "x", "chars": "many"}, "is 'many'"),
        ({"documents": "dataset:handbook", "name": "x", "chars": 10}, "Passages of 10 characters"),
        ({"documents": "dataset:handbook", "name": "x", "dims": 0}, "0 dimensions"),
    ],
)
def test_params_that_cannot_be_are_said(client, params, says) -> None:  # noqa: F811
    client.data.add_documents("handbook", DOCS)
    with pytest.raises(BadInput, match=says):
        run_step(client, **params)
    assert client.assets.list("index")["items"] == []
