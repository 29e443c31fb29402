"""The filter line of traces: `endpoint:tutor status:error ms>2000 score.thumbs<0 -user:42 "free text"`; all of it must hold.

    line  := term*
    term  := [-] field op value | [-] word | [-] "a phrase"            (- turns it round)
    field := one of FIELDS | score.NAME | attr.KEY | tag.KEY
    op    := :  =  !=  >  >=  <  <=
    value := word | "a text with spaces" | a,b,c (one of them; `*` stands for anything in a word)

Words without a field are looked for in inputs and outputs. The same parser serves REST, the command line and the UI; an error knows its place.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import FILTER_CHARS, FILTER_CLAUSES

FIELDS = {
    "endpoint": ("text", "who answered"),
    "status": ("text", "ok, error, unset, blocked or refused"),
    "ms": ("number", "how long it took, in milliseconds; 2s works too"),
    "cost": ("number", "US dollars"),
    "tokens": ("number", "in and out together"),
    "user": ("text", "who asked"),
    "session": ("text", "the conversation"),
    "release": ("text", "such as release:tutor@3"),
    "alias": ("text", "the alias that answered"),
    "model": ("text", "any model that was called"),
    "name": ("text", "of the first span"),
    "kind": ("text", "of any span: LLM, RETRIEVER, TOOL, GUARDRAIL"),
    "error": ("text", "the message of an error; use * for any part"),
    "principal": ("text", "whose key called"),
    "tokens_in": ("number", "tokens read"),
    "tokens_out": ("number", "tokens written"),
    "spans": ("number", "how many spans"),
    "id": ("text", "a trace's id"),
}
"""What may stand before an operator, and what it is."""
KEYED = {"score": "a score by its name: score.thumbs<0", "attr": "an attribute of any span", "tag": "a tag of the trace"}
"""Fields that take a name after a dot."""
STATUSES = ("ok", "error", "unset", "blocked", "refused")
OPS = (">=", "<=", "!=", ":", "=", ">", "<")
_FIELD = re.compile(r"[A-Za-z_]+(?:\.[^\s\":=!<>]+)?")
_OP = re.compile("|".join(map(re.escape, OPS)))
_NUMBER = re.compile(r"\$?(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(ms|s|min|h|k|M)?")
_UNITS = {"ms": 1.0, "s": 1000.0, "min": 60_000.0, "h": 3_600_000.0, "k": 1000.0, "M": 1e6}


def _error(what: str, hint: str, start: int, end: int) -> BadInput:
    return BadInput(f"{what} (character {start + 1} of the filter)", hint, start=start, end=end)


@dataclass(frozen=True)
class Clause:
    """One comparison: `field` is a key of FIELDS or KEYED (then `key` is the name after the dot); `values` are numbers or texts, one of which must fit."""

    field: str
    key: str
    op: str
    values: tuple[Any, ...]
    negated: bool = False


@dataclass(frozen=True)
class Query:
    """A line that was read: comparisons, the words that must occur, and those that must not."""

    clauses: tuple[Clause, ...] = ()
    text: str = ""
    without: tuple[str, ...] = field(default=())


def parse(line: str | None) -> Query:
    """Read a line. BadInput says what is wrong, and in `details` from which character (`start`) to which (`end`)."""
    line = line or ""
    if len(line) > FILTER_CHARS:
        raise _error(f"The filter has {len(line):,} characters; at most {FILTER_CHARS:,} are allowed.", "Make it shorter.", 0, len(line))
    clauses: list[Clause] = []
    words: list[str] = []
    without: list[str] = []
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        if len(clauses) + len(words) + len(without) >= FILTER_CLAUSES:
            raise _error(f"The filter has more than {FILTER_CLAUSES} parts.", "Leave some out.", at, len(line))
        start, negated = at, line[at] == "-" and at + 1 < len(line) and not line[at + 1].isspace()
        at += negated
        named = _FIELD.match(line, at)
        op = _OP.match(line, named.end()) if named else None
        if named and op:
            value, at = _value(line, op.end())
            clauses.append(_clause(named[0], op[0], value, negated, (start, named.end(), op.end(), at)))
            continue
        value, at = _value(line, at)
        word = f'"{value[1:-1]}"' if value.startswith('"') else value
        (without if negated else words).append(word)
    return Query(tuple(clauses), " ".join(words), tuple(without))


def quoted(value: str) -> str:
    """A value as the line has it: in quotes where it needs them."""
    plain = value.replace('"', "")
    return f'"{plain}"' if re.search(r"[\s,*]|^$", plain) or plain.startswith("-") else plain


def term(name: str, value: str) -> str:
    """`name:value`, quoted where needed."""
    return f"{name}:{quoted(value)}"


def _value(line: str, at: int) -> tuple[str, int]:
    """The value that begins here, with its quotes, and where it ends."""
    if at < len(line) and line[at] == '"':
        close = line.find('"', at + 1)
        if close < 0:
            raise _error("A quote is opened and not closed.", 'Close it with "', at, len(line))
        return line[at : close + 1], close + 1
    end = at
    while end < len(line) and not line[end].isspace():
        end += 1
    return line[at:end], end


def _clause(named: str, op: str, value: str, negated: bool, places: tuple[int, int, int, int]) -> Clause:
    start, named_end, op_end, end = places
    head, _, key = named.partition(".")
    head = head.lower()
    if head in KEYED and not key:
        raise _error(f"{head} needs a name after a dot.", f"Write {head}.NAME{op}...", start, named_end)
    if (head not in KEYED and key) or head not in {*FIELDS, *KEYED}:
        hint = f"Fields: {', '.join([*FIELDS, *(f'{k}.NAME' for k in KEYED)])}. To look for the words themselves, put them in quotes."
        raise _error(f"There is no field {named!r}.", hint, start, named_end)
    if value in ("", '""'):
        raise _error(f"{named}{op} has no value.", f"Write {named}{op}VALUE without a space.", start, op_end)
    if op == "!=":
        op, negated = ":", not negated
    op = ":" if op == "=" else op
    texts = [value[1:-1]] if value.startswith('"') else [part for part in value.split(",") if part]
    kind = FIELDS[head][0] if head in FIELDS else "any"
    if kind == "text" and op != ":":
        raise _error(f"{named} is text and has no order.", f"Write {named}:{value}", named_end, op_end)
    if kind == "number" or op != ":":
        numbers = [_number(one, head) for one in texts]
        if None in numbers or not numbers:
            raise _error(f"{value} is no number, and {named}{op} needs one.", f"For example {named}>100", op_end, end)
        if op != ":" and len(numbers) > 1:
            raise _error(f"{named}{op} takes one number.", f"For example {named}{op}{numbers[0]:g}", op_end, end)
        return Clause(head, key, op, tuple(numbers), negated)
    if head == "status" and (strange := [one for one in texts if one not in STATUSES]):
        raise _error(f"There is no status {strange[0]!r}.", f"One of: {', '.join(STATUSES)}.", op_end, end)
    return Clause(head, key, op, tuple(texts), negated)


def _number(text: str, name: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    if not found:
        return None
    unit = found[2]
    if unit and (unit in ("k", "M")) == (name == "ms"):
        return None
    value = float(found[1]) * _UNITS.get(unit or "", 1.0)
    return value if math.isfinite(value) else None
