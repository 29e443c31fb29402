"""The default store: exact search over arrays in memory, text and vector scores added up for every passage.

An index is a list of segments. The first holds what was built at once; each `replace` adds a small one and marks what it replaces as gone,
so that one document is indexed anew without touching the rest. Passages and vectors are Parquet, terms are npz: no pickle.

Hybrid score: half the share of what was asked (in BM25 terms, or at a discount in words that may stand for them) that is there, half the cosine
times the root of the share of the question that the embedder knows. Both are absolute, so a floor (`min_score`) means the same for every query, and neither is bent by how the other ranks;
benchmarks/RESULTS.md has it beside rank fusion.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from everloop.core.errors import Corrupt
from everloop.core.limits import QUERY_CHARS, QUERY_TERMS, RETRIEVE_MAX
from everloop.store.synonyms import NEAR, phrases, related, tells
from everloop.store.vectors import Embedder, Mode, Read, indexed, need_mode, stores
from everloop.store.vectors.coarse import Coarse
from everloop.store.vectors.postings import K1, Postings, rarity
from everloop.store.words import terms

COLUMNS = ("chunk_id", "document", "path", "title", "heading", "position", "page", "text")
FAST = 2_000_000
"""Passages times dimensions up to which a search takes well under two milliseconds."""
COARSE_ABOVE, COARSE_KEPT = 8_000_000, 500
"""Above this many passages times dimensions a quick look (see coarse.py) chooses the passages that are scored exactly."""
FLOOR = 1e-6
SAMPLE = 16
SPARE = 8
"""Passages looked at beyond those asked for, as the same text may stand in several documents."""


class Segment:
    """Passages indexed at once: an Arrow table of their texts, their vectors, their terms; `gone` marks those that no longer count."""

    def __init__(self, table: Any, vectors: Any, postings: Postings, drops: Sequence[str] = (), saved: Mapping[str, Any] | None = None) -> None:
        self.table, self.vectors, self.postings, self.drops, self.saved = table, vectors, postings, list(drops), saved
        self.n = len(vectors)
        self.gone: Any = None
        self.coarse = Coarse(vectors) if vectors.size > COARSE_ABOVE else None

    @classmethod
    def of(cls, chunks: Sequence[Mapping[str, Any]], embedder: Embedder, drops: Sequence[str] = ()) -> Segment:
        """Index passages."""
        import numpy as np
        import pyarrow as pa

        found = [indexed(c) for c in chunks]
        vectors = np.ascontiguousarray(embedder.embed(found), dtype=np.float32)
        columns = {name: [c.get("chunk" if name == "chunk_id" else name) for c in chunks] for name in COLUMNS}
        types = [(name, pa.int32() if name in ("position", "page") else pa.large_string()) for name in COLUMNS]
        return cls(pa.table(columns, schema=pa.schema(types)), vectors, Postings.of(found), drops)

    def without(self, documents: frozenset[str]) -> Segment:
        """The same passages, those of some documents no longer counted."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        gone = pc.is_in(self.table["document"], value_set=pa.array(sorted(documents), pa.large_string())).to_numpy(zero_copy_only=False)
        if not gone.any():
            return self
        made = object.__new__(Segment)
        made.__dict__.update(self.__dict__)
        made.gone = np.asarray(gone, bool) if self.gone is None else self.gone | gone
        return made

    @property
    def count(self) -> int:
        """Passages that count."""
        return self.n - (0 if self.gone is None else int(self.gone.sum()))

    def best(self, asked: Sequence[Mapping[str, float]], ceiling: float, vector: Any, mode: Mode, k: int) -> list[tuple[float, int]]:
        """The best k as (score, row); only scores over FLOOR."""
        import numpy as np

        share = np.float32(0.5 if mode == "hybrid" else 1.0)
        by_vector = mode != "text" and bool(vector.any())
        total = self.postings.score(asked, float(share) / ceiling) if mode != "vector" and ceiling > 0 else None
        coarse = self.coarse if by_vector else None
        if by_vector:
            near = np.einsum("ij,j->i", self.vectors, vector) if coarse is None else coarse.products(vector)
            np.maximum(near, 0, out=near)
            near *= share
            found = near if total is None else np.add(near, total, out=near)
        else:
            found = np.zeros(self.n, np.float32) if total is None else total
        if self.gone is not None:
            found[self.gone] = -1
        rows = _top(found, k if coarse is None else max(COARSE_KEPT, 4 * k))
        scores = found[rows]
        if coarse is not None:
            exact = share * np.maximum(np.einsum("ij,j->i", self.vectors[rows], vector), 0) + (0 if total is None else total[rows])
            scores = np.where(scores < 0, scores, exact)
        order = np.lexsort((rows, -scores))[:k]
        return [(float(scores[i]), int(rows[i])) for i in order if scores[i] > FLOOR]

    def save(self, put: Callable[[bytes], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Store the segment where it is not stored yet; answers its entry in the manifest."""
        if self.saved is None:
            import pyarrow as pa
            import pyarrow.parquet as pq

            flat = pa.array(self.vectors.reshape(-1))
            table = self.table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, max(1, self.vectors.shape[1])))
            out = io.BytesIO()
            texts = {"compression": dict.fromkeys(COLUMNS, "zstd") | {"vector.list.element": "none"}}
            pq.write_table(table, out, use_dictionary=["document", "path", "title", "heading"], write_statistics=False, **texts)
            self.saved = {"chunks": dict(put(out.getvalue())), "terms": dict(put(self.postings.save())), "count": self.n, "drops": self.drops}
        return self.saved

    @classmethod
    def open(cls, entry: Mapping[str, Any], read: Read) -> Segment:
        """A stored segment; Corrupt where its objects are not what they should be."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(pa.BufferReader(read(entry["chunks"]["digest"])))
            column = table["vector"].combine_chunks()
            dims = column.type.list_size
            values = column.flatten().to_numpy(zero_copy_only=False)
            vectors = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, dims)
            table = table.select(COLUMNS).combine_chunks()
        except (pa.ArrowException, KeyError) as error:
            raise Corrupt(f"The index's passages cannot be read: {error}.", "Build the index again.") from error
        postings = Postings.load(read(entry["terms"]["digest"]))
        if not len(vectors) == postings.n == int(entry["count"]):
            raise Corrupt(f"The index holds {len(vectors)} passages and the terms of {postings.n}.", "Build the index again.")
        return cls(table, vectors, postings, entry.get("drops") or (), entry)


@stores.add("arrays")
class Arrays:
    """An index over segments (see the module)."""

    def __init__(self, segments: Sequence[Segment], embedder: Embedder) -> None:
        self.segments, self._embedder = list(segments), embedder
        self.dims = int(self.segments[0].vectors.shape[1])
        self.count = sum(s.count for s in self.segments)
        self.fast = sum(s.vectors.size for s in self.segments) <= FAST
        self._n = max(1, sum(s.n for s in self.segments))
        mean = sum(s.postings.total for s in self.segments) / self._n
        for segment in self.segments:
            if segment.postings.weights is None:
                segment.postings.weigh(mean)

    @classmethod
    def create(cls, chunks: Sequence[Mapping[str, Any]], embedder: Embedder) -> Arrays:
        """Index passages. BadInput is the caller's matter where there are none: this one wants at least one."""
        return cls([Segment.of(chunks, embedder)], embedder)

    @classmethod
    def open(cls, manifest: Mapping[str, Any], read: Read, embedder: Embedder) -> Arrays:
        """A stored index."""
        segments: list[Segment] = []
        for entry in manifest["segments"]:
            drops = frozenset(entry.get("drops") or ())
            segments = [s.without(drops) for s in segments] if drops else segments
            segments.append(Segment.open(entry, read))
        return cls(segments, embedder)

    def search(self, query: str, k: int = 4, mode: Mode = "hybrid") -> list[dict[str, Any]]:
        """See `Index.search`."""
        import numpy as np

        need_mode(mode)
        k = max(1, min(int(k), RETRIEVE_MAX))
        query = query[:QUERY_CHARS]
        asked, ceiling = self._asked(query)
        vector = np.zeros(self.dims, np.float32) if mode == "text" else np.asarray(self._embedder.asked(query), np.float32)
        wanted = k + SPARE
        found = [(-score, s, row) for s, one in enumerate(self.segments) for score, row in one.best(asked, ceiling, vector, mode, wanted)]
        return self._passages(sorted(found)[:wanted], k)

    def weights(self, query: str) -> dict[str, float]:
        """See `Index.weights`."""
        return self._own(query[:QUERY_CHARS])

    def replace(self, chunks: Iterable[Mapping[str, Any]], drop: Iterable[str] = ()) -> Arrays:
        """See `Index.replace`."""
        chunks = list(chunks)
        gone = frozenset(str(c["document"]) for c in chunks) | frozenset(drop)
        return Arrays([*(s.without(gone) for s in self.segments), Segment.of(chunks, self._embedder, sorted(gone))], self._embedder)

    def save(self, put: Callable[[bytes], Mapping[str, Any]]) -> dict[str, Any]:
        """See `Index.save`: {"store", "segments", "chunks" (of the first segment), "count", "files"}."""
        entries = [dict(s.save(put)) for s in self.segments]
        files = []
        for i, entry in enumerate(entries):
            files += [{"path": f"{i}.parquet", **entry["chunks"]}, {"path": f"{i}.terms.npz", **entry["terms"]}]
        return {"store": "arrays", "segments": entries, "chunks": entries[0]["chunks"], "count": self.count, "files": files}

    def _asked(self, query: str) -> tuple[list[dict[str, float]], float]:
        """The query's terms with their weights, each with those that may stand for it, and the BM25 score that a passage full of all of them would
        come near to."""
        own = self._own(query)
        groups = []
        for term, weight in own.items():
            others = {t: NEAR * min(weight, self._rarity(t)) for t in related(term) if t not in own}
            groups.append({term: weight, **others})
        groups += [{term: NEAR * self._rarity(term)} for term in phrases(query) if term not in own]
        return groups, sum(own.values()) * (K1 + 1)

    def _own(self, query: str) -> dict[str, float]:
        counts = Counter(terms(query)).most_common(QUERY_TERMS)
        return {term: times * tells(term) * self._rarity(term) for term, times in counts}

    def _rarity(self, term: str) -> float:
        return rarity(sum(s.postings.found_in(term) for s in self.segments), self._n)

    def _passages(self, found: Sequence[tuple[float, int, int]], k: int) -> list[dict[str, Any]]:
        """The first k of (-score, segment, row) as passages; one with the same text as a better one is left out."""
        texts: dict[tuple[int, int], dict[str, Any]] = {}
        for s in {s for _, s, _ in found}:
            rows = [row for _, segment, row in found if segment == s]
            texts.update(zip([(s, row) for row in rows], self.segments[s].table.take(rows).to_pylist(), strict=True))
        passages: list[dict[str, Any]] = []
        seen: set[str] = set()
        for score, s, row in found:
            one = texts[s, row]
            if one["text"] in seen or len(passages) == k:
                continue
            seen.add(one["text"])
            passage = {
                "n": len(passages) + 1,
                "chunk": one["chunk_id"],
                **{name: one[name] for name in ("document", "path", "title", "heading", "text")},
            }
            passage["score"] = round(min(1.0, -score), 6)
            passages.append(passage if one["page"] is None else {**passage, "page": one["page"]})
        return passages


def _top(scores: Any, k: int) -> Any:
    """Rows of the best k scores, in no order; ties that reach over the edge are cut anywhere.

    Of many, a sample first tells which can be left out: ten times as quick as sorting all.
    """
    import numpy as np

    n = len(scores)
    if k >= n:
        return np.arange(n)
    if n > 64 * k:
        sample = scores[::SAMPLE]
        at = max(0, len(sample) - 2 * k // SAMPLE - 32)
        rows = np.flatnonzero(scores > np.partition(sample, at)[at])
        if len(rows) >= k:
            return rows[np.argpartition(scores[rows], len(rows) - k)[len(rows) - k :]]
    return np.argpartition(scores, n - k)[n - k :]
