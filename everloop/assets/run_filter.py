"""The filter language of MLflow's searches: `metrics.auc > 0.5 and params.depth = '3' and tags.team LIKE 'cred%'`, parsed and made into SQL.

    filter     := comparison (AND comparison)*
    comparison := [entity .] key  operator  value     |  [entity .] key IS [NOT] NULL
    key        := word | `any text` | "any text"
    operator   := = | != | > | >= | < | <= | LIKE | ILIKE | IN | NOT IN          (LIKE minds case, ILIKE does not; % and _ are wild)
    value      := number | 'text' | "text" | ( 'text', ... )

A key without entity is an attribute. The same parser serves runs, experiments, registered models, model versions and logged models;
each says which entities and attributes it has (`Grammar`). A clause becomes a condition on a column (`condition`), so that the database
filters and nothing is scanned in Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import FILTER_CHARS, FILTER_CLAUSES

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    | (?P<quoted>`[^`]*`)
    | (?P<number>[-+]?(?:\d+(?:\.\d*)?|(?<![\w`"'])\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<op>!=|<>|>=|<=|==|=|<|>)
    | (?P<mark>[(),.])
    | (?P<word>[^\s'"`=!<>(),.]+)
    )""",
    re.VERBOSE,
)
NUMERIC = frozenset(("=", "!=", ">", ">=", "<", "<="))
TEXTUAL = frozenset(("=", "!=", "LIKE", "ILIKE"))
LISTED = TEXTUAL | {"IN", "NOT IN"}
NULLABLE = TEXTUAL | {"IS NULL", "IS NOT NULL"}


@dataclass(frozen=True)
class Clause:
    """One comparison. `op` is in capitals; `value` is a float, a str, or a tuple of str for IN and NOT IN, None for IS NULL."""

    entity: str
    key: str
    op: str
    value: Any


@dataclass(frozen=True)
class Grammar:
    """What may be searched. `entities` maps every spelling to its entity and `kinds` an entity to "number" or "text" or "null" (text that
    may also be asked IS NULL); `attributes` maps an attribute's spelling to (name, kind), kind "list" being text that may be asked IN, and "ms" a time that the filter has in
    milliseconds and the clause then in seconds."""

    what: str
    attributes: Mapping[str, tuple[str, str]]
    entities: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


MATCHED = TEXTUAL | {"RLIKE"}
"""What texts of a trace may be asked; RLIKE is a regular expression."""
_ATTRIBUTE = {"attribute": "attribute", "attributes": "attribute", "attr": "attribute"}
_OPERATORS = {
    "number": NUMERIC,
    "ms": NUMERIC,
    "text": TEXTUAL,
    "list": LISTED,
    "null": NULLABLE,
    "content": frozenset(("LIKE", "ILIKE")),
    "exact": frozenset(("=",)),
    "matched list": MATCHED | LISTED,
    "matched null": MATCHED | NULLABLE,
    "mixed": MATCHED | NULLABLE | NUMERIC,
}
EXPERIMENTS = Grammar(
    "experiments",
    {
        "name": ("name", "text"),
        "creation_time": ("created_at", "ms"),
        "last_update_time": ("updated_at", "ms"),
        "experiment_id": ("id", "list"),
    },
    {**_ATTRIBUTE, "tag": "tag", "tags": "tag"},
    {"tag": "null"},
)
RUNS = Grammar(
    "runs",
    {
        "run_id": ("id", "list"),
        "id": ("id", "list"),
        "run_name": ("name", "list"),
        "run name": ("name", "list"),
        "Run name": ("name", "list"),
        "Run Name": ("name", "list"),
        "name": ("name", "list"),
        "status": ("status", "list"),
        "kind": ("kind", "list"),
        "pipeline": ("pipeline", "list"),
        "parent": ("parent", "list"),
        "user_id": ("user", "list"),
        "User": ("user", "list"),
        "created_by": ("created_by", "list"),
        "experiment_id": ("experiment", "list"),
        "artifact_uri": ("artifact_uri", "list"),
        "lifecycle_stage": ("lifecycle_stage", "list"),
        **dict.fromkeys(("start_time", "created", "Created"), ("started_at", "ms")),
        "end_time": ("ended_at", "ms"),
        "started_at": ("started_at", "number"),
        "ended_at": ("ended_at", "number"),
    },
    {
        **_ATTRIBUTE,
        "run": "attribute",
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("dataset", "datasets"), "dataset"),
    },
    {"metric": "number", "param": "null", "tag": "null", "dataset": "list"},
)


