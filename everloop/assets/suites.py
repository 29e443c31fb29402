"""Suites: what a release is evaluated on. A chat suite's cases are questions with what a good answer looks like, one JSON object a line;
a predictive suite names a labelled dataset and its target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from everloop.assets import catalog, derivations
from everloop.core.errors import BadInput, NotFound
from everloop.core.limits import SUITE_CASES
from everloop.core.refs import cut_part
from everloop.store.records import Tx

TASKS = ("binary", "multiclass", "regression", "clustering", "chat")
CASE_KINDS = ("answerable", "unanswerable", "harmful", "off_topic", "injection")
"""What a good assistant does: answer the first, decline the others (unanswerable ones ask for what the documents do not say)."""
_LISTS = ("expected_sources", "tags")


def checked(manifest: Mapping[str, Any], read: Callable[[str], bytes]) -> tuple[dict[str, Any], bytes | None]:
    """(a suite's manifest, complete; a chat suite's cases as they are to be stored, else None). `read(digest)` gives an object's bytes.

    BadInput for a task there is none of, a predictive suite without dataset or target, or cases that are wrong, by line.
    """
    task = manifest.get("task")
    if task not in TASKS:
        raise BadInput(f"A suite's task cannot be {task!r}.", f"Tasks: {', '.join(TASKS)}.")
    if task != "chat":
        if not manifest.get("dataset"):
            raise BadInput("The suite names no dataset.", 'Give the labelled rows to evaluate on: "dataset": "dataset:credit-holdout@1".')
        if task != "clustering" and not manifest.get("target"):
            raise BadInput("The suite names no target column.", 'For example: "target": "default".')
        return dict(manifest), None
    named = manifest.get("cases")
    if not isinstance(named, Mapping) or not isinstance(named.get("digest"), str):
        raise BadInput("A chat suite needs cases.", 'Put the JSON lines into objects and name them: "cases": {"digest": ...}; the SDK does both.')
    found = parse(read(named["digest"]))
    kinds = {kind: sum(case["kind"] == kind for case in found) for kind in CASE_KINDS}
    full = {**manifest, "count": len(found), "kinds": {kind: n for kind, n in kinds.items() if n}}
    return full, b"".join(orjson.dumps(case, option=orjson.OPT_SORT_KEYS) + b"\n" for case in found)


def link(tx: Tx, suite: Mapping[str, Any]) -> None:
    """Lineage of a predictive suite's data: of all rows of a dataset version, or of the part that it names. Nothing where the data are not there yet."""
    named = suite["manifest"].get("dataset")
    if not named:
        return
    head, part = cut_part(named)
    try:
        held = catalog.get(tx, head)
    except NotFound:
        return
    if part:
        derivations.declare_part(tx, held["ref"], part, held["manifest"], suite["ref"], None)
    else:
        rows = derivations.rows_in(held["manifest"])
        derivations.declare(tx, held["ref"], suite["ref"], "all", count=rows, of=rows, why="a suite asks all rows of its data")


def parse(data: bytes) -> list[dict[str, Any]]:
    """The cases of a chat suite from JSON lines, each complete; BadInput names the line that is wrong."""
    numbered = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            numbered.append((number, orjson.loads(line)))
        except orjson.JSONDecodeError as error:
            raise BadInput(f"Line {number} of the suite is not JSON: {error}.", "One case a line, each an object.") from None
    return cases(numbered)


def cases(numbered: Iterable[tuple[int, Any]]) -> list[dict[str, Any]]:
    """Cases (with the line each stands in), checked and complete: id, question, kind, expected_sources, expected_answer, tags, and what else they have."""
    found: list[dict[str, Any]] = []
    ids: dict[str, int] = {}
    questions: dict[str, int] = {}
    for number, case in numbered:
        full = _case(number, case)
        for what, key, seen in (("id", full["id"], ids), ("question", _asked(full), questions)):
            if key in seen:
                raise BadInput(
                    f"Line {number} of the suite has the same {what} as line {seen[key]}: {key[:80]!r}.", "Each case counts once: drop one."
                )
            seen[key] = number
        found.append(full)
        if len(found) > SUITE_CASES:
            raise BadInput(f"The suite has more than {SUITE_CASES} cases.", "Split it into several suites.")
    if not found:
        raise BadInput("The suite has no cases.", 'One case a line: {"question": "...", "kind": "answerable", "expected_sources": ["page.md"]}')
    return found


def _case(number: int, case: Any) -> dict[str, Any]:
    where = f"Line {number} of the suite"
    if not isinstance(case, Mapping):
        raise BadInput(f"{where} is not an object but {case!r:.80}.", 'A case is {"question": "...", "kind": ...}.')
    question = case.get("question")
    if not case.get("messages") and not (isinstance(question, str) and question.strip()):
        raise BadInput(f"{where} has no question.", 'Give "question" (or "messages" for a conversation).')
    kind = case.get("kind") or "answerable"
    if kind not in CASE_KINDS:
        raise BadInput(f"{where} has the kind {kind!r}.", f"Kinds: {', '.join(CASE_KINDS)}.")
    full = {"id": str(case.get("id") or f"case-{number}"), "question": question or "", "kind": kind, "expected_answer": None, **case}
    full |= {"id": str(full["id"] or f"case-{number}"), "kind": kind}
    for key in _LISTS:
        value = case.get(key) or []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise BadInput(f"{where}: {key} must be a list of texts, not {value!r:.80}.")
        full[key] = value
    answer = full["expected_answer"]
    if answer is not None and not isinstance(answer, str):
        raise BadInput(f"{where}: expected_answer must be a text, not {answer!r:.80}.")
    if kind != "answerable" and (full["expected_sources"] or answer):
        raise BadInput(
            f"{where} is {kind} and expects sources or an answer.", "Only an answerable case expects some; a good assistant declines the others."
        )
    if case.get("messages") is not None and not _conversation(case["messages"]):
        raise BadInput(f"{where}: messages must be a list of objects with role and content, the last of them the user's.")
    return full


def _conversation(messages: Any) -> bool:
    good = isinstance(messages, list) and messages and all(isinstance(m, Mapping) and "role" in m and "content" in m for m in messages)
    return bool(good) and messages[-1]["role"] == "user"


def _asked(case: Mapping[str, Any]) -> str:
    if case.get("messages"):
        return orjson.dumps(case["messages"]).decode()
    return " ".join(str(case["question"]).lower().split())
