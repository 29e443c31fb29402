"""Redaction before anything is written: what a policy's redacting rules find in a trace is replaced, before it reaches the log.

A text is replaced where it stands: in inputs, outputs, attributes, events and names of spans, in features and outputs of predictions, in what
a score or a trace's own fields say. Ids of users and sessions that hold personal data become keyed hashes, so that one user's traces still belong
together. What cannot be checked is not written: a check that fails hides the whole text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import orjson

from everloop.core.errors import BadInput
from everloop.core.types import Span, Utterance
from everloop.serve.rules import Make, Rule, redact, rules_of, spans_of
from everloop.store.frames import ALIAS, ENDPOINT, PRINCIPAL, RELEASE, SESSION, USER
from everloop.store.telemetry_signals import METRIC_COLUMNS

TOLD, TOLD_POLICY = "everloop.redacted", "everloop.redacted.policy"
"""Attributes of a span that lost something: how many of each kind, and the policy's exact reference."""
SHORTEST = 5
"""Shorter texts can hold nothing that a check finds."""
CARD_DIGITS = 12
"""Numbers of at least so many digits are looked at as texts are: payment cards and the like are sent as numbers, too."""
UNCHECKED = "[not checked]"
_OURS = frozenset((ENDPOINT, RELEASE, ALIAS, PRINCIPAL))
_IDS = frozenset((*USER, *SESSION, "user", "session", "mlflow.trace.user", "mlflow.trace.session"))
_KEPT_OF_SCORES = frozenset(("id", "subject", "trace_id", "name", "source", "at", "by"))
_KEPT_OF_CHANGES = frozenset(("trace_id", "runs", "prompts", "span", "root_state", "delete"))
_KEPT_FIELDS = frozenset(("id", "experiment", "state", "at_ms", "ms", "final", "mlflow.sourceRun"))
_KEPT_OF_PREDICTIONS = frozenset(("prediction_id", "trace_id", "at", "endpoint", "release", "alias"))

_KEPT_OF_LOGS = frozenset(("id", "trace_id", "span_id", "at_ns", "severity", "level", "event", "scope"))
_KEPT_OF_METRICS = frozenset(METRIC_COLUMNS) - {"attributes", "resource", "description"}

Parts = tuple[Sequence[Any], ...]
"""What is written together: spans, predictions, scores, changes of traces, metric points, log records."""


def redacting(policy: Mapping[str, Any], make: Make) -> list[Rule]:
    """The rules of a policy that redact, of whatever stage: what one stage is told the next repeats. BadInput where it has none."""
    rules = [rule for stage in ("input", "retrieved", "output") for rule in rules_of(policy, stage, make) if rule.action == "redact"]
    kept = {orjson.dumps([rule.check, repr(rule.run)]): rule for rule in rules}
    if not kept:
        raise BadInput("The policy redacts nothing.", 'It needs a rule such as {"check": "pii", "action": "redact"}.')
    return list(kept.values())


