"""Models in ONNX Runtime: one thread a call, so many calls run side by side; answers in microseconds to a few milliseconds.

Two input layouts: *columns* (one [n, 1] tensor a column, named as in the signature) and *matrix* (one [n, k] tensor of all columns in the
signature's order). Missing numbers are NaN; missing text is the sentinel that the conversion wrote into the file's metadata.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.load import model_file
from everloop.engines.signature import Signature, numbered

FAST_SECONDS = 0.0006
"""A single row faster than this may run on the event loop."""
METADATA = "everloop"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    "tensor(float16)": "float16",
}


class OnnxPredictor:
    """An ONNX session behind the predictor's shape."""

    def __init__(self, data: bytes, signature: Signature, classes: Sequence[Any] = ()) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._np = np
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.signature = signature
        self.classes = list(classes)
        self._lookup = {label(c): c for c in classes}
        self._names = [f"probability_{label(c)}" for c in classes]
        meta = json.loads(self.session.get_modelmeta().custom_metadata_map.get(METADATA, "{}"))
        self.missing_text = str(meta.get("missing_text", ""))
        inputs, names = self.session.get_inputs(), [c.name for c in signature.inputs]
        known = meta.get("columns") or {}
        self._inputs = [(i.name, known.get(i.name, i.name), _dtype(i.name, i.type)) for i in inputs]
        self.matrix = len(inputs) == 1 and not known and (len(names) != 1 or inputs[0].name != names[0])
        wanted = [column for _, column, _ in self._inputs]
        if not self.matrix and set(wanted) - set(names):
            raise BadInput(f"The ONNX file wants inputs {wanted}; the signature has {names}.", "Register it with a signature that names its inputs.")
        self._outputs = [o.name for o in self.session.get_outputs()]
        self.fast = self._measure()

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch; a classifier's carry a probability for each class."""
        results = self.session.run(None, self._feed(batch))
        if not self.classes:
            return Predictions({"prediction": self._np.asarray(results[0]).reshape(batch.n, -1)[:, 0].tolist()}, batch.n)
        columns: dict[str, Any] = {"prediction": self._labels(results[0])}
        if len(results) > 1:
            table = self._table(results[1], batch.n)
            for i, name in enumerate(self._names):
                columns[name] = table[:, i].tolist()
        return Predictions(columns, batch.n)

    def _feed(self, batch: Batch) -> dict[str, Any]:
        if self.matrix:
            name, _, dtype = self._inputs[0]
            arrays = [self._array(batch.columns[c.name], dtype, batch.n) for c in self.signature.inputs]
            return {name: self._np.concatenate(arrays, axis=1)}
        return {name: self._array(batch.columns[column], dtype, batch.n) for name, column, dtype in self._inputs}

    def _array(self, values: Any, dtype: str, n: int) -> Any:
        np = self._np
        if dtype == "object":
            made = np.empty((n, 1), dtype=object)
            made[:, 0] = [self.missing_text if v is None else str(v) for v in values]
            return made
        if hasattr(values, "dtype"):
            return np.ascontiguousarray(values, dtype=dtype).reshape(n, 1)
        return np.array([math.nan if v is None else v for v in values], dtype=dtype).reshape(n, 1)

    def _labels(self, found: Any) -> list[Any]:
        values = found.tolist()
        if self.classes and isinstance(self.classes[0], bool):
            return [self.classes[int(v)] for v in values]
        return [self._lookup.get(label(v), v) for v in values]

    def _table(self, found: Any, n: int) -> Any:
        np = self._np
        if isinstance(found, list):
            return np.array([[row.get(c, row.get(label(c), math.nan)) for c in self.classes] for row in found])
        table = np.asarray(found, dtype=np.float64).reshape(n, -1)
        if table.shape[1] == 1 and len(self.classes) == 2:
            table = np.concatenate([1 - table, table], axis=1)
        return table

    def _measure(self) -> bool:
        blank = {c.name: ["" if c.type == "string" else 0.0] for c in self.signature.inputs}
        batch = Batch(blank, 1)
        best = math.inf
        for _ in range(5):
            started = time.perf_counter()
            try:
                self.predict(batch)
            except Exception:
                return False
            best = min(best, time.perf_counter() - started)
        return best < FAST_SECONDS


def _dtype(name: str, kind: str) -> str:
    if kind not in _DTYPES:
        raise BadInput(f"The ONNX input {name!r} has type {kind}.", f"Types that can be fed: {', '.join(_DTYPES)}.")
    return _DTYPES[kind]


@engines.add("onnx")
def load(manifest: Mapping[str, Any], read: Read) -> OnnxPredictor:
    """The manifest's .onnx file as a predictor."""
    classes = () if manifest.get("task") == "regression" else manifest.get("classes") or ()
    return OnnxPredictor(model_file(manifest, ".onnx", read), Signature.from_json(manifest.get("signature") or {}), classes)


@formats.add("onnx")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """An ONNX file: classes as its classifier's labels, columns as its inputs (one a column, or x0, x1 ... of one matrix)."""
    import onnx

    from everloop.engines.skops import tasked

    graph = onnx.load_from_string(model_file(found, ".onnx", read)).graph
    classes = found.get("classes")
    for node in graph.node:
        for attribute in node.attribute:
            if classes is None and attribute.name.startswith("classlabels"):
                classes = [v.decode() for v in attribute.strings] or list(attribute.ints) or None
    if classes is not None and len(graph.output) < 2:
        classes = None
    signature = found.get("signature")
    if signature is None:
        shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}
        columns = all(len(shape) == 2 and shape[1] == 1 for shape in shapes.values())
        only = next(iter(shapes.values()), [])
        signature = numbered(list(shapes), None) if columns else numbered(None, only[1] if len(shapes) == 1 and len(only) == 2 else None)
    return {"engine": "onnx", **tasked(classes, signature)}
