"""What the steps share about a labelled table: which dataset it is, its labelled rows, its features in a pinned order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label

NUMERIC = ("number", "integer")


def dataset_of(step: Any) -> str:
    """The dataset a step works on: what a step before it answered as "dataset", else the param. BadInput if neither is there."""
    for result in step.inputs.values():
        if isinstance(result, Mapping) and result.get("dataset"):
            return str(result["dataset"])
    if not step.params.get("dataset"):
        raise BadInput("The param 'dataset' is missing.", 'Start the pipeline with {"dataset": "dataset:NAME", "name": "NAME"}.')
    return str(step.params["dataset"])


def data_of(step: Any) -> tuple[str, dict[str, Any]]:
    """(exact reference, with the split where one is named; asset) of the dataset a step works on. Of a split, rows and statistics are its own.

    NotFound for a dataset or a split that is not there.
    """
    found = step.client.data.dataset(dataset_of(step))
    asset = dict(found.asset)
    if found.part and found.format == "table":
        from everloop.assets import table_stats

        table = found.arrow()
        asset["manifest"] = {**asset["manifest"], "rows": table.num_rows, "stats": table_stats.statistics(table)}
    return found.ref, asset


def name_of(step: Any) -> str:
    """The name of model, suite and release; BadInput if the param is missing."""
    if not step.params.get("name"):
        raise BadInput("The param 'name' is missing.", "It names model, suite and release, for example: credit")
    return str(step.params["name"])


def need_task(asset: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(roles, task) of a dataset; BadInput for documents or a table without a target."""
    manifest = asset["manifest"]
    if manifest.get("format") != "table":
        raise BadInput(f"{asset['ref']} is a set of documents, not a table.", "Name a dataset that was loaded from CSV or Parquet.")
    if not manifest.get("task"):
        shown = ", ".join(c["name"] for c in manifest["schema"][:40])
        raise BadInput(f"{asset['ref']} has no target column.", f"Load it again with --target COLUMN. Columns: {shown}.")
    return dict(manifest["roles"]), dict(manifest["task"])


def labelled(frame: Any, target: str, task: str) -> Any:
    """The rows whose target has a value (a finite one, in regression)."""
    import numpy as np

    if task == "regression":
        values = frame[target].astype(float)
        return frame[np.isfinite(values.to_numpy(dtype=float, na_value=np.nan))]
    return frame[frame[target].map(label).notna()]


def targets(frame: Any, target: str, task: str) -> Any:
    """The target as floats (regression) or canonical labels."""
    return frame[target].astype(float) if task == "regression" else frame[target].map(label).astype(object)


def feature_kinds(manifest: Mapping[str, Any], left_out: Mapping[str, str] | None = None) -> dict[str, str]:
    """{column: type} of the features in the table's order: no target, time, id, protected attribute, date, nor what is left out."""
    roles = manifest["roles"]
    never = {roles["target"], roles["time"], roles["id"], *roles["protected"], *(left_out or {})}
    return {c["name"]: c["type"] for c in manifest["schema"] if c["name"] not in never and c["type"] != "datetime"}


def features(frame: Any, kinds: Mapping[str, str]) -> Any:
    """The features as models see them: numbers as floats, all else as canonical text (None where missing), in the order of `kinds`."""
    import pandas as pd

    columns = {}
    for name, kind in kinds.items():
        columns[name] = frame[name].astype(float) if kind in NUMERIC else frame[name].map(label).astype(object)
    return pd.DataFrame(columns, index=frame.index)
