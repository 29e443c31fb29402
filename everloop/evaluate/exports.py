"""Traces as the files that other tools read: tables, OpenAI's samples of evals, items of its Evals API, and conversations to fine-tune on.

Formats: https://github.com/openai/evals (samples.jsonl: "input", "ideal"), OpenAI's Evals API (a data source of {"item", "sample"} lines) and its guide to
supervised fine-tuning ({"messages", "tools"}). An example that is wanted for training must be a whole conversation that went well; the rest is left out and
counted by reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import orjson

from everloop.core.clock import iso
from everloop.core.csv_text import lines
from everloop.core.errors import BadInput, TooLarge
from everloop.core.limits import EXPORT_COLUMNS, EXPORT_ROWS
from everloop.evaluate.conversations import Message, answer, tools, turns

TABLES = ("csv", "jsonl", "parquet")
CONVERSATIONS = ("openai-evals", "openai-eval-items", "fine-tuning")
ROWS = ("traces", "spans", "predictions")
LEVELS = ("trace", "call")
CORRECTIONS = ("correction", "expected_answer", "expected")
"""Names of scores whose text is what should have been answered; the last one counts."""
MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_CONDITION = re.compile(r"\s*(.+?)\s*(>=|<=|!=|=|>|<)\s*(.+?)\s*")

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Condition:
    """What a trace's score must be, as `thumbs >= 1` or `verdict = good`; of several with the name the last counts."""

    name: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """BadInput for what is no condition."""
        if not (read := _CONDITION.fullmatch(text)):
            raise BadInput(f"{text!r} is no condition on a score.", "For example: thumbs >= 1")
        name, sign, value = read.groups()
        if sign not in ("=", "!="):
            try:
                float(value)
            except ValueError:
                raise BadInput(f"{value!r} in {text!r} is no number.", "Use = or != for words: verdict = good") from None
        return cls(name, sign, value.strip("'\""))

    def holds(self, scores: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the last score of that name is so; a trace without one is not."""
        found = [one["value"] for one in scores if one["name"] == self.name]
        if not found:
            return False
        try:
            is_, than = float(found[-1]), float(self.value)
        except (TypeError, ValueError):
            return (str(found[-1]) == self.value) == (self.sign == "=") if self.sign in ("=", "!=") else False
        signs = {">=": is_ >= than, "<=": is_ <= than, "=": is_ == than, "!=": is_ != than, ">": is_ > than, "<": is_ < than}
        return signs[self.sign]


def correction(scores: Iterable[Mapping[str, Any]]) -> str | None:
    """What should have been answered, where somebody scored the trace so; the last one counts."""
    found = [one["value"] for one in scores if one["name"] in CORRECTIONS and isinstance(one["value"], str) and one["value"]]
    return found[-1] if found else None


def table_rows(of: str, item: Mapping[str, Any], trace: Mapping[str, Any] | None) -> Rows:
    """A trace's rows of a table: itself, its spans or its predictions. `item` is it in a list, `trace` the whole of it."""
    if of == "traces":
        yield {**item, "at": iso(item["at"])}
    elif of == "spans":
        yield from ({"trace_id": item["trace_id"], **span} for span in (trace or {}).get("spans", ()))
    else:
        yield from (
            {**one, "at": iso(one["at"])} if isinstance(one.get("at"), int | float) else dict(one) for one in (trace or {}).get("predictions", ())
        )


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table of plain cells: features and outputs of a prediction and scores become columns, other nested values JSON text."""
    made: dict[str, Any] = {}
    prediction = "prediction_id" in row
    for key, value in row.items():
        if key == "scores":
            made.update({f"score.{one['name']}": one["value"] for one in value if one.get("name") != "label" or not prediction})
        elif prediction and key in ("features", "outputs") and isinstance(value, Mapping):
            made.update({f"{key[:-1]}.{name}": cell for name, cell in value.items()})
        else:
            made[key] = value
    return {
        key: value if value is None or isinstance(value, bool | int | float | str) else orjson.dumps(value).decode() for key, value in made.items()
    }


def example(format: str, item: Mapping[str, Any], trace: Mapping[str, Any], level: str) -> dict[str, Any] | str:
    """A trace as a line of `format`, one of CONVERSATIONS; or why it is left out.

    `level`: `call` takes the last call of an LLM, with all that it was sent (system prompt, retrieved text, tools), `trace` what the application was asked
    and answered.
    """
    if item["status"] == "error":
        return "ended in an error"
    if item.get("blocked") or item.get("refused"):
        return "blocked or refused"
    calls = [span for span in trace["spans"] if span["kind"] == "LLM" and span["status"] != "error"]
    source: Mapping[str, Any] = max(calls, key=lambda span: span["start_ns"]) if level == "call" and calls else item
    asked = turns(source["inputs"], "user")
    if not asked or not any(m["role"] == "user" for m in asked):
        return "no conversation"
    corrected = correction(trace["scores"])
    said = answer(source["outputs"])
    wanted: Message | None = {"role": "assistant", "content": corrected} if corrected else said
    if wanted is None:
        return "no answer"
    if format == "fine-tuning":
        told = tools(source)
        return {"messages": [*asked, wanted], **({"tools": told} if told else {})}
    if not isinstance(wanted.get("content"), str) or not wanted["content"]:
        return "no answer in words"
    if format == "openai-evals":
        return {"input": asked, "ideal": wanted["content"], "trace_id": item["trace_id"]}
    return _item(item, asked, wanted, said, corrected)


def _item(item: Mapping[str, Any], asked: list[Message], wanted: Message, said: Message | None, corrected: str | None) -> dict[str, Any]:
    question = next((m["content"] for m in reversed(asked) if m["role"] == "user"), "")
    kept = {key: item[key] for key in ("trace_id", "release", "model", "session", "user") if item.get(key) is not None}
    held = {"question": question, "messages": asked, **({"expected": wanted["content"]} if corrected else {}), **kept}
    return {"item": held, "sample": {"output_text": (said or {}).get("content") or "", "model": item.get("model") or ""}}


class Table:
    """Rows whose columns are known only at the end: they wait as JSON lines in `spool` (read and write, binary) and become a file then."""

    def __init__(self, spool: IO[bytes]) -> None:
        self.spool = spool
        self.kinds: dict[str, str] = {}
        self.count = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take rows. TooLarge over EXPORT_ROWS, BadInput over EXPORT_COLUMNS."""
        for row in rows:
            cells = flat(row)
            for name, value in cells.items():
                if (kind := _kind(value)) and (known := self.kinds.setdefault(name, "")) != kind:
                    self.kinds[name] = kind if not known else "number" if {known, kind} == {"integer", "number"} else "text"
                else:
                    self.kinds.setdefault(name, "")
            self.spool.write(orjson.dumps(cells) + b"\n")
            self.count += 1
        if self.count > EXPORT_ROWS:
            raise TooLarge(f"The selection has more than {EXPORT_ROWS} rows.", "Narrow the range of time and export in parts.")
        if len(self.kinds) > EXPORT_COLUMNS:
            raise BadInput(
                f"The table would have {len(self.kinds)} columns; at most {EXPORT_COLUMNS} can be.", "Export as jsonl, or one endpoint at a time."
            )

    def write(self, format: str, out: IO[bytes]) -> None:
        """Write all rows as csv or parquet."""
        if format == "csv":
            out.write(lines([list(self.kinds)]))
            for part in self._parts():
                out.write(lines([[row.get(name) for name in self.kinds] for row in part]))
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
        schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in self.kinds.items()])
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            for part in self._parts():
                columns = [pa.array([_cell(row.get(name), kind) for row in part], schema.field(name).type) for name, kind in self.kinds.items()]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    def _parts(self, rows: int = 5_000) -> Iterator[list[dict[str, Any]]]:
        self.spool.seek(0)
        part: list[dict[str, Any]] = []
        for line in self.spool:
            part.append(orjson.loads(line))
            if len(part) == rows:
                yield part
                part = []
        if part:
            yield part


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "text"
    if isinstance(value, float):
        return "number"
    return "" if value is None else "text"


def _cell(value: Any, kind: str) -> Any:
    if value is None or kind not in ("text", ""):
        return value if kind != "number" or value is None else float(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def line(row: Mapping[str, Any]) -> bytes:
    """One line of JSON; numbers that JSON does not have become null."""
    return orjson.dumps(row, default=str) + b"\n"


def file_name(format: str, of: str) -> str:
    """What an export is called."""
    return f"{of}.{format}" if format in TABLES else f"{format}.jsonl"
