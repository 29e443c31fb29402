"""The steps `release` and `gate`: the model becomes a release; the release is judged, and goes live if it may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everloop.build.release import ALIAS, promote
from everloop.build.tabular.table import name_of
from everloop.core.labels import label

CPU_MS = 50
"""Default limit of a single row's processor time at the 95th percentile; by the clock it would depend on what else the machine does."""

AGAINST_CHAMPION = {"binary": "auc >= champion - 0.02", "multiclass": "accuracy >= champion - 0.03", "regression": "rmse_ratio <= champion + 0.03"}
"""The default comparison with the champion by task: see `default_requirements`."""


def release(step: Any) -> dict[str, Any]:
    """A release that pins the model, with its threshold and how that was found; answers {"release"}."""
    trained = step.inputs["train"]
    params = {"threshold": trained["threshold"], "threshold_how": trained["threshold_how"]} if trained.get("threshold") is not None else {}
    made = step.client.assets.release(name_of(step), "predict", {"model": trained["model"]}, params, run=step.run.id)
    return {"release": made["ref"]}


def gate(step: Any) -> dict[str, Any]:
    """Judge the release on the suite, beside the champion on the same rows, and promote it if it passed and no person must approve.

    Where no gate stands, one is declared: the run's param `gate`, else the default for the task (see `default_requirements`). A gate may name another
    suite than this run's holdout; a release that learnt from rows of it is judged, but goes live only by a person's hand. Answers {"release",
    "decision", "verdict", "why", "approval", "promoted", "gate", "declared", "seen_by_challenger", "seen_by_champion"?}; a refusal is no error.
    """
    client, name, ref = step.client, name_of(step), step.inputs["release"]["release"]
    stands = next((g["spec"] for g in client.gates.list() if (g["kind"], g["name"], g["alias"]) == ("release", name, ALIAS)), None)
    declared = stands is None
    if stands is None:
        stands = _declare(step, name)
    own = step.inputs["split"]["holdout"]
    held = str(client.assets.get(stands["suite"])["manifest"].get("dataset") or own) if stands.get("suite") else own
    learnt = 0 if held == own else seen_before(step, ref, held)
    said: dict[str, Any] = {"gate": stands["requirements"], "declared": declared, "seen_by_challenger": learnt}
    said |= promote(step, ref, move=bool(step.params.get("promote", True)) and not learnt)
    if learnt:
        _note(
            step, said, f"{learnt:,} rows of {stands['suite']} were among those that {ref} learnt from, so its figures are too good to promote it by."
        )
    if said.get("against"):
        said["seen_by_champion"] = seen = seen_before(step, str(said["against"]), held)
        if seen:
            _note(
                step, said, f"{seen:,} of the suite's rows were among those that {said['against']} learnt from, which favours it in the comparison."
            )
    return said


def _note(step: Any, said: dict[str, Any], note: str) -> None:
    said["why"] += f" {note}"
    step.log(note)


def seen_before(step: Any, release: str, held: str) -> int:
    """How many of the rows of the dataset `held` a release's model was trained on, by their content or id."""
    import numpy as np

    from everloop.build.tabular.splitting import row_points

    model = step.client.assets.get(step.client.assets.get(release)["manifest"]["pins"]["model"])["manifest"]
    learnt = (model.get("training") or {}).get("dataset")
    if not learnt:
        return 0
    roles = step.client.data.get(step.inputs["split"]["holdout"])["manifest"]["roles"]
    before, after = step.client.data.frame(learnt), step.client.data.frame(held)
    if set(before.columns) != set(after.columns):
        return 0
    return int(np.isin(row_points(after, roles, 0), row_points(before, roles, 0)).sum())


