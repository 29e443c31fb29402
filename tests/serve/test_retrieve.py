"""Retrieval around an answer: what the engine gets, what the trace says, what settings do."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from everloop.core.errors import BadInput, NotFound
from everloop.core.principal import local_principal
from everloop.core.types import Answer, Call, Chat, Message, TraceContext
from everloop.engines.lsa import Lsa
from everloop.serve.retrieve import load_index, retrieve
from everloop.store.vectors import indexed, stores
from tests.store.test_vectors import TEXTS, Objects, passages


@pytest.fixture(scope="module")
def stored() -> tuple[dict[str, Any], Objects]:
    """A stored index as its asset's manifest, and its objects."""
    objects, chunks = Objects(), passages(TEXTS)
    embedder = Lsa.fit([indexed(c) for c in chunks], {"dims": 3})
    manifest = stores.get("arrays").create(chunks, embedder).save(objects.put)
    return {**manifest, "embedder": {"name": "lsa", "dims": 3, "file": objects.put(embedder.save())["digest"]}}, objects


def ask(index: Any, question: Any, settings: dict[str, Any] | None = None) -> tuple[Answer, Call]:
    """One call through the wrapper: the answer, and the call that the engine got."""
    seen: list[Call] = []

    async def engine(call: Call) -> Answer:
        seen.append(call)
        return Answer(Message("said"), notes={"refused": False})

    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": question}]
    call = Call("tutor", Chat(messages), local_principal(), TraceContext("a" * 32, "b" * 16))
    return asyncio.run(retrieve(engine, index, settings)(call)), seen[0]


def test_the_engine_gets_passages_and_the_answer_and_trace_name_them(stored: Any) -> None:
    index = load_index(stored[0], stored[1].__getitem__)
    answer, call = ask(index, "When is an invoice sent by ship?", {"k": 2})
    found = call.params["retrieved"]
    assert found[0]["document"] == "invoices.md" and len(found) == 2 and answer.notes == {"retrieved": found, "refused": False}
    (span,) = call.trace.spans
    assert (span.kind, span.status, span.inputs) == ("RETRIEVER", "ok", "When is an invoice sent by ship?")
    assert span.attributes["retrieval.documents.0.document.id"] == "invoices.md#0" and span.attributes["retrieval.k"] == 2
    assert span.attributes["retrieval.documents.0.document.content"] == found[0]["text"]
    assert span.attributes["retrieval.documents.1.document.score"] == found[1]["score"]
    assert orjson.loads(span.attributes["retrieval.documents.0.document.metadata"])["title"] == found[0]["title"]


def test_a_floor_keeps_out_what_is_far_and_parts_of_a_message_are_read(stored: Any) -> None:
    index = load_index(stored[0], stored[1].__getitem__)
    parts = [{"type": "text", "text": "invoice"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "sent each month"}]
    _, call = ask(index, parts, {"min_score": 0.3, "mode": "text"})
    assert [p["document"] for p in call.params["retrieved"]] == ["invoices.md"] and call.trace.spans[0].inputs == "invoice\nsent each month"
    _, call = ask(index, "quantum kangaroo", {"min_score": 0.3})
    assert call.params["retrieved"] == []


def test_a_large_index_is_searched_off_the_loop(stored: Any) -> None:
    where: list[str] = []
    slow = SimpleNamespace(fast=False, weights=lambda question: {}, search=lambda *asked: where.append(threading.current_thread().name) or [])
    ask(slow, "anything")
    assert where and where[0] != threading.main_thread().name


def test_an_index_is_loaded_once_and_what_is_none_is_said(stored: Any) -> None:
    manifest, objects = stored
    first = load_index(manifest, objects.__getitem__)
    assert load_index(dict(manifest), lambda digest: pytest.fail("read again")) is first
    with pytest.raises(BadInput, match="no embedder"):
        load_index({}, objects.__getitem__)
    with pytest.raises(NotFound, match="no embedder called 'word2vec'"):
        load_index({**manifest, "embedder": {"name": "word2vec"}}, objects.__getitem__)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": "4"}, "k is '4'"),
        ({"min_score": 2}, "min_score is 2"),
        ({"mode": "magic"}, "'magic'"),
        ({"top": 3}, "no setting top"),
    ],
)
def test_settings_that_cannot_be(stored: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        retrieve(lambda call: None, load_index(stored[0], stored[1].__getitem__), settings)  # type: ignore[arg-type,return-value]