class Redactor:
    """One project's redaction. `drop` and `hash` name features of predictions that are left out, or kept as keyed hashes only.

    `pseudonym(text)` gives the keyed hash. Thread-safe: each call of `clean` has its own memory.
    """

    def __init__(self, ref: str, rules: Sequence[Rule], pseudonym: Callable[[str], str], drop: Iterable[str] = (), hash: Iterable[str] = ()) -> None:
        self.ref = ref
        self.rules = tuple(rules)
        self.pseudonym = pseudonym
        self.drop, self.hash = frozenset(drop), frozenset(hash)

    def clean(
        self,
        spans: Sequence[Span],
        predictions: Sequence[Any] = (),
        scores: Sequence[Any] = (),
        infos: Sequence[Any] = (),
        metrics: Sequence[Any] = (),
        logs: Sequence[Any] = (),
    ) -> Parts:
        """The same, redacted. What had nothing to redact is the very object that was given; nothing given is changed."""
        sight = _Sight(self)
        return (
            [self._span(sight, one) for one in spans],
            [self._prediction(sight, one) for one in predictions],
            [self._score(sight, one) for one in scores],
            [self._change(sight, one) for one in infos],
            [self._within(sight, one, _KEPT_OF_METRICS) for one in metrics],
            [self._within(sight, one, _KEPT_OF_LOGS) for one in logs],
        )

    def text(self, text: str) -> tuple[str, dict[str, int]]:
        """One text redacted, and how many of each kind were found."""
        sight = _Sight(self)
        return sight.text(text), dict(sight.found)

    def _span(self, sight: _Sight, span: Span) -> Span:
        sight.found = Counter()
        inputs = self._columns(sight, span.inputs) if span.kind == "PREDICT" and (self.drop or self.hash) else span.inputs
        new = {
            "name": sight.value(span.name),
            "inputs": sight.value(inputs),
            "outputs": sight.value(span.outputs),
            "attributes": sight.fields(span.attributes, _OURS),
            "events": sight.value(span.events),
        }
        if not sight.found:
            return span
        new["attributes"] = {**new["attributes"], TOLD: dict(sight.found), TOLD_POLICY: self.ref}
        return replace(span, **new)

    def _prediction(self, sight: _Sight, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.drop or self.hash:
            row = {**row, "features": self._columns(sight, row.get("features"))}
        new: Mapping[str, Any] = sight.fields(row, _KEPT_OF_PREDICTIONS)
        return new

    def _score(self, sight: _Sight, score: Mapping[str, Any]) -> Mapping[str, Any]:
        sight.found = Counter()
        new = sight.fields(score, _KEPT_OF_SCORES)
        if not sight.found:
            return score
        return {**new, "details": {**(new.get("details") or {}), TOLD: dict(sight.found), TOLD_POLICY: self.ref}}

    def _change(self, sight: _Sight, change: Mapping[str, Any]) -> Mapping[str, Any]:
        own = {part: sight.fields(change[part], _KEPT_FIELDS) for part in ("set", "fill", "metadata", "fill_metadata") if change.get(part)}
        rest: Mapping[str, Any] = sight.fields(change, _KEPT_OF_CHANGES | own.keys())
        return {**rest, **own}

    def _within(self, sight: _Sight, one: Mapping[str, Any], kept: Set[str]) -> Mapping[str, Any]:
        """A point or a record: ids of users and sessions among its attributes become hashes, as a span's do."""
        new: dict[str, Any] = sight.fields({key: value for key, value in one.items() if key != "attributes"}, kept)
        return {**new, "attributes": sight.fields(one.get("attributes") or {}, _OURS)}

    def _columns(self, sight: _Sight, value: Any) -> Any:
        """Rows or columns without the features to drop, and with those to hash hashed."""
        if isinstance(value, Mapping):
            made = {}
            for key, one in value.items():
                if key in self.drop:
                    sight.found["dropped"] += 1
                elif key in self.hash:
                    sight.found["hashed"] += 1
                    made[key] = self._hashed(one)
                else:
                    made[key] = self._columns(sight, one)
            return made
        if isinstance(value, list | tuple):
            return [self._columns(sight, one) for one in value]
        return value

    def _hashed(self, value: Any) -> Any:
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [self._hashed(one) for one in value]
        return None if value is None else self.pseudonym(str(value))


class _Sight:
    """One pass over what is written together: remembers texts it has seen (a trace repeats them), counts what it found."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.found: Counter[str] = Counter()
        self._seen: dict[str, tuple[str, dict[str, int]]] = {}

    def text(self, text: str) -> str:
        if len(text) < SHORTEST:
            return text
        known = self._seen.get(text)
        if known is None:
            known = self._seen[text] = self._checked(text)
        if known[1]:
            self.found.update(known[1])
        return known[0]

    def value(self, value: Any) -> Any:
        """A value of any shape, redacted; the same object where nothing was found in it."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            text = str(value) if abs(value) >= 10 ** (CARD_DIGITS - 1) else ""
            return value if not text or (new := self.text(text)) == text else new
        if isinstance(value, Mapping):
            return self._nested(value)
        if isinstance(value, list | tuple):
            made = [self.value(one) for one in value]
            return value if all(a is b for a, b in zip(made, value, strict=True)) else made
        if isinstance(value, bytes | bytearray):
            return value
        if hasattr(value, "tolist"):
            plain = value.tolist()
            new = self.value(plain)
            return value if new is plain or (new == plain and not isinstance(plain, str | list)) else new
        return self.text(str(value))

    def fields(self, fields: Mapping[str, Any], kept: Set[str]) -> Any:
        """Named fields with their values redacted but those `kept`; ids of users and sessions are hashed where they hold something."""
        made = {}
        for key, value in fields.items():
            if key in kept:
                made[key] = value
            else:
                made[key] = self.identity(value) if key in _IDS and isinstance(value, str) else self.value(value)
        return fields if all(made[key] is value for key, value in fields.items()) else made

    def _nested(self, mapping: Mapping[Any, Any]) -> Any:
        """A mapping within a value: its keys may say something too."""
        made = {self.text(key) if isinstance(key, str) else key: self.value(value) for key, value in mapping.items()}
        same = len(made) == len(mapping) and all(key in made and made[key] is value for key, value in mapping.items())
        return mapping if same else made

    def identity(self, value: str) -> str:
        new = self.text(value)
        return value if new == value else self.redactor.pseudonym(value)

    def _checked(self, text: str) -> tuple[str, dict[str, int]]:
        found: Counter[str] = Counter()
        for rule in self.redactor.rules:
            try:
                score = rule.run(Utterance(text))
                if score.verdict != "fail":
                    continue
                spans = spans_of(score)
            except Exception:
                return UNCHECKED, {"not checked": 1}
            if not spans:
                return f"[{rule.check}]", {rule.check: 1}
            found.update(label for _, _, label in spans)
            text = redact(text, spans)
        return text, dict(found)
