"""Whether an answer rests on its sources: the share of its sentences that they support, by words, numbers and negations.

Lexical: each sentence is held against the best stretch of the sources by IDF-weighted overlap of content words; a number the sources do not
have, a name they do not have, or a negation on one side only takes the support away. It notices what is not in the sources at all; it is
weak on an answer that uses the sources' own words wrongly.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks.base import GATE, GUARDRAIL, MONITOR, Metric, NotAssessable, TextCheck, source_text, utterance_of
from everloop.checks.text import STOP, content, refuses, stem, words
from everloop.core.types import Results, Score, Utterance

_SENTENCE = re.compile(r"(?<=[.!?])[\s\"')\]]+(?=[A-Z0-9\"'(\[])|\n+")
_CITED = re.compile(r"\[\d{1,3}\]")
_CITED_END = re.compile(r"(?<=[.!?:;…])\s*(?:\[\d{1,3}\]\s*)+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"\b[A-Z][a-zA-Z'’\-]+\b")
_NEGATION = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "neither",
        "nor",
        "cannot",
        "can't",
        "won't",
        "don't",
        "doesn't",
        "didn't",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "hasn't",
        "haven't",
        "hadn't",
        "without",
        "nobody",
        "nothing",
    ]
)
_NUMBER_WORDS = dict(
    zip(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], map(str, range(1, 13)), strict=True)
)
SUPPORT = 0.6
"""Share of a sentence's information that the best stretch of the sources must hold."""


def sentences(text: str) -> list[str]:
    """The sentences of a text that say something: citations, headings of one word and empty lines left out. A citation after a sentence ends it."""
    cleaned = _CITED.sub("", _CITED_END.sub("\n", text))
    return [s.strip() for s in _SENTENCE.split(cleaned) if len(content(s)) >= 2]


@dataclass(frozen=True)
class Sources:
    """Sources prepared for holding sentences against them."""

    stretches: Sequence[frozenset[str]]
    idf: dict[str, float]
    all: frozenset[str]
    numbers: frozenset[str]
    negated: Sequence[bool]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Sources:
        """Overlapping pairs of sentences, with the weight of each word by how few stretches have it."""
        plain: list[tuple[frozenset[str], bool]] = []
        for text in texts:
            parts = [s for s in _SENTENCE.split(text) if s.strip()] or [text]
            for i in range(len(parts)):
                pair = " ".join(parts[i : i + 2])
                plain.append((frozenset(_terms(pair)), any(w in _NEGATION for w in words(parts[i]))))
        n = len(plain)
        df = Counter(w for stretch, _ in plain for w in stretch)
        idf = {w: math.log(1 + n / (1 + c)) + 0.1 for w, c in df.items()}
        joined = " ".join(texts)
        numbers = frozenset(_numbers(joined))
        return cls([s for s, _ in plain], idf, frozenset(df), numbers, [neg for _, neg in plain])


def support(sentence: str, sources: Sources) -> tuple[float, str]:
    """(how far the sources support a sentence, 0 to 1; what speaks against it)."""
    terms = set(_terms(sentence))
    if not terms or not sources.stretches:
        return 0.0, "there is nothing to hold it against"
    unknown = math.log(1 + len(sources.stretches)) + 0.1
    weight = {t: sources.idf.get(t, unknown) for t in terms}
    total = sum(weight.values())
    covered = [sum(weight[t] for t in terms & stretch) / total for stretch in sources.stretches]
    best = int(np.argmax(covered))
    value, against = covered[best], ""
    strange = [n for n in _numbers(sentence) if n not in sources.numbers]
    if strange:
        return min(value, 0.3), f"the sources do not have the number {strange[0]}"
    names = [n for n in _NAME.findall(sentence)[1:] if stem(n.lower()) not in sources.all and n.lower() not in STOP]
    if names:
        return min(value, 0.5), f"the sources do not have {names[0]}"
    if any(w in _NEGATION for w in words(sentence)) != sources.negated[best] and value > 0.75:
        value, against = value - 0.25, "it is negated on one side only"
    return value, against


def _terms(text: str) -> list[str]:
    return [_NUMBER_WORDS.get(w, w) for w in content(text)]


def _numbers(text: str) -> list[str]:
    found = [n.replace(",", "").rstrip(".") for n in _NUMBER.findall(text)]
    return found + [_NUMBER_WORDS[w] for w in words(text) if w in _NUMBER_WORDS]


def grounded(answer: str, sources: Sequence[str]) -> tuple[float | None, list[tuple[float, str, str]]]:
    """(share of the answer's sentences that are supported, each sentence's (support, sentence, what speaks against it)); None for no sentence."""
    prepared = Sources.of(sources)
    each = [(*support(s, prepared), s) for s in sentences(answer)]
    if not each:
        return None, []
    return sum(v >= SUPPORT for v, _, _ in each) / len(each), [(v, s, why) for v, why, s in each]


@checks.add("groundedness")
@dataclass(frozen=True)
class Groundedness(TextCheck, Metric):
    """Share of an answer's sentences that its sources support; a refusal claims nothing and is left out. A guardrail fails below `min`.

    Fit for extractive answers only. On SummEdits, which edits a word of an abstractive summary, it is no better than chance: balanced
    accuracy 0.53 on news (819), 0.50 on chats (664). For those hand in a judge.
    """

    min: float = 0.7
    name: ClassVar[str] = "groundedness"
    stages: ClassVar[tuple[str, ...]] = (GUARDRAIL, GATE, MONITOR)
    better: ClassVar[str] = "higher"
    counts: ClassVar[bool] = True
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def judge(self, text: Utterance) -> Score:
        """Fail below `min`, naming the sentence least supported; not_assessed without sources."""
        if refuses(text.text):
            return Score(self.label, None, "not_assessed", 0, None, self.name, "It declines to answer, so it claims nothing.")
        sources = [source_text(s) for s in text.sources]
        if not sources:
            return Score(self.label, 0.0, "fail", 1, None, self.name, "There are no sources to rest on.")
        value, each = grounded(text.text, sources)
        if value is None:
            return Score(self.label, None, "not_assessed", 0, None, self.name, "It has no sentence that claims something.")
        weakest = min(each)
        why = f"{value:.0%} of {len(each)} sentences are supported by the sources."
        if weakest[0] < SUPPORT:
            why += f" Least: {weakest[1][:120]!r}{f' ({weakest[2]})' if weakest[2] else ''}."
        details = {"method": "lexical", "sentences": [{"support": round(v, 3), "text": s, "against": w} for v, s, w in each]}
        return Score(self.label, value, "fail" if value < self.min else "pass", 1, None, self.name, why, details)

    def terms(self, results: Results) -> np.ndarray:
        """Per case: counted, and its share of supported sentences."""
        if not results.cases:
            raise NotAssessable("groundedness judges chat suites; this one has no cases")
        values = [None if case.get("refused") else self.judge(utterance_of(case)).value for case in results.cases]
        if all(v is None for v in values):
            raise NotAssessable("no answer claims anything (all were refusals)")
        return np.array([[v is not None, float(v or 0.0)] for v in values], dtype=float)

    def combine(self, means: np.ndarray) -> np.ndarray:
        """Mean over the counted cases."""
        with np.errstate(all="ignore"):
            return means[..., 1] / means[..., 0]

    estimate = Metric.estimate
    difference = Metric.difference
