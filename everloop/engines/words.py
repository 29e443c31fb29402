"""Words and sentences of plain text: what retrieval, the extractive engine and LSA share. No dependency, no download."""

from __future__ import annotations

import re
from functools import lru_cache

STOP = frozenset(
    """
    a about above after again against all also am an and any are aren as at be because been before being below between both but by can
    cannot could couldn did didn do does doesn doing don down during each etc few for from further had hadn has hasn have haven having he
    her here hers herself him himself his how i if in into is isn it its itself just let me more most my myself no nor not now of off on
    once only or other our ours ourselves out over own please same shall she should shouldn so some such tell than that the their theirs
    them themselves then there these they this those through to too under until up upon us very was wasn we were weren what when where which
    while who whom whose why will with won would wouldn you your yours yourself yourselves
    """.split()  # noqa: SIM905
)
"""English function words, which say nothing of a text's subject."""
_WORD = re.compile(r"[^\W_]+(?:[.'’_-][^\W_]+)*", re.UNICODE)
_PART = re.compile(r"[^\W_]+", re.UNICODE)
_SENTENCE = re.compile(r"(?<=[.!?…。])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-Þ`*_#])|\n\s*\n|\n(?=\s*(?:[-*+]|\d+[.)])\s)|(?<=[。！？])")
_SHORT = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|Fig|No|Vol|pp|approx|cf|al|e\.g|i\.e|Eq|Sec)|\b[A-Z])\.$")


def terms(text: str, stemmed: bool = True) -> list[str]:
    """The content words of a text in order: lower case, no stop words, no single letters, stemmed."""
    found = []
    for word in _PART.findall(text.lower()):
        if word in STOP or (len(word) == 1 and not word.isdigit() and word.isascii()):
            continue
        found.append(stem(word) if stemmed else word)
    return found


def words(text: str) -> list[str]:
    """All words of a text as written."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences, list items and headings of a text, each on one line; abbreviations and initials do not end a sentence."""
    pieces: list[str] = []
    for raw in _SENTENCE.split(text):
        piece = " ".join((raw or "").split())
        if not piece:
            continue
        if pieces and _SHORT.search(pieces[-1]):
            pieces[-1] = f"{pieces[-1]} {piece}"
        else:
            pieces.append(piece)
    return pieces


_VOWEL = re.compile(r"[aeiouy]")


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """A word without its English inflection and commonest derivations: a light suffix stripper in the manner of Porter (1980), steps 1 to 3."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    word = _plural(word)
    word = _tense(word)
    if len(word) > 3 and word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "i"
    for suffix, replacement in _DERIVED:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)] + replacement
            break
    if len(word) > 4 and word.endswith("e"):
        word = word[:-1]
    return word


_DERIVED = (
    ("ational", "ate"),
    ("ization", "ize"),
    ("isation", "ize"),
    ("fulness", "ful"),
    ("iveness", "ive"),
    ("ousness", "ous"),
    ("biliti", "ble"),
    ("tional", "tion"),
    ("ation", "ate"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("icate", "ic"),
    ("alize", "al"),
    ("ical", "ic"),
    ("ness", ""),
    ("ment", ""),
    ("entli", "ent"),
    ("ousli", "ous"),
    ("alli", "al"),
    ("abli", "able"),
    ("ful", ""),
)


def _plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + ("ie" if len(word) == 4 else "y")
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _tense(word: str) -> str:
    for suffix in ("ing", "ed"):
        root = word[: -len(suffix)]
        if word.endswith(suffix) and len(root) >= 3 and _VOWEL.search(root) and not word.endswith("eed"):
            if root.endswith(("at", "bl", "iz", "iv")):
                return root + "e"
            if root[-1] == root[-2] and root[-1] not in "lsz":
                return root[:-1]
            return root
    return word
