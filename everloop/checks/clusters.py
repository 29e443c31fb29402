"""How well groups that a model found hold together: silhouette and the smallest group's share, with intervals, on rows without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks.base import GATE, Estimate, Metric, NotAssessable
from everloop.core.limits import SILHOUETTE_ROWS
from everloop.core.types import Results


def points(features: Any) -> np.ndarray:
    """Rows as points: numbers standardised (missing ones at the median), text one column a value (the 30 most frequent)."""
    columns = []
    for values in features.values():
        array = np.asarray(values)
        if array.dtype.kind in "iufb":
            x = array.astype(float)
            there = np.isfinite(x)
            x = np.where(there, x, np.median(x[there]) if there.any() else 0.0)
            columns.append((x - x.mean()) / (x.std() or 1.0))
            continue
        text = np.asarray(["" if v is None else str(v) for v in array])
        names, counts = np.unique(text, return_counts=True)
        columns += [(text == name).astype(float) for name in names[np.argsort(-counts, kind="stable")][:30]]
    return np.stack(columns, axis=1) if columns else np.zeros((0, 0))


@checks.add("silhouette")
@dataclass(frozen=True)
class Silhouette(Metric):
    """Mean silhouette of the rows' clusters (Rousseeuw, 1987): near 1 they lie apart, near 0 they touch, below 0 rows lie in the wrong one.

    Over SILHOUETTE_ROWS rows at most, evenly taken, on standardised numbers and one-hot text; the interval is a bootstrap over rows.
    """

    name: ClassVar[str] = "silhouette"
    stages: ClassVar[tuple[str, ...]] = (GATE,)
    tasks: ClassVar[tuple[str, ...]] = ("clustering",)
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0

    def terms(self, results: Results) -> np.ndarray:
        """The silhouette of each row that is looked at."""
        from sklearn.metrics import silhouette_samples

        if results.prediction is None or not results.features:
            raise NotAssessable("the release gives no clusters, or the suite keeps no features")
        said = np.asarray(results.prediction).astype(str)
        some = np.unique(np.linspace(0, len(said) - 1, min(len(said), SILHOUETTE_ROWS)).astype(int))
        if not 1 < len(set(said[some])) < len(some):
            raise NotAssessable("all rows fall into one cluster, or each into its own")
        return np.asarray(silhouette_samples(points(results.features)[some], said[some]), float)


@checks.add("smallest_cluster")
@dataclass(frozen=True)
class SmallestCluster(Metric):
    """Share of rows in the smallest cluster that any row falls into."""

    name: ClassVar[str] = "smallest_cluster"
    stages: ClassVar[tuple[str, ...]] = (GATE,)
    tasks: ClassVar[tuple[str, ...]] = ("clustering",)
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def terms(self, results: Results) -> np.ndarray:
        """Membership by cluster."""
        if results.prediction is None:
            raise NotAssessable("the release gives no clusters")
        said = np.asarray(results.prediction).astype(str)
        return (said[:, None] == np.unique(said)[None, :]).astype(float)

    def combine(self, means: np.ndarray) -> np.ndarray:
        """The smallest share."""
        return np.asarray(means.min(axis=-1))

    def difference(self, candidate: Results, champion: Results, confidence: float = 0.95) -> Estimate:
        """Not compared: two releases may have different numbers of clusters."""
        raise NotAssessable("smallest_cluster is not compared between releases, whose numbers of clusters may differ")
