"""The two candidates and what is chosen about them on rows they were not fitted on: how many trees, which model, calibration, threshold."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everloop.build.tabular.table import NUMERIC
from everloop.core.limits import TRAIN_TREES

CANDIDATES = ("linear", "boosting")
"""The baseline first: it is kept where boosting is not better."""
BETTER = 0.002
"""By how much boosting must beat the baseline on validation to be chosen."""
ONE_THREAD_ROWS = 20_000
_TINY = 1e-7


@dataclass
class Validated:
    """A candidate on rows it was not fitted on: `rows` (places in the training table), `p` (probabilities n x classes, or predictions), its score,
    `last` (the last fold's model, the rows it was fitted on and asked about) and, for boosting, the loss by number of trees on both sides."""

    name: str
    rows: np.ndarray
    p: np.ndarray
    score: float
    last: tuple[Any, np.ndarray, np.ndarray]
    trees: int | None = None
    train_loss: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


def threads(rows: int) -> Any:
    """A context in which a small table is fitted with one thread: more of them wait for each other longer than they help."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if rows < ONE_THREAD_ROWS else None)


def candidate(name: str, kinds: Mapping[str, str], task: str, rows: int, trees: int = TRAIN_TREES) -> Any:
    """An unfitted pipeline: gradient boosting, or a linear baseline (logistic or ridge regression), over prepared columns."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [n for n, k in kinds.items() if k in NUMERIC]
    texts = [n for n in kinds if n not in numbers]
    scale = Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    parts: list[tuple[str, Any, list[str]]] = [("numbers", "passthrough" if name == "boosting" else scale, numbers)] if numbers else []
    parts += [("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=30), texts)] if texts else []
    if name == "linear":
        final: Any = Ridge() if task == "regression" else LogisticRegression(max_iter=2000)
    else:
        make = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
        small = {"max_leaf_nodes": 7, "min_samples_leaf": 8, "learning_rate": 0.05} if rows < 2000 else {"max_leaf_nodes": 15, "learning_rate": 0.08}
        final = make(max_iter=trees, l2_regularization=1.0, early_stopping=False, random_state=0, **small)
    return Pipeline([("prepare", ColumnTransformer(parts)), ("model", final)])


def folds(y: Any, task: str, ordered: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit, rows to look at) pairs: expanding over time where the rows are in order, else crossed, classes kept in proportion."""
    n = len(y)
    if ordered:
        cuts = [int(n * part) for part in (0.5, 2 / 3, 5 / 6, 1.0)]
        pairs = [(np.arange(a), np.arange(a, b)) for a, b in itertools.pairwise(cuts)]
        return [p for p in pairs if task == "regression" or len(set(y.iloc[p[0]])) > 1]
    from sklearn.model_selection import KFold, StratifiedKFold

    k = 5 if n <= 5000 else 3
    maker = KFold(k, shuffle=True, random_state=0) if task == "regression" else StratifiedKFold(k, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(maker.split(np.zeros(n), y))


def validated(name: str, x: Any, y: Any, kinds: Mapping[str, str], task: Mapping[str, Any], pairs: list[Any]) -> Validated:
    """The candidate fitted on each fold's first part and asked about its second; boosting with the number of trees that loses least there."""
    classes = None if task["task"] == "regression" else sorted(set(y))
    fitted = []
    losses: list[list[float]] = []
    train_losses: list[list[float]] = []
    for fit, look in pairs:
        model = candidate(name, kinds, task["task"], len(x)).fit(x.iloc[fit], y.iloc[fit])
        fitted.append((model, look))
        if name == "boosting":
            losses.append(_loss_by_tree(model, x.iloc[look], y.iloc[look], classes))
            some = fit[:: max(1, len(fit) // 2000)]
            train_losses.append(_loss_by_tree(model, x.iloc[some], y.iloc[some], classes))
    trees, curve = None, []
    if name == "boosting":
        curve = np.average(losses, axis=0, weights=[len(look) for _, look in fitted]).tolist()
        trees = max(10, int(np.argmin(curve)) + 1)
        for model, _ in fitted:
            model[-1]._predictors = model[-1]._predictors[:trees]
    parts = [probabilities(model, x.iloc[look], classes) for model, look in fitted]
    rows, p = np.concatenate([look for _, look in fitted]), np.concatenate(parts)
    made = Validated(name, rows, p, score(y.iloc[rows], p, task, classes), (fitted[-1][0], *pairs[-1]), trees, [], curve)
    if name == "boosting":
        made.train_loss = np.mean(train_losses, axis=0).tolist()
    return made


def choose(found: Mapping[str, Validated], y: Any) -> tuple[str, str]:
    """(name, why): boosting where it beats the baseline on validation by more than BETTER in score, and in loss too; else the baseline."""
    linear, boosting = found["linear"], found["boosting"]
    classes = None if linear.p.ndim == 1 else sorted(set(y))
    before, after = (loss(y.iloc[one.rows], one.p, classes) for one in (linear, boosting))
    figure = "squared error" if classes is None else "log loss"
    told = f"on rows not fitted on boosting scores {boosting.score:.4f} with {figure} {after:.4g}, linear {linear.score:.4f} with {before:.4g}"
    if boosting.score > linear.score + BETTER and after < before:
        return "boosting", f"{told}: boosting is better"
    return "linear", f"{told}: boosting is not better in both, so the simpler one"


def score(y: Any, p: Any, task: Mapping[str, Any], classes: list[str] | None) -> float:
    """AUC (binary), accuracy (other classes) or R2: larger is better."""
    from sklearn.metrics import r2_score, roc_auc_score

    if classes is None:
        return float(r2_score(y, p))
    if task["task"] == "binary" and y.nunique() == 2:
        return float(roc_auc_score(y == task["positive"], p[:, classes.index(task["positive"])]))
    return float((np.asarray(classes)[p.argmax(axis=1)] == y.to_numpy()).mean())


def loss(y: Any, p: Any, classes: list[str] | None) -> float:
    """Mean log loss of probabilities (nats), or mean squared error of predictions."""
    return float(losses_of(y, p, classes).mean())


def losses_of(y: Any, p: Any, classes: list[str] | None) -> np.ndarray:
    """The loss by row."""
    return _losses(_truth(y, classes), p, classes)


def _truth(y: Any, classes: list[str] | None) -> np.ndarray:
    """The target as numbers: itself, or each row's place among the classes."""
    if classes is None:
        return np.asarray(y, float)
    place = {c: i for i, c in enumerate(classes)}
    return np.asarray([place[v] for v in y])


def _losses(truth: np.ndarray, p: np.ndarray, classes: list[str] | None) -> np.ndarray:
    if classes is None:
        return np.asarray((truth - p) ** 2)
    return np.asarray(-np.log(np.clip(p[np.arange(len(p)), truth], _TINY, 1.0)))


def _loss_by_tree(model: Any, x: Any, y: Any, classes: list[str] | None) -> list[float]:
    truth = _truth(y, classes)
    return [float(_losses(truth, p, classes).mean()) for p in _staged(model, x, classes)]


def probabilities(model: Any, x: Any, classes: list[str] | None) -> np.ndarray:
    """The model's probabilities with a column for each class, those it has not seen at 0; or its predictions."""
    if classes is None:
        return np.asarray(model.predict(x), float)
    return _aligned(model.predict_proba(x), model.classes_, classes)


def _aligned(p: Any, seen: Any, classes: list[str]) -> np.ndarray:
    table = np.zeros((len(p), len(classes)))
    table[:, [classes.index(str(c)) for c in seen]] = p
    return table


def _staged(model: Any, x: Any, classes: list[str] | None) -> Any:
    prepared = model[:-1].transform(x)
    if classes is None:
        yield from model[-1].staged_predict(prepared)
        return
    for p in model[-1].staged_predict_proba(prepared):
        yield _aligned(p, model[-1].classes_, classes)


def calibration(y: Any, p: np.ndarray, task: Mapping[str, Any], classes: list[str]) -> dict[str, Any]:
    """Whether stretching the log-odds (Platt, 1999; for more classes one temperature: Guo et al., 2017) helps, tried on half of the validation rows
    and judged on the other half; then fitted on all of them.

    Answers {"method": "none" | "sigmoid" | "temperature", "a", "b", "before", "after" (log loss on the judging half), "rows", "why"}.
    """
    method = "sigmoid" if task["task"] == "binary" else "temperature"
    cut = len(y) // 2
    a, b = _fit_calibration(y.iloc[:cut], p[:cut], task, classes)
    before = losses_of(y.iloc[cut:], p[cut:], classes)
    after = losses_of(y.iloc[cut:], stretched(p[cut:], a, b, task, classes), classes)
    gain = before - after
    error = float(gain.std() / np.sqrt(len(gain)))
    said = {"before": float(before.mean()), "after": float(after.mean()), "rows": len(y)}
    told = f"log loss {said['before']:.4f} as it is, {said['after']:.4f} with {method} calibration on {len(gain):,} rows held back for that"
    if gain.mean() <= error:
        return {"method": "none", "a": 1.0, "b": 0.0, **said, "why": f"{told}: no clear gain, so probabilities stay as they are"}
    a, b = _fit_calibration(y, p, task, classes)
    return {"method": method, "a": a, "b": b, **said, "why": f"{told}: calibrated"}


def _fit_calibration(y: Any, p: np.ndarray, task: Mapping[str, Any], classes: list[str]) -> tuple[float, float]:
    if task["task"] == "binary":
        from sklearn.linear_model import LogisticRegression

        if y.nunique() < 2:
            return 1.0, 0.0
        z = _log_odds(p[:, classes.index(task["positive"])])
        model = LogisticRegression(C=1e6, max_iter=1000).fit(z.reshape(-1, 1), (y == task["positive"]).astype(int))
        return max(0.05, float(model.coef_[0, 0])), float(model.intercept_[0])
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda t: loss(y, stretched(p, t, 0.0, task, classes), classes), bounds=(0.2, 5.0), method="bounded")
    return float(found.x), 0.0


def stretched(p: np.ndarray, a: float, b: float, task: Mapping[str, Any], classes: list[str]) -> np.ndarray:
    """Probabilities after log-odds become a * log-odds + b (binary), or log-probabilities a * log-probabilities, made to sum to 1."""
    if task["task"] == "binary":
        at = classes.index(task["positive"])
        one = 1 / (1 + np.exp(-(a * _log_odds(p[:, at]) + b)))
        return np.stack([one, 1 - one], axis=1)[:, [0, 1] if at == 0 else [1, 0]]
    raw = a * np.log(np.clip(p, _TINY, 1.0))
    raw = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _TINY, 1 - _TINY)
    return np.asarray(np.log(p / (1 - p)))


def fold_in(model: Any, found: Mapping[str, Any], task: Mapping[str, Any]) -> Any:
    """A copy of a fitted pipeline whose own weights hold the calibration, so that it stays a plain model that converts to ONNX exactly.

    A linear model's coefficients, or a booster's leaves and baseline, are multiplied by `a`; `b` is added to the binary log-odds.
    """
    if found["method"] == "none":
        return model
    made = copy.deepcopy(model)
    final, a = made[-1], found["a"]
    b = found["b"] if task["task"] != "binary" or str(final.classes_[1]) == task["positive"] else -found["b"]
    if hasattr(final, "coef_"):
        final.coef_, final.intercept_ = final.coef_ * a, final.intercept_ * a + b
        return made
    for row in final._predictors:
        for tree in row:
            tree.nodes["value"] *= a
    final._baseline_prediction = final._baseline_prediction * a + b
    return made


def threshold(y: Any, p: np.ndarray, positive: str, asked: Any = None) -> tuple[float, str]:
    """(threshold, how it was found) for P(positive) on validation rows.

    `asked`: a number as it is; "balanced" (default): most recall of both classes together (Youden, 1950); "f1": best F1; costs
    {"false_positive", "false_negative"}: least cost. BadInput for anything else.
    """
    from everloop.core.errors import BadInput

    if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 < asked < 1:
        return float(asked), "as asked"
    hit = (np.asarray(y) == positive).astype(float)
    order = np.argsort(-p, kind="stable")
    sorted_p, found = p[order], np.cumsum(hit[order])
    false = np.cumsum(1 - hit[order])
    total, others = hit.sum(), len(hit) - hit.sum()
    if isinstance(asked, Mapping) and set(asked) == {"false_positive", "false_negative"}:
        value = -(float(asked["false_positive"]) * false + float(asked["false_negative"]) * (total - found))
        how = f"least cost with {asked['false_positive']:g} a false alarm and {asked['false_negative']:g} a miss"
    elif asked == "f1":
        value, how = 2 * found / (found + false + total), f"best F1 of {positive!r}"
    elif asked in (None, "balanced"):
        value, how = found / max(total, 1) - false / max(others, 1), "most recall of both classes together"
    else:
        raise BadInput(f"threshold is {asked!r}.", 'A number between 0 and 1, "balanced", "f1", or {"false_positive": 1, "false_negative": 5}.')
    ends = np.append(sorted_p[:-1] != sorted_p[1:], True)
    best = int(np.flatnonzero(ends)[np.argmax(value[ends])])
    after = sorted_p[best + 1] if best + 1 < len(p) else 0.0
    at = float(np.clip((sorted_p[best] + after) / 2, 0.001, 0.999))
    return at, f"{how}, on {len(p):,} validation rows"
