"""A predictive model as a `Serve`: its signature checked, its file loaded by ONNX Runtime or skops, its outputs named alike."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput, Corrupt, TooLarge
from everloop.core.labels import label
from everloop.core.limits import INFER_ROWS
from everloop.core.types import Answer, Batch, Call, Predictions, Serve

ROWS_ON_LOOP = 64
"""Batches up to this size are answered on the event loop by ONNX models; larger ones and other engines go to a thread."""
Columns = Mapping[str, Sequence[Any]]
Run = Callable[[Columns, int], dict[str, list[Any]]]


def predictor(manifest: Mapping[str, Any], path_of: Callable[[str], Path], threshold: float | None = None) -> Serve:
    """Load the model that a manifest names (`path_of(digest)` gives its files) and answer with it. Blocking: call it in a thread.

    `threshold` decides a binary prediction by P(positive). Outputs: `prediction`, and `probability_<class>` for classifiers.
    """
    engine = manifest.get("engine", "onnx")
    wanted = [f for f in manifest.get("files") or [] if str(f["path"]).endswith("." + engine)]
    if not wanted:
        raise Corrupt(f"The model's manifest names no .{engine} file for its engine {engine!r}.", "Register the model anew.")
    inputs = list(manifest["signature"]["inputs"])
    classes = [str(label(c)) for c in manifest.get("classes") or ()]
    load = _load_onnx if engine == "onnx" else _load_skops
    run = load(path_of(wanted[0]["digest"]), inputs, classes)
    positive = label(manifest.get("positive"))

    def answer(columns: Columns, n: int) -> Predictions:
        outputs = run(columns, n)
        if threshold is not None and positive in classes and len(classes) == 2:
            other = next(c for c in classes if c != positive)
            outputs["prediction"] = [positive if p >= threshold else other for p in outputs[f"probability_{positive}"]]
        return Predictions(outputs, n)

    async def serve(call: Call) -> Answer:
        batch = call.inputs
        if not isinstance(batch, Batch):
            raise BadInput(f"The endpoint {call.endpoint!r} predicts from rows; it cannot answer a chat.")
        columns = coerce(inputs, batch)
        if engine == "onnx" and batch.n <= ROWS_ON_LOOP:
            return Answer(answer(columns, batch.n))
        return Answer(await asyncio.to_thread(answer, columns, batch.n))

    return serve


def coerce(inputs: Sequence[Mapping[str, Any]], batch: Batch) -> dict[str, list[Any]]:
    """The signature's columns out of a batch, converted; unknown columns are dropped. BadInput names column, row and what was wanted."""
    if batch.n > INFER_ROWS:
        raise TooLarge(f"{batch.n} rows in one request; at most {INFER_ROWS} are allowed.", "Send them in several requests.")
    out: dict[str, list[Any]] = {}
    for spec in inputs:
        name, kind = str(spec["name"]), spec.get("type", "number")
        values = batch.columns.get(name)
        if values is None:
            if spec.get("required", False):
                raise BadInput(f"The column {name!r} is missing.", f"Columns wanted: {', '.join(str(i['name']) for i in inputs)}.")
            values = [None] * batch.n
        if len(values) != batch.n:
            raise BadInput(f"The column {name!r} has {len(values)} values for {batch.n} rows.")
        out[name] = _numbers(name, values) if kind in ("number", "integer") else [label(v) for v in values]
    return out


def _numbers(name: str, values: Sequence[Any]) -> list[Any]:
    try:
        return [math.nan if v is None or v == "" else float(v) for v in values]
    except (TypeError, ValueError):
        for row, value in enumerate(values):
            try:
                float(value if value not in (None, "") else math.nan)
            except (TypeError, ValueError):
                raise BadInput(f"Row {row}, column {name!r}: {value!r} is not a number.", "Send a number, or null where it is missing.") from None
        raise


def _load_onnx(path: Path, inputs: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Run:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {i.name: i.type for i in session.get_inputs()}
    names = [str(i["name"]) for i in inputs]
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}

    def feed(columns: Columns, n: int) -> dict[str, Any]:
        if len(kinds) == 1 and (only := next(iter(kinds))) not in names:
            return {only: np.asarray([columns[name] for name in names], dtype=types.get(kinds[only], np.float32)).T.copy()}
        fed = {}
        for name, kind in kinds.items():
            if kind == "tensor(string)":
                fed[name] = np.asarray([v if v is not None else "" for v in columns[name]], dtype=object).reshape(n, 1)
            else:
                fed[name] = np.asarray(columns[name], dtype=types.get(kind, np.float32)).reshape(n, 1)
        return fed

    def run(columns: Columns, n: int) -> dict[str, list[Any]]:
        first, *more = session.run(None, feed(columns, n))
        outputs = {"prediction": np.asarray(first).reshape(n).tolist()}
        if more and classes:
            table = more[0]
            if isinstance(table, list):
                table = [[{label(k): v for k, v in row.items()}[c] for c in classes] for row in table]
            outputs.update(_named(np.asarray(table), classes))
        return outputs

    return run


def _load_skops(path: Path, inputs: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Run:
    """A scikit-learn estimator out of a skops file, which holds no code; types that skops does not trust are refused."""
    import skops.io as sio

    unknown = sio.get_untrusted_types(file=path)
    if unknown:
        raise BadInput(f"The model uses types that are not trusted: {', '.join(unknown)}.", "Export it to ONNX, or build it of scikit-learn's own.")
    model = sio.load(path)
    names = [str(i["name"]) for i in inputs]

    def run(columns: Columns, n: int) -> dict[str, list[Any]]:
        import numpy as np
        import pandas as pd

        table = pd.DataFrame({name: columns[name] for name in names})
        outputs = {"prediction": np.asarray(model.predict(table)).reshape(n).tolist()}
        if classes and hasattr(model, "predict_proba"):
            order = [[label(c) for c in model.classes_].index(c) for c in classes]
            outputs.update(_named(np.asarray(model.predict_proba(table))[:, order], classes))
        return outputs

    return run


def _named(table: Any, classes: Sequence[str]) -> dict[str, list[Any]]:
    return {f"probability_{name}": table[:, i].tolist() for i, name in enumerate(classes)}
