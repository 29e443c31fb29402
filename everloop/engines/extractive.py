"""An answerer that needs no download and invents nothing: the best sentences of the retrieved passages, each cited.

A sentence's score is the share of the question's weight that it covers: each term weighs the more, the fewer passages of all documents hold it
(inverse document frequency), a name more than another word, one that people need to ask at all less; words that may stand for a term, terms in
headings above and in neighbours count less, and a long sentence or one from a passage that was found late counts less. Sentences are chosen by maximal marginal relevance (Carbonell and Goldstein, 1998). It declines where the best sentence, with
the headings above it, covers less than `min_score` of the question's weight.

How often it declines, and how much of an answer it finds, when questions keep to the documents' words and when they avoid them:
benchmarks/RESULTS.md.
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
from everloop.store.synonyms import NEAR, related
from everloop.store.words import terms

REFUSAL = "I could not find an answer to that in the documents I have."
"""What it says when no sentence scores enough."""
DEFAULTS = {"sentences": 3, "min_score": 0.3, "citations": True}
"""Parameters and their values when neither release nor prompt says."""
PLACE_BONUS, CONTEXT_SHARE, TITLE_SHARE, REPETITION, PASSAGE_SHARE, CODE_SHARE = 0.1, 0.3, 0.6, 0.6, 0.5, 0.8
"""Weights: of an early place, of terms in neighbours, of terms in title and headings, against repeating what was chosen, of how well the passage
was found beside the best one, and of a line of code beside a sentence."""
LONG = 10
"""Content words above which a sentence is long: it covers more of any question, so it counts less."""
NAMED = 2.0
"""How much a name in a question (a capital or a digit after the first word) counts beside another word as rare."""
KEEP = 0.45
"""A further sentence must score at least this share of the best one's."""
_MARKS = re.compile(r"^\s*(?:#{1,6}\s+|[-*+]\s+|>\s+|\d+[.)]\s+)|`+|\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w)")
_CODE = re.compile(
    r"^\s*(?:import |from \w+ import|def |class |@\w|\$ |>>> |[\w.]+ = |[\w.]+\(|\{\"|[A-Z_]{3,}=\S|[a-z]+ [a-z-]+ .*--?\w)|^\s*(?:everloop|pip|git|docker|curl|\./\w+) \w"
)
_SETUP = re.compile(r"^\s*(?:import |from \w+ import|@|[)\]}]|\w+ = \w+\.connect)")
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
    worth: float = 1.0
    code: bool = False


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
        text, cited, best = answer(question_of(chat.messages), passages, settings, call.params.get("weights"))
        read = sum(len(words(text_of(m.get("content")))) for m in chat.messages) + sum(len(words(str(p.get("text", "")))) for p in passages)
        usage = Usage(read, len(words(text)), cost=0.0, seconds=time.perf_counter() - started, model="extractive", provider="everloop")
        notes = {"refused": not cited, "citations": cited, "score": round(best, 4)}
        if chat.stream:
            return Answer(_stream(text, usage), usage=usage, notes=notes)
        return Answer(Message(text, "stop", cited), usage=usage, notes=notes)

    return serve


def answer(
    question: str, passages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], rarity: Mapping[str, float] | None = None
) -> tuple[str, list[dict[str, Any]], float]:
    """(text, citations, confidence) for a question over passages; no citations means that it declined. `rarity` weighs the question's terms by
    how few of all documents' passages have them; without it the passages at hand must do.

    The confidence, from 0 to 1, is the share of the question's weight that the best sentence covers, with the headings above it.
    """
    refusal = str(settings.get("refusal") or REFUSAL)
    asked = frozenset(terms(question))
    found = _candidates(passages)
    if not asked or not found:
        return refusal, [], 0.0
    weights = _shares(asked, _named(question, rarity)) if rarity else _weights(asked, found)
    for candidate in found:
        _score(candidate, asked, weights)
    chosen = _choose(found, max(1, int(settings.get("sentences", 3))))
    best = max((sum(weights[t] * max(_met(t, c.terms), _met(t, c.title)) for t in asked) for c in chosen), default=0.0)
    if best < float(settings.get("min_score", DEFAULTS["min_score"])) or not any(_met(t, c.terms) for c in found for t in asked):
        return refusal, [], best
    return _compose(chosen, passages, bool(settings.get("citations", True)), best)


def _candidates(passages: Sequence[Mapping[str, Any]]) -> list[Candidate]:
    found = []
    best = max((float(p.get("score") or 0.0) for p in passages), default=0.0)
    for i, passage in enumerate(passages):
        title = str(passage.get("title") or "")
        above = frozenset(terms(f"{title} {passage.get('heading') or ''}"))
        worth = float(passage.get("score") or 0.0) / best if best > 0 else 1 - i / len(passages)
        parts = pieces(str(passage.get("text") or ""))
        bags = [frozenset(terms(text)) for text, _ in parts]
        for j, (piece, code) in enumerate(parts):
            count = len(piece.split())
            if count < (3 if code else 4) or count > 80 or not bags[j] or piece.strip() == title.strip() or piece.endswith(":"):
                continue
            if piece.endswith("?") and len(piece) < 160:
                continue
            around = (bags[j - 1] if j else frozenset()) | (bags[j + 1] if j + 1 < len(bags) else frozenset())
            found.append(Candidate(i, j, piece, bags[j], around, above, worth=worth, code=code))
    return found


