"""A training script as it is, as a pipeline: it is run on held-in rows only, the model that it logs to MLflow's API becomes servable.

    split -> run -> adopt -> release -> gate

Params: `name`, `dataset`, `script` (a file of the project), `file` (the path under which the script reads its data: it gets the training rows
there), `arguments` (a list, for the script's command line), `model` (the registered name it logs under; default: whichever it made).
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import as_written, label
from everloop.engines.mlmodel import read_yaml

PIPELINE: dict[str, Any] = {
    "steps": [
        {"name": "split", "call": "everloop.build.tabular:split", "after": []},
        {"name": "run", "call": "everloop.build.script:run", "after": ["split"]},
        {"name": "adopt", "call": "everloop.build.script:adopt", "after": ["split", "run"]},
        {"name": "release", "call": "everloop.build.release:predict", "after": ["adopt"]},
        {"name": "gate", "call": "everloop.build.release:gate", "after": ["release"]},
    ],
    "params": {},
}
"""The pipeline's spec: `project.pipeline(steps=script.PIPELINE, code=True, script="train.py", file="data.csv", dataset="dataset:churn")`."""
SERVABLE = "-servable"
"""What is added to a registered model's name for the version that is served: the script's own versions stay as MLflow's client made them."""
TAIL = 3000
"""Characters of a failed script's output that its error shows."""


def run(step: Any) -> dict[str, Any]:
    """Run the script in a folder of its own, with the training rows under the name it reads; answers {"model", "seconds"}: the version it registered.

    The script talks to this server: MLFLOW_TRACKING_URI, EVERLOOP_URL and a token are in its environment. BadInput where it fails or registers none.
    """
    import time

    script = _param(step, "script", "train.py")
    before = _versions(step)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="everloop-script-") as scratch:
        folder = _folder(step, Path(scratch), script)
        _place(step, folder)
        code, said = _process(step, folder, [sys.executable, script, *map(str, step.params.get("arguments") or ())])
    step.log(said)
    if code:
        raise BadInput(f"{script} ended with {code}:\n{said[-TAIL:].strip()}", "Mend it, apply again, and run the pipeline again.")
    made = [(name, version) for name, version in _versions(step).items() if version > before.get(name, 0)]
    wanted = step.params.get("model")
    made = [one for one in made if wanted in (None, one[0])]
    if len(made) != 1:
        told = "registered no model" if not made else f"registered several: {', '.join(name for name, _ in made)}"
        raise BadInput(
            f"{script} {told}{f' called {wanted!r}' if wanted and not made else ''}.",
            'Log it with registered_model_name="NAME" (log_model or autolog), and give the param `model` where there are several.',
        )
    name, version = made[0]
    return {"model": f"model:{name}@{version}", "seconds": round(time.perf_counter() - started, 2)}


def adopt(step: Any) -> dict[str, Any]:
    """Make a servable version of a scikit-learn model that MLflow's client logged: skops, ONNX where it agrees, signature, classes.

    Answers {"model", "engine", "from", "filled", and "why_not_onnx" where it is not}: a model that takes no missing values gets them filled before
    it, and the log says by what. A pickle is unpacked only here, in the worker, and only where a step before made it in this run, or where the param `trust_pickle` says that whoever logged it is trusted. BadInput says what stands in the way.
    """
    from everloop.engines.convert import to_onnx, to_skops
    from everloop.engines.signature import infer_signature

    client, got = step.client, step.inputs["split"]
    ours = (step.inputs.get("run") or {}).get("model")
    asset = client.assets.get(ours or _param(step, "model", "model:churn"))
    info = _info(client, asset)
    model = _loaded(client, asset, info, trusted=bool(ours) or bool(step.params.get("trust_pickle")))
    train, task = client.data.get(got["train"]), got["task"]
    frame = client.data.frame(train["ref"])
    x = frame[_features(model, info, frame, train["manifest"]["roles"], asset["ref"])]
    kind = type(model).__name__
    model, filled = complete(model, x, asset["ref"])
    classes = _classes(model, task, frame[train["manifest"]["roles"]["target"]], asset["ref"])
    signature = infer_signature(x, classes)
    for column in signature["inputs"]:
        column["required"] = False
        if filled and column["type"] == "string":
            column["missing"] = "none"  # what the filling before the model takes for missing, also where the training rows had no gap
    onnx, evidence = to_onnx(model, signature, x)
    files = {"model.skops": to_skops(model), **({"model.onnx": onnx} if onnx else {})}
    manifest = {"format": "sklearn", "engine": "onnx" if onnx else "skops", "files": client.assets.put_files(files), "task": task["task"]}
    manifest |= {"classes": classes or [], "positive": task["positive"], "signature": signature, "conversion": evidence}
    manifest |= {"training": {"dataset": got["train"], "holdout": got.get("holdout"), "rows": len(x), "model": kind, "filled": filled}}
    made = client.assets.register("model", asset["name"] + SERVABLE, manifest, run=step.run.id, reads=[asset["ref"], got["train"]])
    if filled:
        values = ", ".join(f"{name} by {value!r}" for name, value in filled.items())
        step.log(f"The model takes no missing values, so they are filled before it as the training rows have it (median, or most frequent): {values}")
    step.log(f"{made['ref']}: {asset['ref']} with {len(x.columns)} features, served by {manifest['engine']}{'' if onnx else ': ' + evidence['why']}")
    answer = {"model": made["ref"], "engine": manifest["engine"], "from": asset["ref"], "filled": ", ".join(filled)}
    return answer if onnx else {**answer, "why_not_onnx": evidence["why"]}


