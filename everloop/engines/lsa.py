"""Latent semantic analysis: terms weighted by how unevenly they are spread (log-entropy), reduced by a truncated SVD. No download.

Fitted on the documents that it shall find, so it knows their words and no others; terms as in store/words. Saved as npz, without pickle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.engines.base import Read, embedders
from everloop.store.npz import pack, unpack
from everloop.store.synonyms import related, tells
from everloop.store.words import terms

DIMS = 128
LEAST_DIMS, TEXTS_PER_DIM = 8, 3
FEW = 16
"""Up to this many texts are embedded one by one, more as one sparse product."""
VOCABULARY = 60_000
"""Terms kept at most: those that most texts hold."""
POWER_ITERATIONS = 5
RELATED = 0.5
"""Weight in a question's vector of the words that may stand for one of its own, beside that one."""


@embedders.add("lsa")
class Lsa:
    """Settings: `dims` (128) and `seed` (0). The same texts and settings give the same vectors on the same machine."""

    name = "lsa"

    def __init__(self, names: Sequence[str], weights: Any, components: Any, explained: float) -> None:
        self.names = {name: i for i, name in enumerate(names)}
        self.weights, self.components = weights, components
        self.dims = int(components.shape[1])
        self.explained = explained
        """Share of the weighted terms' variance (squared norm) that the dimensions keep, from 0 to 1."""

    @classmethod
    def fit(cls, texts: Sequence[str], settings: Mapping[str, Any]) -> Lsa:
        """Fit on texts. Few texts give fewer dimensions than `dims`, at most one for three texts: more would tell texts apart by chance words.

        BadInput where no text holds a term.
        """
        import numpy as np
        from sklearn.utils.extmath import randomized_svd
        from threadpoolctl import threadpool_limits

        dims, seed = int(settings.get("dims", DIMS)), int(settings.get("seed", 0))
        if dims < 1:
            raise BadInput(f"{dims} dimensions cannot be.", "dims must be 1 or more; 64 to 300 suit most documents.")
        counted = [Counter(terms(text)) for text in texts]
        names = _vocabulary(counted)
        if not names:
            raise BadInput("The documents hold no words to learn from.", "Load documents with text.")
        where = {name: i for i, name in enumerate(names)}
        matrix = _matrix(counted, where)
        weights = _entropy(matrix)
        rows = _weigh(matrix, weights)
        dims = min(dims, max(LEAST_DIMS, len(texts) // TEXTS_PER_DIM), *rows.shape)
        with threadpool_limits(1):  # threads that wait for each other make it slower, not faster, and the sums depend on their number
            _, values, components = randomized_svd(rows, dims, n_iter=POWER_ITERATIONS, random_state=seed)
        total = float(rows.multiply(rows).sum()) or 1.0
        made = np.ascontiguousarray(components.T, dtype=np.float32)
        return cls(names, weights, made, float((values**2).sum() / total))

    def embed(self, texts: Sequence[str]) -> Any:
        """See `Embedder.embed`."""
        import numpy as np

        if len(texts) > FEW:
            out = _weigh(_matrix([Counter(terms(text)) for text in texts], self.names), self.weights) @ self.components
        else:
            out = np.zeros((len(texts), self.dims), np.float32)
            for i, text in enumerate(texts):
                ids, values = self._known(Counter(terms(text)))
                out[i] = np.einsum("i,ij->j", values, self.components[ids])
        length = np.linalg.norm(out, axis=1, keepdims=True)
        return np.divide(out, length, out=np.zeros_like(out), where=length > 1e-9)

    def _known(self, counts: Counter[str]) -> tuple[Any, Any]:
        """(rows of the components, weights) of the terms that it knows."""
        import numpy as np

        found = [(self.names[t], n) for t, n in counts.items() if t in self.names]
        ids = np.array([j for j, _ in found], np.int64)
        return ids, (1 + np.log(np.array([n for _, n in found], np.float32))) * self.weights[ids]

    def asked(self, text: str) -> Any:
        """See `Embedder.asked`: the question's terms, and at RELATED of its weight those that may stand for each (store/synonyms).

        Its length is the root of the length of what the dimensions hold over that of the question's own terms (one that it does not know counts as
        one of a single text), less for fewer than DIMS dimensions: fitted on few texts it tells little.
        """
        import numpy as np

        counts = Counter(terms(text))
        ids, values, whole = [], [], 0.0
        for term, n in counts.items():
            told, known = (1 + float(np.log(n))) * tells(term), self.names.get(term)
            own = told * (1.0 if known is None else float(self.weights[known]))
            whole += own**2
            if known is not None:
                ids.append(known)
                values.append(own)
            others = [self.names[t] for t in related(term) if t in self.names and t not in counts]
            ids += others
            values += [tells(term) * RELATED * float(self.weights[i]) / len(others) ** 0.5 for i in others]
        made = np.einsum("i,ij->j", np.array(values, np.float32), self.components[np.array(ids, np.int64)])
        length = float(np.linalg.norm(made))
        share = min(1.0, length / whole**0.5) ** 0.5 * min(1.0, self.dims / DIMS) if whole else 0.0
        return made * np.float32(share / length) if length > 1e-9 else made

    def save(self) -> bytes:
        """As npz."""
        import numpy as np

        arrays = {"weights": self.weights, "components": self.components, "explained": np.float64(self.explained)}
        return pack(arrays, names=self.names)

    @classmethod
    def load(cls, spec: Mapping[str, Any], read: Read) -> Lsa:
        """See `Embedding.load`; Corrupt for bytes that are not such."""
        found = unpack(read(spec["file"]), ["weights", "components", "explained"], ["names"])
        return cls(found["names"], found["weights"], found["components"], float(found["explained"]))


def _vocabulary(counted: Sequence[Counter[str]]) -> list[str]:
    """Terms that at least two texts hold (one, where there are few texts), the most widespread first where there are too many; sorted."""
    spread: Counter[str] = Counter()
    for one in counted:
        spread.update(one.keys())
    least = 2 if len(counted) >= 20 else 1
    kept = [(-n, term) for term, n in spread.items() if n >= least]
    return sorted(term for _, term in sorted(kept)[:VOCABULARY])


def _matrix(counted: Sequence[Counter[str]], where: Mapping[str, int]) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix

    start, ids, values = [0], [], []
    for one in counted:
        for term, n in one.items():
            if term in where:
                ids.append(where[term])
                values.append(n)
        start.append(len(ids))
    return csr_matrix((np.array(values, np.float32), np.array(ids, np.int32), np.array(start)), shape=(len(counted), len(where)))


def _entropy(matrix: Any) -> Any:
    """Weight of each term: 1 for one that a single text holds, towards 0 for one spread evenly over all."""
    import numpy as np

    columns = matrix.tocsc()
    of = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    share = columns.data / np.bincount(of, weights=columns.data, minlength=columns.shape[1])[of]
    spread = np.bincount(of, weights=share * np.log(share), minlength=columns.shape[1])
    return (1 + spread / np.log(max(2, matrix.shape[0]))).clip(0).astype(np.float32) + np.float32(1e-3)


def _weigh(matrix: Any, weights: Any) -> Any:
    """Rows of log counts times weights, of length 1."""
    import numpy as np

    rows = matrix.copy()
    rows.data = (1 + np.log(rows.data)) * weights[rows.indices]
    of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    length = np.sqrt(np.bincount(of, weights=rows.data**2, minlength=rows.shape[0]))
    rows.data = (rows.data / np.where(length > 0, length, 1)[of]).astype(np.float32)
    return rows
