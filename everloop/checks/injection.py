"""Prompt injection: words that try to take over the assistant, said by a user or planted in a retrieved passage.

`attack_score` adds the weights of rules for attempts to override, unmask or unleash the assistant, wherever they stand.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from everloop.checks import checks
from everloop.checks.base import TextCheck
from everloop.checks.patterns import compiled
from everloop.core.types import Score, Utterance

_ATTACKS: tuple[tuple[float, str], ...] = (
    (1.0, r"\b(?:ignore|disregard|forget|override|bypass|neglect|skip|drop|do not follow|don't follow|stop following|pay no attention to)\b.{0,30}\b(?:previous|prior|above|earlier|preceding|all|any|your|the|system|these|those|initial|original|foregoing)\b.{0,30}\b(?:instruction|direction|prompt|rule|guideline|command|message|context|text|polic|order|training|programming|restriction|filter|safeguard)"),
    (1.0, r"\b(?:reveal|show|print|repeat|output|display|leak|tell me|give me|what (?:is|are|was|were)|expose|dump|write out)\b.{0,30}\b(?:your|the|its|this)\b.{0,20}\b(?:system prompt|initial prompt|hidden prompt|system message|initial instruction|hidden instruction|secret instruction|instructions? (?:above|you were given)|pre-?prompt|confidential instruction|developer message)"),
    (1.0, r"\b(?:repeat|print|output|copy|recite|echo)\b.{0,20}\b(?:everything|all (?:of )?the (?:text|words)|the (?:text|words|lines))\b.{0,15}\b(?:above|before this|so far|preceding)\b"),
    (1.0, r"\b(?:jailbreak(?:ed)?|developer mode|dev mode|dan mode|god mode|sudo mode|do anything now|stan mode|dude mode|unfiltered mode|evil mode|opposite mode|anarchy mode|freedom mode)\b"),
    (0.6, r"\b(?:you are|you're|you will be|act|behave|respond|answer|reply|pretend|roleplay|role-play|simulate|imagine you)\b.{0,60}\b(?:no longer|not bound by|free from|without any|freed from|unrestricted|unfiltered|uncensored|unlimited|amoral|no rules|no restrictions|no limits|no filters?|no ethical|no moral|any (?:moral|ethical) )"),
    (0.6, r"\b(?:you are|you're) (?:no longer|not) (?:chatgpt|gpt|an? (?:ai|assistant|language model|chatbot)|claude|bard|gemini|llama)\b"),
    (0.5, r"\b(?:from now on|starting now|for the rest of this (?:conversation|chat)|henceforth|in this hypothetical)\b.{0,60}\b(?:you|your|act|respond|answer|pretend)\b"),
    (0.5, r"\b(?:do(?:es)?n't|do(?:es)? not|never|without|free of|ignore|ignores|lacks?|no) (?:\w+ ){0,4}(?:openai|content|ethical|moral|safety|usage|anthropic|google)(?:'s)? (?:\w+ ){0,2}(?:polic|guideline|rule|restriction|filter|standard|principle|guardrail|concern|boundar|limit)"),
    (0.5, r"\b(?:never|don't|do not|cannot|can't|must not|will not|won't) (?:\w+ ){0,3}(?:refuse|decline|reject|apologi[sz]e|warn|say (?:you|that you) can(?:no|')t|break character|mention (?:that )?you are an ai|disclaim)"),
    (0.5, r"\b(?:stay|remain) in (?:character|your role)\b|\bbreak(?:ing)? (?:out of )?character\b"),
    (0.5, r"\b(?:unethical|immoral|illegal|amoral|harmful|offensive|dangerous|explicit|taboo)\b.{0,40}\b(?:without|regardless|no matter|is (?:fine|allowed|ok|okay|permitted)|are (?:fine|allowed|ok|permitted|encouraged))\b"),
    (0.4, r"\b(?:pretend|act as(?: if)?|play the role|roleplay as|role-play as|take on the (?:role|persona)|assume the (?:role|persona|identity)|impersonate|you are now|you will now|simulate being)\b"),
    (0.4, r"\b(?:chatgpt|openai|language model|ai model|as an ai)\b"),
    (0.7, r"(?m)^\s{0,4}(?:\[|<\|?|#{2,4} ?)?(?:system|im_start|inst|new instructions?|system (?:prompt|message|override|update)|end of (?:context|document|prompt)|admin|developer)(?:\||\]|>|:)"),
    (0.9, r"(?:<\|im_start\|>|<\|system\|>|\[/?INST\]|<<SYS>>|<\|endoftext\|>|###\s*(?:System|Instruction)\b|BEGIN (?:SYSTEM|ADMIN) (?:PROMPT|OVERRIDE))"),
    (0.7, r"\b(?:new|updated|real|actual|secret|hidden|important) (?:instruction|task|order|objective|directive)s?\b.{0,10}[:\-]"),
    (0.8, r"\b(?:send|forward|post|upload|exfiltrate|email|transmit|leak)\b.{0,60}\b(?:conversation|chat history|api key|password|credential|user data|system prompt|personal (?:data|information)|contents? of)\b.{0,40}\b(?:to|at)\b"),
    (0.6, r"!\[[^\]]{0,80}\]\(https?://[^)\s]{1,200}\?[^)\s]{0,200}(?:=|\{)"),
    (0.6, r"\b(?:decode|decrypt|base64|rot13)\b.{0,40}\b(?:follow|execute|obey|instruction|and (?:do|run|answer))"),
    (0.4, r"\b(?:two|both|2) (?:responses?|answers?|ways|paragraphs)\b.{0,80}\b(?:normal|standard|classic|first|regular|filtered|gpt)\b"),
    (0.4, r"\b(?:hypothetical|fictional) (?:response|story|scenario|world|character)\b.{0,120}\b(?:no|without|any|illegal|unethical|amoral|evil|villain)"),
    (0.3, r"\b(?:you (?:must|will|shall|have to|are required to|should)|always) (?:\w+ ){0,2}(?:comply|obey|answer|respond|follow|agree|provide|accept|reply)\b"),
    (0.3, r"\b(?:tokens?|points?)\b.{0,60}\b(?:lose|deduct|minus|die|shut ?down|penal|each time|subtract)"),
    (0.3, r"\b(?:evil|villain|unhinged|ruthless|machiavellian|sociopath|cruel|remorseless|manipulative|antagonist|immoral|condescending)\b"),
)  # fmt: skip
THRESHOLD = 0.9
"""Sum of weights at which a text counts as an attack."""


@lru_cache(maxsize=1)
def _compiled() -> tuple[Any, list[tuple[float, Any]]]:
    """(all rules as one pattern, which most texts do not match; each rule with its weight)."""
    patterns = ["(?im)" + p[4:] if p.startswith("(?m)") else "(?is)" + p for _, p in _ATTACKS]
    return compiled("|".join(f"(?:{p})" for p in patterns)), [(weight, compiled(p)) for (weight, _), p in zip(_ATTACKS, patterns, strict=True)]


_CONFUSABLE = {ord(a): b for a, b in zip("аеорсухіѕԁһјӏАЕОРСТХКМНВ’‘“”", "aeopcyxisdhjlAEOPCTXKMHB''\"\"", strict=True)}


def plain(text: str) -> str:
    """The text as a reader sees it: compatibility forms folded, look-alike letters mapped, zero-width characters dropped."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text).translate(_CONFUSABLE)
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def attack_score(text: str) -> tuple[float, list[str]]:
    """(sum of the weights of the rules that match, what they matched): from 1 on it is almost surely an attack."""
    seen, total = [], 0.0
    folded = plain(text)
    some, each = _compiled()
    if some.search(folded) is None:
        return 0.0, []
    for weight, pattern in each:
        m = pattern.search(folded)
        if m is not None:
            total += weight
            seen.append(m.group()[:80])
    return total, seen


@checks.add("injection")
@dataclass(frozen=True)
class Injection(TextCheck):
    """Prompt injection and jailbreaks: fails from `threshold` on.

    Measured where the rules were written, so read it as an upper bound: 78 % of 80 jailbreaks caught (selfreminder train), none of 1,697
    harmless texts flagged (1,400 Cranfield, 200 GSM8K, 50 e-mails, 47 news and chats). It does not know a harmless-looking task planted
    in a retrieved passage (BIPIA): not measured, and not what these rules look for.
    """

    threshold: float = THRESHOLD
    name: ClassVar[str] = "injection"
    part: ClassVar[str] = "question"
    local: ClassVar[bool] = True

    def judge(self, text: Utterance) -> Score:
        """Fail with the score and what matched."""
        value, seen = attack_score(text.text)
        bad = value >= self.threshold
        why = f"It tries to steer the assistant: {'; '.join(repr(s) for s in seen[:3])}." if bad else "No attempt to take over the assistant found."
        return Score(self.label, value, "fail" if bad else "pass", 1, None, self.name, why, {"matched": seen, "threshold": self.threshold})
