"""Whether a question has to do with what an assistant is for, by the words of its documents or by what retrieval found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from everloop.checks import checks
from everloop.checks.base import TextCheck
from everloop.checks.text import content, stem
from everloop.core.types import Score, Utterance

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


def share_known(text: str, known: Collection[str]) -> float | None:
    """Share of a text's content words (stems) that are known; None where it has none (a greeting)."""
    asked = [w for w in content(text) if w not in _CHAT]
    return sum(w in known for w in asked) / len(asked) if asked else None


@checks.add("off_topic")
@dataclass(frozen=True)
class OffTopic(TextCheck):
    """A question has something to do with what the assistant is for.

    Judged by the best retrieval score where the caller passes one (`context["retrieval_score"]` or `context["retrieved"]`, against
    `min_score`), else by the share of the question's content words in the given `vocabulary` (words, or texts that stand for the topic;
    `context["vocabulary"]` works too), against `min_overlap`. With neither it is not_assessed. Greetings pass.

    It compares words: a question about something else in the documents' own words passes, one in words they never use fails. Choose
    `min_overlap` from texts that are on topic (`everloop.build.tutor.topic` takes the documents' own sentences). On everloop's documentation,
    calibrated to 1 % false alarms on its sentences (0.29), it stopped none of 98 answerable questions and 6 of 8 off-topic ones; at 2 % (0.40)
    it stopped 2 of the 98.
    """

    vocabulary: tuple[str, ...] = ()
    min_score: float = 0.15
    min_overlap: float = 0.34
    name: ClassVar[str] = "off_topic"
    part: ClassVar[str] = "question"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", (self.vocabulary,) if isinstance(self.vocabulary, str) else tuple(self.vocabulary))

    def judge(self, text: Utterance) -> Score:
        """Fail where nothing of the question belongs to the topic; of an answer, its question is judged."""
        question = text.question if text.stage == "output" and text.question else text.text
        known = _stems(self.vocabulary or tuple(text.context.get("vocabulary") or ()))
        share = share_known(question, known)
        if share is None:
            return Score(self.name, None, "pass", 1, None, self.name, "It asks nothing in particular.")
        score = _best(text.context)
        if score is not None:
            why = f"The best passage scores {score:.3g}; {self.min_score:g} is needed."
            return Score(self.name, score, "fail" if score < self.min_score else "pass", 1, None, self.name, why)
        if not known:
            return Score(self.name, None, "not_assessed", 0, None, self.name, "There is neither a vocabulary nor a retrieval score to judge by.")
        why = f"{share:.0%} of its content words belong to the topic; {self.min_overlap:.0%} are needed."
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


@lru_cache(maxsize=32)
def _stems(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(w for text in texts for w in content(text))
