"""Output rules over an answer that streams: `window` holds a stretch back until it has been checked, `after` checks when all has left.

Under `window` a character leaves once GUARD_WINDOW_CHARS minus GUARD_STEP_CHARS more have come after it and the rules have passed over both, so
a pattern up to that long is caught wherever chunks are cut; a longer one if it is one word, or if its beginning is a match already. Tool calls are
held until the end. So the first text comes later than the LLM's by at most the time that GUARD_WINDOW_CHARS characters take.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from everloop.core.limits import GUARD_STEP_CHARS, GUARD_WINDOW_CHARS
from everloop.core.types import Answer, Call, Chunk, Message, Score, Usage, Utterance
from everloop.serve.rules import Rule, check_message, conceal, flag_of, hide, merged, redact, run, sources_of, spans_of, tell
from everloop.serve.streams import reading
from everloop.serve.tools import ToolCalls, pieces_of

HELD = GUARD_WINDOW_CHARS - GUARD_STEP_CHARS
"""Characters that stay behind after a check."""
CONTEXT = HELD
"""Characters that have left already and are judged with those to come."""
LONGEST = 16 * GUARD_WINDOW_CHARS
"""A match that is still growing is held up to this length, then redacted as it stands."""


class Blocked(Exception):
    """A rule blocks the rest of the answer."""


class Held:
    """The text of an answer that has not left yet, and what the rules found so far."""

    def __init__(self, call: Call, rules: Sequence[Rule], carried: Mapping[str, Any]) -> None:
        self.call, self.carried = call, carried
        self.rules = [rule for rule in rules if rule.local]
        self.whole = [rule for rule in rules if not rule.local or rule.action != "redact"]
        self.text = ""  # all of it, as the LLM said it
        self.left = 0  # how much of it has left
        self.seen = 0  # how much of it has been checked
        self.failed: dict[str, tuple[Rule, Score]] = {}

    async def push(self, text: str) -> str:
        """Take in text; answers what may leave now. Raises Blocked."""
        self.text += text
        if len(self.text) - self.left < GUARD_WINDOW_CHARS or len(self.text) - self.seen < GUARD_STEP_CHARS:
            return ""
        return await self._check(len(self.text) - HELD)

    async def end(self) -> str:
        """What is left. Raises Blocked."""
        return await self._check(len(self.text))

    async def _check(self, upto: int) -> str:
        """Run the rules over what has not left, with what went before it; answers the text up to `upto`, or less where a match reaches over it."""
        begin = max(0, self.left - CONTEXT)
        stretch = Utterance(self.text[begin:], "output", **self.carried)
        self.seen = len(self.text)
        spans: list[tuple[int, int, str]] = []
        blocked = False
        for rule in self.rules:
            score = await rule.judge(stretch)
            if score.verdict != "fail":
                continue
            found = [(begin + start, begin + end, label) for start, end, label in spans_of(score)]
            new = [s for s in found if s[1] > self.left]
            if rule.action == "redact" and found and not new:
                continue  # it lies in what has left, redacted
            self.failed.setdefault(rule.name, (rule, score))
            hide(self.call.trace, rule, self.text, new)
            blocked = blocked or rule.action == "block" or (rule.action == "redact" and not found)
            if rule.action == "redact":
                spans += new
        if blocked:
            raise Blocked
        spans = merged([(max(start, self.left), end, label) for start, end, label in spans])
        upto = self._word(upto)
        for start, end, _ in spans:
            if start < upto < end:
                upto = start if len(self.text) - start < LONGEST else end
        upto = max(upto, self.left)
        gone = [(start - self.left, end - self.left, label) for start, end, label in spans if end <= upto]
        leaving = redact(self.text[self.left : upto], gone)
        self.left = upto
        return leaving

    async def forget(self, tools: ToolCalls) -> None:
        """The rest will not leave: keep what the rules would redact of it out of the trace."""
        said = [self.text[max(0, self.left - CONTEXT) :], *(c["function"]["arguments"] for c in tools.calls())]
        await conceal(self.call.trace, self.rules, [Utterance(t, "output", **self.carried) for t in said if t])

    def _word(self, upto: int) -> int:
        """`upto`, or the beginning of the unbroken run of ASCII that it lies in: tokens and keys may be longer than the window."""
        if upto >= len(self.text):
            return upto
        floor = max(self.left, upto - LONGEST)
        at = upto
        while at > floor and self.text[at] > " " and self.text[at].isascii() and self.text[at - 1] > " " and self.text[at - 1].isascii():
            at -= 1
        return at if at > floor or len(self.text) - self.left < LONGEST else upto


def window(answer: Answer, call: Call, rules: Sequence[Rule], refusal: str, flags: list[dict[str, Any]]) -> Answer:
    """A streamed answer whose text leaves a window late, checked. A rule that blocks ends it with finish_reason content_filter."""
    notes: dict[str, Any] = {**answer.notes, "blocked": False, "flags": [*flags, *answer.notes.get("flags", ())]}
    held = Held(call, rules, sources_of(call, answer.notes))

    async def chunks() -> AsyncIterator[Chunk]:
        tools, said, reason, usage = ToolCalls(), "", "stop", None
        try:
            async with reading(answer.outputs) as source:
                async for chunk in source:
                    tools.add(chunk.tool_calls)
                    reason, usage = chunk.finish_reason or reason, chunk.usage or usage
                    if chunk.text and (leaving := await held.push(chunk.text)):
                        said += leaving
                        yield Chunk(leaving)
                rest = await held.end()
            last = await _settle(answer, held, rest, tools, notes)
        except Blocked:
            await held.forget(tools)
            notes.update(blocked=True, citations=[])
            call.trace.attributes["everloop.blocked"] = True
            _tell(held, notes["flags"])
            yield Chunk("" if said else refusal, "content_filter", usage or Usage(model=answer.usage.model, provider=answer.usage.provider))
            return
        except BaseException:  # the reader left, or the LLM failed
            await held.forget(tools)
            raise
        _tell(held, notes["flags"])
        if last.text or last.tool_calls:
            yield Chunk(last.text, tool_calls=pieces_of(last.tool_calls))
        yield Chunk("", reason, usage)

    return answer.replace(outputs=chunks(), notes=notes)


async def _settle(answer: Answer, held: Held, rest: str, tools: ToolCalls, notes: dict[str, Any]) -> Message:
    """The end of a windowed answer: rules that judge all of it, its tool calls and citations. Raises Blocked."""
    trace, flags = held.call.trace, notes["flags"]
    for rule in held.whole:
        score = await rule.judge(Utterance(held.text, "output", **held.carried))
        if score.verdict == "fail":
            held.failed.setdefault(rule.name, (rule, score))
            if rule.action == "block":
                raise Blocked
    citations = list(answer.notes.get("citations") or ())
    checked = await check_message(trace, held.rules, Message("", "stop", citations, tools.calls()), {}, flags, quiet=True)
    if checked is None:
        raise Blocked
    notes.update({k: v for k, v in answer.notes.items() if k not in ("blocked", "flags")}, citations=list(checked.citations))
    return Message(rest, tool_calls=checked.tool_calls)


def _tell(held: Held, flags: list[dict[str, Any]]) -> None:
    rules = dict.fromkeys([*held.rules, *held.whole])
    for rule in rules:
        failed = held.failed.get(rule.name)
        tell(held.call.trace, rule, failed[1] if failed else None, [failed[1] if failed else Score(rule.check, None, "pass")])
        if failed:
            flags.append(flag_of(*failed))


def after(answer: Answer, call: Call, rules: Sequence[Rule], refusal: str, flags: list[dict[str, Any]]) -> Answer:
    """A streamed answer that leaves as it comes; at its end the rules run on all of it, and what they find is flagged."""
    notes: dict[str, Any] = {**answer.notes, "blocked": False, "flags": [*flags, *answer.notes.get("flags", ())]}
    flagging = [Rule(r.name, r.check, r.stage, "flag", r.run, r.local) for r in rules]

    async def chunks() -> AsyncIterator[Chunk]:
        tools, text = ToolCalls(), ""

        def said() -> list[Utterance]:
            texts, carried = [text, *(c["function"]["arguments"] for c in tools.calls())], sources_of(call, answer.notes)
            return [Utterance(t, "output", **carried) for t in texts if t]

        try:
            async with reading(answer.outputs) as source:
                async for chunk in source:
                    text += chunk.text
                    tools.add(chunk.tool_calls)
                    if chunk.finish_reason:
                        await run(call.trace, flagging, said(), notes["flags"])
                        notes.update({k: v for k, v in answer.notes.items() if k not in ("blocked", "flags")})
                    yield chunk
        finally:
            await conceal(call.trace, rules, said())

    return answer.replace(outputs=chunks(), notes=notes)
