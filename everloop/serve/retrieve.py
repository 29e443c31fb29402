"""Retrieval before an answer: the last user message is looked up in the release's index, and the passages ride along to prompt and engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import orjson

from everloop.core.errors import BadInput
from everloop.core.limits import RETRIEVE_MAX
from everloop.core.types import Answer, Call, Serve, Span
from everloop.engines.base import Read, embedders
from everloop.serve.spans import span
from everloop.store.objects import digest_of
from everloop.store.vectors import Index, need_mode, open_index

DEFAULTS: dict[str, Any] = {"k": 4, "mode": "hybrid", "min_score": 0.0}
_open: WeakValueDictionary[str, Any] = WeakValueDictionary()


def load_index(manifest: Mapping[str, Any], read: Read) -> Index:
    """The index of an asset's manifest with its embedder, ready to search. Blocking. Releases that pin the same index share one in memory.

    BadInput for a manifest that is no index's, NotFound for an embedder or store that is not installed, Corrupt for damaged objects.
    """
    key = digest_of(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS))
    index: Index | None = _open.get(key)
    if index is None:
        spec = manifest.get("embedder")
        if not isinstance(spec, Mapping) or not spec.get("name"):
            raise BadInput("The index's manifest names no embedder.", "Build one with the pipeline step everloop.build.index:build.")
        index = open_index(manifest, read, embedders.get(str(spec["name"])).load(spec, read))
        _open[key] = index
    return index


def retrieve(inner: Serve, index: Index, settings: Mapping[str, Any] | None = None) -> Serve:
    """`inner` with the best passages for the last user message in `call.params["retrieved"]`, and in the answer's notes as "retrieved".
    `call.params["weights"]` says how much each term of the question tells.

    Settings: `k` passages at most, `mode` hybrid, text or vector, `min_score` from 0 to 1 that a passage must reach. BadInput for others.
    """
    asked = checked(settings or {})

    async def serve(call: Call) -> Answer:
        question = last_question(call.inputs.messages)
        with span(call.trace, "retrieve", "RETRIEVER") as made:
            look = partial(index.search, question, asked["k"], asked["mode"])
            found = look() if index.fast else await asyncio.to_thread(look)
            passages = [p for p in found if p["score"] >= asked["min_score"]]
            _tell(made, question, passages, asked)
        answer = await inner(call.replace(params={**call.params, "retrieved": passages, "weights": index.weights(question)}))
        return answer.replace(notes={"retrieved": passages, **answer.notes})

    return serve


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Retrieval settings with their defaults; BadInput says which cannot be."""
    unknown = set(settings) - set(DEFAULTS)
    if unknown:
        raise BadInput(f"Retrieval has no setting {', '.join(sorted(unknown))}.", f"Settings: {', '.join(DEFAULTS)}.")
    full = {**DEFAULTS, **settings}
    k, floor = full["k"], full["min_score"]
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= RETRIEVE_MAX:
        raise BadInput(f"Retrieval's k is {k!r}.", f"k is how many passages to take: a whole number from 1 to {RETRIEVE_MAX}.")
    if not isinstance(floor, (int, float)) or isinstance(floor, bool) or not 0 <= floor <= 1:
        raise BadInput(f"Retrieval's min_score is {floor!r}.", "min_score is a number from 0 to 1.")
    need_mode(full["mode"])
    return full


def last_question(messages: Any) -> str:
    """The text of the last user message; its text parts joined where it has parts."""
    for message in reversed(list(messages)):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            return "\n".join(str(p["text"]) for p in content or () if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    return ""


def _tell(made: Span, question: str, passages: list[dict[str, Any]], asked: Mapping[str, Any]) -> None:
    """What was asked and found, as attributes of the span (OpenInference's names)."""
    made.inputs = question
    made.outputs = [{name: p.get(name) for name in ("n", "chunk", "title", "page", "score")} for p in passages]
    made.attributes.update({"input.value": question, **{f"retrieval.{name}": asked[name] for name in DEFAULTS}})
    for i, passage in enumerate(passages):
        head = f"retrieval.documents.{i}.document"
        told = {name: passage[name] for name in ("document", "title", "page", "heading") if passage.get(name)}
        made.attributes.update({f"{head}.id": passage["chunk"], f"{head}.content": passage["text"], f"{head}.score": passage["score"]})
        made.attributes[f"{head}.metadata"] = orjson.dumps(told).decode()
