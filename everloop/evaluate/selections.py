"""What traces become when they are kept for later: rows of a dataset, cases of a suite; and what a trace was asked, answered and given to read."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from everloop.core.clock import iso
from everloop.engines.chat import text_of
from everloop.evaluate.conversations import Message, answer, turns
from everloop.evaluate.exports import CORRECTIONS, Table, correction

_DOCUMENT = re.compile(r"retrieval\.documents\.(\d+)\.document\.content")
PREDICT = "PREDICT"
Rows = list[dict[str, Any]]


def question_of(inputs: Any) -> tuple[str, list[Message]]:
    """(the last thing that a user said, the conversation up to it without system messages); ("", []) where the inputs are no conversation."""
    asked = [m for m in turns(inputs, "user") or [] if m["role"] != "system"]
    last = next((i for i in range(len(asked) - 1, -1, -1) if asked[i]["role"] == "user"), None)
    return ("", []) if last is None else (text_of(asked[last].get("content")), asked[: last + 1])


def answer_of(outputs: Any) -> str:
    """The text of an answer; "" where there is none."""
    said = answer(outputs)
    return text_of(said.get("content")) if said else ""


def sources_of(trace: Mapping[str, Any]) -> list[str]:
    """The texts that a trace's retrievers found, in their order."""
    found = []
    for span in trace.get("spans", ()):
        attributes = span.get("attributes") or {}
        places = {int(read[1]): str(value) for key, value in attributes.items() if (read := _DOCUMENT.fullmatch(key))}
        found += [places[place] for place in sorted(places)]
    return found


def trace_row(item: Mapping[str, Any]) -> dict[str, Any]:
    """A trace as a row: what was asked and answered, what should have been, its inputs and outputs whole, and its scores (`score_NAME`)."""
    told = {key: item[key] for key in ("trace_id", "endpoint", "release", "session", "user")}
    row = {**told, "at": iso(item["at"]), "question": question_of(item["inputs"])[0] or None, "answer": answer_of(item["outputs"]) or None}
    row |= {"expected": correction(item["scores"]), "inputs": _cell(item["inputs"]), "outputs": _cell(item["outputs"])}
    return row | {f"score_{one['name']}": _cell(one["value"]) for one in item["scores"] if one["name"] not in CORRECTIONS}


def prediction_rows(trace: Mapping[str, Any]) -> Rows:
    """A trace's predictions as rows: the features by their names, the outputs (`output_NAME`), the label where one came."""
    rows = []
    for one in trace["predictions"]:
        row = {"prediction_id": one["prediction_id"], "trace_id": trace["trace_id"], "release": one["release"], "at": iso(one["at"])}
        row |= {(f"feature_{k}" if k in row or k == "label" else k): _cell(v) for k, v in (one["features"] or {}).items()}
        row |= {f"output_{k}": _cell(v) for k, v in (one["outputs"] or {}).items()}
        rows.append({**row, "label": _cell(one["label"])})
    return rows


def case(item: Mapping[str, Any], tags: Sequence[str] = ()) -> dict[str, Any] | str:
    """A trace as a case of a chat suite, or why it cannot be one. The expected answer is a correction that somebody gave, else none."""
    asked, messages = question_of(item["inputs"])
    if not asked.strip():
        return "no question"
    made = {"id": item["trace_id"], "trace_id": item["trace_id"], "question": asked, "kind": "answerable", "tags": list(tags)}
    made["expected_answer"] = correction(item["scores"])
    return made | ({"messages": messages} if len(messages) > 1 else {})


def same_question(one: Mapping[str, Any]) -> str:
    """What makes two cases the same: the conversation, or the question's words."""
    return orjson.dumps(one["messages"]).decode() if one.get("messages") else " ".join(str(one["question"]).lower().split())


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file: every column any of them has; one whose values differ in kind is text."""
    made, out = Table(io.BytesIO()), io.BytesIO()
    made.add(rows)
    made.write("parquet", out)
    return out.getvalue()


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else orjson.dumps(value, default=str).decode()
