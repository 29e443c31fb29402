"""A trace as pages show it: the spans as rows of a tree with their bars, the passages that were found, guardrails' verdicts, messages, usage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from everloop.web.ui.messages import messages
from everloop.web.ui.show import number, text

SPANS_SHOWN = 500
"""Spans of a trace that its page shows."""
DEPTH_SHOWN = 24
_PASSAGE = re.compile(r"retrieval\.documents\.(\d+)\.document\.(.+)")
_NOISE = re.compile(r"retrieval\.documents\.|llm\.(input|output)_messages\.|input\.value|output\.value|(input|output)\.mime_type")


def rows(spans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spans in the order of their tree: [{"span", "depth", "left", "width", "passages", "guard", "facts", "attributes"}]; left and width in %."""
    if not spans:
        return []
    ids = {s["span_id"] for s in spans}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for span in sorted(spans, key=lambda s: (s["start_ns"], s["span_id"])):
        parent = span["parent_id"] if span["parent_id"] in ids and span["parent_id"] != span["span_id"] else None
        below.setdefault(parent, []).append(span)
    begin, end = min(s["start_ns"] for s in spans), max(s["end_ns"] for s in spans)
    whole = max(end - begin, 1)
    made: list[dict[str, Any]] = []
    seen: set[str] = set()
    stack = [(span, 0) for span in reversed(below.get(None, []))]
    while stack and len(made) < SPANS_SHOWN:
        span, depth = stack.pop()
        if span["span_id"] in seen:
            continue
        seen.add(span["span_id"])
        made.append(_row(span, depth, 100 * (span["start_ns"] - begin) / whole, 100 * max(span["end_ns"] - span["start_ns"], 0) / whole))
        stack.extend((child, min(depth + 1, DEPTH_SHOWN)) for child in reversed(below.get(span["span_id"], [])))
    return made


def _row(span: dict[str, Any], depth: int, left: float, width: float) -> dict[str, Any]:
    attributes = span.get("attributes") if isinstance(span.get("attributes"), dict) else {}
    guard = None
    if span.get("kind") == "GUARDRAIL":
        guard = {key: attributes.get(f"guardrail.{key}") for key in ("check", "action", "verdict", "stage", "why")}
    shown = {k: v for k, v in sorted(attributes.items()) if not _NOISE.match(k)}
    return {
        "span": span,
        "depth": depth,
        "left": min(left, 99.5),
        "width": max(width, 0.5),
        "passages": passages(span, attributes),
        "guard": guard,
        "facts": _facts(attributes),
        "attributes": shown,
    }


def passages(span: dict[str, Any], attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """What a retriever found, in order: [{"n", "id", "title", "text", "score"}], from its attributes, else its outputs."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        match = _PASSAGE.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = value
    if not found and span.get("kind") == "RETRIEVER":
        listed = span.get("outputs")
        listed = listed if isinstance(listed, list) else (listed or {}).get("documents") if isinstance(listed, dict) else None
        found = {i: p for i, p in enumerate(listed or []) if isinstance(p, dict)}
    made = []
    for n, p in sorted(found.items())[:50]:
        extra = p.get("metadata") if isinstance(p.get("metadata"), dict) else {}
        title = p.get("title") or extra.get("title") or p.get("path") or extra.get("path") or ""
        made.append(
            {
                "n": n + 1,
                "id": p.get("id") or p.get("chunk"),
                "title": title,
                "text": p.get("content") or p.get("text") or "",
                "score": p.get("score"),
            }
        )
    return made


def usage(spans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tokens, cost and models of the spans that name them (those of leaves alone, where a parent sums its children)."""
    leaves = [s for s in spans if s.get("kind") in ("LLM", "EMBEDDING")] or list(spans)
    add = lambda key: sum(s[key] for s in leaves if isinstance(s.get(key), int | float)) if any(s.get(key) is not None for s in leaves) else None
    return {
        "tokens_in": add("tokens_in"),
        "tokens_out": add("tokens_out"),
        "cost": add("cost"),
        "models": list(dict.fromkeys(str(s["model"]) for s in leaves if s.get("model"))),
    }


def preview(value: Any) -> str:
    """Inputs or outputs in one line: the last message of a chat, the first row of a table (and how many there are)."""
    said = messages(value)
    if said:
        return text(said[-1]["text"], 180)
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        n = max(len(v) for v in value.values())
        first = ", ".join(f"{k} {text(number(v[0]), 24)}" for k, v in list(value.items())[:4] if v)
        return f"{n:,} rows: {first} \u2026" if n > 1 else first
    return "" if value is None else text(value, 180)


def columns(predictions: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The names that a table of predictions has: {"features", "outputs"}."""
    names: dict[str, list[str]] = {}
    for side in ("outputs", "features"):
        keys: dict[str, None] = {}
        for p in predictions:
            keys.update(dict.fromkeys(p[side] if isinstance(p.get(side), dict) else {}))
        names[side] = list(keys)[:40]
    return names


def _facts(attributes: dict[str, Any]) -> list[tuple[str, Any]]:
    names = (
        ("llm.model_name", "model"),
        ("llm.provider", "provider"),
        ("llm.token_count.prompt", "tokens in"),
        ("llm.token_count.completion", "tokens out"),
        ("llm.cost.total", "cost"),
        ("embedding.model_name", "model"),
        ("tool.name", "tool"),
    )
    return [(shown, attributes[key]) for key, shown in names if attributes.get(key) not in (None, "")]
