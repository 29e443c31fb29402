"""Words and sentences of plain text, as written."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:[.'’_-][^\W_]+)*", re.UNICODE)
_SENTENCE = re.compile(r"(?<=[.!?…。])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-Þ`*_#])|\n\s*\n|\n(?=\s*(?:[-*+]|\d+[.)])\s)|(?<=[。！？])")
_SHORT = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|Fig|No|Vol|pp|approx|cf|al|e\.g|i\.e|Eq|Sec)|\b[A-Z])\.$")


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
