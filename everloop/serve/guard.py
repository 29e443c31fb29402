"""A policy's rules around a chat: what is asked, what is retrieved and what is answered, each checked, then blocked, redacted or flagged.

An answer that streams is held back as the policy says: `buffer` (until the output rules have run on all of it), `window` (a stretch of text, see
window.py) or `after` (checked at its end, flags only).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve, TraceContext, Utterance
from everloop.serve.rules import Make, Rule, check_message, rules_of, run, sources_of
from everloop.serve.tools import pieces_of
from everloop.serve.window import after, window

STREAMS = ("buffer", "window", "after")
REFUSAL = "I cannot help with that."
WORDLESS = frozenset(
    [
        "audio",
        "function_call",
        "modalities",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "reasoning_effort",
        "service_tier",
        "stop",
        "thinking",
        "tool_choice",
        "verbosity",
    ]
)
"""Parameters of a chat that bring no words to the LLM. All others are checked: servers take more than OpenAI's (`chat_template`, `documents`)."""


def guard(inner: Serve, policy: Mapping[str, Any], make: Make) -> Serve:
    """`inner` under a policy's rules of stages input and output. BadInput for what cannot be in it.

    The answer's notes get "blocked" and "flags"; while an answer streams they are filled in before its last chunk.
    """
    asked, said = rules_of(policy, "input", make), rules_of(policy, "output", make)
    refusal = str(policy.get("refusal") or REFUSAL)
    mode = policy.get("stream") or "buffer"
    if mode not in STREAMS:
        raise BadInput(f"The policy's stream is {mode!r}.", f"It can be: {', '.join(STREAMS)}.")
    if mode == "window" and not all(rule.local or rule.action == "flag" for rule in said):
        mode = "buffer"  # a rule that must see the whole answer may block it

    async def serve(call: Call) -> Answer:
        flags: list[dict[str, Any]] = []
        stream = bool(call.inputs.stream)
        chat = await _asked(call.trace, asked, call.inputs, flags) if asked else call.inputs
        if chat is None:
            call.trace.attributes["everloop.blocked"] = True
            none = {"retrieved": [], "citations": [], "refused": False, "blocked": True, "flags": flags}
            return shown(Answer(Message(refusal, "content_filter"), notes=none), stream)
        call = call.replace(inputs=chat)
        if stream and said and mode != "buffer":
            answer = await inner(call)
            return (window if mode == "window" else after)(answer, call, said, refusal, flags)
        answer = await inner(call.replace(inputs=Chat(chat.messages, chat.params, stream and not said)))
        if not said:
            return _flagged(answer, flags)
        notes: dict[str, Any] = {**answer.notes, "blocked": False, "flags": [*flags, *answer.notes.get("flags", ())]}
        message: Any = answer.outputs
        checked = await check_message(call.trace, said, message, sources_of(call, answer.notes), notes["flags"])
        if checked is None:
            notes.update(blocked=True, citations=[])
            call.trace.attributes["everloop.blocked"] = True
            return shown(answer.replace(outputs=Message(refusal, "content_filter"), notes=notes), stream)
        return shown(answer.replace(outputs=checked, notes={**notes, "citations": list(checked.citations)}), stream)

    return serve


def _flagged(answer: Answer, flags: list[dict[str, Any]]) -> Answer:
    """The answer with what the input's rules found in its notes; a stream's notes are the same object, filled as it goes."""
    notes = answer.notes if isinstance(answer.notes, dict) else dict(answer.notes)
    notes.update(blocked=False, flags=[*flags, *notes.get("flags", ())])
    return answer.replace(notes=notes)


async def _asked(trace: TraceContext, rules: Sequence[Rule], chat: Chat, flags: list[dict[str, Any]]) -> Chat | None:
    """A caller's chat with every text of it checked, of whatever role (a forged assistant turn is a way in too); None where a rule blocks it."""
    texts: list[str] = []
    spoken = {name: value for name, value in chat.params.items() if name not in WORDLESS}

    def gather(text: str) -> str:
        texts.append(text)
        return text

    _map_messages(chat.messages, gather)
    _map_strings(spoken, gather)
    found = await run(trace, rules, [Utterance(t) for t in texts], flags)
    if found is None:
        return None
    if found == texts:
        return chat
    left = iter(found)
    messages = _map_messages(chat.messages, lambda _: next(left))
    return Chat(messages, {**chat.params, **_map_strings(spoken, lambda _: next(left))}, chat.stream)


def _map_messages(messages: Sequence[Mapping[str, Any]], change: Callable[[str], str]) -> list[Mapping[str, Any]]:
    """Messages with every text in them changed: contents, texts of parts, refusals, names and the arguments of tool calls."""
    made: list[Mapping[str, Any]] = []
    for message in messages:
        kept = {k: v for k, v in message.items() if k in ("role", "tool_call_id")}
        made.append({**message, **_map_strings({k: v for k, v in message.items() if k not in kept}, change)})
    return made


_LITERAL = frozenset({"type", "id", "role", "detail", "format", "media_type", "url", "data", "file_id", "file_data", "tool_call_id"})
"""Keys whose values are no words."""


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed; links and data are left."""
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, Mapping):
        return {k: v if k in _LITERAL and isinstance(v, str) else _map_strings(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(v, change) for v in value]
    return value


def shown(answer: Answer, stream: bool) -> Answer:
    """A whole answer, as a stream where one was asked for."""
    if not stream or answer.streams:
        return answer
    message: Any = answer.outputs

    async def chunks() -> AsyncIterator[Chunk]:
        if message.text or message.tool_calls:
            yield Chunk(message.text, tool_calls=pieces_of(message.tool_calls))
        yield Chunk("", message.finish_reason, answer.usage)

    return answer.replace(outputs=chunks())
