"""Rules of stage `retrieved`: passages that carry an attack, or what must not leave, never reach the prompt (indirect prompt injection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.types import Answer, Call, Score, Serve, Utterance
from everloop.serve.rules import Make, Rule, flag_of, hide, redact, rules_of, spans_of, tell


def screen(inner: Serve, policy: Mapping[str, Any], make: Make) -> Serve:
    """`inner` with the passages in `call.params["retrieved"]` checked, title and text. What a rule blocks or flags is left out, marked
    `flagged`; what it redacts is redacted. The answer's notes get the passages as they are then, and the rules that failed.
    """
    rules = rules_of(policy, "retrieved", make)
    if not rules:
        return inner

    async def serve(call: Call) -> Answer:
        flags: list[dict[str, Any]] = []
        passages = await _screened(call, rules, call.params.get("retrieved") or (), flags)
        answer = await inner(call.replace(params={**call.params, "retrieved": passages}))
        return answer.replace(notes={**answer.notes, "retrieved": passages, "flags": [*flags, *answer.notes.get("flags", ())]})

    return serve


async def _screened(call: Call, rules: Sequence[Rule], passages: Sequence[Mapping[str, Any]], flags: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = [dict(p) for p in passages]
    for rule in rules:
        scores: list[Score] = []
        for passage in made:
            if passage.get("flagged"):
                continue
            title = " ".join(str(passage.get("title") or "").split())
            text = f"{title}\n{passage.get('text') or ''}"
            score = await rule.judge(Utterance(text, "retrieved"))
            scores.append(score)
            if score.verdict != "fail":
                continue
            spans = spans_of(score)
            hide(call.trace, rule, text, spans)
            flags.append({**flag_of(rule, score), "chunk": passage.get("chunk"), "document": passage.get("document")})
            if rule.action == "redact" and spans:
                title, _, body = redact(text, spans).partition("\n")
                passage.update(title=title, text=body)
            else:
                passage["flagged"] = True
        tell(call.trace, rule, next((s for s in scores if s.verdict == "fail"), None), scores)
    return made
