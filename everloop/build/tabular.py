"""The tabular pipeline: split, train (gradient boosting beside a linear baseline), register a model, make a release that pins it."""

from __future__ import annotations

from typing import Any

from everloop.core.errors import BadInput
from everloop.core.labels import label

PIPELINE: dict[str, Any] = {
    "steps": [
        {"name": "split", "call": "everloop.build.tabular:split", "after": []},
        {"name": "train", "call": "everloop.build.tabular:train", "after": ["split"]},
        {"name": "release", "call": "everloop.build.tabular:release", "after": ["train"]},
    ],
    "params": {},
}
"""Params: `name` (of model and release) and `dataset` (a reference with a target role)."""
HOLDOUT = 0.25
"""Share of rows, the last by time or row order, that the suite keeps."""


def split(step: Any) -> dict[str, Any]:
    """Train and holdout as dataset versions, by time where there is a time column, else by row order (and it says so); the holdout becomes the suite."""
    data = step.client.data
    asset = data.get(step.params["dataset"])
    roles, task = asset["manifest"]["roles"], asset["manifest"]["task"]
    if not task:
        raise BadInput(f"{asset['ref']} has no target column.", "Load it again with target=COLUMN.")
    frame = data.frame(asset["ref"]).dropna(subset=[roles["target"]])
    order = f"by time ({roles['time']})" if roles["time"] else "in row order, as there is no time column"
    if roles["time"]:
        frame = frame.sort_values(roles["time"], kind="stable")
    cut = int(len(frame) * (1 - HOLDOUT))
    if not 0 < cut < len(frame):
        raise BadInput(f"{asset['ref']} has {len(frame)} labelled rows; they cannot be split.", "Load more rows.")
    name = step.params["name"]
    train = data.add(f"{name}-train", frame.iloc[:cut], roles=roles, reads=[asset["ref"]])["ref"]
    holdout = data.add(f"{name}-holdout", frame.iloc[cut:], roles=roles, reads=[asset["ref"]])["ref"]
    suite = {"task": task["task"], "dataset": holdout, "target": roles["target"], "protected": roles["protected"], "cases": None}
    suite |= {"count": len(frame) - cut, "positive": task["positive"]}
    made = step.client.assets.register("suite", name, suite, reads=[holdout])["ref"]
    step.log(f"{cut} rows to train, {len(frame) - cut} held out, {order}; {task['why']}")
    return {"train": train, "holdout": holdout, "suite": made, "order": order, "task": task}


def train(step: Any) -> dict[str, Any]:
    """Fit both models on the first four fifths of the training rows, keep the better on the last fifth, register it with skops and ONNX (if ONNX agrees)."""
    from everloop.engines.convert import to_onnx, to_skops
    from everloop.engines.signature import infer_signature

    got = step.inputs["split"]
    asset, task = step.client.data.get(got["train"]), got["task"]
    roles = asset["manifest"]["roles"]
    left_out = {roles["target"], roles["time"], roles["id"], *roles["protected"]}
    kinds = {c["name"]: c["type"] for c in asset["manifest"]["schema"] if c["name"] not in left_out and c["type"] != "datetime"}
    frame = step.client.data.frame(asset["ref"])
    x, y = _features(frame, kinds), frame[roles["target"]]
    y = y.astype(float) if task["task"] == "regression" else y.map(label).astype(object)
    cut = int(len(x) * 0.8)
    scores, models = {}, _models(kinds, task["task"])
    for name, model in models.items():
        model.fit(x.iloc[:cut], y.iloc[:cut])
        scores[name] = _score(model, x.iloc[cut:], y.iloc[cut:], task)
        step.run.log_metric(f"{name}_score", scores[name])
    best = max(scores, key=lambda k: scores[k])
    model = models[best].fit(x, y)
    classes = None if task["task"] == "regression" else [str(c) for c in model.classes_]
    signature = infer_signature(x, classes)
    for column in signature["inputs"]:
        column["required"] = False
    onnx, evidence = to_onnx(model, signature, x)
    files = {"model.skops": to_skops(model), **({"model.onnx": onnx} if onnx else {})}
    manifest = {"format": "sklearn", "engine": "onnx" if onnx else "skops", "files": step.client.assets.put_files(files), "task": task["task"]}
    manifest |= {"classes": classes or [], "positive": task["positive"], "signature": signature, "conversion": evidence}
    manifest |= {"training": {"dataset": got["train"], "rows": len(x), "model": best, "validation": scores}}
    step.run.log_params({"model": best, "features": len(kinds), "rows": len(x)})
    ref = step.client.assets.register("model", step.params["name"], manifest, run=step.run.id, reads=[got["train"]])["ref"]
    return {"model": ref, "chosen": best, "validation": scores, "engine": manifest["engine"]}


def release(step: Any) -> dict[str, Any]:
    """A release that pins the model."""
    made = step.client.assets.release(step.params["name"], "predict", {"model": step.inputs["train"]["model"]}, run=step.run.id)
    return {"release": made["ref"]}


def _features(frame: Any, kinds: dict[str, str]) -> Any:
    import pandas as pd

    columns = {}
    for name, kind in kinds.items():
        columns[name] = frame[name].astype(float) if kind in ("number", "integer") else frame[name].map(label).astype(object)
    return pd.DataFrame(columns)


def _models(kinds: dict[str, str], task: str) -> dict[str, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [n for n, k in kinds.items() if k in ("number", "integer")]
    texts = [n for n in kinds if n not in numbers]

    def prepared(final: Any) -> Any:
        scale = Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
        parts = [("numbers", scale, numbers)] if numbers else []
        parts += [("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=30), texts)] if texts else []
        return Pipeline([("prepare", ColumnTransformer(parts)), ("model", final)])

    if task == "regression":
        return {"boosting": prepared(HistGradientBoostingRegressor(random_state=0)), "linear": prepared(Ridge())}
    boosting = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.06, max_leaf_nodes=15, random_state=0)
    return {"boosting": prepared(boosting), "linear": prepared(LogisticRegression(max_iter=1000))}


def _score(model: Any, x: Any, y: Any, task: dict[str, Any]) -> float:
    """AUC, where both classes are there; accuracy for other classifiers; R2 for regression."""
    from sklearn.metrics import roc_auc_score

    if task["task"] == "binary" and y.nunique() == 2:
        p = model.predict_proba(x)[:, list(model.classes_).index(task["positive"])]
        return float(roc_auc_score(y == task["positive"], p))
    return float(model.score(x, y))
