"""LightGBM models from their own text files: plain data, no pickle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import MissingDependency
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.load import model_file
from everloop.engines.signature import Signature, numbered
from everloop.engines.skops import describe as describe_skops
from everloop.engines.skops import tasked
from everloop.engines.xgboost import classified

ENDINGS = (".lgb", ".txt")


def booster(manifest: Mapping[str, Any], read: Read) -> Any:
    """The manifest's model as a Booster."""
    try:
        import lightgbm
    except ImportError:
        raise MissingDependency("lightgbm", "to serve LightGBM models") from None
    return lightgbm.Booster(model_str=model_file(manifest, ENDINGS, read).decode())


class LightgbmPredictor:
    """A Booster behind the predictor's shape."""

    fast = False

    def __init__(self, model: Any, signature: Signature, classes: list[Any]) -> None:
        self.model, self.signature, self.classes = model, signature, classes
        self.names = [column.name for column in signature.inputs]

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch; a classifier's carry a probability for each class."""
        import numpy as np

        table = np.column_stack([[np.nan if v is None else v for v in batch.columns[name]] for name in self.names]).astype(np.float64)
        return classified(np.asarray(self.model.predict(table, num_threads=1)).reshape(batch.n, -1), self.classes, batch.n)


@engines.add("lightgbm")
def load(manifest: Mapping[str, Any], read: Read) -> LightgbmPredictor:
    """The manifest's LightGBM file as a predictor."""
    return LightgbmPredictor(booster(manifest, read), Signature.from_json(manifest.get("signature") or {}), list(manifest.get("classes") or ()))


@formats.add("lightgbm")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """A LightGBM model: its task and classes from the objective, its columns as it remembers them. One that MLflow's client wrote as skops (of
    LightGBM's scikit-learn classes) is served by that engine."""
    if any(str(file["path"]).endswith(".skops") for file in found["files"]):
        return describe_skops(found, read)
    model = booster(found, read)
    objective = (re.search(r"^objective=(\S+)", model.model_to_string(num_iteration=1), re.MULTILINE) or ["", ""])[1]
    classes = found.get("classes")
    if classes is None and objective in ("binary", "multiclass", "multiclassova", "softmax"):
        classes = list(range(max(2, model.num_model_per_iteration())))
    if objective not in ("binary", "multiclass", "multiclassova", "softmax"):
        classes = None
    signature = found.get("signature") or numbered(model.feature_name(), model.num_feature())
    return {"engine": "lightgbm", **tasked(classes, signature), "objective": objective}
