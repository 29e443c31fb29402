"""The rules of a policy: made with their checks, run over texts and over a whole answer, and told in spans and flags.

A check that fails to run counts as failed. What a rule redacts is redacted in the trace too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.core.limits import GUARD_THREAD_CHARS, GUARD_TURN_TEXTS
from everloop.core.types import Call, Message, Score, TraceContext, Utterance
from everloop.engines.chat import question_of
from everloop.serve.spans import span

ACTIONS = ("block", "redact", "flag")
STAGES = ("input", "retrieved", "output")
PRIVATE = ("pii", "secrets")
"""Checks whose findings stay out of the trace also where the rule blocks."""

Make = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Rule:
    """One rule of a policy with its check, made. `local`: a stretch of text can be judged alone."""

    name: str
    check: str
    stage: str
    action: str
    run: Callable[[Utterance], Any]
    local: bool = False

    async def judge(self, subject: Utterance) -> Score:
        """The check's score; one that fails to run has failed. Long texts are judged in a thread."""
        try:
            if len(subject.text) > GUARD_THREAD_CHARS:
                found = await asyncio.to_thread(self.run, subject)
            else:
                found = self.run(subject)
            score: Score = await found if inspect.isawaitable(found) else found
            return score
        except Exception as error:
            return Score(self.check, None, "fail", why=f"the check failed to run: {error}")


def rules_of(policy: Mapping[str, Any], stage: str, make: Make) -> list[Rule]:
    """The policy's rules of a stage; `make(name, params)` gives the checks. BadInput for an unknown stage or action."""
    rules = []
    for given in policy.get("rules") or ():
        action, where = given.get("action", "block"), given.get("stage")
        if action not in ACTIONS or where not in STAGES:
            raise BadInput(f"The rule {given.get('name')!r} has stage {where!r} and action {action!r}.", "See the policy.")
        if where == stage:
            check = make(given["check"], given.get("params") or {})
            local = getattr(check, "local", False) or (getattr(check, "redacts", False) and not getattr(check, "must", False))
            rules.append(Rule(str(given.get("name") or given["check"]), given["check"], stage, action, check, bool(local)))
    return rules


