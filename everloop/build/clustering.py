"""The clustering pipeline: groups in a table without labels, as many as hold together best, served and gated like any model.

    split -> train -> release -> gate

Params: `dataset`, `name`, `clusters` (a number, or [fewest, most]; 2 to 8 by default), `leave_out` (columns), `order` and `holdout` as in
build/tabular, `gate`, `promote`.
"""

from __future__ import annotations

from typing import Any

from everloop.build.release import ALIAS, promote
from everloop.build.tabular import splitting
from everloop.build.tabular.table import NUMERIC, data_of, feature_kinds, features, name_of
from everloop.core.errors import BadInput
from everloop.core.limits import CLUSTERS_MAX, SILHOUETTE_ROWS, TRAIN_ROWS_MIN

PIPELINE: dict[str, Any] = {
    "steps": [
        {"name": "split", "call": "everloop.build.clustering:split", "after": []},
        {"name": "train", "call": "everloop.build.clustering:train", "after": ["split"]},
        {"name": "release", "call": "everloop.build.release:predict", "after": ["train"]},
        {"name": "gate", "call": "everloop.build.clustering:gate", "after": ["split", "train", "release"]},
    ],
    "params": {},
}
"""The pipeline's spec: `client.pipelines.put("segments", clustering.PIPELINE)`."""
RULES = ["silhouette >= 0.1", "smallest_cluster >= 0.01", "cpu_p95_ms <= 50", "silhouette >= champion - 0.02"]
"""The gate that is declared where none stands: groups lie apart, none is a handful of rows, and it is no worse than the champion."""
FEWEST, MOST = 2, 8


def split(step: Any) -> dict[str, Any]:
    """Train and holdout as dataset versions, by time where there is a time column, else by a hash of each row; the holdout becomes the suite."""
    data = step.client.data
    ref, asset = data_of(step)
    if asset["manifest"].get("format") != "table":
        raise BadInput(f"{asset['ref']} is a set of documents, not a table.", "Name a dataset that was loaded from CSV or Parquet.")
    roles, frame = asset["manifest"]["roles"], data.frame(ref)
    if len(frame) < TRAIN_ROWS_MIN:
        raise BadInput(
            f"{asset['ref']} has {len(frame):,} rows; at least {TRAIN_ROWS_MIN} are needed to find groups and to test them.", "Load more rows."
        )
    share, task = float(step.params.get("holdout") or splitting.HOLDOUT), {"task": "regression"}
    by = str(step.params.get("order") or "auto")
    if by == "time" or (by == "auto" and roles["time"]):
        by, why = splitting.order_of(frame, roles, task, "time")
        frame = frame.sort_values(roles["time"], kind="stable")
    elif by in ("rows", "hash", "auto"):
        by, why = splitting.order_of(frame, roles, task, "rows" if by == "rows" else "hash")
    else:
        raise BadInput(f"order is {by!r}.", f"One of: {', '.join(splitting.ORDERS)}.")
    held = splitting.hashed(frame, roles, task, share, 0) if by == "hash" else splitting.newest(frame, roles, task, share, why)
    name = name_of(step)
    train_ref, holdout = splitting.parts(step, name, ref, roles, frame, held)
    suite = {"task": "clustering", "dataset": holdout, "target": None, "protected": [], "cases": None, "count": int(held.sum()), "positive": None}
    made = step.client.assets.register("suite", name, {**suite, "order": why}, reads=[holdout])["ref"]
    step.log(f"{int((~held).sum()):,} rows to find groups in, {int(held.sum()):,} held out, {why}")
    return {"train": train_ref, "holdout": holdout, "suite": made, "order": why, "by": by, "dataset": ref}


def train(step: Any) -> dict[str, Any]:
    """K-means with the number of clusters whose silhouette is best on rows it was not fitted on; answers {"model", "clusters", "silhouette", "engine"}."""
    from threadpoolctl import threadpool_limits

    from everloop.build.tabular.validation import id_like

    got = step.inputs["split"]
    asset = step.client.data.get(got["train"])
    left_out = dict.fromkeys(step.params.get("leave_out") or (), "you said so")
    for column in asset["manifest"]["schema"]:
        found = asset["manifest"]["stats"][column["name"]]
        if found["distinct"] <= 1 or id_like(found, column["type"], asset["manifest"]["rows"]):
            left_out.setdefault(column["name"], "the same in all rows" if found["distinct"] <= 1 else "it names a row")
    kinds = feature_kinds(asset["manifest"], left_out)
    if not kinds:
        raise BadInput(f"{got['train']} has no column to find groups by: {left_out}.", "Load more columns.")
    x = features(step.client.data.frame(asset["ref"]), kinds)
    with threadpool_limits(1):
        scores = {k: _silhouette(x, kinds, k) for k in _numbers(step, len(x))}
        best = max(scores, key=lambda k: scores[k])
        model = _model(kinds, best).fit(x)
        for k, value in scores.items():
            step.run.log_metric("silhouette", value, step=k)
        step.run.log_params({"clusters": best, "features": len(kinds), "rows": len(x)})
        step.log(f"{best} clusters: silhouette {', '.join(f'{k}: {v:.3f}' for k, v in scores.items())} on rows not fitted on")
        return {**_register(step, model, x, best, left_out), "clusters": best, "silhouette": scores[best]}


