"""A scikit-learn model's ONNX twin, made when the model is registered and kept only where its answers agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.engines.base import Read
from everloop.engines.load import model_file
from everloop.engines.signature import infer_signature

LARGEST = 4 << 20
"""Bytes of a skops file up to which a twin is made: larger ones take too long to convert while their client waits."""
ROWS = 300
"""Rows that the answers are compared on: those given, and more around them where all columns are numbers."""


def with_onnx(made: dict[str, Any], files: list[dict[str, Any]], read: Read, sample: Any) -> tuple[dict[str, Any], bytes | None]:
    """(the fields of a manifest with the twin's engine, the ONNX bytes), or (as they were, with the reason in "conversion", None).

    `made` is what the format said, `sample` a pandas DataFrame of the model's columns or None.
    """
    from everloop.engines.convert import to_onnx
    from everloop.engines.skops import loads

    if made.get("engine") != "skops" or made.get("format", "sklearn") != "sklearn":
        return made, None
    data = model_file({"files": files}, ".skops", read)
    if sample is None or not len(sample):
        return {**made, "conversion": {"accepted": False, "why": "there is no sample of rows to compare the answers on"}}, None
    if len(data) > LARGEST:
        return {
            **made,
            "conversion": {"accepted": False, "why": f"the model is {len(data)} bytes; up to {LARGEST} are converted while registering"},
        }, None
    model = loads(data)
    signature = _signature(made, sample)
    onnx, evidence = to_onnx(model, signature, _more(sample))
    evidence.pop("fast", None)
    made = {**made, "conversion": evidence, "signature": signature}
    return ({**made, "engine": "onnx"}, onnx) if onnx else (made, None)


def _signature(made: Mapping[str, Any], sample: Any) -> dict[str, Any]:
    """The columns as the sample has them, none of them more than the model's own signature says."""
    known = made["signature"]
    names = [column["name"] for column in known["inputs"]]
    found = infer_signature(sample[names] if set(names) <= set(sample.columns) else sample)
    required = {column["name"]: column.get("required", False) for column in known["inputs"]}
    for column in found["inputs"]:
        column["required"] = required.get(column["name"], False)
    return {"inputs": found["inputs"], "outputs": known["outputs"]}


def _more(sample: Any) -> Any:
    """The sample, filled up to ROWS with rows drawn around it where all columns are numbers (the same ones for the same sample)."""
    import numpy as np
    import pandas as pd

    if len(sample) >= ROWS or not all(pd.api.types.is_numeric_dtype(sample[name]) and sample[name].dtype != bool for name in sample):
        return sample
    noise, base = np.random.default_rng(0), sample.to_numpy(dtype=float)
    spread = np.nanstd(base, axis=0) + np.abs(np.nanmean(base, axis=0)) * 0.5 + 1e-3
    drawn = base[noise.integers(0, len(base), ROWS - len(base))] + noise.normal(size=(ROWS - len(base), base.shape[1])) * spread
    more = pd.DataFrame(drawn, columns=sample.columns)
    for name in sample:
        if sample[name].dtype.kind in "iu":
            more[name] = more[name].round().astype(sample[name].dtype)
    return pd.concat([sample, more], ignore_index=True)