def sources_of(call: Call, notes: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer's Utterance carries: the question, and the texts of the passages that were not left out."""
    sources = [str(p.get("text") or "") for p in notes.get("retrieved") or () if not p.get("flagged")]
    return {"question": question_of(call.inputs.messages), "sources": sources}


async def check_message(
    trace: TraceContext, rules: Sequence[Rule], message: Message, carried: Mapping[str, Any], flags: list[dict[str, Any]], quiet: bool = False
) -> Message | None:
    """A whole answer after the output rules: its text, the arguments of its tool calls and the texts it cites; None where a rule blocks it."""
    calls = [dict(c.get("function") or {}) for c in message.tool_calls]
    texts = [message.text, *(str(f.get("arguments") or "") for f in calls)] if message.text or not calls else [str(f.get("arguments")) for f in calls]
    cited = [str(c.get("text") or "") for c in message.citations]
    titles = {str(c.get("title") or "") for c in message.citations}
    fresh = [t for t in dict.fromkeys([*cited, *titles]) if t and (t in titles or t not in message.text)]
    found = await run(trace, rules, [Utterance(t, "output", **carried) for t in texts], flags, quiet)
    if found is None:
        return None
    cleaned: dict[str, str] = {}
    if fresh:
        local = [rule for rule in rules if rule.local]
        kept = await run(trace, local, [Utterance(t, "output") for t in fresh], flags, quiet=True) or [""] * len(fresh)
        cleaned = dict(zip(fresh, kept, strict=True))
    text = found[0] if message.text or not calls else ""
    for t in set(cited) - set(fresh):
        cleaned[t] = t if text == message.text else ""
    tools = _with_arguments(message.tool_calls, found[-len(calls) :] if calls else [])
    if tools is None:
        return None
    citations = [{**c, **{k: cleaned.get(str(c[k] or ""), "") for k in ("title", "text") if k in c}} for c in message.citations]
    return replace(message, text=text, tool_calls=tools, citations=citations)


def _with_arguments(calls: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> tuple[Mapping[str, Any], ...] | None:
    """Tool calls with other arguments; None where a redaction left something that is not JSON."""
    made = []
    for call, new in zip(calls, arguments, strict=True):
        old = (call.get("function") or {}).get("arguments")
        if new != old:
            try:
                orjson.loads(new)
            except orjson.JSONDecodeError:
                return None
        made.append({**call, "function": {**call["function"], "arguments": new}})
    return tuple(made)


async def run(
    trace: TraceContext, rules: Sequence[Rule], subjects: Sequence[Utterance], flags: list[dict[str, Any]], quiet: bool = False
) -> list[str] | None:
    """The texts after all rules, redacted where they say so; None where one blocks. One span a rule, unless `quiet`."""
    subjects = list(subjects)
    for at, rule in enumerate(rules):
        scores = await judged(rule, subjects)
        failed = next((score for score in scores if score.verdict == "fail"), None)
        if not quiet:
            tell(trace, rule, failed, scores)
        if failed is None:
            continue
        flags.append(flag_of(rule, failed))
        blocked = rule.action == "block"
        for i, score in enumerate(scores):
            if score.verdict != "fail":
                continue
            spans = spans_of(score)
            hide(trace, rule, subjects[i].text, spans)
            blocked = blocked or (rule.action == "redact" and not spans)
            if rule.action == "redact":
                subjects[i] = replace(subjects[i], text=redact(subjects[i].text, spans))
        if blocked:
            await conceal(trace, rules[at + 1 :], subjects)
            return None
    return [subject.text for subject in subjects]


async def judged(rule: Rule, subjects: Sequence[Utterance]) -> list[Score]:
    """A rule's score of each text. Among many texts, other calls get their turn."""
    scores = []
    for i, subject in enumerate(subjects):
        if i and not i % GUARD_TURN_TEXTS:
            await asyncio.sleep(0)
        scores.append(await rule.judge(subject))
    return scores


async def conceal(trace: TraceContext, rules: Sequence[Rule], subjects: Sequence[Utterance]) -> None:
    """Keep out of the trace what these rules would redact or find private, where the texts themselves go no further."""
    for rule in rules:
        if rule.action == "redact" or (rule.action == "block" and rule.check in PRIVATE):
            for subject, score in zip(subjects, await judged(rule, subjects), strict=True):
                if score.verdict == "fail":
                    hide(trace, rule, subject.text, spans_of(score))


def tell(trace: TraceContext, rule: Rule, failed: Score | None, scores: Sequence[Score], judged: int | None = None) -> None:
    """A GUARDRAIL span of what a rule found in the texts of its stage."""
    with span(trace, rule.name, "GUARDRAIL") as made:
        verdict = "fail" if failed else "pass" if any(s.verdict == "pass" for s in scores) else "not_assessed"
        made.attributes.update({"guardrail.check": rule.check, "guardrail.stage": rule.stage, "guardrail.action": rule.action})
        made.attributes.update({"guardrail.verdict": verdict, "guardrail.texts": len(scores) if judged is None else judged})
        if failed:
            made.attributes["guardrail.why"] = failed.why
            trace.attributes.setdefault("everloop.flags", []).append(rule.name)


def flag_of(rule: Rule, score: Score) -> dict[str, Any]:
    """What the answer's notes say of a rule that failed."""
    return {"rule": rule.name, "check": rule.check, "stage": rule.stage, "action": rule.action, "why": score.why}


def hide(trace: TraceContext, rule: Rule, text: str, spans: Sequence[tuple[int, int, str]]) -> None:
    """Keep what a rule redacts, or found private, out of the trace."""
    if rule.action == "redact" or (rule.action == "block" and rule.check in PRIVATE):
        trace.hidden.update({text[start:end]: f"[{label}]" for start, end, label in spans if end - start > 2})


def spans_of(score: Score) -> list[tuple[int, int, str]]:
    """A score's spans, {"start", "end", "label"?} or (start, end, label?), as (start, end, label), in order and none within another."""
    plain = [
        (s["start"], s["end"], str(s.get("label", "redacted"))) if isinstance(s, Mapping) else (s[0], s[1], str(s[2]) if len(s) > 2 else "redacted")
        for s in score.details.get("spans") or ()
    ]
    return merged(plain)


def merged(spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans in order; those that overlap are one, with the first one's label."""
    made: list[tuple[int, int, str]] = []
    for start, end, label in sorted(spans):
        if made and start < made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]), made[-1][2])
        else:
            made.append((start, end, label))
    return made


def redact(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    """`text` with each span, (start, end, label) as `spans_of` answers them, replaced by its label in brackets."""
    parts, at = [], 0
    for start, end, label in spans:
        parts += [text[at:start], f"[{label}]"]
        at = end
    return "".join([*parts, text[at:]])
