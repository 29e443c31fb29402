"""An answerer that needs no download and invents nothing: the best sentences of the retrieved passages, each cited.

A sentence's score is the share of the question's information it covers: terms weighted by inverse document frequency over the passages'
sentences (a question word found nowhere weighs most), its neighbours and title counting less, plus small bonuses for an early place and for the
passage's rank. Sentences are chosen by maximal marginal relevance (Carbonell and Goldstein, 1998). Below `min_score` it says that it does not know.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop.core.types import Answer, Call, Chat, Chunk, Message, Serve, Usage
from everloop.engines.base import Secrets, llms
from everloop.engines.chat import question_of, text_of
from everloop.engines.words import sentences, words
from everloop.store.words import terms

REFUSAL = "I could not find an answer to that in the documents I have."
"""What it says when no sentence scores enough."""
DEFAULTS = {"sentences": 3, "min_score": 0.25, "citations": True}
"""Parameters and their values when neither release nor prompt says."""
RANK_BONUS, PLACE_BONUS, CONTEXT_SHARE, TITLE_SHARE, REPETITION = 0.12, 0.05, 0.35, 0.5, 0.6
"""Weights: of the passage's rank, of an early place, of terms in neighbours, of terms in the title, and against repeating what was chosen."""
KEEP = 0.45
"""A further sentence must score at least this share of the best one's."""
_MARKS = re.compile(r"^\s*(?:#{1,6}\s+|[-*+]\s+|>\s+|\d+[.)]\s+)|[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}|\|")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


@dataclass
class Candidate:
    """One sentence of one passage, with its terms and score."""

    passage: int
    place: int
    text: str
    terms: frozenset[str]
    context: frozenset[str]
    title: frozenset[str]
    score: float = 0.0
    covered: float = 0.0


@llms.add("extractive")
def make(spec: Mapping[str, Any], secrets: Secrets) -> Serve:
    """An engine from `{"sentences"?, "min_score"?, "citations"?, "refusal"?}`; a call's `params["answer"]` wins over them.

    Passages come in `call.params["retrieved"]` as dicts with text, and n, chunk, document, title, score; those marked `flagged` are left out.
    """

    async def serve(call: Call) -> Answer:
        chat: Chat = call.inputs
        started = time.perf_counter()
        settings = {**DEFAULTS, **{k: v for k, v in spec.items() if v is not None}, **(call.params.get("answer") or {})}
        passages = [p for p in call.params.get("retrieved") or () if not p.get("flagged")]
        text, cited, best = answer(question_of(chat.messages), passages, settings)
        read = sum(len(words(text_of(m.get("content")))) for m in chat.messages) + sum(len(words(str(p.get("text", "")))) for p in passages)
        usage = Usage(read, len(words(text)), cost=0.0, seconds=time.perf_counter() - started, model="extractive", provider="everloop")
        notes = {"refused": not cited, "citations": cited, "score": round(best, 4)}
        if chat.stream:
            return Answer(_stream(text, usage), usage=usage, notes=notes)
        return Answer(Message(text, "stop", cited), usage=usage, notes=notes)

    return serve


def answer(question: str, passages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]], float]:
    """(text, citations, best score) for a question over passages; no citations means that it declined."""
    refusal = str(settings.get("refusal") or REFUSAL)
    asked = frozenset(terms(question))
    found = _candidates(passages, frozenset(question.lower().split()))
    if not asked or not found:
        return refusal, [], 0.0
    weights = _weights(asked, found)
    for candidate in found:
        _score(candidate, asked, weights, len(passages))
    best = max(c.score for c in found)
    if best < float(settings.get("min_score", DEFAULTS["min_score"])) or not any(c.terms & asked for c in found):
        return refusal, [], best
    chosen = _choose(found, max(1, int(settings.get("sentences", 3))))
    return _compose(chosen, passages, bool(settings.get("citations", True)), best)


