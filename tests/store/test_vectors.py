"""An index: what it finds, in which order, with what scores; stored and opened; one document replaced; real judgements on Cranfield."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.retrieval import cranfield, ndcg
from everloop.core.errors import BadInput, Corrupt
from everloop.engines.lsa import Lsa
from everloop.store.vectors import arrays as arrays_store
from everloop.store.vectors import indexed, open_index, stores
from everloop.store.vectors.postings import K1, B, Postings, rarity
from everloop.store.words import terms

TEXTS = {
    "refunds.md": "Refunds take ten days. Ask for a refund within a month of buying.",
    "invoices.md": "An invoice is sent each month by mail. Pay an invoice within two weeks.",
    "whales.md": "Whales are mammals. A whale breathes air and nurses its young at sea.",
    "ships.md": "A ship sails the sea. Sailors fear a storm more than a whale.",
}


def passages(texts: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"chunk": f"{d}#0", "document": d, "path": d, "title": d[:-3].title(), "heading": "", "position": 0, "page": 3 if d == "ships.md" else None}
        | {"text": text}
        for d, text in texts.items()
    ]


class Objects(dict):
    """An object store in a dict."""

    def put(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self[digest] = data
        return {"digest": digest, "size": len(data)}


@pytest.fixture(params=["arrays"])
def made(request: pytest.FixtureRequest) -> Any:
    """A small index in each store."""
    chunks = passages(TEXTS)
    embedder = Lsa.fit([indexed(c) for c in chunks], {"dims": 3})
    return stores.get(request.param).create(chunks, embedder)


def test_the_best_passage_comes_first_with_all_that_a_citation_needs(made: Any) -> None:
    found = made.search("how long does a refund take?", 2)
    assert found[0]["document"] == "refunds.md" and found[0]["n"] == 1 and found[0]["chunk"] == "refunds.md#0" and found[0]["title"] == "Refunds"
    assert "page" not in found[0] and made.search("sailors in a storm", 1)[0]["page"] == 3
    assert [p["n"] for p in made.search("month", 4)] == [1, 2, 3, 4][: len(made.search("month", 4))]


@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
def test_scores_fall_from_one_to_nought_and_nonsense_finds_nothing(made: Any, mode: str) -> None:
    scores = [p["score"] for p in made.search("a whale at sea", 4, mode)]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] <= scores[0] <= 1
    assert made.search("xyzzy plugh", 4, mode) == [] and made.search("the of and", 4, mode) == [] and made.search("", 4, mode) == []
    if mode == "text":
        assert {p["document"] for p in made.search("whale", 4, mode)} == {"whales.md", "ships.md"}


def test_words_that_are_not_there_lower_the_score(made: Any) -> None:
    near, far = made.search("invoice month", 1)[0], made.search("invoice month cryptocurrency quantum kangaroo", 1)[0]
    assert far["document"] == near["document"] and far["score"] < near["score"]


def test_the_same_text_in_two_documents_is_given_once(made: Any) -> None:
    both = made.replace(passages({"copy.md": TEXTS["refunds.md"], "other.md": "Refunds of another kind."}))
    assert [p["document"] for p in both.search("refunds take ten days", 2, "text")] == ["refunds.md", "other.md"]


def test_text_scores_are_bm25() -> None:
    texts = ["red red green", "green blue", "blue blue blue red"]
    postings = Postings.of(texts)
    postings.weigh(float(np.mean([3, 2, 4])))
    got = postings.score([{t: rarity(postings.found_in(t), 3)} for t in ("red", "blue")])
    bags = [terms(t) for t in texts]

    def bm25(bag: list[str], term: str) -> float:
        tf, df = bag.count(term), sum(term in b for b in bags)
        return np.log(1 + (3 - df + 0.5) / (df + 0.5)) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(bag) / 3))

    assert np.allclose(got, [bm25(b, "red") + bm25(b, "blue") for b in bags], rtol=1e-5)


def test_stored_and_opened_it_finds_the_same(made: Any) -> None:
    objects = Objects()
    manifest = made.save(objects.put)
    assert manifest["count"] == 4 and {f["digest"] for f in manifest["files"]} == set(objects)
    again = open_index(manifest, objects.__getitem__, made._embedder)
    assert [again.search(q, 4) for q in TEXTS.values()] == [made.search(q, 4) for q in TEXTS.values()]
    assert again.save(objects.put) == manifest
    with pytest.raises(Corrupt, match="Build the index again"):
        open_index(manifest, lambda digest: objects[digest][:100], made._embedder)
    with pytest.raises(BadInput, match="no index's manifest"):
        open_index({"store": "arrays"}, objects.__getitem__, made._embedder)
    with pytest.raises(BadInput, match="no way of searching called 'fuzzy'"):
        made.search("x", 1, "fuzzy")


def test_a_document_is_replaced_and_another_dropped_without_touching_the_index_before(made: Any) -> None:
    new = made.replace(passages({"whales.md": "Dolphins are clever."}), drop=["ships.md"])
    assert new.search("dolphins", 4)[0]["document"] == "whales.md" and not [p for p in new.search("whale sea storm", 4) if "hale" in p["text"]]
    assert (new.count, made.count) == (3, 4) and made.search("storm", 1)[0]["document"] == "ships.md"
    third = new.replace(passages({"whales.md": "Whales again."}))
    objects = Objects()
    opened = open_index(third.save(objects.put), objects.__getitem__, made._embedder)
    assert opened.count == 3 and opened.search("dolphins", 4, "text") == [] and opened.search("whales", 1)[0]["text"] == "Whales again."


def test_a_large_index_is_looked_through_quickly_and_scored_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 256))
    vectors = centres[rng.integers(0, 60, 3000)] + 0.9 * rng.normal(size=(3000, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = {str(i): vectors[i] + 0.02 * rng.normal(size=256).astype(np.float32) for i in range(20)}
    chunks = [
        {"chunk": str(i), "document": str(i), "path": "", "title": "", "heading": "", "position": 0, "page": None, "text": f"w{i}"}
        for i in range(3000)
    ]

    def embed(texts: list[str]) -> Any:
        return np.array([queries[texts[0]]]) if len(texts) == 1 else vectors

    monkeypatch.setattr(arrays_store, "COARSE_ABOVE", 0)
    monkeypatch.setattr(arrays_store, "COARSE_KEPT", 20)
    index = stores.get("arrays").create(chunks, SimpleNamespace(embed=embed, asked=lambda text: embed([text])[0]))
    assert index.segments[0].coarse is not None
    hits = [{p["chunk"] for p in index.search(q, 10, "vector")} & {str(j) for j in np.argsort(-(vectors @ v))[:10]} for q, v in queries.items()]
    assert sum(map(len, hits)) / 200 >= 0.98
    best = index.search("3", 1, "vector")[0]
    assert best["score"] == pytest.approx(float((vectors @ queries["3"]).max()), abs=1e-5)


def test_cranfield_is_ranked_as_well_as_promised(shared_data: Path) -> None:
    chunks, questions, relevant = cranfield(shared_data / "retrieval/cranfield")
    assert (len(chunks), len(questions)) == (1400, 225)
    embedder = Lsa.fit([indexed(c) for c in chunks], {"dims": 128})
    index = stores.get("arrays").create(chunks, embedder)
    figures = {
        mode: float(np.mean([ndcg([p["document"] for p in index.search(q, 10, mode)], r) for q, r in zip(questions, relevant, strict=True) if r]))
        for mode in ("text", "vector", "hybrid")
    }
    assert figures["hybrid"] >= 0.435 and figures["hybrid"] > figures["vector"] > figures["text"] >= 0.39, figures
