"""A predictive model as a `Serve`: its signature enforced, its engine asked, on the event loop where it is fast, else in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.types import Answer, Batch, Call, Predictions, Serve
from everloop.engines.base import Read
from everloop.engines.load import load_model
from everloop.engines.signature import coerce

ROWS_ON_LOOP = 64
"""Batches up to this size are answered on the event loop by fast models."""


def predictor(manifest: Mapping[str, Any], read: Read, threshold: float | None = None) -> Serve:
    """Load the model of a manifest (`read(digest)` gives its files' bytes) and answer with it. Blocking: call it in a thread.

    `threshold` decides a binary prediction by P(positive). Outputs: `prediction` (of a classifier: one of the manifest's
    classes, as it is written there), and `probability_<class>` for classifiers. Columns
    that the signature does not name are ignored.
    """
    model = load_model(manifest, read)
    classes = {str(label(c)): c for c in manifest.get("classes") or ()}
    positive = label(manifest.get("positive"))

    def answer(batch: Batch) -> Predictions:
        found = model.predict(batch)
        outputs = {name: values.tolist() if hasattr(values, "tolist") else list(values) for name, values in found.columns.items()}
        if classes and "prediction" in outputs:  # whichever engine answers, a class has the type that it had in training
            outputs["prediction"] = [classes.get(str(label(v)), v) for v in outputs["prediction"]]
        if threshold is not None and positive in classes and len(classes) == 2:
            other = next(c for name, c in classes.items() if name != positive)
            outputs["prediction"] = [classes[positive] if p >= threshold else other for p in outputs[f"probability_{positive}"]]
        return Predictions(outputs, found.n)

    async def serve(call: Call) -> Answer:
        if not isinstance(call.inputs, Batch):
            raise BadInput(f"The endpoint {call.endpoint!r} predicts from rows; it cannot answer a chat.")
        fit = partial(coerce, call.inputs.columns, model.signature, extra="ignore")
        batch = fit() if call.inputs.n <= ROWS_ON_LOOP else await asyncio.to_thread(fit)
        if model.fast and batch.n <= ROWS_ON_LOOP:
            return Answer(answer(batch))
        return Answer(await asyncio.to_thread(answer, batch))

    return serve
