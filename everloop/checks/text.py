"""Plain properties of a text: length, a user's pattern, banned and missing topics, JSON by schema, refusals, citations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from everloop.checks import checks
from everloop.checks.base import TextCheck
from everloop.checks.patterns import linear
from everloop.core.errors import BadInput
from everloop.core.types import Score, Utterance

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*")
STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "more",
        "most",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "out",
        "she",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "too",
        "up",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "about",
        "after",
        "all",
        "also",
        "any",
        "because",
        "before",
        "being",
        "between",
        "both",
        "during",
        "each",
        "few",
        "further",
        "here",
        "just",
        "only",
        "other",
        "over",
        "own",
        "same",
        "should",
        "through",
        "under",
        "until",
        "very",
        "while",
        "whom",
    ]
)


def words(text: str) -> list[str]:
    """The words and numbers of a text, lower case."""
    return [w.lower() for w in _WORD.findall(text)]


def stem(word: str) -> str:
    """A word without its commonest English endings (a light S-stemmer and -ing/-ed), so that forms of a word meet."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
    elif len(word) > 4 and word.endswith("ed"):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def content(text: str) -> list[str]:
    """Stems of the words that carry content, in order."""
    return [stem(w) for w in words(text) if w not in STOP]


@checks.add("length")
@dataclass(frozen=True)
class Length(TextCheck):
    """A text's length in characters (or words, with `unit="words"`) is within bounds."""

    max: int = 4000
    min: int = 0
    unit: str = "characters"
    name: ClassVar[str] = "length"

    def __post_init__(self) -> None:
        if self.unit not in ("characters", "words") or self.min > self.max:
            raise BadInput(f"length(max={self.max}, min={self.min}, unit={self.unit!r}) cannot be met.", "unit is characters or words; min <= max.")

    def judge(self, text: Utterance) -> Score:
        """Fail outside the bounds."""
        n = len(text.text) if self.unit == "characters" else len(words(text.text))
        bad = not self.min <= n <= self.max
        why = f"{n} {self.unit}; {self.min} to {self.max} are allowed."
        return Score(self.label, n, "fail" if bad else "pass", 1, None, self.name, why)


@checks.add("regex")
@dataclass(frozen=True)
class Regex(TextCheck):
    """A user's pattern must not match a text, or, with `must=true`, must. Run by RE2, so no pattern can hang the server."""

    pattern: str = ""
    must: bool = False
    name: ClassVar[str] = "regex"
    redacts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.pattern:
            raise BadInput("The check regex needs a pattern.", 'For example: {"pattern": "(?i)internal only"}')
        linear(self.pattern)

    def judge(self, text: Utterance) -> Score:
        """Fail where the pattern matches though it must not (with spans), or does not though it must."""
        spans = [[m.start(), m.end(), "pattern"] for m in linear(self.pattern).finditer(text.text)]
        bad = bool(spans) != self.must
        why = f"The pattern matches {len(spans)} times." if spans else "The pattern does not match."
        return Score(self.label, len(spans), "fail" if bad else "pass", 1, None, self.name, why, {} if self.must else {"spans": spans})


@checks.add("banned_topics")
@dataclass(frozen=True)
class BannedTopics(TextCheck):
    """None of the given words or phrases is in a text (whole words, any case, plural and -ing forms too)."""

    topics: tuple[str, ...] = ()
    name: ClassVar[str] = "banned_topics"
    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "topics", (self.topics,) if isinstance(self.topics, str) else tuple(self.topics))
        if not self.topics:
            raise BadInput("The check banned_topics needs topics.", 'For example: {"topics": ["competitor", "lawsuit"]}')

    def judge(self, text: Utterance) -> Score:
        """Fail with the topics found."""
        spoken = f" {' '.join(stem(w) for w in words(text.text))} "
        found = [t for t in self.topics if f" {' '.join(stem(w) for w in words(t))} " in spoken]
        why = f"It speaks of: {', '.join(found)}." if found else "It speaks of none of the banned topics."
        return Score(self.label, len(found), "fail" if found else "pass", 1, None, self.name, why, {"topics": found})


_REFUSALS = re.compile(
    r"(?i)\b(?:i(?:'m| am)?|we(?:'re| are)?) (?:\w+ )?(?:can(?:no|')t|can not|unable|not able|won't|will not|must decline|do(?:n't| not) (?:know|have (?:enough |any )?information)|could(?:n't| not) find|"
    r"sorry|not (?:allowed|comfortable|going to))\b|\b(?:against my|violat\w+ (?:my|our)) (?:guidelines|policy|policies|programming)\b|\bas an ai\b.{0,60}\b(?:can(?:no|')t|cannot|unable)\b|"
    r"\b(?:no|not enough|nothing|insufficient) (?:\w+ )?(?:information|passage|source|document|answer)s?\b.{0,40}\b(?:found|available|in the|about|on|answer)\b|\b(?:sources?|documents?|context) (?:do|does)(?:n't| not)\b"
)


