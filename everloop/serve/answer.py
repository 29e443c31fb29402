"""A chat release as a `Serve`: policy, retrieval, prompt and LLM, one wrapper each.

Outermost first: guard (input, output) -> cite -> retrieve -> screen (retrieved passages) -> prompt -> traced -> the LLM engine. An answer's notes
always have "retrieved", "citations", "blocked", "refused" and "flags"; a stream's are complete before its last chunk.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from everloop.assets.prompts import renderer
from everloop.core.errors import BadInput
from everloop.core.limits import HISTORY_CHARS
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve
from everloop.engines.base import Read
from everloop.engines.chat import env_secrets, make, question_of, text_of
from everloop.serve.guard import guard
from everloop.serve.llm_span import traced
from everloop.serve.retrieve import load_index, retrieve
from everloop.serve.screen import screen
from everloop.serve.streams import reading

_CITED = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")


def chat(release: Mapping[str, Any], pins: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any] | None, read: Read) -> Serve:
    """The chain of a chat release; `read(digest)` gives objects. Blocking. BadInput for one that cannot be served, NotFound for an unknown engine.

    Params: {"engine": {...}, "retrieval": {...}, "answer": {...}, "variables": {...}}; the middle two win over the prompt's settings. Without an
    engine, a release with an index answers by extraction.
    """
    from everloop.checks import checks

    params = release.get("params") or {}
    manifest = pins["prompt"]["manifest"]
    settings = manifest.get("settings") or {}
    engine = params.get("engine") or ({"name": "extractive"} if "index" in pins else None)
    if not isinstance(engine, Mapping):
        raise BadInput("The release names no LLM.", 'Add it to its params: {"engine": {"name": "openai", "model": "..."}}.')
    make_check = lambda name, given: checks.get(name)(**given)
    serve = traced(make(engine, env_secrets), engine)
    serve = prompt(serve, manifest, params.get("variables") or {}, {**(settings.get("answer") or {}), **(params.get("answer") or {})})
    if policy is not None:
        serve = screen(serve, policy, make_check)
    if "index" in pins:
        asked = {**(settings.get("retrieval") or {}), **(params.get("retrieval") or {})}
        serve = retrieve(serve, load_index(pins["index"]["manifest"], read), asked)
    serve = cite(serve)
    return serve if policy is None else guard(serve, policy, make_check)


def prompt(inner: Serve, manifest: Mapping[str, Any], variables: Mapping[str, Any] | None = None, answer: Mapping[str, Any] | None = None) -> Serve:
    """Put a prompt's messages, filled, before the conversation; its parameters are the call's defaults, `answer` rides along for the engine.

    Values: `question` (the last user message), `context` (the passages, numbered), `history` (the turns before). A prompt with a message of the
    user takes the place of the last one; one that uses `history` takes the place of the turns before. BadInput where it cannot be filled.
    """
    render = renderer(manifest, variables)
    defaults, settings = dict(manifest.get("parameters") or {}), dict(answer or {})
    uses_history = "history" in (manifest.get("variables") or ())

    async def serve(call: Call) -> Answer:
        messages = list(call.inputs.messages)
        passages = [p for p in call.params.get("retrieved") or () if not p.get("flagged")]
        turns, last = _last_turn(messages)
        made = render({"question": question_of(messages), "context": context_of(passages), "history": history_of(turns)})
        head, asked = [m for m in made if m["role"] != "user"], [m for m in made if m["role"] == "user"]
        before = [m for m in turns if m.get("role") in ("system", "developer")] if uses_history else turns
        full = [*head, *before, *(asked if asked and last else []), *(last if not asked else last[1:])] if last else [*made, *messages]
        sent = Chat(full, {**defaults, **call.inputs.params}, call.inputs.stream)
        return await inner(call.replace(inputs=sent, params={**call.params, "answer": settings} if settings else call.params))

    return serve


def _last_turn(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """(the turns before, the last user message with what came after it); no user message: (all, nothing)."""
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].get("role") == "user":
            return list(messages[:i]), list(messages[i:])
    return list(messages), []


def context_of(passages: Sequence[Mapping[str, Any]]) -> str:
    """Passages as a prompt shows them: "[1] title: text", a blank line between."""
    lines = []
    for i, passage in enumerate(passages, 1):
        title, text = str(passage.get("title") or ""), str(passage.get("text") or "")
        lines.append(f"[{passage.get('n', i)}] {title}: {text}" if title else f"[{passage.get('n', i)}] {text}")
    return "\n\n".join(lines)


def history_of(turns: Sequence[Mapping[str, Any]]) -> str:
    """The turns before, one a line: "user: ..."; the oldest are dropped beyond HISTORY_CHARS."""
    lines, size = [], 0
    for message in reversed(turns):
        line = f"{message.get('role')}: {text_of(message.get('content'))}"
        size += len(line)
        if size > HISTORY_CHARS:
            break
        if message.get("role") in ("user", "assistant"):
            lines.append(line)
    return "\n".join(reversed(lines))


def cite(inner: Serve) -> Serve:
    """Make the answer's notes complete: the passages it cites by number, and whether it declines."""

    async def serve(call: Call) -> Answer:
        answer = await inner(call)
        notes: dict[str, Any] = {"retrieved": [], "citations": [], "blocked": False, "refused": False, "flags": [], **answer.notes}
        if answer.streams:
            return answer.replace(outputs=_cited(call, answer, notes), notes=notes)
        message: Any = answer.outputs
        _settle(call, notes, message.text, bool(message.tool_calls), list(message.citations))
        return answer.replace(outputs=Message(message.text, message.finish_reason, notes["citations"], message.tool_calls), notes=notes)

    return serve


async def _cited(call: Call, answer: Answer, notes: dict[str, Any]) -> AsyncIterator[Chunk]:
    text, tools = [], False
    async with reading(answer.outputs) as source:
        async for chunk in source:
            text.append(chunk.text)
            tools = tools or bool(chunk.tool_calls)
            if chunk.finish_reason:
                _settle(call, notes, "".join(text), tools, list(answer.notes.get("citations") or ()))
            yield chunk


def _settle(call: Call, notes: dict[str, Any], text: str, tools: bool, given: list[Mapping[str, Any]]) -> None:
    from everloop.checks.text import refuses

    notes["citations"] = given or citations_of(text, notes["retrieved"])
    notes["refused"] = bool(notes["refused"]) or (not tools and refuses(text))
    if notes["refused"]:
        call.trace.attributes["everloop.refused"] = True


def citations_of(text: str, passages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The passages that an answer cites as [1] or [1, 2], in the order it names them; numbers without a passage cite nothing."""
    if "[" not in text:
        return []
    there = {int(p["n"]): p for p in passages if not p.get("flagged")}
    named = dict.fromkeys(int(n) for found in _CITED.finditer(text) for n in re.split(r"\s*[,;]\s*", found.group(1)))
    return [{k: there[n].get(k) for k in ("n", "chunk", "document", "title", "text", "score")} for n in named if n in there]