def gate(step: Any) -> dict[str, Any]:
    """Judge the release and promote it if it may; where no gate stands, RULES (or the run's param `gate`) are declared."""
    name = name_of(step)
    if not any((g["kind"], g["name"], g["alias"]) == ("release", name, ALIAS) for g in step.client.gates.list()):
        asked = {"requirements": RULES, "approval": "not_first", **(step.params.get("gate") or {})}
        step.client.gates.declare("release", name, ALIAS, suite=f"suite:{name}", **asked)
        step.log(f"No gate stood before release:{name}@{ALIAS}; declared: {'; '.join(asked['requirements'])}")
    return promote(step, step.inputs["release"]["release"], move=bool(step.params.get("promote", True)))


def _numbers(step: Any, rows: int) -> range:
    asked = step.params.get("clusters") or [FEWEST, MOST]
    fewest, most = (asked, asked) if isinstance(asked, int) else (asked[0], asked[-1])
    if not 2 <= fewest <= most <= min(CLUSTERS_MAX, rows // 10):
        limit = min(CLUSTERS_MAX, rows // 10)
        raise BadInput(f"clusters is {asked!r}.", f"A number from 2 to {limit}, or [fewest, most]: ten rows for each at least.")
    return range(fewest, most + 1)


def _model(kinds: dict[str, str], clusters: int) -> Any:
    from sklearn.cluster import KMeans
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [n for n, k in kinds.items() if k in NUMERIC]
    texts = [n for n in kinds if n not in numbers]
    parts: list[tuple[str, Any, list[str]]] = []
    if numbers:
        parts.append(("numbers", Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())]), numbers))
    if texts:
        parts.append(("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=30), texts))
    return Pipeline([("prepare", ColumnTransformer(parts)), ("model", KMeans(clusters, n_init=5, random_state=0))])


def _silhouette(x: Any, kinds: dict[str, str], clusters: int) -> float:
    """On the rows of the last fifth (of every fifth row), by a model fitted on the others."""
    import numpy as np
    from sklearn.metrics import silhouette_score

    look = np.arange(len(x)) % 5 == 4
    model = _model(kinds, clusters).fit(x[~look])
    rows = x[look].iloc[:SILHOUETTE_ROWS]
    said = model.predict(rows)
    return float(silhouette_score(model[:-1].transform(rows), said)) if 1 < len(set(said)) < len(rows) else -1.0


def _register(step: Any, model: Any, x: Any, clusters: int, left_out: dict[str, str]) -> dict[str, Any]:
    from everloop.engines.convert import to_onnx, to_skops
    from everloop.engines.signature import infer_signature

    got, name = step.inputs["split"], name_of(step)
    signature = infer_signature(x, None, prediction="integer")
    for column in signature["inputs"]:
        column["required"] = False
    onnx, evidence = to_onnx(model, signature, x)
    evidence.pop("fast", None)
    sizes = {str(k): int((model[-1].labels_ == k).sum()) for k in range(clusters)}
    shown = _described(x, model[-1].labels_, clusters)
    files = {"model.skops": to_skops(model), **({"model.onnx": onnx} if onnx else {})}
    manifest = {"format": "sklearn", "engine": "onnx" if onnx else "skops", "files": step.client.assets.put_files(files), "task": "clustering"}
    manifest |= {"classes": [], "positive": None, "signature": signature, "conversion": evidence, "clusters": {"sizes": sizes, "middles": shown}}
    manifest["training"] = {"dataset": got["train"], "holdout": got["holdout"], "rows": len(x), "model": "kmeans", "left_out": left_out}
    card = _card(name, got, sizes, shown, left_out)
    manifest["card"] = step.client.assets.put_object(card.encode())["digest"]
    step.run.log_artifact(card.encode(), "card.md")
    ref = step.client.assets.register("model", name, manifest, run=step.run.id, reads=[got["train"]])["ref"]
    step.client.lineage.derives(ref, {got["train"]: x.index}, run=step.run.id, why="the rows it was fitted on")
    return {"model": ref, "engine": manifest["engine"], "sizes": sizes}


def _described(x: Any, said: Any, clusters: int) -> dict[str, dict[str, Any]]:
    """By cluster, what its rows are like: medians of numbers, most frequent text."""
    found: dict[str, dict[str, Any]] = {}
    for k in range(clusters):
        rows, one = x[said == k], {}
        for name in x.columns:
            numeric = rows[name].dtype.kind == "f"
            values = rows[name].dropna()
            one[name] = None if not len(values) else float(values.median()) if numeric else str(values.mode().iloc[0])
        found[str(k)] = one
    return found


def _card(name: str, got: dict[str, Any], sizes: dict[str, int], shown: dict[str, dict[str, Any]], left_out: dict[str, str]) -> str:
    columns = list(next(iter(shown.values())))
    lines = [f"# {name}", "", f"Groups found in `{got['train']}`, tested on `{got['holdout']}`, split {got['order']}.", ""]
    lines += [f"Left out: {', '.join(f'{c} ({w})' for c, w in left_out.items())}.", ""] if left_out else []
    lines += [f"| cluster | rows | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for k, one in shown.items():
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v or "") for v in one.values()]
        lines.append(f"| {k} | {sizes[k]:,} | {' | '.join(cells)} |")
    lines += ["", "Numbers are medians, text is the most frequent value.", "", "## Limits", ""]
    lines += ["- K-means finds round groups of like size; whether they mean something is for a person to judge."]
    lines += [f"- `everloop why model:{name}` names the run that made it, with its code and data.", ""]
    return "\n".join(lines)