def parse(text: str | None, grammar: Grammar) -> list[Clause]:
    """The clauses of a filter, all of which must hold; BadInput says where it does not parse and what may stand there."""
    text = text or ""
    if len(text) > FILTER_CHARS:
        raise BadInput(f"The filter is {len(text)} characters long; at most {FILTER_CHARS} are allowed.")
    tokens = _tokens(text)
    clauses: list[Clause] = []
    at = 0
    while at < len(tokens):
        if clauses:
            if tokens[at][0] != "word" or tokens[at][1].upper() != "AND":
                hint = "OR is not part of this language; run two searches." if tokens[at][1].upper() == "OR" else "Join comparisons with AND."
                raise _wrong(text, f"after a comparison AND must follow, found {tokens[at][1]!r}", hint)
            at += 1
        clause, at = _comparison(text, tokens, at, grammar)
        clauses.append(clause)
        if len(clauses) > FILTER_CLAUSES:
            raise BadInput(f"The filter has more than {FILTER_CLAUSES} comparisons.")
    return clauses


def parse_order(text: str, grammar: Grammar) -> tuple[str, str, bool]:
    """(entity, key, ascending) of one `metrics.auc DESC`; BadInput if it is not that."""
    tokens = _tokens(text)
    entity, key, at = _identifier(text, tokens, 0, grammar)
    rest = [value.upper() for _, value in tokens[at:]]
    if rest not in ([], ["ASC"], ["DESC"]):
        raise BadInput(f"Invalid order_by clause {text!r}: after the key {' '.join(rest)!r} was found.", "Write it as: metrics.auc DESC")
    if entity == "attribute":
        key = _attribute(text, key, grammar)[0]
    return entity, key, rest != ["DESC"]


def condition(column: Any, op: str, value: Any, dialect: str) -> Any:
    """The SQL condition `column op value`. LIKE minds case on every database (SQLite's own does not), ILIKE on none."""
    if op == "LIKE":
        if dialect == "sqlite":
            glob = re.sub(r"[*?\[]", lambda m: f"[{m.group()}]", value).replace("%", "*").replace("_", "?")
            return column.op("GLOB", is_comparison=True)(glob)
        return column.like(value)
    if op == "ILIKE":
        return column.ilike(value)
    if op == "IN":
        return column.in_(value)
    if op == "NOT IN":
        return column.not_in(value)
    if op == "IS NULL":
        return column.is_(None)
    if op == "IS NOT NULL":
        return column.is_not(None)
    compare = {"=": column.__eq__, "!=": column.__ne__, ">": column.__gt__, ">=": column.__ge__, "<": column.__lt__, "<=": column.__le__}
    return compare[op](value)


def member(column: Any, key: str, dialect: str) -> Any:
    """The text of a key of a JSON object, as an SQL expression; SQLite's paths have no way to write a key with a quote in it."""
    if dialect == "sqlite" and '"' in key:
        import sqlalchemy as sa

        each = sa.func.json_each(column).table_valued("key", "value")
        return sa.select(each.c.value).where(each.c.key == key).scalar_subquery()
    return column[key].as_string()


def moment(column: Any, op: str, value: float) -> Any:
    """The SQL condition on a time in epoch seconds; two times of the same millisecond are equal, which is as exact as clients are told them."""
    low, high = value - 0.0005, value + 0.0005
    if op in ("=", "!="):
        inside = (column >= low) & (column < high)
        return inside if op == "=" else ~inside
    return {">": column >= high, ">=": column >= low, "<": column < low, "<=": column < high}[op]


def seconds(value: float) -> float:
    """A time of a filter in epoch seconds: MLflow writes milliseconds, and a number above 1e11 is taken as such."""
    return value / 1000.0 if value > 1e11 else value


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _wrong(text, f"what stands at {text[at : at + 20]!r} cannot be read", "Is a quote missing?")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found


def _comparison(text: str, tokens: list[tuple[str, str]], at: int, grammar: Grammar) -> tuple[Clause, int]:
    entity, key, at = _identifier(text, tokens, at, grammar)
    kind = grammar.kinds.get(entity, "text")
    if entity == "attribute":
        key, kind = _attribute(text, key, grammar)
    op, at = _operator(text, tokens, at)
    if op not in _OPERATORS[kind]:
        raise _wrong(text, f"{op} cannot be asked of the {entity} {key!r}", f"Use one of: {', '.join(sorted(_OPERATORS[kind]))}.")
    if op in ("IS NULL", "IS NOT NULL"):
        return Clause(entity, key, op, None), at
    if op in ("IN", "NOT IN"):
        values, at = _list(text, tokens, at)
        return Clause(entity, key, op, values), at
    if at >= len(tokens):
        raise _wrong(text, f"after {op} a value must follow, found the end")
    shape, raw = tokens[at]
    if kind in ("number", "ms"):
        if shape != "number":
            raise _wrong(text, f"the {entity} {key!r} is compared with {raw}, which is not a number", "Numbers stand without quotes: 0.5")
        return Clause(entity, key, op, float(raw) / (1000.0 if kind == "ms" else 1.0)), at + 1
    if kind == "mixed" and shape == "number":
        return Clause(entity, key, op, float(raw) / (1000.0 if kind == "ms" else 1.0)), at + 1
    if shape != "text":
        raise _wrong(text, f"the {entity} {key!r} is compared with {raw}, which is not in quotes", "Put text in quotes: 'abc'")
    return Clause(entity, key, op, _unquote(raw)), at + 1


