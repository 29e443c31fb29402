"""How streamed answers are read: closed by whoever stops reading, and begun before their first byte is promised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext
from typing import Any

from everloop.core.types import Chunk


def reading(outputs: Any) -> Any:
    """`async with reading(outputs) as source`: the stream is closed at the end of the block, so that what is upstream is let go at once."""
    return aclosing(outputs) if hasattr(outputs, "aclose") else nullcontext(outputs)


class Begun:
    """Chunks of a stream, the first one drawn already. Closing it closes the stream, also where nothing was read."""

    def __init__(self, first: Chunk | None, rest: Any) -> None:
        self._first, self._rest = first, rest

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        chunk: Chunk = await anext(self._rest)
        return chunk

    async def aclose(self) -> None:
        """End the stream: what is upstream is let go, what was said is recorded."""
        await self._rest.aclose()


async def begun(outputs: Any) -> Begun:
    """Draw the first chunk of a stream; raises what the stream raises before it."""
    try:
        return Begun(await anext(outputs, None), outputs)
    except BaseException:
        await outputs.aclose()
        raise
