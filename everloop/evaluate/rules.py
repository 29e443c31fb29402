"""The one rule language of gates and monitors: what a version must show, in one line a person can read.

    auc >= 0.70                     a threshold
    auc >= champion - 0.01          non-inferiority to the version that holds the alias
    auc > champion                  superiority
    fairness_gap(sex) <= 0.15       a check with an argument; by position or by name: psi(column=income)
    hit_rate@5 >= 80%               @k is the argument k; a percentage is its hundredth
    psi(income) < calibrated        the limit that the check calibrates on its reference (monitors)
    groundedness >= 0.9 at 90%      a confidence of its own instead of the gate's
    accuracy >= 0.6 on sex=female   only the cases with that value (a feature column, or a chat case's field or tag)

Grammar: METRIC ("@" K)? ("(" ARG, ... ")")? OP BOUND ("at" NUMBER "%")? ("on" NAME "=" VALUE)?, where BOUND is a number, `champion`,
`champion + NUMBER`, `champion - NUMBER` or `calibrated`, and OP one of >= <= > <.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn

from everloop.checks import checks
from everloop.core.errors import BadInput, NotFound
from everloop.core.labels import label
from everloop.core.limits import RULE_CHARS

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][\w.]*)|(?P<op>>=|<=|==|!=|=>|=<|>|<)|(?P<mark>[-+(),@=%])|(?P<text>\"[^\"]*\"|'[^']*'))"
)
OPERATORS = (">=", "<=", ">", "<")


@dataclass(frozen=True)
class Requirement:
    """One parsed rule. `against` is "number", "champion" or "calibrated"; `bound` is the number, or what is added to the champion's figure."""

    text: str
    metric: str
    op: str
    against: str
    bound: float = 0.0
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    where: tuple[str, str] | None = None

    def check(self) -> Any:
        """The check that measures it, with its arguments; BadInput if it does not take them."""
        return make(self.metric, self.args, self.named)

    @property
    def upwards(self) -> bool:
        """Whether larger figures satisfy it."""
        return self.op in (">=", ">")

    @property
    def wanted(self) -> str:
        """The right side in words: `at least 0.7`, `more than the champion's`."""
        words = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[self.op]
        if self.against == "calibrated":
            return f"{words} the calibrated limit"
        if self.against == "number":
            return f"{words} {self.bound:g}"
        if not self.bound:
            return f"{words} the champion's"
        return f"{words} the champion's {'+' if self.bound > 0 else '-'} {abs(self.bound):g}"


def make(metric: str, args: tuple[Any, ...] = (), named: dict[str, Any] | None = None) -> Any:
    """An instance of a registered check; BadInput names what it takes if these arguments do not fit."""
    from dataclasses import fields

    cls = checks.get(metric)
    try:
        made = cls(*args, **(named or {}))
    except TypeError:
        takes = ", ".join(f.name for f in fields(cls)) or "no arguments"
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in (named or {}).items())])
        raise BadInput(f"The check {metric} does not take ({given}).", f"It takes: {takes}.") from None
    if getattr(made, "column", None) == "" and getattr(cls, "needs_column", False):
        raise BadInput(f"The check {metric} needs a column.", f"Write it as {metric}(sex).")
    return made


def metrics(stage: str = "gate") -> list[str]:
    """Names of the checks that a rule may use at a stage."""
    return [name for name, cls in checks.items() if stage in getattr(cls, "stages", ())]


def parse(text: str) -> Requirement:
    """Parse one rule; BadInput says where it went wrong, what was expected there, and what there is to choose from."""
    return _Parser(text).rule()


