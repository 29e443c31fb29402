"""Policies: rules that say which check runs at which stage of a chat, and what happens when it fails; checked before a version is made.

The checks themselves live in a later room, so the function that makes one by its name is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import POLICY_RULES

STAGES = ("input", "retrieved", "output")
ACTIONS = ("block", "redact", "flag")
STREAMS = ("buffer", "window", "after")
REFUSAL_CHARS = 2_000


def checked(manifest: Mapping[str, Any], make: Callable[[str, Mapping[str, Any]], Any]) -> dict[str, Any]:
    """A policy's manifest, complete: {"rules": [{"name", "check", "stage", "action", "params"}], "stream", "refusal"?}. Other keys are refused.

    `make(check, params)` answers the check or raises. BadInput names the rule and what is wrong with it.
    """
    unknown = set(manifest) - {"rules", "stream", "refusal"}
    if unknown:
        raise BadInput(f"A policy has no {', '.join(sorted(map(repr, unknown)))}.", "It has: rules, stream, refusal.")
    rules = manifest.get("rules")
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise BadInput("A policy needs rules.", 'For example: {"rules": [{"check": "pii", "stage": "input", "action": "redact"}]}')
    if len(rules) > POLICY_RULES:
        raise BadInput(f"A policy of {len(rules)} rules; at most {POLICY_RULES} are allowed.")
    full = [_rule(number, rule, make) for number, rule in enumerate(rules, 1)]
    names = [rule["name"] for rule in full]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"Two rules of the policy are called {twice!r}.", "Give each a name of its own.")
    made: dict[str, Any] = {"rules": full, "stream": _one_of(manifest.get("stream") or "buffer", STREAMS, "The policy's stream")}
    refusal = manifest.get("refusal")
    if refusal is not None:
        if not isinstance(refusal, str) or not refusal.strip() or len(refusal) > REFUSAL_CHARS:
            raise BadInput(f"The policy's refusal must be a text of 1 to {REFUSAL_CHARS} characters.", "It is what a user reads when a rule blocks.")
        made["refusal"] = refusal
    return made


def _rule(number: int, rule: Any, make: Callable[[str, Mapping[str, Any]], Any]) -> dict[str, Any]:
    if not isinstance(rule, Mapping) or not isinstance(rule.get("check"), str):
        raise BadInput(f"Rule {number} of the policy names no check.", 'For example: {"check": "pii", "stage": "input", "action": "redact"}')
    unknown = set(rule) - {"name", "check", "stage", "action", "params"}
    if unknown:
        raise BadInput(
            f"Rule {number} of the policy has no {', '.join(sorted(map(repr, unknown)))}.", "A rule has: name, check, stage, action, params."
        )
    stage = _one_of(rule.get("stage", "input"), STAGES, f"The stage of rule {number}")
    action = _one_of(rule.get("action", "block"), ACTIONS, f"The action of rule {number}")
    name = str(rule.get("name") or f"{rule['check']}-{stage}")
    where = f"Rule {number} of the policy ({name})"
    params = rule.get("params") or {}
    if not isinstance(params, Mapping):
        raise BadInput(f"{where}: params must be an object, not {params!r}.")
    try:
        check = make(rule["check"], params)
    except (BadInput, NotFound) as error:
        raise BadInput(f"{where}: {error.what}", error.hint) from None
    if "guardrail" not in getattr(check, "stages", ()):
        raise BadInput(f"{where}: the check {rule['check']} does not judge single texts.", "Use it in a gate or a monitor.")
    if action == "redact" and not getattr(check, "redacts", False):
        raise BadInput(f"{where}: the check {rule['check']} does not say which words to redact.", "Use the action block or flag.")
    _types(check, params, where)
    return {"name": name, "check": rule["check"], "stage": stage, "action": action, "params": dict(params)}


def _types(check: Any, params: Mapping[str, Any], where: str) -> None:
    """BadInput where a param has another type than the check's default."""
    defaults = {f.name: f.default for f in fields(check)}
    for key, value in params.items():
        default = defaults.get(key)
        if isinstance(default, bool):
            fits = isinstance(value, bool)
        elif isinstance(default, int | float):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        elif isinstance(default, str):
            fits = isinstance(value, str)
        elif isinstance(default, tuple):
            fits = isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(v, str | int | float) for v in value))
        else:
            fits = True
        if not fits:
            raise BadInput(f"{where}: {key} is {value!r}; the check's own is {default!r}.", "Give a value of that type.")


def _one_of(value: Any, allowed: Sequence[str], what: str) -> str:
    if value not in allowed:
        raise BadInput(f"{what} is {value!r}.", f"It can be: {', '.join(allowed)}.")
    return str(value)
