"""The process that `engines/isolated.py` starts: it loads one model, which may run any code, and answers batches on its standard streams.

Messages are 8 bytes of length and JSON. What the model prints goes to standard error, so that it cannot spoil an answer.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson


def main(folder: str, how: dict[str, Any]) -> None:
    """Load the model in `folder` and answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    model: Callable[[Any], dict[str, Any]] | None = None
    while len(head := sys.stdin.buffer.read(8)) == 8:
        message = orjson.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
        try:
            if model is None:
                model = _loaded(Path(folder), how)
            body = {"columns": model(_frame(message))} if "columns" in message else {}
        except Exception as error:
            body = {"error": f"{type(error).__name__}: {str(error)[:1500]}"}
        data = orjson.dumps(body, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        answers.write(len(data).to_bytes(8, "big") + data)
        answers.flush()


def _frame(message: dict[str, Any]) -> Any:
    """The rows as a pandas DataFrame, of the types that the model was logged with."""
    import pandas as pd

    frame = pd.DataFrame(message["columns"])
    for name, dtype in message["dtypes"].items():
        if dtype and dtype != "object" and not (dtype.startswith(("int", "bool")) and frame[name].isna().any()):
            frame[name] = frame[name].astype(dtype)
    return frame


def _loaded(folder: Path, how: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    if how["how"] == "mlflow":
        import mlflow

        model = mlflow.pyfunc.load_model(str(folder))
        matrix = any(tensor for tensor in (how.get("matrix"),))
        return lambda frame: _columns(model.predict(frame.to_numpy() if matrix else frame))
    import cloudpickle

    found = cloudpickle.loads((folder / how["path"]).read_bytes())
    if how["how"] == "callable":
        return lambda frame: _columns(found(frame))
    return lambda frame: _estimated(found, frame)


def _estimated(model: Any, frame: Any) -> dict[str, Any]:
    """An estimator's predictions, with a probability for each class where it gives them."""
    from everloop.core.labels import label

    x = frame if getattr(model, "feature_names_in_", None) is not None else frame.to_numpy()
    columns = {"prediction": _list(model.predict(x))}
    if hasattr(model, "predict_proba"):
        table = model.predict_proba(x)
        columns |= {f"probability_{label(_native(c))}": table[:, i].tolist() for i, c in enumerate(model.classes_)}
    return columns


def _columns(found: Any) -> dict[str, Any]:
    """What a model answered as named columns: a table's own, those of dicts, `prediction` for one value a row, `prediction_0` ... for several."""
    if hasattr(found, "columns"):
        if len(found.columns) == 1:
            return {"prediction": _list(found.iloc[:, 0])}
        return {str(name): _list(found[name]) for name in found.columns}
    if isinstance(found, dict):
        return {str(name): _list(values) for name, values in found.items()}
    if getattr(found, "ndim", 1) == 2 and found.shape[1] > 1:
        return {f"prediction_{i}": _list(found[:, i]) for i in range(found.shape[1])}
    values = _list(found.reshape(-1) if getattr(found, "ndim", 1) == 2 else found)
    if values and all(isinstance(value, dict) for value in values):
        return {str(name): [value.get(name) for value in values] for name in values[0]}
    return {"prediction": values}


def _list(values: Any) -> list[Any]:
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in found]


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else _native(value) if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    main(sys.argv[1], orjson.loads(sys.argv[2]))
