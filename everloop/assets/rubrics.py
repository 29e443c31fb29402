"""Rubrics: the questions that annotators answer about an item, checked when a queue is made, and answers checked against them.

A question is {"name", "type", "instructions"?, "required"?}: type `class` with "classes" (and "ordered": true where their order counts), `score`
with "min" and "max" (whole numbers unless "step" says otherwise), or `text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.limits import LABEL_CHARS, QUEUE_CLASSES, QUEUE_QUESTIONS

TYPES = ("class", "score", "text")
_NAME = re.compile(r"[A-Za-z][\w\- ]{0,79}")
EXAMPLE = 'For example: [{"name": "quality", "type": "class", "classes": ["good", "bad"]}]'


def checked(rubric: Any) -> list[dict[str, Any]]:
    """The questions, complete; BadInput names the one that cannot be, and why."""
    if not isinstance(rubric, Sequence) or isinstance(rubric, str) or not rubric:
        raise BadInput("A queue needs a rubric: the questions that annotators answer.", EXAMPLE)
    if len(rubric) > QUEUE_QUESTIONS:
        raise BadInput(f"The rubric has {len(rubric)} questions; at most {QUEUE_QUESTIONS} are allowed.")
    made = [_question(i, one) for i, one in enumerate(rubric, 1)]
    names = [one["name"] for one in made]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"The rubric asks {name!r} twice.", "Give each question a name of its own.")
    return made


def _question(number: int, one: Any) -> dict[str, Any]:
    if not isinstance(one, Mapping) or not isinstance(one.get("name"), str) or not _NAME.fullmatch(one["name"]):
        raise BadInput(f"Question {number} of the rubric has no name that can be a column.", f"Begin it with a letter. {EXAMPLE}")
    name, kind = one["name"], one.get("type") or ("class" if one.get("classes") else "text")
    if kind not in TYPES:
        raise BadInput(f"The question {name!r} has the type {kind!r}.", f"Types: {', '.join(TYPES)}.")
    full = {"name": name, "type": kind, "instructions": str(one.get("instructions") or ""), "required": bool(one.get("required", kind != "text"))}
    if kind == "class":
        classes = one.get("classes")
        if not isinstance(classes, Sequence) or isinstance(classes, str):
            raise BadInput(f"The question {name!r} needs a list of classes.", EXAMPLE)
        classes = [str(c).strip() for c in classes]
        if not 2 <= len(classes) <= QUEUE_CLASSES or len(set(classes)) != len(classes) or not all(classes):
            raise BadInput(f"The question {name!r} needs 2 to {QUEUE_CLASSES} different classes; it has: {', '.join(classes) or 'none'}.")
        return {**full, "classes": classes, "ordered": bool(one.get("ordered", False))}
    if kind == "score":
        low, high, step = one.get("min", 1), one.get("max", 5), one.get("step", 1)
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (low, high, step)) or not low < high or step <= 0:
            raise BadInput(f"The question {name!r} needs min below max and a step above 0; they are {low!r}, {high!r} and {step!r}.")
        return {**full, "min": low, "max": high, "step": step}
    return full


def question(text: str) -> dict[str, Any]:
    """A question as people write it in a line: `quality=good,bad` (classes), `quality=bad<good` (in order), `score=1..5` or `note` (a text)."""
    name, sign, rest = (part.strip() for part in text.partition("="))
    if not sign:
        return {"name": name, "type": "text"}
    if ".." in rest:
        low, _, high = rest.partition("..")
        try:
            return {"name": name, "type": "score", "min": int(low), "max": int(high)}
        except ValueError:
            raise BadInput(f"The question {text!r} gives no range of whole numbers.", "For example: score=1..5") from None
    ordered = "<" in rest
    return {"name": name, "type": "class", "classes": [c.strip() for c in rest.split("<" if ordered else ",")], "ordered": ordered}


def level(question: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How the answers to a question compare: (level of measurement, order of its values)."""
    if question["type"] == "score":
        return "interval", []
    return ("ordinal", list(question["classes"])) if question.get("ordered") else ("nominal", [])


def answers(rubric: Sequence[Mapping[str, Any]], values: Any) -> dict[str, Any]:
    """The answers to a rubric, each of its type; questions without an answer are left out. BadInput names the question and what it takes."""
    if not isinstance(values, Mapping):
        raise BadInput(f"Labels must be an object of answers by question, not {values!r}.", f'Send {{"{rubric[0]["name"]}": ...}}.')
    known = {one["name"]: one for one in rubric}
    for name in values:
        if name not in known:
            raise BadInput(f"The rubric does not ask {name!r}.", f"It asks: {', '.join(known)}.")
    made = {}
    for name, question in known.items():
        value = values.get(name)
        if value is None or value == "":
            if question["required"]:
                raise BadInput(f"The question {name!r} has no answer.", _takes(question))
            continue
        made[name] = _answer(question, value)
    if not made:
        raise BadInput("No question is answered.", f"The rubric asks: {', '.join(known)}.")
    return made


def _answer(question: Mapping[str, Any], value: Any) -> Any:
    wrong = BadInput(f"The question {question['name']!r} cannot be answered by {str(value)[:80]!r}.", _takes(question))
    if question["type"] == "class":
        if str(value) not in question["classes"]:
            raise wrong
        return str(value)
    if question["type"] == "text":
        if len(str(value)) > LABEL_CHARS:
            raise BadInput(f"The answer to {question['name']!r} has {len(str(value))} characters; at most {LABEL_CHARS} are allowed.")
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    steps = (number - question["min"]) / question["step"]
    if isinstance(value, bool) or not question["min"] <= number <= question["max"] or abs(steps - round(steps)) > 1e-6:
        raise wrong
    return int(number) if number == int(number) else number


def _takes(question: Mapping[str, Any]) -> str:
    if question["type"] == "class":
        return f"It takes one of: {', '.join(question['classes'])}."
    if question["type"] == "score":
        return f"It takes a number from {question['min']} to {question['max']}, in steps of {question['step']}."
    return "It takes a text."


def resolved(question: Mapping[str, Any], given: Sequence[Any]) -> Any:
    """One answer of several: the class that most gave (None where two tie), the mean of scores, texts one under the other; None of none."""
    if not given:
        return None
    if question["type"] == "score":
        return sum(given) / len(given)
    if question["type"] == "text":
        return "\n".join(dict.fromkeys(given))
    counts = sorted(((given.count(c), c) for c in set(given)), reverse=True)
    return counts[0][1] if len(counts) == 1 or counts[0][0] > counts[1][0] else None
