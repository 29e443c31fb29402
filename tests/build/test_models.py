"""What is chosen on validation rows: calibration that becomes part of the model, thresholds for a purpose, the simpler model where it is as good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.build.tabular import models, report
from everloop.core.errors import BadInput
from everloop.engines.convert import to_onnx
from everloop.engines.signature import infer_signature

KINDS = {"a": "number", "b": "number", "c": "string"}


def table(n: int = 500, classes: int = 2) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(2)
    x = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(["u", "v", None], n).astype(object)})
    x.loc[rng.random(n) < 0.1, "b"] = np.nan
    cuts = [0.0] if classes == 2 else [-0.6, 0.6]
    return x, pd.Series(np.digitize(x.a + rng.normal(size=n), cuts)).map("k{}".format).astype(object)


@pytest.mark.parametrize("name", models.CANDIDATES)
@pytest.mark.parametrize(("classes", "positive"), [(2, "k0"), (2, "k1"), (3, None)])
def test_calibration_becomes_part_of_the_model_and_converts(name: str, classes: int, positive: str | None) -> None:
    x, y = table(classes=classes)
    task = {"task": "binary" if classes == 2 else "multiclass", "positive": positive}
    model = models.candidate(name, KINDS, task["task"], len(x), 20).fit(x, y)
    found = {"method": "sigmoid" if classes == 2 else "temperature", "a": 0.6, "b": 0.4 if classes == 2 else 0.0}
    names = sorted(set(y))
    wanted = models.stretched(models.probabilities(model, x, names), found["a"], found["b"], task, names)
    folded = models.fold_in(model, found, task)
    assert np.allclose(models.probabilities(folded, x, names), wanted, atol=1e-6)
    assert not np.allclose(models.probabilities(model, x, names), wanted, atol=0.01), "the model itself stays as it was"
    signature = infer_signature(x, names)
    for column in signature["inputs"]:
        column["required"] = False
    data, evidence = to_onnx(folded, signature, x)
    assert data is not None and evidence["max_abs_diff"] < 1e-4


def test_calibration_is_chosen_only_where_it_helps() -> None:
    rng = np.random.default_rng(0)
    task, names = {"task": "binary", "positive": "yes"}, ["no", "yes"]
    true = rng.uniform(0.05, 0.95, 4000)
    y = pd.Series(np.where(rng.random(4000) < true, "yes", "no"))
    log_odds = np.log(true / (1 - true))
    sure = 1 / (1 + np.exp(-3 * log_odds))
    found = models.calibration(y, np.stack([1 - sure, sure], axis=1), task, names)
    assert found["method"] == "sigmoid" and found["a"] == pytest.approx(1 / 3, abs=0.05) and found["after"] < found["before"]
    honest = models.calibration(y, np.stack([1 - true, true], axis=1), task, names)
    assert honest["method"] == "none" and "no clear gain" in honest["why"]


def test_thresholds_follow_what_they_are_for() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(size=5000)
    y = np.where(rng.random(5000) < p, "bad", "good")
    balanced, how = models.threshold(y, p, "bad")
    assert balanced == pytest.approx(0.5, abs=0.08) and "5,000 validation rows" in how
    costly, _ = models.threshold(y, p, "bad", {"false_positive": 1, "false_negative": 9})
    assert costly == pytest.approx(0.1, abs=0.06)
    assert models.threshold(y, p, "bad", 0.3) == (0.3, "as asked")
    assert models.threshold(y, p, "bad", "f1")[0] < balanced
    for wrong in ("best", 1.5, {"cost": 2}):
        with pytest.raises(BadInput, match="threshold is"):
            models.threshold(y, p, "bad", wrong)


def test_the_simpler_model_is_kept_where_it_is_as_good_and_trees_stop_where_validation_turns() -> None:
    rng = np.random.default_rng(4)
    x = pd.DataFrame({"a": rng.normal(size=600), "b": rng.normal(size=600), "c": "u"})
    task: dict[str, Any] = {"task": "regression", "positive": None}
    for target, wanted in ((2 * x.a + x.b, "linear"), (np.sign(x.a * x.b) * 3, "boosting")):
        y = target + rng.normal(0, 0.3, 600)
        pairs = models.folds(y, "regression", ordered=False)
        found = {name: models.validated(name, x, y, KINDS, task, pairs) for name in models.CANDIDATES}
        assert models.choose(found, y)[0] == wanted
        assert found["boosting"].trees == int(np.argmin(found["boosting"].loss)) + 1
    ordered = models.folds(y, "regression", ordered=True)
    assert all(fit.max() < look.min() for fit, look in ordered)


def test_curves_end_where_they_must() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=400)
    found = report.curves(rng.random(400) < p, p)
    assert found["roc"][-1] == (1000, 1.0) and len(found["roc"]) == report.CURVE_POINTS
    assert all(abs(step / 1000 - seen) < 0.2 for step, seen in found["calibration"])
    assert report.curves(np.ones(5, bool), np.linspace(0, 1, 5)) == {}
