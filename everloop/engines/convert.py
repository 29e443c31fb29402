"""From a fitted scikit-learn model to files that can be served: skops always, ONNX where its answers agree with the model's own.

What makes the ONNX form agree: numbers stay double through the preprocessing and become float32 only where scikit-learn's own trees
do that; histogram boosting is written with double thresholds; missing text has a sentinel that stands for None or NaN.
"""

from __future__ import annotations

import copy
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.types import Batch
from everloop.engines.onnx import METADATA, OnnxPredictor
from everloop.engines.onnx_nodes import NoOnnxForm, converters
from everloop.engines.signature import Signature, coerce, compiled
from everloop.engines.skops import SkopsPredictor, trusted_types

MISSING_TEXT = "␀missing"
"""Stands for missing text inside ONNX, whose strings cannot be null."""
PROBABILITY_TOLERANCE = 1e-4
"""Largest difference of a probability that still counts as agreeing."""
RELATIVE_TOLERANCE = 1e-4
"""Largest difference of a regression's prediction, relative to the predictions' spread."""
SAMPLE_ROWS = 1000
"""Rows of the sample that are compared."""


def to_skops(model: Any) -> bytes:
    """The model as a skops file, the same bytes for the same model. BadInput if it holds types that could not be loaded again (functions, types of
    other packages)."""
    import skops.io

    try:
        data: bytes = skops.io.dumps(model)
    except Exception as error:
        raise BadInput(f"The model cannot be written as skops: {type(error).__name__}: {error}") from error
    trusted_types(data)
    return _same_bytes(data)


def _same_bytes(data: bytes) -> bytes:
    """A skops file without what differs from one writing to the next: memory addresses as ids and file names, and the zip's times."""
    old = zipfile.ZipFile(io.BytesIO(data))
    schema = old.read("schema.json").decode()
    numbers: dict[str, str] = {}

    def number(address: str) -> str:
        return numbers.setdefault(address, str(len(numbers) + 1))

    schema = re.sub(r'("__id__": )(\d+)|"(\d+)(\.np[yz])"', lambda m: m[1] + number(m[2]) if m[1] else f'"{number(m[3])}{m[4]}"', schema)
    files = {"schema.json": schema.encode()}
    for name in old.namelist():
        if name != "schema.json":
            stem, dot, ending = name.partition(".")
            files[f"{numbers.get(stem, stem)}{dot}{ending}"] = old.read(name)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as fresh:
        for name in sorted(files):
            fresh.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name], zipfile.ZIP_DEFLATED)
    return made.getvalue()


def to_onnx(model: Any, signature: Mapping[str, Any] | Signature, sample_frame: Any) -> tuple[bytes | None, dict[str, Any]]:
    """The model as ONNX if its predictions agree with the model's own on the sample, else None; and the evidence either way.

    `sample_frame` is a pandas DataFrame of features as in training; rows with missing and unseen values are added to it. Evidence:
    `{"accepted", "n", "mismatches" (rows whose class differs, or that are over tolerance), "max_abs_diff", "tolerance", "why", "fast"}`.
    """
    known = compiled(signature)
    evidence: dict[str, Any] = {"accepted": False, "n": 0, "mismatches": None, "max_abs_diff": None, "tolerance": PROBABILITY_TOLERANCE, "why": ""}
    native = SkopsPredictor(model, known)
    try:
        data = _convert(model, known)
    except NoOnnxForm as reason:
        evidence["why"] = f"no conversion: {reason}"
        return None, evidence
    batch = _sample(sample_frame, known, native)
    expected = native.predict(batch).columns
    try:
        predictor = OnnxPredictor(data, known, _classes(model))
        found = predictor.predict(batch).columns
    except Exception as error:
        evidence["why"] = f"the converted model does not run: {type(error).__name__}: {str(error)[:300]}"
        return None, evidence
    evidence.update(_compare(expected, found, batch.n, bool(predictor.classes)))
    evidence["fast"] = predictor.fast
    if evidence["mismatches"]:
        evidence["why"] = f"{evidence['mismatches']} of {evidence['n']} rows differ, by {evidence['max_abs_diff']:.3g} at most"
        return None, evidence
    evidence["accepted"] = True
    return data, evidence


def _classes(model: Any) -> list[Any]:
    classes = getattr(model, "classes_", None)
    return [] if classes is None else [c.item() if hasattr(c, "item") else c for c in classes]


def _sample(frame: Any, known: Signature, native: SkopsPredictor) -> Batch:
    """The first rows of the sample, then one row a column with its value missing (where allowed), or unseen text."""
    frame = frame.head(SAMPLE_ROWS)
    rows = coerce({str(c): frame[c].tolist() for c in frame.columns}, known, extra="ignore")
    columns = {name: list(values) for name, values in rows.columns.items()}
    probes: list[dict[str, Any]] = []
    first = {name: values[0] for name, values in columns.items()}
    for column in known.inputs:
        if not column.required:
            probes.append({**first, column.name: None})
        if column.type == "string" and column.categories is None and column.dtype != "category":
            probes.append({**first, column.name: "never seen before"})
    for probe in probes:
        one = Batch({name: [value] for name, value in probe.items()}, 1)
        try:
            native.predict(one)
        except Exception:
            continue
        for name, value in probe.items():
            columns[name].append(value)
    return Batch(columns, len(next(iter(columns.values()))) if columns else 0)