def _declare(step: Any, name: str) -> dict[str, Any]:
    asked = dict(step.params.get("gate") or {})
    split, trained = step.inputs["split"], step.inputs["train"]
    rules = asked.pop("requirements", None)
    if not rules:
        rules = default_requirements(split["task"]["task"], _baseline(step), _protected(step, split["task"]["task"]))
    settings = {"confidence": 0.95, "approval": "not_first", "expires_days": 7.0, **asked}
    made = step.client.gates.declare("release", name, ALIAS, suite=f"suite:{name}", requirements=rules, **settings)
    step.log(f"No gate stood before release:{name}@{ALIAS}; declared for {trained['model']}: {'; '.join(rules)}")
    return dict(made["spec"])


def default_requirements(task: str, baseline: Mapping[str, float], protected: list[str]) -> list[str]:
    """The rules a model of this task must meet where no one said otherwise: better than no model, fair, fast, no worse than the champion.

    The champion's rule asks for non-inferiority by a margin, not for superiority. A retrained challenger has seen newer rows and is mostly as good
    on a holdout of hundreds of rows, where being better can seldom be shown; asked to show it, it would be refused for want of rows while
    the champion grows old. What a margin costs is creep: each of several successors may be a little worse (D'Agostino,
    Massaro and Sullivan, 2003, Statistics in Medicine 22). So the decision's why says whether the challenger was shown to be better, or only not to be worse by more than the margin, and from the
    second champion on a person reads it (approval "not_first"). To ask for more: `auc > champion`.

    `baseline` is what no model would reach on the holdout: {"accuracy", "log_loss"} of always giving the classes' shares.
    """
    fast = [f"cpu_p95_ms <= {CPU_MS}"]
    if task == "binary":
        fair = [f"fairness_gap({_quoted(column)}) <= 0.2" for column in protected]
        return ["auc >= 0.6", "calibration_error <= 0.1", *fair, *fast, AGAINST_CHAMPION[task]]
    if task == "multiclass":
        accuracy = baseline["accuracy"] + 0.1 * (1 - baseline["accuracy"])
        rules = [f"accuracy >= {accuracy:.3f}", f"log_loss <= {0.95 * baseline['log_loss']:.3f}", "macro_f1 >= 0.4"]
        return [*rules, *[f"accuracy_gap({_quoted(c)}) <= 0.2" for c in protected], *fast, AGAINST_CHAMPION[task]]
    return ["r2 >= 0.1", "rmse_ratio <= 0.95", *fast, AGAINST_CHAMPION["regression"]]


def _baseline(step: Any) -> dict[str, float]:
    """Accuracy and log loss on the holdout of always giving the most frequent class, and the classes' shares, of the training rows."""
    import numpy as np

    split = step.inputs["split"]
    if split["task"]["task"] != "multiclass":
        return {}
    target = step.client.data.get(split["train"])["manifest"]["roles"]["target"]
    before, after = (step.client.data.frame(split[side])[target].map(label).dropna() for side in ("train", "holdout"))
    shares = before.value_counts(normalize=True)
    p = after.map(shares).fillna(0.0).clip(lower=1e-3)
    return {"accuracy": float((after == shares.index[0]).mean()), "log_loss": float(-np.log(p).mean())}


def _protected(step: Any, task: str) -> list[str]:
    """The protected columns of which two groups are large enough in the holdout to be compared."""
    from everloop.checks.fairness import SMALL_GROUP

    manifest = step.client.data.get(step.inputs["split"]["holdout"])["manifest"]
    wanted: list[str] = []
    for column in manifest["roles"]["protected"] if task != "regression" else ():
        groups = step.client.data.frame(step.inputs["split"]["holdout"])[column].map(label).fillna("missing").value_counts()
        if (groups >= SMALL_GROUP).sum() > 1:
            wanted.append(column)
        else:
            step.log(f"fairness over {column!r} is not in the gate: fewer than two of its groups have {SMALL_GROUP} rows in the holdout.")
    return wanted


def _quoted(column: str) -> str:
    return column if column.isidentifier() else f'"{column}"'