def pieces(text: str) -> list[tuple[str, bool]]:
    """What of a passage may be quoted, (text, whether it is code): its sentences, the rows of its tables with their columns' names, and lines of
    code one by one. Headings, which are lines of their own without an end, are left out."""
    found: list[tuple[str, bool]] = []
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip())):
        lines = [line for line in block.split("\n") if line.strip()]
        if len(lines) > 1 and all(" | " in line for line in lines):
            found += [(row, False) for row in _rows(lines, number > 0)]
        elif lines and sum(bool(_CODE.search(line)) for line in lines) * 2 >= len(lines):
            found += [(" ".join(line.split()), True) for line in lines if not _SETUP.match(line)]
        else:
            kept = [line for i, line in enumerate(lines) if not _heading(line, lines[i + 1 : i + 2])]
            found += [(clean(sentence), False) for sentence in sentences("\n".join(kept))]
    return found


def _heading(line: str, after: Sequence[str]) -> bool:
    """Whether a line without an end stands alone or over text that begins anew, as headings do (a PDF keeps them in the paragraph's block)."""
    line = line.strip()
    open_ended = len(line) < 80 and line[-1:] not in ".!?:;,…" and not re.match(r"[-*+•] |\d+[.)] ", line)
    return open_ended and (not after or after[0].strip()[:1].isupper())


def _rows(lines: Sequence[str], headed: bool) -> list[str]:
    """A table's rows as sentences: the first cell, then each further one with the name of its column. Not `headed`: the rows go on from a
    passage before, where the names stand, so the cells stand alone."""
    names = [cell.strip() for cell in lines[0].split(" | ")] if headed else []
    made = []
    for line in lines[1:] if headed else lines:
        cells = [clean(cell) for cell in line.split(" | ")]
        told = [f"{names[i]} {cell}" if i < len(names) else cell for i, cell in enumerate(cells) if i and cell]
        made.append(f"{cells[0]}: {', '.join(told)}" if told else cells[0])
    return made


def _shares(asked: frozenset[str], rarity: Mapping[str, float]) -> dict[str, float]:
    """Weights that sum to 1; a term that is not weighed counts as the rarest."""
    most = max(rarity.values(), default=1.0) or 1.0
    raw = {t: max(0.0, float(rarity.get(t, most))) for t in asked}
    total = sum(raw.values()) or 1.0
    return {t: w / total for t, w in raw.items()}


def _weights(asked: frozenset[str], found: Sequence[Candidate]) -> dict[str, float]:
    """The question's terms with their inverse document frequency over the sentences at hand (as in BM25, never negative), summing to 1."""
    n = len(found)
    seen: Counter[str] = Counter()
    for candidate in found:
        seen.update((candidate.terms | candidate.title) & asked)
    return _shares(asked, {t: math.log(1 + (n - min(seen[t], n) + 0.5) / (min(seen[t], n) + 0.5)) for t in asked})


def _score(candidate: Candidate, asked: frozenset[str], weights: Mapping[str, float]) -> None:
    """How well a sentence answers: the share of the question that it covers, less the longer it is and the worse its passage was found."""
    covered = own = 0.0
    for term in asked:
        here = _met(term, candidate.terms)
        own += here * weights[term]
        covered += weights[term] * max(here, TITLE_SHARE * _met(term, candidate.title), CONTEXT_SHARE * _met(term, candidate.context))
    candidate.covered = covered
    long = 1 / (1 + max(0, len(candidate.terms) - LONG) / (2 * LONG))
    short = min(1.0, len(candidate.terms) / 4)
    found = 1 - PASSAGE_SHARE * (1 - candidate.worth)
    candidate.score = min(1.0, (0.7 * covered + 0.3 * own + PLACE_BONUS / (1 + candidate.place) * covered) * long * short * found)
    if candidate.code:
        candidate.score *= CODE_SHARE


def _met(term: str, bag: frozenset[str]) -> float:
    """How far words meet a term: 1 where it is among them, NEAR where one is that may stand for it."""
    return 1.0 if term in bag else NEAR if any(t in bag for t in related(term)) else 0.0


def _named(question: str, rarity: Mapping[str, float]) -> dict[str, float]:
    """The weights of a question's terms, more for names: who asks about one is not answered by what is said of others."""
    first = words(question)[:1]
    names = {t for word in words(question) if word not in first and (word != word.lower() or any(c.isdigit() for c in word)) for t in terms(word)}
    return {t: w * (NAMED if t in names else 1.0) for t, w in rarity.items()}


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
