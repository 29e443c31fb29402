"""What MLflow's client wrote beside a model (`MLmodel`), read as plain data: which format it is, and which columns it takes.

A model is served by the safest form that its files have: skops, ONNX, XGBoost's and LightGBM's own files, an exported PyTorch program,
safetensors; else by its own code, in a process of its own, if its producer is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from everloop.core.errors import BadInput, EverloopError
from everloop.engines.base import Read, formats
from everloop.engines.isolated import pickled

FLAVORS = ("sklearn", "xgboost", "lightgbm", "onnx", "pytorch", "transformers")
"""Flavors that have a format of their name here, in the order in which they are looked for; all others are pyfunc."""
PICKLES = (".pkl", ".pickle", ".joblib")
TENSOR_COLUMNS = 2_000
"""Columns that a model of one nameless tensor may have."""
_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "string": "string",
    "datetime": "datetime",
}
_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "boolean": "bool", "string": "object"}


def describe(files: list[dict[str, Any]], read: Read) -> dict[str, Any]:
    """The fields that make a logged model servable: {"format", "flavor", "engine", "task", "classes", "positive", "signature"}; where it cannot be
    served, {"format": "mlflow", "not_served": why}."""
    digest = next((file["digest"] for file in files if file["path"] == "MLmodel"), None)
    if digest is None:
        return {"format": "mlflow", "not_served": "It has no MLmodel file."}
    try:
        info = read_yaml(read(str(digest)).decode())
        return _described(info, files, read)
    except EverloopError as error:
        return {"format": "mlflow", "not_served": str(error)}
    except Exception as error:
        return {"format": "mlflow", "not_served": f"Its files cannot be read: {type(error).__name__}: {str(error)[:300]}"}


def read_yaml(text: str) -> dict[str, Any]:
    """An MLmodel file, read without building anything but plain values."""
    import yaml

    found = yaml.safe_load(text)
    return found if isinstance(found, dict) else {}


def _described(info: Mapping[str, Any], files: list[dict[str, Any]], read: Read) -> dict[str, Any]:
    flavors = info.get("flavors") or {}
    name = next((one for one in FLAVORS if one in flavors), "pyfunc")
    flavor = flavors.get(name) or flavors.get("python_function") or {}
    found = {"format": name, "files": files, "signature": signature_of(info.get("signature")), "flavor": flavor, "classes": None, "task": None}
    main = str(flavor.get("pickled_model") or flavor.get("data") or "")
    if name in ("sklearn", "lightgbm", "xgboost") and main.endswith(PICKLES):
        made = pickled(found, main)
    elif name == "pytorch" and not any(str(file["path"]).endswith(".pt2") for file in files):
        made = formats.get("pyfunc")(found, read)
    else:
        made = formats.get(name)(found, read)
    if made["engine"] == "isolated" and made["loader"]["how"] == "mlflow" and _is_tensor(info.get("signature")):
        made["loader"]["matrix"] = True
    return {"format": name, "flavor": name if name in flavors else "python_function", **made}


def _is_tensor(signature: Any) -> bool:
    try:
        return bool((json.loads((signature or {}).get("inputs") or "[]") or [{}])[0].get("tensor-spec"))
    except (ValueError, AttributeError):
        return False


def signature_of(signature: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """MLflow's signature as ours; None where there is none. A nameless tensor of two dimensions becomes the columns x0, x1 ...; BadInput for inputs
    that are no columns (images, lists, objects)."""
    if not signature or not signature.get("inputs"):
        return None
    inputs: list[dict[str, Any]] = []
    for place, column in enumerate(json.loads(str(signature["inputs"]))):
        if column.get("type") == "tensor":
            inputs += _tensor(column)
        elif column.get("type") in _TYPES:
            kind = str(column["type"])
            one = {"name": str(column.get("name", f"x{place}")), "type": _TYPES[kind], "required": bool(column.get("required", True))}
            inputs.append({**one, **({"dtype": _DTYPES[kind]} if kind in _DTYPES else {})})
        else:
            raise BadInput(f"The model reads {column.get('name', 'an input')!r} of type {column.get('type')!r}, which is no column.")
    return {"inputs": inputs, "outputs": _outputs(signature.get("outputs"))}


def _tensor(column: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = column.get("tensor-spec") or {}
    shape, dtype = list(spec.get("shape") or ()), str(spec.get("dtype", "float64"))
    kind = "integer" if dtype.startswith(("int", "uint")) else "boolean" if dtype == "bool" else "number"
    if column.get("name") and (len(shape) == 1 or shape[1:] == [1]):
        return [{"name": str(column["name"]), "type": kind, "required": True, "dtype": dtype}]
    if len(shape) != 2 or not 0 < shape[1] <= TENSOR_COLUMNS:
        raise BadInput(f"The model reads a tensor of the shape {shape}; rows of columns (two dimensions) are served.")
    return [{"name": f"x{i}", "type": "number" if kind == "integer" else kind, "required": True, "dtype": dtype} for i in range(shape[1])]


def _outputs(text: Any) -> list[dict[str, Any]]:
    found = json.loads(str(text)) if text else []
    kinds = [_TYPES.get(str(one.get("type")), "number") for one in found]
    return (
        [{"name": "prediction", "type": kinds[0]}]
        if len(kinds) == 1
        else [{"name": str(o.get("name", i)), "type": k} for i, (o, k) in enumerate(zip(found, kinds, strict=True))]
    )


def example(files: list[dict[str, Any]], read: Read) -> Any:
    """The rows that the model was logged with as a pandas DataFrame (MLflow's input_example, a table); None where there are none."""
    import pandas as pd

    digest = next((file["digest"] for file in files if file["path"] == "input_example.json"), None)
    if digest is None:
        return None
    found = json.loads(read(str(digest)))
    if isinstance(found, list) and found and isinstance(found[0], list):  # an array: its columns are those of signature_of
        return pd.DataFrame(found, columns=[f"x{i}" for i in range(len(found[0]))])
    if not isinstance(found, dict) or "columns" not in found or "data" not in found:
        return None
    return pd.DataFrame(found["data"], columns=[str(name) for name in found["columns"]])