def complete(model: Any, x: Any, ref: str) -> tuple[Any, dict[str, Any]]:
    """(a model that answers rows with missing values, what fills them by column): itself and {} where it does so already.

    Else a pipeline that fills numbers by the median of `x` and texts by the most frequent, inside the branches of a first step that names columns
    (that form has an ONNX twin), else before the model. BadInput where the model answers no row of `x` at all.
    """
    import pandas as pd

    numbers = [name for name in x.columns if pd.api.types.is_numeric_dtype(x[name]) and x[name].dtype != bool]
    empty = pd.DataFrame({name: pd.Series([float("nan")] if name in numbers else [None], dtype=float if name in numbers else object) for name in x})
    if _answers(model, empty) is None:
        return model, {}
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline

    fillers = [
        (name, SimpleImputer(strategy="median") if name in numbers else SimpleImputer(missing_values=None, strategy="most_frequent"), [name])
        for name in x
    ]
    x = x.assign(**{name: x[name].astype(object).where(x[name].notna(), None) for name in x if name not in numbers})
    fill = ColumnTransformer(fillers, verbose_feature_names_out=False).set_output(transform="pandas").fit(x)
    filled = Pipeline([("fill", fill), ("model", model)])
    within = _within(model, x, numbers)
    if within is not None and _answers(within, empty) is None and _answers(within, x.head(20)) is None:
        filled = within
    error = _answers(filled, empty) or _answers(filled, x.head(20))
    if error is not None:
        raise BadInput(
            f"{ref} does not answer rows of the data: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "Put what the script does to its columns into a scikit-learn Pipeline, and log that.",
        )
    return filled, {name: _native(fill.named_transformers_[name].statistics_[0]) for name in x}


def _within(model: Any, x: Any, numbers: list[str]) -> Any:
    """The pipeline with gaps filled inside each branch of its first step, a ColumnTransformer that names columns; None where it is no such pipeline."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline

    if not isinstance(model, Pipeline) or not isinstance(model.steps[0][1], ColumnTransformer):
        return None
    made = copy.deepcopy(model)
    first, branches = made.steps[0][1], []
    for name, part, columns in first.transformers_:
        if isinstance(part, str) and part == "drop":
            branches.append((name, part, columns))
            continue
        if not isinstance(columns, list) or not columns or not all(column in x for column in columns):
            return None
        kinds = {column in numbers for column in columns}
        if len(kinds) > 1:
            return None
        filler = SimpleImputer(strategy="median") if kinds == {True} else SimpleImputer(missing_values=None, strategy="most_frequent")
        filler.set_output(transform="pandas").fit(x[columns])
        branches.append((name, filler if isinstance(part, str) else Pipeline([("fill", filler), ("then", part)]), columns))
    first.transformers_ = branches
    return made


def _answers(model: Any, rows: Any) -> Exception | None:
    """What the model raises when it is asked for these rows; None if it answers."""
    try:
        model.predict(rows)
    except Exception as error:
        return error
    return None


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _param(step: Any, name: str, example: str) -> str:
    if not step.params.get(name):
        raise BadInput(f"The step {step.name!r} needs the param {name!r}.", f"For example: {name}={example!r}")
    return str(step.params[name])


def _versions(step: Any) -> dict[str, int]:
    """The newest version of every registered model that MLflow's client made."""
    found: dict[str, int] = {}
    cursor: str | None = None
    while True:
        page = step.client.assets.list(kind="model", limit=1000, cursor=cursor)
        found |= {one["name"]: one["latest"] for one in page["items"] if not one["name"].endswith(SERVABLE)}
        cursor = page["next"]
        if not cursor:
            return found


