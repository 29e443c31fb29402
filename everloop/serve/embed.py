"""Texts as vectors by the embedder that an index was made with."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.engines.base import Embedder, embedders

KEPT = 8
"""Embedders that stay loaded; the one used longest ago goes first."""
_loaded: dict[tuple[str, str, str], Embedder] = {}
_lock = threading.Lock()


def embedded(objects: Any, project: str, index: Mapping[str, Any], texts: Sequence[str], dimensions: int | None = None) -> Any:
    """The texts' vectors, one row each, float32, of length 1 (zeros where the embedder knows no word of a text). Blocking.

    `index` is the asset, `dimensions` how many of the vectors' numbers to keep. BadInput where there are not so many.
    """
    vectors = embedder(objects, project, index).embed(texts)
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    if not isinstance(dimensions, int) or not 1 <= dimensions <= vectors.shape[1]:
        raise BadInput(f"dimensions is {dimensions!r}; the embedder of {index['ref']} has {vectors.shape[1]}.", "Ask for fewer.", param="dimensions")
    import numpy as np

    cut = vectors[:, :dimensions]
    length = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.divide(cut, length, out=np.zeros_like(cut), where=length > 0)


def embedder(objects: Any, project: str, index: Mapping[str, Any]) -> Embedder:
    """The embedder of an index's asset, loaded once. Blocking. BadInput for an index that has none."""
    spec = index["manifest"].get("embedder")
    if not isinstance(spec, Mapping) or not spec.get("name"):
        raise BadInput(f"{index['ref']} has no embedder.", "Build an index with the pipeline step everloop.build.index:build.")
    key = (str(objects.root) if hasattr(objects, "root") else str(id(objects)), project, str(spec.get("file") or index["digest"]))
    with _lock:
        found = _loaded.pop(key, None)
    if found is None:
        found = embedders.get(str(spec["name"])).load(spec, lambda digest: objects.get(project, digest))
    with _lock:
        _loaded[key] = found
        while len(_loaded) > KEPT:
            _loaded.pop(next(iter(_loaded)))
    return found
