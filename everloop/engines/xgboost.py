"""XGBoost models from their own JSON or UBJ files: plain data, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput, MissingDependency
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.load import model_file
from everloop.engines.signature import Signature, numbered
from everloop.engines.skops import tasked

ENDINGS = (".ubj", ".json", ".xgb")


def booster(manifest: Mapping[str, Any], read: Read) -> Any:
    """The manifest's model as a Booster of one thread."""
    try:
        import xgboost
    except ImportError:
        raise MissingDependency("xgboost", "to serve XGBoost models") from None
    data = model_file(manifest, ENDINGS, read)
    made = xgboost.Booster({"nthread": 1})
    made.load_model(bytearray(data))
    return made


class XgboostPredictor:
    """A Booster behind the predictor's shape; probabilities where its objective gives them."""

    fast = False

    def __init__(self, model: Any, signature: Signature, classes: list[Any]) -> None:
        self.model, self.signature, self.classes = model, signature, classes
        self.names = [column.name for column in signature.inputs]

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch; a classifier's carry a probability for each class."""
        import numpy as np

        table = np.column_stack([[np.nan if v is None else v for v in batch.columns[name]] for name in self.names]).astype(np.float32)
        found = np.asarray(self.model.inplace_predict(table, validate_features=False)).reshape(batch.n, -1)
        return classified(found, self.classes, batch.n)


def classified(found: Any, classes: list[Any], n: int) -> Predictions:
    """Rows of probabilities (one column: of the second class) or of values, as named columns."""
    import numpy as np

    from everloop.core.labels import label

    if not classes:
        return Predictions({"prediction": found[:, 0].astype(float).tolist()}, n)
    if found.shape[1] == 1:
        found = np.column_stack([1 - found[:, 0], found[:, 0]])
    columns: dict[str, Any] = {"prediction": [classes[i] for i in found.argmax(axis=1)]}
    columns |= {f"probability_{label(c)}": found[:, i].astype(float).tolist() for i, c in enumerate(classes)}
    return Predictions(columns, n)


@engines.add("xgboost")
def load(manifest: Mapping[str, Any], read: Read) -> XgboostPredictor:
    """The manifest's XGBoost file as a predictor."""
    return XgboostPredictor(booster(manifest, read), Signature.from_json(manifest.get("signature") or {}), list(manifest.get("classes") or ()))


@formats.add("xgboost")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """An XGBoost model: its task and classes from the objective, its columns as it remembers them. BadInput for objectives that give neither
    values nor probabilities a row."""
    model = booster(found, read)
    config = json.loads(model.save_config())["learner"]
    objective, classes = str(config["objective"]["name"]), found.get("classes")
    if objective == "multi:softmax":
        raise BadInput("An XGBoost model with the objective multi:softmax gives no probabilities.", "Train it with multi:softprob.")
    if classes is None and objective in ("binary:logistic", "multi:softprob"):
        classes = list(range(max(2, int(config["learner_model_param"].get("num_class") or 0))))
    if objective in ("binary:logitraw", "binary:hinge") or objective.startswith("rank:"):
        classes = None
    signature = found.get("signature") or numbered(model.feature_names, model.num_features())
    return {"engine": "xgboost", **tasked(classes, signature), "objective": objective}