def _candidates(passages: Sequence[Mapping[str, Any]], asked_words: frozenset[str]) -> list[Candidate]:
    found = []
    for i, passage in enumerate(passages):
        title = str(passage.get("title") or "")
        title_terms = frozenset(terms(title))
        pieces = [clean(s) for s in sentences(str(passage.get("text") or ""))]
        bags = [frozenset(terms(p)) for p in pieces]
        for j, piece in enumerate(pieces):
            count = len(piece.split())
            if count < 4 or count > 80 or not bags[j] or piece.strip() == title.strip() or piece.endswith(":"):
                continue
            if piece.endswith("?") and len(asked_words & frozenset(piece.lower().split())) > 0.8 * len(asked_words):
                continue
            around = (bags[j - 1] if j else frozenset()) | (bags[j + 1] if j + 1 < len(bags) else frozenset())
            found.append(Candidate(i, j, piece, bags[j], around, title_terms))
    return found


def _weights(asked: frozenset[str], found: Sequence[Candidate]) -> dict[str, float]:
    """The question's terms with their inverse document frequency over the sentences (as in BM25, never negative), summing to 1."""
    n = len(found)
    seen: Counter[str] = Counter()
    for candidate in found:
        seen.update((candidate.terms | candidate.title) & asked)
    raw = {t: math.log(1 + (n - min(seen[t], n) + 0.5) / (min(seen[t], n) + 0.5)) for t in asked}
    total = sum(raw.values()) or 1.0
    return {t: w / total for t, w in raw.items()}


def _score(candidate: Candidate, asked: frozenset[str], weights: Mapping[str, float], passages: int) -> None:
    covered = 0.0
    for term in asked:
        if term in candidate.terms:
            covered += weights[term]
        elif term in candidate.title:
            covered += TITLE_SHARE * weights[term]
        elif term in candidate.context:
            covered += CONTEXT_SHARE * weights[term]
    own = sum(weights[t] for t in asked & candidate.terms)
    rank = 1 - candidate.passage / max(1, passages)
    candidate.covered = covered
    bonus = RANK_BONUS * rank + PLACE_BONUS / (1 + candidate.place)
    length = min(1.0, len(candidate.terms) / 6)
    candidate.score = min(1.0, covered * length + bonus * min(1.0, own + 0.5 * (covered - own)) / 0.5) if covered > 0 else 0.0


def _choose(found: list[Candidate], count: int) -> list[Candidate]:
    left = sorted(found, key=lambda c: -c.score)[:60]
    floor = KEEP * left[0].score
    chosen: list[Candidate] = []
    while left and len(chosen) < count:

        def worth(c: Candidate) -> float:
            repeated = max((len(c.terms & d.terms) / len(c.terms | d.terms) for d in chosen), default=0.0)
            near = 0.05 if any(d.passage == c.passage and abs(d.place - c.place) == 1 for d in chosen) else 0.0
            return c.score * (1 - REPETITION * repeated) + near

        best = max(left, key=worth)
        left.remove(best)
        if best.score < floor:
            break
        if all(best.terms != d.terms for d in chosen):
            chosen.append(best)
    return chosen


def _compose(chosen: list[Candidate], passages: Sequence[Mapping[str, Any]], citations: bool, best: float) -> tuple[str, list[dict[str, Any]], float]:
    """Sentences grouped by passage (the best sentence's passage first), in the passage's order, each with its number."""
    order = list(dict.fromkeys(c.passage for c in chosen))
    chosen = sorted(chosen, key=lambda c: (order.index(c.passage), c.place))
    parts, cited = [], []
    for candidate in chosen:
        passage = passages[candidate.passage]
        n = passage.get("n", candidate.passage + 1)
        text = candidate.text if candidate.text[-1:] in '.!?…:;"”' else candidate.text + "."
        parts.append(f"{text} [{n}]" if citations else text)
        cited.append(
            {
                "n": n,
                "chunk": passage.get("chunk"),
                "document": passage.get("document"),
                "title": passage.get("title"),
                "text": candidate.text,
                "score": round(candidate.score, 4),
            }
        )
    return " ".join(parts), cited, best


def clean(sentence: str) -> str:
    """A sentence without Markdown's marks, on one line."""
    return " ".join(_MARKS.sub("", _LINK.sub(r"\1", sentence)).split())


async def _stream(text: str, usage: Usage) -> AsyncIterator[Chunk]:
    for piece in re.findall(r"\S+\s*", text):
        yield Chunk(piece)
        await asyncio.sleep(0)
    yield Chunk(finish_reason="stop", usage=usage)
