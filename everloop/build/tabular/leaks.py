"""Columns that tell the target: known only after the outcome, or the outcome itself under another name."""

from __future__ import annotations

import warnings
from typing import Any

from everloop.build.tabular.table import NUMERIC, feature_kinds, features, targets
from everloop.core.limits import LEAK_COLUMNS, LEAK_ROWS

TOO_GOOD = 0.998
"""Balanced accuracy (or share of variance explained) that one column alone does not reach honestly."""
FOLDS = 3


def tells_target(look: Any) -> None:
    """An error for each feature that alone tells the target on rows it was not fitted on (see TOO_GOOD); `keep` overrules."""
    kinds = feature_kinds(look.manifest, look.left_out)
    checked = dict(list(kinds.items())[:LEAK_COLUMNS])
    if len(checked) < len(kinds):
        what = f"Only the first {LEAK_COLUMNS} of {len(kinds)} columns were checked for telling the target."
        look.say("note", "leak", look.ref, what, "Look at the importance of the others after training.")
    rows = look.rows.sample(min(len(look.rows), LEAK_ROWS), random_state=0)
    x, y = features(rows, checked), targets(rows, look.roles["target"], look.task["task"])
    kept = look.params.get("keep") or ()
    for name, kind in checked.items():
        score = alone(x[name], y, kind, look.task["task"])
        if score < TOO_GOOD:
            continue
        figure = "share of variance explained" if look.task["task"] == "regression" else "balanced accuracy"
        what = f"Column {name!r} alone tells the target {look.roles['target']!r}: {figure} {score:.3f} on rows it was not fitted on ({len(rows):,} rows)."
        if name in kept:
            look.say("warning", "leak", name, what, "You said to keep it.")
            continue
        do = f'If it is known only after the outcome, leave it out: {{"leave_out": ["{name}"]}}; if it is known before, keep it: {{"keep": ["{name}"]}}.'
        look.say("error", "leak", name, what, do)


def alone(values: Any, y: Any, kind: str, task: str) -> float:
    """How well one column predicts the target out of fold: balanced accuracy for classes, R2 for quantities; a tree on numbers, a table on text."""
    import numpy as np
    from sklearn.metrics import balanced_accuracy_score, r2_score

    said = np.empty(len(y), dtype=float if task == "regression" else object)
    fold = np.arange(len(y)) % FOLDS
    for part in range(FOLDS):
        test = fold == part
        fit = _tree if kind in NUMERIC else _table
        said[test] = fit(values[~test], y[~test], values[test], task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = r2_score(y, said) if task == "regression" else balanced_accuracy_score(y.astype(str), said.astype(str))
    if task == "regression" and kind in NUMERIC:
        both = values.notna().to_numpy() & np.isfinite(values.to_numpy())
        if both.sum() > 0.9 * len(y) and np.std(values[both]) > 0:
            score = max(score, float(np.corrcoef(values[both], y[both])[0, 1]) ** 2)
    return float(score)


def _tree(x: Any, y: Any, new: Any, task: str) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if task == "regression":
        model = DecisionTreeRegressor(max_depth=8, min_samples_leaf=3, random_state=0)
    else:
        model = DecisionTreeClassifier(max_depth=5, class_weight="balanced", random_state=0)
    return model.fit(x.to_numpy().reshape(-1, 1), y).predict(new.to_numpy().reshape(-1, 1))


def _table(x: Any, y: Any, new: Any, task: str) -> Any:
    """The mean, or the most frequent class, of each value; of all rows where a value is new."""
    filled, asked = x.fillna("\0"), new.fillna("\0")
    if task == "regression":
        return asked.map(y.groupby(filled).mean()).astype(float).fillna(float(y.mean())).to_numpy()
    most = y.groupby(filled).agg(lambda v: v.value_counts().index[0])
    return asked.map(most).fillna(y.value_counts().index[0]).to_numpy()
