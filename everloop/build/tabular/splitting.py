"""The step `split`: rows to learn from and rows to be judged on, so that the judgement is honest and stays so when the model is trained again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.build.tabular.table import data_of, labelled, name_of, need_task, targets
from everloop.core.errors import BadInput
from everloop.core.labels import label

HOLDOUT = 0.25
"""Share of rows that the suite keeps where the run does not say."""
ORDERS = ("auto", "time", "rows", "hash")
CLASS_ROWS = 5
"""Rows of each class that a holdout by time or row order should hold; it is widened for that, to half of the rows at most."""


def split(step: Any) -> dict[str, Any]:
    """Train and holdout as dataset versions, the holdout as the suite; answers {"train", "holdout", "suite", "order", "by", "task"}.

    By time where there is a time column: the newest rows are the holdout. By row order where neighbouring rows have like labels (a stream
    without a time column). Else by a hash of each row: every class on both sides, and a row keeps its side in every retraining, so that no
    model is judged on rows that it or its predecessor learnt from. BadInput where a side would lack a class that training needs.
    """
    data = step.client.data
    ref, asset = data_of(step)
    roles, task = need_task(asset)
    whole = data.frame(ref)
    frame = labelled(whole, roles["target"], task["task"])
    share, by, why = float(step.params.get("holdout") or HOLDOUT), str(step.params.get("order") or "auto"), ""
    if not 0.05 <= share <= 0.5:
        raise BadInput(f"holdout is {share:g}.", "Give a share from 0.05 to 0.5.")
    by, why = order_of(frame, roles, task, by)
    if by == "time":
        frame = frame.sort_values(roles["time"], kind="stable")
    held = hashed(frame, roles, task, share, int(step.params.get("seed") or 0)) if by == "hash" else newest(frame, roles, task, share, why)
    need_both(frame, held, roles, task, ref)
    name = name_of(step)
    train, holdout = parts(step, name, ref, roles, frame, held, len(whole) - len(frame))
    suite = {"task": task["task"], "dataset": holdout, "target": roles["target"], "protected": roles["protected"], "cases": None}
    suite |= {"count": int(held.sum()), "positive": task["positive"], "order": why}
    made = step.client.assets.register("suite", name, suite, reads=[holdout])["ref"]
    step.log(f"{int((~held).sum()):,} rows to train, {int(held.sum()):,} held out, {why}. {task['why']}")
    step.run.log_params({"split": by, "rows_train": int((~held).sum()), "rows_holdout": int(held.sum())})
    return {"train": train, "holdout": holdout, "suite": made, "order": why, "by": by, "task": task, "dataset": ref}


def parts(step: Any, name: str, ref: str, roles: Mapping[str, Any], frame: Any, held: Any, unlabelled: int = 0) -> tuple[str, str]:
    """(training rows, held-out rows) as dataset versions, with lineage row by row: the frame's index says which rows of `ref` they are."""
    data, declare = step.client.data, step.client.lineage.derives
    train = data.add(f"{name}-train", frame[~held], roles=roles, reads=[ref])["ref"]
    holdout = data.add(f"{name}-holdout", frame[held], roles=roles, reads=[ref])["ref"]
    rest = f", and {unlabelled:,} rows have no label" if unlabelled else ""
    declare(train, {ref: frame[~held].index}, run=step.run.id, why=f"{int(held.sum()):,} rows are held out in {holdout}{rest}")
    declare(holdout, {ref: frame[held].index}, run=step.run.id, why=f"{int((~held).sum()):,} rows are learnt from in {train}{rest}")
    return train, holdout


def order_of(frame: Any, roles: Mapping[str, Any], task: Mapping[str, Any], asked: str) -> tuple[str, str]:
    """(time | rows | hash, a sentence's end that says so) for what the run asked; BadInput for an order that cannot be."""
    if asked not in ORDERS:
        raise BadInput(f"order is {asked!r}.", f"One of: {', '.join(ORDERS)}.")
    if asked == "time" and not roles["time"]:
        raise BadInput("The rows cannot be split by time: the dataset has no time column.", "Load it with --time COLUMN, or take another order.")
    if asked == "time" or (asked == "auto" and roles["time"]):
        return "time", f"by time ({roles['time']}): the newest are held out"
    if asked == "rows":
        return "rows", "in row order, as asked: the last rows are held out"
    if asked == "auto" and is_stream(frame, roles["target"], task["task"]):
        return "rows", "in row order: there is no time column, and neighbouring rows have like labels, so the rows seem to stand in order of time"
    return "hash", "by a hash of each row, as there is no time column: a row keeps its side in every retraining"


