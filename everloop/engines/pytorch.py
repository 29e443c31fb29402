"""PyTorch models from exported programs (`torch.export`, .pt2): a graph of known operators and plain tensors.

PyTorch's own reader of such a file would unpickle what the file says is pickled and evaluate what it says is an expression. So the archive is read
first: pickled tensors, foreign objects, operators outside PyTorch's own sets and expressions that are more than arithmetic are refused, and what
is not needed (compiled libraries, example inputs) never reaches the reader.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from everloop.core.errors import BadInput, MissingDependency
from everloop.core.labels import label
from everloop.core.types import Batch, Predictions
from everloop.engines.base import Read, engines, formats
from everloop.engines.load import model_file
from everloop.engines.signature import Signature
from everloop.engines.skops import tasked

OPERATORS = re.compile(r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|ge|gt|le|lt|getitem)")
"""Operators that a graph may call: they compute on tensors and numbers."""
EXPRESSION = re.compile(
    r"(Symbol\('\w+'(, (positive|integer|nonnegative|real)=True)*\)|Integer\(\d+\)|(Max|Min|Add|Mul|Mod|Eq|Ne|Ge|Gt|Le|Lt)\b|[suz]\w*\d|[\d\s+\-*/(),.<>=!])*"
)
"""What the size of a dimension may be written as."""
FILES = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|version|\.data/[\w.]+|models/model\.json|data/(weights|constants|sample_inputs)/[\w.]+)"
)
"""Files of an archive that are known; compiled code is not among them."""


def checked(data: bytes, signature: Signature) -> bytes:
    """The archive with example inputs of our own making; BadInput names what it holds beyond a plain graph and plain tensors."""
    import torch

    try:
        old = zipfile.ZipFile(io.BytesIO(data))
        names = old.namelist()
        graphs = {name: json.loads(old.read(name)) for name in names if name.endswith(".json")}
    except (zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise BadInput(f"The file is not a readable .pt2 archive: {error}", "Write it with torch.export.save.") from error
    reasons = [f"the file {name}" for name in names if not FILES.fullmatch(name)]
    for graph in graphs.values():
        for key, value in _walk(graph):
            if key == "use_pickle" and value:
                reasons.append("a pickled tensor")
            elif key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
                reasons.append(f"the object {value}")
            elif key == "target" and isinstance(value, str) and not OPERATORS.fullmatch(value):
                reasons.append(f"the operator {value}")
            elif key == "expr_str" and not EXPRESSION.fullmatch(str(value)):
                reasons.append(f"the expression {value}")
    if reasons:
        raise BadInput(
            f"The exported program holds what is not plain data: {', '.join(dict.fromkeys(reasons[:5]))}.",
            "Export it again with torch.export; a model that needs code of its own is logged as pyfunc, by a trusted producer.",
        )
    example, made = io.BytesIO(), io.BytesIO()
    zeros = torch.zeros((2, len(signature.inputs)), dtype=getattr(torch, signature.inputs[0].dtype or "float32"))
    torch.save(((zeros,), {}), example)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as fresh:
        for name in names:
            fresh.writestr(name, example.getvalue() if "/data/sample_inputs/" in name else old.read(name))
    return made.getvalue()


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """All (key, value) pairs of a JSON document, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


class TorchPredictor:
    """An exported program behind the predictor's shape: one tensor of all columns in, one tensor a row out."""

    fast = False

    def __init__(self, program: Any, signature: Signature, classes: list[Any]) -> None:
        self.module, self.signature, self.classes = program.module(), signature, classes
        self.dtype = "float32" if signature.inputs[0].dtype == "float64" and _single(program) else signature.inputs[0].dtype or "float32"

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for a batch: of each class with a probability where the classes are known, else `prediction` (or `prediction_0` ...)."""
        import numpy as np
        import torch

        table = np.column_stack([[np.nan if v is None else v for v in batch.columns[c.name]] for c in self.signature.inputs])
        with torch.inference_mode():
            found = self.module(torch.from_numpy(table.astype(self.dtype)))
        if not hasattr(found, "numpy"):
            raise BadInput(f"The model answers a {type(found).__name__}; one tensor is served.", "Export a model whose forward returns one tensor.")
        rows = found.numpy().reshape(batch.n, -1)
        if self.classes:
            return self._classified(rows, batch.n)
        if rows.shape[1] == 1:
            return Predictions({"prediction": rows[:, 0].astype(float).tolist()}, batch.n)
        return Predictions({f"prediction_{i}": rows[:, i].astype(float).tolist() for i in range(rows.shape[1])}, batch.n)

    def _classified(self, rows: Any, n: int) -> Predictions:
        """Scores as probabilities: those that are none yet go through softmax (or, of one column, the logistic function)."""
        import numpy as np

        if rows.shape[1] == 1:
            one = rows[:, 0] if ((rows >= 0) & (rows <= 1)).all() else 1 / (1 + np.exp(-rows[:, 0]))
            rows = np.column_stack([1 - one, one])
        elif not ((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3)):
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows /= rows.sum(axis=1, keepdims=True)
        columns: dict[str, Any] = {"prediction": [self.classes[i] for i in rows.argmax(axis=1)]}
        columns |= {f"probability_{label(c)}": rows[:, i].astype(float).tolist() for i, c in enumerate(self.classes)}
        return Predictions(columns, n)


def _single(program: Any) -> bool:
    """Whether the model's weights are of single precision: its rows must be so too."""
    weights = list(program.state_dict.values())
    return bool(weights) and str(weights[0].dtype) == "torch.float32"


@engines.add("pytorch")
def load(manifest: Mapping[str, Any], read: Read) -> TorchPredictor:
    """The manifest's .pt2 file as a predictor."""
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", "to serve PyTorch models", "local") from None
    signature = Signature.from_json(manifest["signature"])
    program = torch.export.load(io.BytesIO(checked(model_file(manifest, ".pt2", read), signature)))
    return TorchPredictor(program, signature, list(manifest.get("classes") or ()))


@formats.add("pytorch")
def describe(found: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """An exported program; its columns must be told by a signature, its classes by `classes` (a regressor otherwise)."""
    data = model_file(found, ".pt2", read)
    if not found.get("signature"):
        raise BadInput("It is not known which columns the model reads.", "Log it with a signature or an input_example of two dimensions.")
    checked(data, Signature.from_json(found["signature"]))
    return {"engine": "pytorch", **tasked(found.get("classes"), found["signature"])}