class _Parser:
    """One pass over the tokens, with the position of each for errors."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text.strip():
            raise BadInput("A requirement is empty.", "Write it as: auc >= 0.70")
        if len(text) > RULE_CHARS:
            raise BadInput(f"A requirement is {len(text)} characters long; at most {RULE_CHARS} are allowed.")
        self.text, self.at = text, 0
        self.tokens: list[tuple[str, str, int]] = []
        place = 0
        end = len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            if found is None:
                self.fail(place + len(text[place:]) - len(text[place:].lstrip()), "a name, a number or an operator")
            self.tokens.append((str(found.lastgroup), found.group(str(found.lastgroup)), found.start(str(found.lastgroup))))
            place = found.end()

    def rule(self) -> Requirement:
        metric = self.need("name", "the name of a metric")
        where = self.tokens[self.at - 1][2]
        try:
            checks.get(metric)
        except NotFound:
            near = get_close_matches(metric, metrics(), 1)
            hint = f"Did you mean {near[0]!r}?  " if near else ""
            told = f"{hint}Metrics: {', '.join(metrics())}. For monitors also: {_monitor_only()}."
            self.fail(where, f"a metric; there is none called {metric!r}", told)
        named: dict[str, Any] = {}
        if self.take("mark", "@"):
            named["k"] = self.number("a whole number after @")
        args = self.arguments(named) if self.take("mark", "(") else ()
        make(metric, tuple(args), named)
        op = self.need("op", f"one of {', '.join(OPERATORS)}")
        if op not in OPERATORS:
            self.fail(self.tokens[self.at - 1][2], f"one of {', '.join(OPERATORS)}")
        against, bound = self.bound()
        confidence, condition = None, None
        while self.at < len(self.tokens):
            if self.take("name", "at"):
                confidence = self.confidence()
            elif self.take("name", "on"):
                condition = self.condition()
            else:
                self.fail(self.here(), "the end of the rule, `at 90%` or `on column=value`")
        return Requirement(self.text.strip(), metric, op, against, bound, tuple(args), named, confidence, condition)

    def bound(self) -> tuple[str, float]:
        if self.take("name", "calibrated"):
            return "calibrated", 0.0
        if not self.take("name", "champion"):
            return "number", self.signed("a number, `champion` or `calibrated`")
        for sign, factor in (("+", 1.0), ("-", -1.0)):
            if self.take("mark", sign):
                return "champion", factor * self.number("a number")
        return "champion", 0.0

    def arguments(self, named: dict[str, Any]) -> list[Any]:
        args: list[Any] = []
        if self.take("mark", ")"):
            return args
        while True:
            value = self.value("an argument")
            if self.take("mark", "="):
                named[str(value)] = self.value(f"the value of {value}")
            else:
                args.append(value)
            if self.take("mark", ")"):
                return args
            if not self.take("mark", ","):
                self.fail(self.here(), "`,` or `)`")

    def value(self, what: str) -> Any:
        if self.peek() in ("number", "mark") and (self.peek() == "number" or self.tokens[self.at][1] in "+-"):
            return self.signed(what)
        if self.peek() == "text":
            return self.need("text", what)[1:-1]
        words = [self.need("name", what)]
        while self.peek() == "name":
            words.append(self.need("name", what))
        return " ".join(words)

    def signed(self, what: str) -> float:
        factor = -1.0 if self.take("mark", "-") else 1.0
        return factor * self.number(what)

    def number(self, what: str) -> float:
        number = float(self.need("number", what))
        number = number / 100 if self.take("mark", "%") else number
        return int(number) if number.is_integer() else number

    def confidence(self) -> float:
        where = self.here()
        level = float(self.need("number", "a confidence such as 90%"))
        level = level / 100 if self.take("mark", "%") or level > 1 else level
        if not 0.5 < level < 1:
            self.fail(where, "a confidence between 50% and 100%")
        return level

    def condition(self) -> tuple[str, str]:
        key = self.value("the name of a column or field")
        if not self.take("mark", "="):
            self.fail(self.here(), "`=` and a value")
        if self.peek() == "number":
            return str(key), label(self.signed("a value")) or ""
        value = self.need("text", "a value")[1:-1] if self.peek() == "text" else self.need("name", "a value (in quotes if it has spaces)")
        return str(key), value

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def here(self) -> int:
        return self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text.rstrip())

    def take(self, kind: str, value: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at][:2] == (kind, value):
            self.at += 1
            return True
        return False

    def need(self, kind: str, what: str) -> str:
        if self.peek() != kind:
            self.fail(self.here(), what)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def fail(self, at: int, expected: str, hint: str = "") -> NoReturn:
        found = self.text[at : at + 20].strip() or "the end"
        hint = hint or f"Examples: auc >= 0.70; auc >= champion - 0.01; fairness_gap(sex) <= 0.15. Metrics: {', '.join(metrics())}."
        raise BadInput(f"Requirement {self.text.strip()!r}, position {at + 1}: expected {expected}; found {found!r}.", hint, position=at)


def _monitor_only() -> str:
    gate = set(metrics())
    return ", ".join(name for name in metrics("monitor") if name not in gate) or "none"