def refuses(answer: str) -> bool:
    """Whether an answer declines or says that it does not know: a phrase of refusal in its first 300 characters."""
    return not answer.strip() or _REFUSALS.search(answer.replace("’", "'")[:300]) is not None


@checks.add("refusal")
@dataclass(frozen=True)
class Refusal(TextCheck):
    """An answer declines, by its words (English phrases). Useful as a rate: `refusal <= 0.1 on kind=answerable`."""

    name: ClassVar[str] = "refusal"

    def judge(self, text: Utterance) -> Score:
        """Fail where the answer refuses."""
        refused = bool(text.context.get("refused")) or refuses(text.text)
        return Score(
            self.name, float(refused), "fail" if refused else "pass", 1, None, self.name, "It declines to answer." if refused else "It answers."
        )


_CITATION = re.compile(r"\[\d{1,3}\]|\[[^\]\n]{1,120}\]\([^)\n]{1,300}\)|https?://\S+")


@checks.add("citations")
@dataclass(frozen=True)
class Citations(TextCheck):
    """An answer that is not a refusal cites its sources: at least `min` citations, [1] or a link, and none beyond the sources there are."""

    min: int = 1
    name: ClassVar[str] = "citations"

    def judge(self, text: Utterance) -> Score:
        """Fail with too few citations or with a number that no source has."""
        if refuses(text.text):
            return Score(self.label, None, "pass", 1, None, self.name, "A refusal needs no citation.")
        found = _CITATION.findall(text.text)
        count = max(len(found), len(text.context.get("citations") or ()))
        beyond = [c for c in found if c[1:-1].isdigit() and text.sources and int(c[1:-1]) > len(text.sources)]
        if beyond:
            return Score(self.label, count, "fail", 1, None, self.name, f"It cites {beyond[0]}, and there are {len(text.sources)} sources.")
        bad = count < self.min
        return Score(self.label, count, "fail" if bad else "pass", 1, None, self.name, f"{count} citations; at least {self.min} needed.")


@checks.add("json_schema")
@dataclass(frozen=True)
class JsonSchema(TextCheck):
    """A text is JSON and fits a schema: type, properties, required, items, enum, minimum, maximum, additionalProperties=false are understood.

    BadInput names a keyword that is not, rather than pass what it cannot judge.
    """

    schema: Any = None
    name: ClassVar[str] = "json_schema"

    def __post_init__(self) -> None:
        schema = json.loads(self.schema) if isinstance(self.schema, str) else self.schema or {}
        object.__setattr__(self, "schema", schema)
        _known_keywords(schema)

    def judge(self, text: Utterance) -> Score:
        """Fail with the first place that does not fit."""
        body = text.text.strip()
        fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", body, re.DOTALL)
        try:
            value = json.loads(fenced.group(1) if fenced else body)
        except ValueError as error:
            return Score(self.name, None, "fail", 1, None, self.name, f"It is not JSON: {error}.")
        wrong = _misfit(value, self.schema, "$")
        return Score(self.name, None, "fail" if wrong else "pass", 1, None, self.name, wrong or "It fits the schema.")


_KEYWORDS = {
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "minimum",
    "maximum",
    "additionalProperties",
    "title",
    "description",
    "$schema",
    "default",
}
_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool, "null": type(None)}


def _known_keywords(schema: Any) -> None:
    if not isinstance(schema, Mapping):
        raise BadInput(f"A JSON schema is an object, not {type(schema).__name__}.")
    unknown = set(schema) - _KEYWORDS
    if unknown:
        raise BadInput(f"The check json_schema does not know the keyword {', '.join(sorted(unknown))}.", f"It knows: {', '.join(sorted(_KEYWORDS))}.")
    for part in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        _known_keywords(part)


def _misfit(value: Any, schema: Mapping[str, Any], where: str) -> str:
    kinds = schema.get("type")
    if kinds:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(isinstance(value, _TYPES[k]) and (k == "boolean" or not isinstance(value, bool)) for k in kinds):
            return f"{where} is not {' or '.join(kinds)}."
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is not one of {schema['enum']}."
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (value < schema.get("minimum", value) or value > schema.get("maximum", value)):
        return f"{where} is {value}, outside {schema.get('minimum', '-')} to {schema.get('maximum', '-')}."
    if isinstance(value, dict):
        missing = [k for k in schema.get("required", ()) if k not in value]
        if missing:
            return f"{where} has no {missing[0]!r}."
        extra = set(value) - set(schema.get("properties", {}))
        if schema.get("additionalProperties") is False and extra:
            return f"{where} has {sorted(extra)[0]!r}, which the schema does not know."
        parts = [_misfit(v, schema["properties"][k], f"{where}.{k}") for k, v in value.items() if k in schema.get("properties", {})]
        return next((p for p in parts if p), "")
    if isinstance(value, list) and "items" in schema:
        return next((p for p in (_misfit(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value)) if p), "")
    return ""