def _folder(step: Any, scratch: Path, script: str) -> Path:
    """The project's code, unpacked where the script may write."""
    from everloop.work.code import unpack

    if not step.code:
        raise BadInput("No code came with the pipeline.", "Declare it with project.pipeline(..., code=True), and apply again.")
    asset = step.client.assets.get(step.code)
    folder = unpack(step.client, asset, scratch)
    if not (folder / script).is_file():
        there = ", ".join(f["path"] for f in asset["manifest"]["files"])
        raise BadInput(f"{asset['ref']} has no file {script}.", f"Its files: {there}.")
    return folder


def _place(step: Any, folder: Path) -> None:
    """The training rows under the path that the script reads."""
    name = _param(step, "file", "data.csv")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BadInput(f"The param 'file' is {name!r}.", "Give a path inside the project, as the script reads it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    step.run.log_input(step.inputs["split"]["train"])
    frame = step.client.data.frame(step.inputs["split"]["train"])
    frame.to_parquet(path, index=False) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def _process(step: Any, folder: Path, command: list[str]) -> tuple[int, str]:
    """(exit code, output) of a command that talks to this server; it is ended if the step is."""
    env = {**os.environ, **step.environment(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode, said.decode("utf-8", "replace")


def _info(client: Any, asset: Mapping[str, Any]) -> dict[str, Any]:
    """The MLmodel file of a version; BadInput where it is no scikit-learn model that MLflow's client logged."""
    digest = next((f["digest"] for f in asset["manifest"].get("files") or () if f["path"] == "MLmodel"), None)
    if digest is None:
        raise BadInput(f"{asset['ref']} has no MLmodel file, so MLflow's client did not log it here.", "Log it with mlflow.sklearn.log_model.")
    info = read_yaml(client.assets.get_object(digest).decode())
    if "sklearn" not in (info.get("flavors") or {}):
        flavors = ", ".join(info.get("flavors") or {})
        raise BadInput(f"{asset['ref']} is of the flavors {flavors}; scikit-learn models can be adopted.", "Log it with mlflow.sklearn.log_model.")
    return info


def _loaded(client: Any, asset: Mapping[str, Any], info: Mapping[str, Any], trusted: bool) -> Any:
    """The scikit-learn model itself."""
    flavor = info["flavors"]["sklearn"]
    path, form = str(flavor.get("pickled_model")), str(flavor.get("serialization_format"))
    digest = next((f["digest"] for f in asset["manifest"]["files"] if f["path"] == path), None)
    if digest is None:
        raise BadInput(f"{asset['ref']} names the file {path!r}, which is not among its files.", "Log the model again.")
    data = client.assets.get_object(digest)
    if form == "skops":
        from everloop.engines.skops import loads

        return loads(data)
    if not trusted:
        raise BadInput(
            f"{asset['ref']} is a {form} file, which can run any code when it is opened.",
            "Give the step the param trust_pickle=True if you trust whoever logged it, or log it with serialization_format='skops'.",
        )
    import pickle

    try:
        return pickle.loads(data)
    except Exception as error:
        versions = f"It was made with scikit-learn {flavor.get('sklearn_version')}; here is {_sklearn()}."
        raise BadInput(f"{asset['ref']} cannot be opened: {type(error).__name__}: {error}", versions) from error


def _sklearn() -> str:
    import sklearn

    return str(sklearn.__version__)


def _features(model: Any, info: Mapping[str, Any], frame: Any, roles: Mapping[str, Any], ref: str) -> list[str]:
    """The columns that the model reads, in its order: as it remembers them, else as MLflow's signature has them, else all without a role."""
    import json

    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if not names and (info.get("signature") or {}).get("inputs"):
        names = [str(column.get("name", "")) for column in json.loads(info["signature"]["inputs"])]
    if not any(names):
        left_out = {roles["target"], roles["time"], roles["id"], *roles["protected"]}
        names = [str(column) for column in frame.columns if column not in left_out]
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise BadInput(
            f"{ref} reads columns that the data do not have: {', '.join(missing[:10])}.",
            "Make them inside a scikit-learn Pipeline, so that they are made in serving too.",
        )
    return names


def _classes(model: Any, task: Mapping[str, Any], target: Any, ref: str) -> list[Any] | None:
    """The model's classes as the target has them (None for regression); BadInput where they are not those of the data."""
    if task["task"] == "regression":
        return None
    if not hasattr(model, "classes_"):
        raise BadInput(f"{ref} has no classes, but the target of the data has.", "Fit a classifier.")
    classes = [str(label(c)) for c in model.classes_]
    known = {label(value) for value in target.dropna().unique()}
    if not set(classes) & known:
        raise BadInput(
            f"{ref} answers {', '.join(classes[:5])}; the target of the data has {', '.join(sorted(map(str, known))[:5])}.",
            "Fit the model on the target as it is in the data: scikit-learn takes text classes.",
        )
    return as_written(classes, target)


__all__ = ["PIPELINE", "adopt", "run"]
