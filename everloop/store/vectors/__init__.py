"""Where passages are found: the contract of an index, and the registry of stores that keep one. The default is `arrays`.

A store is one file here, or an entry point `vectors.<name>` of group `everloop`. An index's manifest names its store in `store` ("arrays"
where it says nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from everloop.core.errors import BadInput
from everloop.core.registry import Registry

Mode = Literal["hybrid", "text", "vector"]
MODES = ("hybrid", "text", "vector")
Read = Callable[[str], bytes]
"""Reads an object by its digest."""


class Embedder(Protocol):
    """What an index asks of an embedder (engines/base has the whole contract)."""

    def embed(self, texts: Sequence[str]) -> Any:
        """A float32 array of unit rows (a row of zeros where a text says nothing to the embedder)."""

    def asked(self, text: str) -> Any:
        """A question's vector. Its length, from 0 to 1, says how much of it the embedder takes in: its nearness counts for less where that is little."""


class Index(Protocol):
    """Passages that can be searched, from any thread. `fast`: one search takes well under two milliseconds."""

    count: int
    dims: int
    fast: bool

    def search(self, query: str, k: int = 4, mode: Mode = "hybrid") -> list[dict[str, Any]]:
        """The best k passages: {"n", "chunk", "document", "path", "title", "heading", "text", "score", "page"?}, best first.

        A text that stands in several documents is given once. `score` is from 0 to 1 and means the same for every query: how near, and how much of what was asked for is there.
        """

    def weights(self, query: str) -> dict[str, float]:
        """The query's terms with how much each tells: the fewer passages hold it, the more (from 0 up); less for words that people need to ask at all."""

    def replace(self, chunks: Iterable[Mapping[str, Any]], drop: Iterable[str] = ()) -> Index:
        """An index in which the documents of these chunks stand anew, and those of `drop` are gone. This one stays as it is."""

    def save(self, put: Callable[[bytes], Mapping[str, Any]]) -> dict[str, Any]:
        """Store what is not stored yet; answers the parts of the manifest that `open` needs. `put(bytes)` answers {"digest", "size"}."""


stores: Registry[Any] = Registry("vectors", "everloop.store.vectors")
"""Each entry is a class with `create(chunks, embedder)` and `open(manifest, read, embedder)`, both answering an Index."""


def open_index(manifest: Mapping[str, Any], read: Read, embedder: Embedder) -> Index:
    """The index that a manifest describes, loaded and ready. Blocking. BadInput for a manifest that is none; Corrupt for damaged objects."""
    try:
        opened: Index = stores.get(str(manifest.get("store") or "arrays")).open(manifest, read, embedder)
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"This is no index's manifest: {error} is missing or wrong.", "Build one with the pipeline step everloop.build.index:build."
        ) from error
    return opened


def need_mode(mode: str) -> None:
    """BadInput for a way of searching that there is not."""
    if mode not in MODES:
        raise BadInput(f"There is no way of searching called {mode!r}.", f"There are: {', '.join(MODES)}.")


def indexed(chunk: Mapping[str, Any]) -> str:
    """The text by which a passage is found: its document's title and its headings belong to it."""
    parts = [str(chunk.get("title") or ""), str(chunk.get("heading") or ""), str(chunk["text"])]
    return "\n".join(part for part in parts if part)
