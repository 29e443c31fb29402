"""Tool calls in OpenAI's shape, as they come in a stream: a first piece with id and name, then pieces of the arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ToolCalls:
    """Pieces of streamed tool calls, put together by their index."""

    def __init__(self) -> None:
        self._made: dict[int, dict[str, Any]] = {}

    def add(self, pieces: Sequence[Mapping[str, Any]]) -> None:
        """Take in the tool calls of one chunk; a whole call without an index is one of its own."""
        for piece in pieces:
            index = int(piece.get("index", len(self._made)))
            made = self._made.setdefault(index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
            made["id"] = piece.get("id") or made["id"]
            made["type"] = piece.get("type") or made["type"]
            function = piece.get("function") or {}
            made["function"]["name"] += function.get("name") or ""
            made["function"]["arguments"] += function.get("arguments") or ""

    def calls(self) -> tuple[dict[str, Any], ...]:
        """The calls so far, in order."""
        return tuple(self._made[index] for index in sorted(self._made))


def pieces_of(calls: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Whole tool calls as a stream's chunk carries them: with their index."""
    return tuple({"index": index, **call} for index, call in enumerate(calls))
