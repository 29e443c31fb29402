"""What is told about a trained model: figures with intervals on the holdout, by group, curves, importance, and the card that holds it together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from everloop.build.tabular import models
from everloop.core.labels import label
from everloop.core.limits import IMPORTANCE_ROWS

FIGURES = {
    "binary": ("auc", "log_loss", "brier", "calibration_error", "accuracy", "precision", "recall", "f1"),
    "multiclass": ("accuracy", "log_loss", "macro_f1", "auc", "brier"),
    "regression": ("r2", "rmse", "mae", "rmse_ratio"),
}
"""The checks that describe a model of each task on its holdout."""
CURVE_POINTS = 101
SMALL_GROUP = 30
SHUFFLES = 3


def describe(model: Any, x: Any, rows: Any, roles: Mapping[str, Any], task: Mapping[str, Any], at: float | None) -> dict[str, Any]:
    """{"figures": {name: {"value","low","high","n"}}, "groups": {column: [...]}, "curves": {name: [(step, value)]}, "rows"} on the holdout."""
    results = _results(model, x, rows, roles, task, at)
    told: dict[str, Any] = {"figures": _figures(results), "groups": {}, "curves": {}, "rows": results.n}
    for column in roles["protected"]:
        told["groups"][column] = _groups(results, column)
        if task["task"] == "binary":
            told["figures"].update({f"fairness_gap.{metric_key(column)}": f for f in _gap(results, column)})
    if task["task"] == "binary":
        told["curves"] = curves(np.asarray(results.y) == str(task["positive"]), np.asarray(results.probability))
    return told


def _results(model: Any, x: Any, rows: Any, roles: Mapping[str, Any], task: Mapping[str, Any], at: float | None) -> Any:
    from everloop.build.tabular.table import targets
    from everloop.core.types import Results

    y = targets(rows, roles["target"], task["task"]).to_numpy()
    groups = {c: np.asarray([label(v) for v in rows[c]], dtype=object) for c in roles["protected"]}
    if task["task"] == "regression":
        return Results(len(y), "regression", y=y, prediction=np.asarray(model.predict(x), float), features=groups)
    classes = [str(c) for c in model.classes_]
    p = model.predict_proba(x)
    said: Any = np.asarray(classes)[p.argmax(axis=1)]
    positive = task["positive"]
    if task["task"] == "binary":
        p = p[:, classes.index(positive)]
        said = np.where(p >= (0.5 if at is None else at), positive, next(c for c in classes if c != positive))
    return Results(len(y), task["task"], y=y, prediction=said, probability=p, classes=tuple(classes), positive=positive, features=groups)


def _figures(results: Any) -> dict[str, dict[str, Any]]:
    from everloop.checks import checks
    from everloop.checks.base import NotAssessable

    found = {}
    for name in FIGURES[results.task]:
        try:
            one = checks.get(name)().estimate(results)
        except NotAssessable:
            continue
        found[name] = {"value": one.value, "low": _finite(one.interval.low), "high": _finite(one.interval.high), "n": one.n}
    return found


def _gap(results: Any, column: str) -> list[dict[str, Any]]:
    from everloop.checks import checks
    from everloop.checks.base import NotAssessable

    try:
        one = checks.get("fairness_gap")(column).estimate(results)
    except NotAssessable:
        return []
    return [{"value": one.value, "low": _finite(one.interval.low), "high": _finite(one.interval.high), "n": one.n}]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _groups(results: Any, column: str) -> list[dict[str, Any]]:
    """By group of a protected column: rows, and how often predictions are positive and right (or the mean absolute error)."""
    group, found = results.features[column], []
    for name in sorted({str(g) for g in group}):
        mine = group.astype(str) == name
        one: dict[str, Any] = {"group": name, "rows": int(mine.sum())}
        if results.task == "regression":
            one["mae"] = float(np.abs(results.prediction[mine] - results.y[mine]).mean())
        else:
            one["accuracy"] = float((results.prediction[mine] == results.y[mine]).mean())
        if results.task == "binary":
            truth = results.y[mine] == results.positive
            said = results.prediction[mine] == results.positive
            one |= {"predicted_positive": float(said.mean()), "recall": float(said[truth].mean()) if truth.any() else None}
        found.append(one)
    return found


def curves(truth: np.ndarray, p: np.ndarray) -> dict[str, list[tuple[int, float]]]:
    """ROC (step: false positive rate in thousandths), precision over recall (step: recall), and calibration (step: mean stated probability)."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    if truth.all() or not truth.any():
        return {}
    false, hit, _ = roc_curve(truth, p)
    precision, recall, _ = precision_recall_curve(truth, p)
    grid = np.linspace(0, 1, CURVE_POINTS)
    steps = np.round(grid * 1000).astype(int).tolist()
    made = {"roc": list(zip(steps, np.interp(grid, false, hit).tolist(), strict=True))}
    made["precision_recall"] = list(zip(steps, np.interp(grid, recall[::-1], precision[::-1]).tolist(), strict=True))
    bins = np.array_split(np.argsort(p, kind="stable"), min(10, max(2, len(p) // 25)))
    made["calibration"] = [(round(1000 * float(p[b].mean())), float(truth[b].mean())) for b in bins if len(b)]
    return made


def log_curves(run: Any, found: Mapping[str, models.Validated], told: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Curves as metric series of the run: by tree for boosting's loss, by thousandth for ROC, precision-recall and calibration on the holdout."""
    name = "squared_error" if task["task"] == "regression" else "log_loss"
    for side, series in (("validation", found["boosting"].loss), ("training", found["boosting"].train_loss)):
        for tree, value in enumerate(series, 1):
            run.log_metric(f"boosting_{side}_{name}", value, step=tree)
    for key, points in told["curves"].items():
        for step, value in points:
            run.log_metric(f"curve_{key}", value, step=step)


def learning_curve(found: models.Validated, x: Any, y: Any, kinds: Mapping[str, str], task: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(rows fitted on, validation score) with a quarter, a half and all of the last fold's rows: whether more rows would help."""
    whole, fit, look = found.last
    classes = None if task["task"] == "regression" else sorted(set(y))
    points = []
    for step in (4, 2, 1):
        some = fit[::step]
        if len(some) < 20 or (classes and len(set(y.iloc[some])) < 2):
            continue
        model = whole if step == 1 else models.candidate(found.name, kinds, task["task"], len(x), found.trees or 1).fit(x.iloc[some], y.iloc[some])
        points.append((len(some), models.score(y.iloc[look], models.probabilities(model, x.iloc[look], classes), task, classes)))
    return points


def importance(found: models.Validated, x: Any, y: Any, kinds: Mapping[str, str], task: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """By how much the validation score falls when one feature's values are shuffled, most important first (Breiman, 2001); `spread` over 3 shuffles."""
    model, _, look = found.last
    look = look[:: max(1, len(look) // IMPORTANCE_ROWS)]
    classes = None if task["task"] == "regression" else sorted(set(y))
    part, truth = x.iloc[look], y.iloc[look]
    base = models.score(truth, models.probabilities(model, part, classes), task, classes)
    rng = np.random.default_rng(0)
    drop = {}
    for column in kinds:
        drops = []
        for _ in range(SHUFFLES):
            mixed = part.copy()
            mixed[column] = part[column].to_numpy()[rng.permutation(len(part))]
            drops.append(base - models.score(truth, models.probabilities(model, mixed, classes), task, classes))
        drop[column] = {"mean": float(np.mean(drops)), "spread": float(np.std(drops))}
    return sorted(drop.items(), key=lambda pair: -pair[1]["mean"])


def metric_key(name: str) -> str:
    """A column's name as it may stand in a metric's key."""
    return re.sub(r"[^\w.\- /]", "_", name)[:100] or "_"


def card(facts: Mapping[str, Any]) -> str:
    """The model card in Markdown: data, split, model, figures with intervals, groups, limits, how to make it again."""
    task, got, told = facts["task"], facts["split"], facts["holdout"]
    lines = [f"# {facts['name']}", "", task["why"], ""]
    lines += ["## Data", "", f"- Trained on `{got['train']}` ({facts['rows']:,} rows), tested on `{got['holdout']}` ({told['rows']:,} rows)."]
    lines += [f"- Both come from `{got.get('dataset', '')}`, split {got.get('order', '')}."]
    lines += [f"- {len(facts['kinds'])} features, in this order: {', '.join(facts['kinds'])}."]
    lines += [f"- Left out: {', '.join(f'{c} ({w})' for c, w in facts['left_out'].items())}."] if facts["left_out"] else []
    protected = facts["roles"]["protected"]
    lines += [f"- Protected, so no feature, and kept for the fairness figures: {', '.join(protected)}."] if protected else []
    lines += ["", "## Model", "", f"- {facts['chosen']}: {facts['why']}."]
    settings = facts["settings"]
    lines += [f"- Probabilities: {settings['calibration']['why']}."] if task["task"] != "regression" else []
    lines += [f"- {task['positive']!r} is predicted from {settings['threshold']:g} on: {settings['threshold_how']}."] if settings["threshold"] else []
    lines += [f"- ONNX: {facts['conversion']['why'] or 'agrees with scikit-learn on ' + str(facts['conversion']['n']) + ' rows'}."]
    lines += ["", "## Figures on the holdout, with 95 % intervals", "", "| figure | value | from | to | rows |", "|---|---|---|---|---|"]
    lines += [f"| {n} | {_short(f['value'])} | {_short(f['low'])} | {_short(f['high'])} | {f['n']:,} |" for n, f in told["figures"].items()]
    for column, groups in told["groups"].items():
        names = [k for k in groups[0] if k != "group"]
        lines += ["", f"## By {column}", "", f"| group | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        lines += [f"| {g['group']} | {' | '.join(_short(g[k]) for k in names)} |" for g in groups]
        small = [g["group"] for g in groups if g["rows"] < SMALL_GROUP]
        lines += [f"\nGroups of fewer than {SMALL_GROUP} rows say little: {', '.join(small)}."] if small else []
    lines += ["", "## What counts", "", "| feature | score lost without it |", "|---|---|"]
    lines += [f"| {name} | {weight['mean']:.4f} ± {weight['spread']:.4f} |" for name, weight in facts["importance"][:15]]
    lines += ["", "## Limits", ""]
    lines += [f"- {f['what']} {f['do']}" for f in facts["findings"]] or ["- Validation of the data found nothing to say."]
    lines += [
        "- The holdout is of the same source and time as the data above; elsewhere and later the figures may not hold. Watch it with a monitor."
    ]
    lines += [
        "",
        "## How to make it again",
        "",
        f"`everloop why model:{facts['name']}` names the run that made it, with its code, data and environment.",
    ]
    lines += [
        f"The same data through the pipeline `everloop.build.tabular:PIPELINE` with dataset `{got.get('dataset', '')}` give the same model.",
        "",
    ]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
