"""Whether a question has to do with what an assistant is for, by the words of its documents or by what retrieval found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from everloop.checks import checks
from everloop.checks.base import TextCheck
from everloop.checks.text import content, stem
from everloop.core.errors import BadInput
from everloop.core.types import Score, Utterance
from everloop.store.synonyms import NEAR, related, tells
from everloop.store.words import stem as as_term

_CHAT = frozenset(
    map(
        stem,
        [
            "hello",
            "hi",
            "hey",
            "thanks",
            "thank",
            "please",
            "good",
            "morning",
            "evening",
            "bye",
            "ok",
            "okay",
            "yes",
            "help",
            "tell",
            "know",
            "want",
            "like",
        ],
    )
)


def share_known(text: str, known: Mapping[str, float], near: Mapping[str, float] | None = None) -> float | None:
    """Share of a text's content words (stems) that are known, each with its weight; an unknown one weighs as much as the heaviest there is, or where
    a word that may stand for it is known (`near`, see `by_term`) as much as that, and counts for NEAR of it. Vague words weigh half.

    None where the text has none (a greeting).
    """
    asked = [w for w in dict.fromkeys(content(text)) if w not in _CHAT]
    if not asked:
        return None
    most, near = max(known.values(), default=1.0), by_term(known) if near is None else near
    have = whole = 0.0
    for word in asked:
        term = as_term(word)
        own, other = known.get(word, 0.0), max((near.get(t, 0.0) for t in related(term)), default=0.0)
        have += tells(term) * max(own, NEAR * other)
        whole += tells(term) * (own or other or most)
    return have / whole


def by_term(known: Mapping[str, float]) -> dict[str, float]:
    """Known stems by the terms that the list of related words has."""
    return {as_term(word): weight for word, weight in known.items()}


@checks.add("off_topic")
@dataclass(frozen=True)
class OffTopic(TextCheck):
    """A question has something to do with what the assistant is for.

    Judged by the best retrieval score where the caller passes one (`context["retrieval_score"]` or `context["retrieved"]`, against
    `min_score`), else by the share of the question's content words that are known, against `min_overlap`: those of `vocabulary` (words, or
    texts that stand for the topic), or of `weights` (words with how much each tells). With neither it is not_assessed. Greetings pass.

    It compares words: a question about something else in the documents' own words passes, one in words they never use fails. Choose
    `min_overlap` from texts that are on topic (`everloop.build.tutor.topic` takes the documents' own sentences). On everloop's documentation,
    weighed by rarity and calibrated to 1 % false alarms on its sentences (about 0.3), it stopped 2 of 98 answerable questions and 6 of 8 off-topic ones.
    """

    vocabulary: tuple[str, ...] = ()
    min_score: float = 0.15
    min_overlap: float = 0.34
    weights: Mapping[str, float] | None = None
    name: ClassVar[str] = "off_topic"
    part: ClassVar[str] = "question"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", (self.vocabulary,) if isinstance(self.vocabulary, str) else tuple(self.vocabulary))
        wrong = [w for w, v in (self.weights or {}).items() if not isinstance(v, int | float) or isinstance(v, bool) or v < 0]
        if wrong:
            raise BadInput(f"The weight of {wrong[0]!r} is not a number from 0 up.", 'For example: {"weights": {"loan": 2.5, "rate": 1.0}}')

    @cached_property
    def known(self) -> Mapping[str, float]:
        """Stems with their weights."""
        found: dict[str, float] = {}
        for word, weight in (self.weights or dict.fromkeys(self.vocabulary, 1.0)).items():
            for w in content(word):
                found[w] = max(found.get(w, 0.0), float(weight))
        return found

    @cached_property
    def near(self) -> Mapping[str, float]:
        """The same by terms."""
        return by_term(self.known)

    def judge(self, text: Utterance) -> Score:
        """Fail where nothing of the question belongs to the topic; of an answer, its question is judged."""
        question = text.question if text.stage == "output" and text.question else text.text
        share = share_known(question, self.known, self.near)
        if share is None:
            return Score(self.name, None, "pass", 1, None, self.name, "It asks nothing in particular.")
        score = _best(text.context)
        if score is not None:
            why = f"The best passage scores {score:.3g}; {self.min_score:g} is needed."
            return Score(self.name, score, "fail" if score < self.min_score else "pass", 1, None, self.name, why)
        if not self.known:
            return Score(self.name, None, "not_assessed", 0, None, self.name, "There is neither a vocabulary nor a retrieval score to judge by.")
        why = f"{share:.0%} of what it asks for belongs to the topic; {self.min_overlap:.0%} is needed."
        return Score(self.name, share, "fail" if share < self.min_overlap else "pass", 1, None, self.name, why)

    @property
    def label(self) -> str:
        """Its name alone: the vocabulary would fill a page."""
        return self.name


def _best(context: Mapping[str, Any]) -> float | None:
    """The best retrieval score that the caller knows of; 0 where nothing was found."""
    if context.get("retrieval_score") is not None:
        return float(context["retrieval_score"])
    if "retrieved" not in context or "question" in context:  # a suite's case keeps passages too, and is judged as in production: by words
        return None
    found = [float(p["score"]) for p in context["retrieved"] or () if isinstance(p, Mapping) and p.get("score") is not None]
    return max(found, default=0.0)
