"""Questions made from documents whose owner has written none: each asks for a section by its heading, or for what a sentence says.

They are easier than people's questions, since they use the documents' own words, and they have no expected answers; every case carries the
tag "generated". Write real ones as soon as there are some: what people asked is in the traces.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.checks.groundedness import sentences
from everloop.checks.text import content
from everloop.store.synonyms import askers, related, tells
from everloop.store.words import STOP, stem, terms

MOST = 60
"""Questions made at most."""
SUBJECT_WORDS = 7
"""Words of a sentence that a question keeps."""
_DEFINES = re.compile(r"^((?:The |An? )?[A-Z][\w\- ]{2,50}?) (?:is|are|means|was|were) (?:an? |the )?\w+")

OUTSIDE = (
    "What is the phone number of the front desk?",
    "Which pension fund do we pay into?",
    "May I bring my dog along on Fridays?",
    "What was the turnover in the last quarter?",
    "Where can I park my motorcycle?",
    "Who designed the logo, and which font is it set in?",
    "What is served in the canteen on Wednesday?",
    "How do I get a discount for the gym?",
    "Which airline is used for trips to Brazil?",
    "What is the password of the guest wifi?",
    "Which insurance covers broken spectacles?",
    "How many parliament members signed the petition?",
    "What is the dress code for a wedding?",
    "Who won the company's chess tournament?",
    "At which temperature should the aquarium be kept?",
    "Which vaccinations does a journey to Kenya need?",
)
"""Questions that few documents answer; `outside` keeps those that the documents at hand say nothing of."""
_NO_SUBJECT = frozenset(
    [
        "who",
        "what",
        "how",
        "where",
        "when",
        "why",
        "which",
        "there",
        "it",
        "this",
        "that",
        "these",
        "those",
        "each",
        "every",
        "they",
        "he",
        "she",
        "we",
        "you",
        "all",
        "both",
        "here",
        "if",
    ]
)
"""First words of what is no name of anything."""


def questions(documents: Sequence[Mapping[str, Any]], seed: int = 7, most: int = MOST) -> list[dict[str, Any]]:
    """Cases for a suite from documents ({"path", "text", "headings"?: [[offset, level]]}), spread over them; fewer where they say little."""
    rng = random.Random(seed)
    found = [(str(d["path"]), made) for d in documents if (made := _of(d))]
    for _, made in found:
        rng.shuffle(made)
    cases: list[dict[str, Any]] = []
    seen: set[str] = set()
    while found and len(cases) < most:
        for path, made in found:
            question = made.pop()
            if question.lower() in seen or len(cases) >= most:
                continue
            seen.add(question.lower())
            cases.append(
                {"id": f"g{len(cases) + 1:02}", "question": question, "kind": "answerable", "expected_sources": [path], "tags": ["generated"]}
            )
        found = [(path, made) for path, made in found if made]
    return cases


def reworded(cases: Sequence[Mapping[str, Any]], seed: int = 7) -> list[dict[str, Any]]:
    """Generated cases asked again in other words, where store/synonyms knows some for theirs.

    The wording is rough, and the search knows the same list, so people's own questions are harder still; tags "generated" and "reworded".
    """
    rng, made = random.Random(seed), []
    for case in cases:
        words = [w for w in re.findall(r"[A-Za-z][a-z]+", str(case["question"]).partition(":")[2] or str(case["question"])) if w.lower() not in STOP]
        others = {w: near for w in words if (near := [a for a in askers(stem(w.lower())) if a not in words])}
        if not others:
            continue
        kept = [rng.choice(others[w]) if w in others else w for w in words]
        again = {"question": f"What about {' '.join(dict.fromkeys(kept))}?", "tags": ["generated", "reworded"]}
        made.append({**case, "id": f"{case['id']}r" if case.get("id") else None, **again})
    return [{k: v for k, v in case.items() if v is not None} for case in made]


def outside(documents: Sequence[Mapping[str, Any]], most: int = 8) -> list[dict[str, Any]]:
    """Cases that the documents cannot answer: common questions of whose words, and of those that may stand for them, the documents lack half or more."""
    there = {term for d in documents for term in terms(str(d.get("text") or ""))}
    kept = []
    for question in OUTSIDE:
        asked = {term for term in terms(question) if tells(term) == 1}
        known = [term for term in asked if term in there or any(other in there for other in related(term))]
        if asked and 2 * len(known) <= len(asked):
            kept.append(question)
    return [{"id": f"u{i:02}", "question": q, "kind": "unanswerable", "tags": ["generated"]} for i, q in enumerate(kept[:most], 1)]


def _of(document: Mapping[str, Any]) -> list[str]:
    text = str(document.get("text") or "")
    made = []
    for at, *_ in document.get("headings") or ():
        heading = text[at:].split("\n", 1)[0].strip()
        if len(content(heading)) >= 2 and not heading.endswith("?"):
            made.append(f"What is said about {heading[:100]}?")
        elif heading.endswith("?"):
            made.append(heading[:160])
    for sentence in sentences(text):
        defined = _DEFINES.match(sentence)
        if defined and defined[1].split()[0].lower() not in _NO_SUBJECT:
            made.append(f"What is {_lowered(defined[1])}?")
        elif 8 <= len(sentence.split()) <= 30 and sentence[0].isupper() and sentence.endswith("."):
            made.append(f"What do the documents say about this: {_subject(sentence)}?")
    return [question for question in dict.fromkeys(made) if len(content(question)) >= 3]


def _subject(sentence: str) -> str:
    """The words of a sentence that say most, in their order: the longest ones."""
    words = [w.strip(".,;:()\"'") for w in sentence.split()]
    kept = sorted(sorted(range(len(words)), key=lambda i: -len(words[i]))[:SUBJECT_WORDS])
    return " ".join(words[i] for i in kept)


def _lowered(subject: str) -> str:
    return subject[0].lower() + subject[1:] if subject.split()[0] in ("The", "A", "An") else subject
