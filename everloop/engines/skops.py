"""scikit-learn models from skops files: no pickle, and only types of scikit-learn, numpy and scipy are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.load import model_file
from everloop.engines.signature import Signature, numbered, to_frame, type_of

TRUSTED_ROOTS = ("sklearn.", "numpy.", "scipy.")
"""Packages whose types a file may hold."""
TRUSTED = (
    "functools.partial",
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
)
"""Types of other packages that a file may hold: they are built from plain values (a LightGBM model from its text)."""
NEVER = ("numpy.f2py", "numpy.distutils", "numpy.testing", "sklearn.externals", "scipy._lib", "numpy.ctypeslib", "sklearn.datasets", "scipy.datasets")
"""Parts of them that no model needs and that could do more than compute."""


def trusted_types(data: bytes) -> list[str]:
    """The types in a skops file beyond skops' own safe list; BadInput names those outside scikit-learn, numpy and scipy."""
    import skops.io

    try:
        types = skops.io.get_untrusted_types(data=data)
    except Exception as error:
        raise BadInput(f"The file is not a readable skops file: {type(error).__name__}: {error}") from error
    refused = [t for t in types if not _harmless(t)]
    if refused:
        raise BadInput(
            f"The model holds types that are not trusted: {', '.join(refused[:10])}.",
            "Models may be built of scikit-learn, numpy and scipy types; register code of your own as a code asset and serve it from a worker.",
            types=refused[:50],
        )
    return list(types)


def _harmless(name: str) -> bool:
    """Whether a type may be built: a class or ufunc of numpy or scipy, anything of scikit-learn that computes, or a partial of those.

    Plain functions of numpy and scipy are out, since some read and write files.
    """
    if name in TRUSTED:
        return True
    if not name.startswith(TRUSTED_ROOTS) or name.startswith(NEVER):
        return False
    if name.startswith("sklearn."):
        return True
    import importlib

    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) or type(found).__name__ == "ufunc"


def loads(data: bytes) -> Any:
    """The estimator in a skops file, after `trusted_types` let it pass."""
    import skops.io

    model = skops.io.loads(data, trusted=trusted_types(data))
    _sound_trees(model)
    return model


def _sound_trees(model: Any) -> None:
    """BadInput where a tree's nodes point out of it: scikit-learn follows them unchecked, so a made-up file could read foreign memory or end the process."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if type(part).__module__ == "sklearn.tree._tree" and type(part).__name__ == "Tree":
            _sound(part)
        elif isinstance(part, (list, tuple, set)):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif type(part).__name__ == "ndarray" and part.dtype == object:
            waiting.extend(part.ravel().tolist())
        elif type(part).__name__ == "TreePredictor":
            nodes = part.nodes
            inner = nodes[nodes["is_leaf"] == 0]
            if len(inner) and not (_within(inner["left"], len(nodes)) and _within(inner["right"], len(nodes))):
                raise BadInput("A tree of the model points to nodes that it has not.", "The file is damaged, or made up. Log the model again.")
        elif type(part).__module__.startswith(("sklearn.", "lightgbm.")) and hasattr(part, "__dict__"):
            waiting.extend(vars(part).values())


def _sound(tree: Any) -> None:
    """BadInput where a node's children are none of the tree's, lead backwards, or its feature is none of the model's."""
    left, right, inner = tree.children_left, tree.children_right, tree.children_left != -1
    own = inner.nonzero()[0]
    ahead = bool((left[inner] > own).all() and (right[inner] > own).all())
    features = tree.feature[inner]
    if not (ahead and _within(left[inner], tree.node_count) and _within(right[inner], tree.node_count) and _within(features, tree.n_features)):
        raise BadInput("A tree of the model points to nodes or columns that it has not.", "The file is damaged, or made up. Log the model again.")


def _within(values: Any, end: int) -> bool:
    return not len(values) or bool((values >= 0).all() and (values < end).all())


class SkopsPredictor:
    """A scikit-learn estimator behind the predictor's shape."""

    fast = False

    def __init__(self, model: Any, signature: Signature) -> None:
        self.model, self.signature = model, signature
        self.by_name = getattr(model, "feature_names_in_", None) is not None
        classes = getattr(model, "classes_", None)
        self.names = None if classes is None else [f"probability_{label(c)}" for c in classes]
        self.probabilities = classes is not None and hasattr(model, "predict_proba")

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch; a classifier's carry a probability for each class."""
        frame = to_frame(batch, self.signature)
        return outputs(self, frame if self.by_name else frame.to_numpy(), batch.n)


def outputs(predictor: SkopsPredictor, x: Any, n: int) -> Predictions:
    """A native model's outputs as named columns of plain Python values."""
    import numpy as np

    model = predictor.model
    if not predictor.probabilities or predictor.names is None:
        return Predictions({"prediction": np.asarray(model.predict(x)).reshape(n, -1)[:, 0].tolist()}, n)
    table = np.asarray(model.predict_proba(x))
    columns: dict[str, Any] = {"prediction": np.asarray(model.predict(x)).tolist()}
    columns.update({name: table[:, i].tolist() for i, name in enumerate(predictor.names)})
    return Predictions(columns, n)


@engines.add("skops")
def load(manifest: Mapping[str, Any], read: Read) -> SkopsPredictor:
    """The manifest's .skops file as a predictor."""
    model = loads(model_file(manifest, ".skops", read))
    return SkopsPredictor(model, Signature.from_json(manifest.get("signature") or {}))


@formats.add("sklearn")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """A scikit-learn model in a .skops file: classes and columns as the model remembers them."""
    model = loads(model_file(found, ".skops", read))
    classes = getattr(model, "classes_", None)
    classes = None if classes is None else [c.item() if hasattr(c, "item") else c for c in classes]
    signature = found.get("signature") or numbered(getattr(model, "feature_names_in_", None), getattr(model, "n_features_in_", None))
    return {"engine": "skops", **tasked(classes, signature)}


def tasked(classes: Sequence[Any] | None, signature: Mapping[str, Any]) -> dict[str, Any]:
    """{"task", "classes", "positive", "signature"} of a classifier with these classes, or of a regressor (None); its outputs named."""
    outputs = [{"name": "prediction", "type": "number" if classes is None else type_of(classes)}]
    outputs += [{"name": f"probability_{label(c)}", "type": "number"} for c in classes or ()]
    task = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    positive = classes[1] if classes is not None and len(classes) == 2 else None
    return {"task": task, "classes": list(classes or ()), "positive": positive, "signature": {"inputs": signature["inputs"], "outputs": outputs}}
