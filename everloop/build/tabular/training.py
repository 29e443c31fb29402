"""The step `train`: both candidates validated, the better fitted on all training rows, calibrated, described and registered."""

from __future__ import annotations

import json
from typing import Any

from everloop.build.tabular import models, report
from everloop.build.tabular.table import feature_kinds, features, labelled, name_of, targets
from everloop.core.errors import BadInput
from everloop.core.labels import as_written


def train(step: Any) -> dict[str, Any]:
    """Register `model:NAME`: skops and, where it agrees, ONNX; with signature, card, calibration, threshold and figures on the holdout.

    Model, number of trees, calibration and threshold are chosen on validation rows inside the training part; the holdout is looked at once, at the
    end, to describe. Answers {"model", "chosen", "validation", "engine", "threshold", "threshold_how", "calibration", "holdout", "card"}.
    """
    got, checked = step.inputs["split"], step.inputs.get("validate") or {}
    asset, task = step.client.data.get(got["train"]), got["task"]
    roles = asset["manifest"]["roles"]
    left_out = {**dict.fromkeys(step.params.get("leave_out") or (), "you said so"), **(checked.get("left_out") or {})}
    kinds = feature_kinds(asset["manifest"], left_out)
    if not kinds:
        raise BadInput(f"{got['train']} has no feature column.", "Load columns beside the target and those with a role.")
    frame = labelled(step.client.data.frame(asset["ref"]), roles["target"], task["task"])
    x, y = features(frame, kinds), targets(frame, roles["target"], task["task"])
    with models.threads(len(x)):
        return _train(step, x, y, {"kinds": kinds, "left_out": left_out, "split": got, "roles": roles, "findings": checked.get("findings") or []})


def _train(step: Any, x: Any, y: Any, facts: dict[str, Any]) -> dict[str, Any]:
    kinds, got, roles, task = facts["kinds"], facts["split"], facts["roles"], facts["split"]["task"]
    pairs = models.folds(y, task["task"], got.get("by") in ("time", "rows"))
    found = {name: models.validated(name, x, y, kinds, task, pairs) for name in models.CANDIDATES}
    chosen, why = models.choose(found, y)
    for name, one in found.items():
        step.run.log_metric(f"validation_score_{name}", one.score)
    step.log(f"{len(x):,} rows, {len(kinds)} features: {why}.")
    fitted = models.candidate(chosen, kinds, task["task"], len(x), found[chosen].trees or 1).fit(x, y)
    settings = _settle(step, found[chosen], y, task)
    model = models.fold_in(fitted, settings["calibration"], task)
    held = step.client.data.frame(got["holdout"])
    facts["classes"] = None if task["task"] == "regression" else as_written((str(c) for c in model.classes_), held[roles["target"]])
    holdout = labelled(held, roles["target"], task["task"])
    told = report.describe(model, features(holdout, kinds), holdout, roles, task, settings["threshold"])
    report.log_curves(step.run, found, told, task)
    for rows, value in report.learning_curve(found[chosen], x, y, kinds, task):
        step.run.log_metric("learning_curve", value, step=rows)
    weights = report.importance(found[chosen], x, y, kinds, task)
    for name, weight in weights[:50]:
        step.run.log_metric(f"importance/{report.metric_key(name)}", weight["mean"])
    step.run.log_artifact(json.dumps(dict(weights), indent=1, ensure_ascii=False).encode(), "importance.json")
    facts |= {
        "task": task,
        "rows": len(x),
        "chosen": chosen,
        "why": why,
        "found": found,
        "settings": settings,
        "holdout": told,
        "importance": weights,
    }
    return _register(step, model, x, facts)


def _settle(step: Any, best: models.Validated, y: Any, task: dict[str, Any]) -> dict[str, Any]:
    """Calibration and threshold, on the validation rows."""
    if task["task"] == "regression":
        return {"calibration": {"method": "none", "why": "not for regression"}, "threshold": None, "threshold_how": "", "p": best.p}
    seen, classes = y.iloc[best.rows], sorted(set(y))
    calibrated = models.calibration(seen, best.p, task, classes)
    p = models.stretched(best.p, calibrated["a"], calibrated["b"], task, classes) if calibrated["method"] != "none" else best.p
    step.run.log_metrics({"validation_log_loss": models.loss(seen, best.p, classes), "validation_log_loss_calibrated": models.loss(seen, p, classes)})
    settings: dict[str, Any] = {"calibration": calibrated, "threshold": None, "threshold_how": ""}
    if task["task"] == "binary":
        positive = str(task["positive"])
        at, how = models.threshold(seen, p[:, classes.index(positive)], positive, step.params.get("threshold"))
        settings |= {"threshold": round(at, 4), "threshold_how": how}
        step.run.log_params({"threshold": round(at, 4), "threshold_how": how})
    step.run.log_params({"calibration": calibrated["method"]})
    step.log(f"{calibrated['why']}. Threshold: {settings['threshold']} ({settings['threshold_how']})")
    return settings


def _register(step: Any, model: Any, x: Any, facts: dict[str, Any]) -> dict[str, Any]:
    from everloop.engines.convert import to_onnx, to_skops
    from everloop.engines.signature import infer_signature

    task, got, settings = facts["task"], facts["split"], facts["settings"]
    classes = facts["classes"]
    signature = infer_signature(x, classes)
    for column in signature["inputs"]:
        column["required"] = False
    onnx, evidence = to_onnx(model, signature, x)
    evidence.pop("fast", None)  # measured anew where it is loaded; the same model must give the same manifest
    facts |= {"conversion": evidence, "name": name_of(step)}
    card = report.card(facts)
    files = {"model.skops": to_skops(model), **({"model.onnx": onnx} if onnx else {})}
    manifest = {"format": "sklearn", "engine": "onnx" if onnx else "skops", "files": step.client.assets.put_files(files), "task": task["task"]}
    manifest |= {"classes": classes or [], "positive": task["positive"], "signature": signature, "conversion": evidence}
    manifest |= {"card": step.client.assets.put_object(card.encode())["digest"], "calibration": settings["calibration"]}
    validation = {name: one.score for name, one in facts["found"].items()}
    manifest["training"] = {"dataset": got["train"], "holdout": got["holdout"], "rows": len(x), "model": facts["chosen"], "validation": validation}
    manifest["training"] |= {"order": got.get("order", ""), "left_out": facts["left_out"]}
    manifest["figures"] = {name: {k: one[k] for k in ("value", "low", "high", "n")} for name, one in facts["holdout"]["figures"].items()}
    step.run.log_artifact(card.encode(), "card.md")
    step.run.log_params({"model": facts["chosen"], "features": len(facts["kinds"]), "rows": len(x), "engine": manifest["engine"]})
    step.run.log_metrics({name: one["value"] for name, one in facts["holdout"]["figures"].items()})
    ref = step.client.assets.register("model", name_of(step), manifest, run=step.run.id, reads=[got["train"]])["ref"]
    step.client.lineage.derives(ref, {got["train"]: x.index}, run=step.run.id, why="the rows it was fitted on")
    step.log(f"{ref}, served by {manifest['engine']}{'' if onnx else ': ' + evidence['why']}")
    return {
        "model": ref,
        "chosen": facts["chosen"],
        "validation": validation,
        "engine": manifest["engine"],
        "threshold": settings["threshold"],
        "threshold_how": settings["threshold_how"],
        "calibration": settings["calibration"],
        "holdout": manifest["figures"],
        "card": manifest["card"],
    }