def _compare(a: Mapping[str, Any], b: Mapping[str, Any], n: int, classify: bool) -> dict[str, Any]:
    """The native model's outputs `a` against the converted one's `b`, row by row."""
    import numpy as np

    if classify:
        names = [n for n in a if n != "prediction"]
        if set(names) - set(b):
            return {"n": n, "mismatches": n, "max_abs_diff": math.nan, "why": "no probabilities"}
        gaps = np.abs(np.array([a[n] for n in names]) - np.array([b[n] for n in names])).max(axis=0) if names else np.zeros(n)
        differ = np.array([x != y for x, y in zip(a["prediction"], b["prediction"], strict=True)])
        top = np.sort(np.array([a[n] for n in names]), axis=0)[-2:] if names else None
        if top is not None and len(top) == 2:
            differ &= (top[1] - top[0]) > PROBABILITY_TOLERANCE
        tolerance = PROBABILITY_TOLERANCE
    else:
        left, right = np.array(a["prediction"], dtype=float), np.array(b["prediction"], dtype=float)
        gaps = np.abs(left - right)
        tolerance = RELATIVE_TOLERANCE * max(float(np.std(left)), float(np.abs(left).mean()) * 1e-3, 1e-12)
        differ = np.zeros(n, dtype=bool)
    bad = int((differ | ~(gaps <= tolerance)).sum())
    return {"n": n, "mismatches": bad, "max_abs_diff": float(gaps.max()), "tolerance": tolerance}


def _convert(model: Any, known: Signature) -> bytes:
    """The ONNX bytes of a fitted model; NoOnnxForm says why there are none."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer

    if any(c.type == "datetime" or c.dtype == "category" for c in known.inputs):
        raise NoOnnxForm("datetime and pandas category columns have no ONNX form")
    prepared = _prepared(model)
    by_column = isinstance(prepared.steps[0][1], ColumnTransformer)
    if by_column:
        initial = [(c.name, StringTensorType([None, 1]) if c.type == "string" else DoubleTensorType([None, 1])) for c in known.inputs]
    else:
        if any(c.type == "string" for c in known.inputs):
            first = type(prepared.steps[0][1]).__name__
            raise NoOnnxForm(f"text columns need a ColumnTransformer as the first step, and this model begins with {first}")
        initial = [("everloop_matrix", DoubleTensorType([None, len(known.inputs)]))]
    final = prepared.steps[-1][1]
    options = {id(final): {"zipmap": False}} if getattr(model, "classes_", None) is not None else None
    try:
        made = convert_sklearn(prepared, initial_types=initial, options=options, target_opset={"": 18, "ai.onnx.ml": 3}, **converters())
    except NoOnnxForm:
        raise
    except Exception as error:
        if _ours(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise NoOnnxForm(f"{type(error).__name__}: {said}") from error
    made.graph.name = "everloop"
    made.opset_import.sort(key=lambda one: one.domain)
    entry = made.metadata_props.add()
    names = [i.name for i in made.graph.input]
    columns = dict(zip(names, [c.name for c in known.inputs], strict=True)) if by_column and len(names) == len(known.inputs) else {}
    entry.key, entry.value = METADATA, json.dumps({"missing_text": MISSING_TEXT, "columns": columns})
    data: bytes = made.SerializeToString()
    return data


def _ours(error: BaseException) -> bool:
    """Whether an exception was raised by this package's own code: then it is a mistake of ours, and no reason."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("everloop.")


def _prepared(model: Any) -> Any:
    """A copy of the model as a Pipeline, missing text spelled as the sentinel, with a cast to float32 before the last step where that is exact or near."""
    import numpy as np
    from skl2onnx.sklapi import CastTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    copied = copy.deepcopy(model)
    _respell(copied, set())
    steps = list(copied.steps) if isinstance(copied, Pipeline) else [("model", copied)]
    if steps[-1][1] in (None, "passthrough"):
        raise NoOnnxForm("the pipeline ends in a passthrough")
    if not isinstance(steps[-1][1], (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
        steps.insert(len(steps) - 1, ("everloop_cast", CastTransformer(dtype=np.float32)))
    return Pipeline(steps)


def _respell(part: Any, seen: set[int]) -> None:
    """In every encoder and imputer inside: None and NaN among texts become the sentinel."""
    import numpy as np
    from sklearn.base import BaseEstimator
    from sklearn.impute import SimpleImputer

    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, (list, tuple)):
        for item in part:
            _respell(item, seen)
    if not isinstance(part, BaseEstimator):
        return
    categories = getattr(part, "categories_", None)
    if isinstance(categories, list):
        part.categories_ = [np.array([_text(v) for v in c], dtype=object) if c.dtype.kind in "OU" else c for c in categories]
    statistics = getattr(part, "statistics_", None)
    if isinstance(part, SimpleImputer) and statistics is not None and statistics.dtype.kind == "O":
        part.missing_values = MISSING_TEXT
    for value in list(vars(part).values()):
        _respell(value, seen)


def _text(value: Any) -> Any:
    return MISSING_TEXT if value is None or value != value else value