def is_stream(frame: Any, target: str, task: str) -> bool:
    """Whether labels of neighbouring rows go together (correlation over 0.2, six standard errors from 0) and the last rows hold every class.

    A file sorted by its target is no stream: its last rows lack a class.
    """
    import numpy as np

    y = targets(frame, target, task)
    n = len(y)
    if task == "regression":
        codes = y.to_numpy(dtype=float)
        if n < 50 or np.all(np.diff(codes) >= 0) or np.all(np.diff(codes) <= 0):
            return False
    else:
        codes = (y == y.value_counts().index[0]).to_numpy(dtype=float)
        last = y.iloc[int(n * (1 - HOLDOUT)) :].value_counts()
        all_ = y.value_counts()
        if n < 50 or any(last.get(c, 0) < 0.25 * HOLDOUT * k for c, k in all_.items()):
            return False
    if codes.std() == 0:
        return False
    together = float(np.corrcoef(codes[:-1], codes[1:])[0, 1])
    return together > max(0.2, 6 / np.sqrt(n))


def newest(frame: Any, roles: Mapping[str, Any], task: Mapping[str, Any], share: float, why: str) -> Any:
    """Mask of the last rows; where a class has too few there, more rows, up to half of all."""
    import numpy as np

    n = len(frame)
    size = max(1, round(n * share))
    if task["task"] != "regression":
        y = targets(frame, roles["target"], task["task"]).to_numpy()
        wanted = {c: min(CLASS_ROWS, int((y == c).sum()) // 2) for c in set(y.tolist())}
        while size < n // 2 and any((y[n - size :] == c).sum() < k for c, k in wanted.items()):
            size = min(n // 2, size + max(1, n // 100))
    return np.arange(n) >= n - size


def hashed(frame: Any, roles: Mapping[str, Any], task: Mapping[str, Any], share: float, seed: int) -> Any:
    """Mask of the rows whose hash (of the id, else of all columns but the target) falls under `share`; a class never lacks on a side."""
    import numpy as np

    points = row_points(frame, roles, seed)
    held = points < share
    if task["task"] == "regression":
        return held
    y = targets(frame, roles["target"], task["task"]).to_numpy()
    for c in sorted(set(y.tolist())):
        mine = np.flatnonzero(y == c)
        if len(mine) < 2 or 0 < held[mine].sum() < len(mine):
            continue
        edge = points[mine].min() if not held[mine].any() else points[mine].max()
        held[mine[points[mine] == edge]] = not held[mine].any()
    return held


def row_points(frame: Any, roles: Mapping[str, Any], seed: int) -> Any:
    """A number in [0, 1) for each row that depends on its content (or id) and the seed alone, not on its place or the column types of this load."""
    import pandas as pd
    from pandas.util import hash_pandas_object

    names = [roles["id"]] if roles["id"] else [c for c in sorted(frame.columns) if c != roles["target"]]
    columns = {}
    for name in names:
        values = frame[name]
        number = values.dtype.kind in "iufb"
        columns[name] = values.astype(float) if number else values.map(lambda v: label(v) if v == v else None).astype(object)
    hashes = hash_pandas_object(pd.DataFrame(columns), index=False, hash_key=f"{seed:016d}"[-16:], categorize=False)
    return hashes.to_numpy().astype("float64") / 2.0**64


def need_both(frame: Any, held: Any, roles: Mapping[str, Any], task: Mapping[str, Any], ref: str) -> None:
    """BadInput where a side is empty, or (binary) lacks a class."""
    if not 0 < held.sum() < len(frame):
        raise BadInput(f"{ref} has {len(frame):,} labelled rows; they cannot be split.", "Load more rows.")
    if task["task"] != "binary":
        return
    y = targets(frame, roles["target"], "binary")
    for side, part in (("to train", y[~held]), ("held out", y[held])):
        if part.nunique() < 2:
            raise BadInput(
                f"All {len(part):,} rows {side} have {roles['target']!r} = {part.iloc[0]!r}: the classes do not mix over {roles['time'] or 'the rows'}.",
                'Load a longer span, or split by row hash: {"order": "hash"}.',
            )
