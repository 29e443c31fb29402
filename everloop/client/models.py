"""`client.models`: a model out of a user's program, in the safest form that its library can write, and whose pickles may be loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everloop.client.assets import Assets
from everloop.core.errors import BadInput, MissingDependency

ENDINGS = {
    ".onnx": "onnx",
    ".skops": "sklearn",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".lgb": "lightgbm",
    ".txt": "lightgbm",
    ".pt2": "pytorch",
    ".pkl": "callable",
}
"""Formats by the ending of a model's file."""
Files = dict[str, bytes | Path]


class Models:
    """Register models, and say whose pickles and code may be loaded."""

    def __init__(self, http: Any) -> None:
        self._http = http

    def put(
        self,
        name: str,
        model: Any,
        *,
        sample: Any = None,
        classes: Sequence[Any] | None = None,
        positive: Any = None,
        task: str | None = None,
        format: str | None = None,
        card: str = "",
        run: str | None = None,
        reads: Sequence[str] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Register a model as a new version of `model:NAME`, ready to be pinned by a release; answers the asset.

        `model` is a fitted scikit-learn, XGBoost or LightGBM model, an ONNX model, a torch module, a transformers pipeline, a function of a pandas
        DataFrame, or the path of a file or folder of these. `sample` (a DataFrame, or {column: values}) are rows as it was trained on: they tell
        the columns, and a scikit-learn model's ONNX form is compared on them. BadInput says what is missing.
        """
        rows = _rows(sample)
        found, files, known = saved(model, rows)
        body = {"name": name, "format": format or found, "files": Assets(self._http).put_files(files), "sample": rows}
        body |= {"classes": list(classes) if classes is not None else known, "positive": positive, "task": task, "card": card or None}
        body |= {"run": run, "reads": [*reads], "description": description, "tags": dict(tags) if tags else None}
        return self._http.post("/api/v1/models", json=body)

    def trusted(self) -> list[dict[str, Any]]:
        """Producers whose pickles and code may be loaded: [{"producer", "why", "at", "by"}]."""
        return self._http.get("/api/v1/trusted")["items"]

    def trust(self, producer: str, why: str = "") -> dict[str, Any]:
        """Trust a producer (`key:ci`, `user:ann`, `local`): its pickles are then loaded, each in a process of its own. For admins."""
        return self._http.put(f"/api/v1/trusted/{quote(producer, safe='')}", json={"why": why})

    def distrust(self, producer: str) -> None:
        """Trust a producer no longer. For admins."""
        self._http.delete(f"/api/v1/trusted/{quote(producer, safe='')}")


def _rows(sample: Any) -> dict[str, list[Any]] | None:
    """A sample as {column: plain values}; missing values are None."""
    if sample is None:
        return None
    columns = {str(name): sample[name] for name in getattr(sample, "columns", sample)}
    return {name: [_plain(value) for value in (values.tolist() if hasattr(values, "tolist") else values)] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value.isoformat() if hasattr(value, "isoformat") else value


def saved(model: Any, rows: dict[str, list[Any]] | None) -> tuple[str, Files, list[Any] | None]:
    """(format, files, classes where the model knows them) of a model object or path, in the safest form that its library writes."""
    if isinstance(model, (str, Path)):
        return _of_path(Path(model))
    kinds = {f"{one.__module__}.{one.__qualname__}" for one in type(model).__mro__}
    packages = {kind.partition(".")[0] for kind in kinds}
    classes = getattr(model, "classes_", None)
    known = None if classes is None else [_plain(one) for one in classes]
    for wanted, save in _SAVERS.items():
        if wanted in kinds or wanted in packages:
            return (*save(model, rows), known)
    if callable(model):
        return "callable", {"model.pkl": _pickled(model)}, None
    raise BadInput(f"A {type(model).__name__} is not a model that can be registered.", f"Known are: {', '.join(_SAVERS)}, functions, and files.")


def _of_path(path: Path) -> tuple[str, Files, None]:
    if path.is_dir():
        files: Files = {str(one.relative_to(path)): one for one in sorted(path.rglob("*")) if one.is_file()}
        if "config.json" not in files:
            raise BadInput(f"The folder {path} has no config.json.", "A folder is a Hugging Face model: model.save_pretrained(FOLDER).")
        return "transformers", files, None
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    if path.suffix not in ENDINGS:
        raise BadInput(f"The ending of {path.name} says no format.", f"Endings: {', '.join(ENDINGS)}; or give format=.")
    return ENDINGS[path.suffix], {path.name: path}, None


def _xgboost(model: Any, _: Any) -> tuple[str, Files]:
    made = model.get_booster() if hasattr(model, "get_booster") else model
    return "xgboost", {"model.ubj": bytes(made.save_raw("ubj"))}


def _lightgbm(model: Any, _: Any) -> tuple[str, Files]:
    made = getattr(model, "booster_", model)
    return "lightgbm", {"model.lgb": made.model_to_string().encode()}


def _sklearn(model: Any, _: Any) -> tuple[str, Files]:
    import skops.io

    return "sklearn", {"model.skops": skops.io.dumps(model)}


def _onnx(model: Any, _: Any) -> tuple[str, Files]:
    return "onnx", {"model.onnx": model.SerializeToString()}


def _torch(model: Any, rows: dict[str, list[Any]] | None) -> tuple[str, Files]:
    import io

    import torch

    if not rows:
        raise BadInput("A torch module is exported along rows that it answers.", "Give sample=DATAFRAME of its columns, in their order.")
    table = torch.tensor([list(row) for row in zip(*rows.values(), strict=True)], dtype=next(model.parameters()).dtype)
    table = table if len(table) > 1 else table.repeat(2, 1)
    program = torch.export.export(model.eval(), (table,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    made = io.BytesIO()
    torch.export.save(program, made)
    return "pytorch", {"model.pt2": made.getvalue()}


def _transformers(model: Any, _: Any) -> tuple[str, Files]:
    if not hasattr(model, "tokenizer"):
        raise BadInput("A Hugging Face model is registered with its tokenizer.", "Give a pipeline, or save both in one folder and give its path.")
    with tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        return "transformers", {str(one.relative_to(folder)): one.read_bytes() for one in sorted(Path(folder).rglob("*")) if one.is_file()}


def _pickled(function: Any) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        raise MissingDependency("cloudpickle", "to send a function") from None
    return bytes(cloudpickle.dumps(function))


_SAVERS: dict[str, Callable[[Any, dict[str, list[Any]] | None], tuple[str, Files]]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "onnx.onnx_ml_pb2.ModelProto": _onnx,
    "onnx": _onnx,
    "torch.nn.modules.module.Module": _torch,
    "transformers": _transformers,
    "sklearn": _sklearn,
}
"""How a model is written, by a class or package that it derives from; the first that fits is taken."""