def _identifier(text: str, tokens: list[tuple[str, str]], at: int, grammar: Grammar) -> tuple[str, str, int]:
    if at >= len(tokens):
        raise _wrong(text, "a key is missing", "Write it as: metrics.auc > 0.5")
    shape, raw = tokens[at]
    if shape not in ("word", "quoted", "text"):
        raise _wrong(text, f"a key must stand where {raw!r} was found", "Write it as: metrics.auc > 0.5")
    first = _unquote(raw)
    if at + 1 < len(tokens) and tokens[at + 1][1] == "." and shape != "text":
        entity = grammar.entities.get(first)
        if entity is None:
            raise _wrong(text, f"there is no entity {first!r}", f"Entities of {grammar.what}: {', '.join(sorted(set(grammar.entities)))}.")
        key, at = _dotted(text, tokens, at + 2)
        return entity, key, at
    return "attribute", first, at + 1


def _dotted(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[str, int]:
    """A key after its entity's dot; an unquoted one may hold further dots."""
    if at >= len(tokens) or tokens[at][0] not in ("word", "quoted", "text", "number"):
        raise _wrong(text, "after the dot a key must follow", "Quote a key with other characters: metrics.`my key`")
    key, quoted = _unquote(tokens[at][1]), tokens[at][0] in ("quoted", "text")
    at += 1
    while not quoted and at + 1 < len(tokens) and tokens[at][1] == "." and tokens[at + 1][0] in ("word", "number", "quoted"):
        key += "." + _unquote(tokens[at + 1][1])
        at += 2
    return key, at


def _attribute(text: str, key: str, grammar: Grammar) -> tuple[str, str]:
    found = grammar.attributes.get(key)
    if found is None:
        known = ", ".join(sorted(set(grammar.attributes)))
        raise _wrong(text, f"there is no attribute {key!r}", f"Attributes of {grammar.what}: {known}; others: {', '.join(sorted(grammar.entities))}.")
    return found


def _operator(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[str, int]:
    words = [value.upper() for _, value in tokens[at : at + 3]]
    if words and tokens[at][0] == "op":
        return {"==": "=", "<>": "!="}.get(words[0], words[0]), at + 1
    for size, op in ((3, "IS NOT NULL"), (2, "IS NULL"), (2, "NOT IN"), (1, "IN"), (1, "LIKE"), (1, "ILIKE"), (1, "RLIKE")):
        if words[:size] == op.split():
            return op, at + size
    raise _wrong(text, f"after a key an operator must follow, found {tokens[at][1]!r}" if words else "after a key an operator must follow")


def _list(text: str, tokens: list[tuple[str, str]], at: int) -> tuple[tuple[str, ...], int]:
    if at >= len(tokens) or tokens[at][1] != "(":
        raise _wrong(text, "IN needs a list in parentheses", "Write it as: attributes.run_id IN ('a', 'b')")
    values: list[str] = []
    at += 1
    while at + 1 < len(tokens) and tokens[at][0] == "text":
        values.append(_unquote(tokens[at][1]))
        if tokens[at + 1][1] == ")":
            return tuple(values), at + 2
        if tokens[at + 1][1] != ",":
            break
        at += 2
        if tokens[at : at + 1] and tokens[at][1] == ")":  # ('a',) as Python writes a tuple of one
            return tuple(values), at + 1
    raise _wrong(text, "a list after IN is of quoted texts with commas between", "Write it as: attributes.run_id IN ('a', 'b')")


def _unquote(raw: str) -> str:
    if raw[0] == "`":
        return raw[1:-1]
    if raw[0] in "'\"":
        return re.sub(r"\\(['\"])|(['\"])\2", lambda m: m.group(1) or m.group(2), raw[1:-1])
    return raw


def _wrong(text: str, what: str, hint: str = "") -> BadInput:
    return BadInput(f"Invalid filter {text!r}: {what}.", hint)
