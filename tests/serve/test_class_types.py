"""A predicted class has the type that it had in the training table, whichever engine answers and whatever the model itself was fitted on."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.core.labels import as_written
from everloop.core.principal import local_principal
from everloop.core.types import Batch, Call, TraceContext
from everloop.engines.convert import to_onnx, to_skops
from everloop.engines.signature import infer_signature
from everloop.serve.predictor import predictor


@pytest.mark.parametrize("fitted_on", [int, str])
@pytest.mark.parametrize("engine", ["onnx", "skops"])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_both_engines_answer_the_classes_of_the_table(fitted_on: type, engine: str, threshold: float | None) -> None:
    from sklearn.linear_model import LogisticRegression

    x = pd.DataFrame({"a": np.linspace(-3, 3, 60)})
    target = (x["a"] > 0).astype(int)
    model = LogisticRegression().fit(x, [fitted_on(v) for v in target])
    classes = as_written((str(c) for c in model.classes_), target)
    signature = infer_signature(x, classes)
    onnx, evidence = to_onnx(model, signature, x)
    assert onnx is not None, evidence
    files = {"m.skops": to_skops(model)} if engine == "skops" else {"m.onnx": onnx}
    manifest: dict[str, Any] = {"format": "sklearn", "engine": engine, "files": [{"path": p, "digest": p} for p in files], "task": "binary"}
    manifest |= {"classes": classes, "positive": 1, "signature": signature}
    serve = predictor(manifest, lambda digest: files[digest], threshold)
    call = Call("x", Batch({"a": [-2.0, 2.0]}, 2), local_principal(), TraceContext("0" * 32, "0" * 16))
    answer: Any = asyncio.run(serve(call)).outputs
    assert answer.columns["prediction"] == [0, 1] and all(type(v) is int for v in answer.columns["prediction"])


@pytest.mark.parametrize(
    ("values", "names", "written"),
    [
        (np.array([True, False]), ["false", "true"], [False, True]),
        (np.array([0.0, np.nan, 1.0]), ["0", "1"], [0, 1]),
        (np.array([0.5, 1.0]), ["0.5", "1"], [0.5, 1.0]),
        (np.array(["no", "yes"], dtype=object), ["no", "yes"], ["no", "yes"]),
        (np.array(["0", "1"], dtype=object), ["0", "1"], ["0", "1"]),
    ],
)
def test_classes_as_the_table_writes_them(values: Any, names: list[str], written: list[Any]) -> None:
    assert as_written(names, values) == written
