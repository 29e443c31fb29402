"""From a text to the terms it is found by: lower case, accents off, English endings off (Porter's algorithm of 1980), stop words out.

`terms` is used alike for what is indexed and for what is asked. Names with parts (`step.client`, `max_depth`, `self-managed`) give the parts
and, where joined by a dot or underscore, the whole as well.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

_STOP = """a about above after again all also am an and any are as at be because been before being below between both but by can could did do does
    doing down during each few for from further had has have having he her here hers him his how i if in into is it its itself just let me more
    most my no nor not now of off on once only or other our out over own same shall she should so some such than that the their them then there
    these they this those through to too under until up us very was we were what when where which while who whom why will with would you your
    s t d ll m re ve don"""
STOP = frozenset(_STOP.split())
"""English words that tell nothing about what a text is about."""
_TOKEN = re.compile(r"[^\W_]+(?:[._'’][^\W_]+)*")
_PART = re.compile(r"[._'’]")
_VOWEL = "aeiou"
LONGEST = 40
"""Characters of a term; the rest is cut."""


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as often as they occur."""
    found: list[str] = []
    for token in _TOKEN.findall(plain(text)):
        found.extend(_token_terms(token))
    return found


def plain(text: str) -> str:
    """Lower case and without accents (an `é` becomes an `e`)."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


@lru_cache(maxsize=200_000)
def _token_terms(token: str) -> tuple[str, ...]:
    parts = [p for p in _PART.split(token) if p]
    found = [stem(p[:LONGEST]) for p in parts if p not in STOP]
    if len(parts) > 1 and ("." in token or "_" in token) and "'" not in token and "’" not in token:
        found.append(token[:LONGEST])
    return tuple(found)


def stem(word: str) -> str:
    """The stem of a lower-case English word by Porter's rules; other words and those of up to two letters stay as they are."""
    if len(word) <= 2 or not word.isascii() or not word.isalpha():
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _swap(word, _STEP_2, 0)
    word = _swap(word, _STEP_3, 0)
    word = _drop(word)
    if word.endswith("e"):
        size = _measure(word[:-1])
        if size > 1 or (size == 1 and not _short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (*("ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize", "ion", "al", "er", "ic", "ou"),)
_BY_LENGTH_2 = sorted(_STEP_2, key=len, reverse=True)
_BY_LENGTH_3 = sorted(_STEP_3, key=len, reverse=True)


def _consonant(word: str, i: int) -> bool:
    c = word[i]
    if c in _VOWEL:
        return False
    return c != "y" or i == 0 or not _consonant(word, i - 1)


def _measure(word: str) -> int:
    """How often a run of vowels is followed by a run of consonants."""
    shape = [_consonant(word, i) for i in range(len(word))]
    return sum(1 for a, b in pairwise(shape) if not a and b)


def _has_vowel(word: str) -> bool:
    return any(not _consonant(word, i) for i in range(len(word)))


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonant(word, len(word) - 1)


def _short(word: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    n = len(word)
    return n > 2 and _consonant(word, n - 3) and not _consonant(word, n - 2) and _consonant(word, n - 1) and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith("sses") or word.endswith("ies"):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending) and _has_vowel(word[: -len(ending)]):
            word = word[: -len(ending)]
            if word.endswith(("at", "bl", "iz")):
                return word + "e"
            if _double(word) and word[-1] not in "lsz":
                return word[:-1]
            if _measure(word) == 1 and _short(word):
                return word + "e"
            return word
    return word


def _swap(word: str, endings: dict[str, str], above: int) -> str:
    for ending in _BY_LENGTH_2 if endings is _STEP_2 else _BY_LENGTH_3:
        if word.endswith(ending):
            head = word[: -len(ending)]
            return head + endings[ending] if _measure(head) > above else word
    return word


def _drop(word: str) -> str:
    for ending in _STEP_4:
        if word.endswith(ending):
            head = word[: -len(ending)]
            if _measure(head) > 1 and (ending != "ion" or head.endswith(("s", "t"))):
                return head
            return word
    return word
