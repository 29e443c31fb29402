"""Which passages hold a term, and how often: BM25 over sorted arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.store.npz import pack, unpack
from everloop.store.words import terms

K1, B = 1.5, 0.75
"""BM25's saturation and length normalisation; the ranking on Cranfield is flat around them."""


ARRAYS = ("start", "ids", "counts", "lengths")


class Postings:
    """The terms of n passages. `ids[start[t]:start[t + 1]]` are the passages with term t, `counts` how often; `lengths` in terms, by passage."""

    def __init__(self, names: Sequence[str], start: Any, ids: Any, counts: Any, lengths: Any) -> None:
        self.names = {name: i for i, name in enumerate(names)}
        self.start, self.ids, self.counts, self.lengths = start, ids, counts, lengths
        self.n = len(lengths)
        self.total = int(lengths.sum())
        self.weights: Any = None

    @classmethod
    def of(cls, texts: Sequence[str]) -> Postings:
        """Count the terms of texts."""
        import numpy as np

        names: dict[str, int] = {}
        flat: list[int] = []
        lengths = np.zeros(len(texts), np.int32)
        for i, text in enumerate(texts):
            found = terms(text)
            lengths[i] = len(found)
            for term in found:
                flat.append(names.setdefault(term, len(names)))
        order = sorted(names)
        rank = np.zeros(max(1, len(names)), np.int64)
        rank[[names[name] for name in order]] = np.arange(len(names))
        keys = rank[np.array(flat, np.int64)] * max(1, len(texts)) + np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
        keys, counts = np.unique(keys, return_counts=True)
        rows, ids = np.divmod(keys, max(1, len(texts)))
        start = np.zeros(len(order) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(order)), out=start[1:])
        return cls(order, start, ids.astype(np.int32), np.minimum(counts, 65_535).astype(np.uint16), lengths)

    def found_in(self, term: str) -> int:
        """How many passages hold a term."""
        row = self.names.get(term)
        return 0 if row is None else int(self.start[row + 1] - self.start[row])

    def weigh(self, mean: float) -> None:
        """Work out what each occurrence counts for, given the mean length of all passages."""
        import numpy as np

        norm = (K1 * (1 - B + B * self.lengths / max(mean, 1e-9))).astype(np.float32)
        tf = self.counts.astype(np.float32)
        self.weights = tf * np.float32(K1 + 1) / (tf + norm[self.ids])

    def score(self, asked: Sequence[Mapping[str, float]], times: float = 1.0) -> Any:
        """BM25 of every passage, times a factor, as a float32 array. Each of `asked` are terms with their weights that may stand for one another: of
        them the one counts that scores most."""
        import numpy as np

        scores = np.zeros(self.n, np.float32)
        best: Any = None
        for group in asked:
            found = [(row, np.float32(weight * times)) for term, weight in group.items() if (row := self.names.get(term)) is not None]
            if len(found) > 1:
                best = np.zeros(self.n, np.float32) if best is None else best
                best.fill(0)
            for row, weight in found:
                a, b = self.start[row], self.start[row + 1]
                ids = self.ids[a:b]
                if len(found) == 1:
                    scores[ids] += weight * self.weights[a:b]
                else:
                    best[ids] = np.maximum(best[ids], weight * self.weights[a:b])
            if len(found) > 1:
                scores += best
        return scores

    def save(self) -> bytes:
        """As npz, without pickle."""
        return pack({name: getattr(self, name) for name in ARRAYS}, names=self.names)

    @classmethod
    def load(cls, data: bytes) -> Postings:
        """The inverse of `save`; Corrupt for bytes that are not such."""
        return cls(**unpack(data, ARRAYS, ["names"]))


def rarity(found_in: int, n: int) -> float:
    """How much a term tells that `found_in` of n passages hold (BM25's inverse document frequency, never negative)."""
    return math.log(1 + (n - found_in + 0.5) / (found_in + 0.5))
