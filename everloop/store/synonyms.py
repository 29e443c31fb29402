"""What else a question may be met by: words in which documents may say what somebody asked in others, and how much a word of a question tells.

`related` looks up a list of general English that the project wrote itself (synonyms.txt); it knows nothing of any documents. The list only works
on the question: what is stored in an index does not depend on it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from everloop.store.words import plain, stem

FILE = Path(__file__).with_name("synonyms.txt")
NEAR = 0.7
"""How much a related word counts beside the word itself."""
VAGUE = 0.5
"""How much a word counts that people need to ask at all ("happen", "use", "thing"), beside one that says what about."""
_COMMON = """thing way lot kind make made do get got go gone come came put take took give gave keep kept let say said tell want need like use look see saw
    know think find work try ask show turn happen become mean seem start begin possible able good bad big small old new long short first last next one
    two three many much little few enough else ever never always often still yet already soon people somebody someone anybody anyone everybody everyone
    something anything everything nothing person man time day week year back away around without within instead really actually right part different
    certain sure well better best worse every another either whether upon per may might must cannot want please thanks hello example help call able set
    hold held place side end point case number"""
COMMON = frozenset(stem(word) for word in _COMMON.split())
_WORD = re.compile(r"[a-z]+")


def related(term: str) -> tuple[str, ...]:
    """The terms that may stand for a term (as `store.words.terms` gives them); nothing for one that the list does not know."""
    return _lists()[0].get(term, ())


def phrases(text: str) -> frozenset[str]:
    """The terms that may stand for phrases of a text, such as "approve" for "sign off"."""
    words = [stem(word) for word in _WORD.findall(plain(text))]
    known, longest = _lists()[1], _lists()[2]
    return frozenset(
        term for i in range(len(words)) for n in range(2, longest + 1) for term in known.get(tuple(words[i : i + n]), ()) if i + n <= len(words)
    )


def tells(term: str) -> float:
    """How much a term of a question tells, beside how rare it is: 1, or VAGUE for one that people need to ask at all."""
    return VAGUE if term in COMMON else 1.0


def askers(term: str) -> tuple[str, ...]:
    """The words with which people may ask for a term: those for which it stands first in the list."""
    return _askers().get(term, ())


@lru_cache(maxsize=1)
def _askers() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        head, *others = line.split() or [""]
        if others and not head.startswith("#") and "_" not in head:
            found.setdefault(stem(others[0]), []).append(head)
    return {term: tuple(heads) for term, heads in found.items()}


@lru_cache(maxsize=1)
def _lists() -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, ...], tuple[str, ...]], int]:
    """(terms related to a term, terms related to a phrase, words of the longest phrase)."""
    words: dict[str, tuple[str, ...]] = {}
    whole: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        head, *others = line.split()
        key, found = tuple(stem(part) for part in head.split("_")), [stem(other) for other in others]
        if len(key) == 1:
            words[key[0]] = tuple(dict.fromkeys([*words.get(key[0], ()), *(f for f in found if f != key[0])]))
        else:
            whole[key] = tuple(dict.fromkeys(found))
    return words, whole, max((len(key) for key in whole), default=0)
