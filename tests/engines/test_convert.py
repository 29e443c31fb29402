"""Conversions agree with the model itself or are refused; what is loaded answers like what was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.engines.convert import to_onnx, to_skops
from everloop.engines.load import load_model
from everloop.engines.signature import coerce, infer_signature


def table(n: int = 600, missing: Any = np.nan) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(40, 10, n), "income": rng.lognormal(8, 1, n), "k": rng.integers(0, 9, n), "owner": rng.random(n) < 0.5})
    frame.loc[rng.random(n) < 0.1, "income"] = np.nan
    grade = rng.choice(["a", "b", "c", "d"], n).astype(object)
    grade[rng.random(n) < 0.1] = missing
    frame["grade"] = grade
    frame["home town"] = rng.choice(["Pune", "Oslo"], n).astype(object)
    score = frame.age + frame.income.fillna(0) / 1e3 + (frame.grade == "a") * 10 + rng.normal(0, 8, n)
    return frame, score.to_numpy()


def pipeline(estimator: Any, impute: Any = None) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    text: Any = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    if impute is not None:
        text = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=impute[0]), text)
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    pre = ColumnTransformer([("n", numbers, ["age", "income", "k", "owner"]), ("c", text, ["grade", "home town"])])
    return Pipeline([("pre", pre), ("model", estimator)])


def estimators() -> list[Any]:
    from sklearn import ensemble as e
    from sklearn.linear_model import LogisticRegression, Ridge

    return [
        LogisticRegression(max_iter=300),
        e.HistGradientBoostingClassifier(max_iter=20),
        e.GradientBoostingClassifier(n_estimators=15),
        e.RandomForestClassifier(15, random_state=0),
        Ridge(),
        e.HistGradientBoostingRegressor(max_iter=20),
        e.HistGradientBoostingRegressor(max_iter=20, loss="poisson"),
        e.GradientBoostingRegressor(n_estimators=15),
        e.RandomForestRegressor(15, random_state=0),
    ]


def manifest(model: Any, signature: dict[str, Any], engine: str) -> dict[str, Any]:
    classes = [c.item() if hasattr(c, "item") else c for c in getattr(model, "classes_", [])]
    task = "multiclass" if classes else "regression"
    return {"engine": engine, "signature": signature, "classes": classes, "task": task, "files": [{"path": f"model.{engine}", "digest": "x"}]}


@pytest.mark.parametrize("estimator", estimators(), ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("classes", [2, 3])
def test_onnx_and_skops_answer_as_the_model_does(estimator: Any, classes: int) -> None:
    frame, score = table()
    regression = not hasattr(estimator, "predict_proba")
    if regression and classes == 3:
        pytest.skip("a regression has no classes")
    y = np.abs(score) if regression else np.array(["lo", "mid", "hi"])[(score > 45).astype(int) + ((score > 55) if classes == 3 else 0)]
    model = pipeline(estimator).fit(frame, y)
    signature = infer_signature(frame, None if regression else model.classes_)
    data, evidence = to_onnx(model, signature, frame)
    assert data is not None, evidence
    assert evidence["mismatches"] == 0 and evidence["n"] > len(frame)
    for engine, stored in (("onnx", data), ("skops", to_skops(model))):
        predictor = load_model(manifest(model, signature, engine), lambda _, stored=stored: stored)
        got = predictor.predict(coerce(frame.to_dict("records"), signature)).columns
        if regression:
            assert np.allclose(got["prediction"], model.predict(frame), rtol=1e-4)
        else:
            assert got["prediction"] == model.predict(frame).tolist()
            for i, c in enumerate(model.classes_):
                assert np.allclose(got[f"probability_{label(c)}"], model.predict_proba(frame)[:, i], atol=1e-4)


@pytest.mark.parametrize("missing", [np.nan, None], ids=["nan", "none"])
@pytest.mark.parametrize("imputed", [False, True])
def test_missing_text_is_what_it_was_in_training(missing: Any, imputed: bool) -> None:
    from sklearn.linear_model import LogisticRegression

    frame, score = table(missing=missing)
    model = pipeline(LogisticRegression(max_iter=300), (missing,) if imputed else None).fit(frame, score > 48)
    signature = infer_signature(frame, model.classes_)
    data, evidence = to_onnx(model, signature, frame)
    assert data is not None, evidence
    predictor = load_model(manifest(model, signature, "onnx"), lambda _: data)
    assert predictor.fast
    got = predictor.predict(coerce([{"age": 30, "income": None, "k": 1, "owner": True, "grade": None, "home town": "Rome"}], signature))
    gap = pd.DataFrame({"age": [30.0], "income": [np.nan], "k": [1], "owner": [True], "grade": [missing], "home town": ["Rome"]})
    gap["grade"] = gap["grade"].astype(object)
    assert got.columns["probability_true"][0] == pytest.approx(model.predict_proba(gap)[0, 1], abs=1e-5)
    assert got.columns["prediction"] == [bool(model.predict(gap)[0])]


def test_a_model_without_text_takes_a_matrix_and_category_columns_stay_native() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame, score = table()
    numbers = frame[["age", "income", "k"]]
    model = HistGradientBoostingClassifier(max_iter=10).fit(numbers, score > 48)
    data, evidence = to_onnx(model, infer_signature(numbers, model.classes_), numbers)
    assert data is not None and evidence["max_abs_diff"] < 1e-6
    cats = frame.assign(grade=frame.grade.astype("category"))[["age", "grade"]]
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype").fit(cats, score > 48)
    signature = infer_signature(cats, model.classes_)
    data, evidence = to_onnx(model, signature, cats)
    assert data is None and "category" in evidence["why"]
    predictor = load_model(manifest(model, signature, "skops"), lambda _: to_skops(model))
    got = predictor.predict(coerce({"age": [30, 40], "grade": ["a", None]}, signature)).columns["probability_true"]
    same = pd.DataFrame({"age": [30.0, 40.0], "grade": pd.Categorical(["a", None], categories=list("abcd"))})
    assert np.allclose(got, model.predict_proba(same)[:, 1])


@pytest.mark.parametrize("where", ["around", "inside", "numbers"])
def test_a_calibrated_classifier_agrees_or_stays_native_with_the_reason(where: str) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    frame, score = table(300)
    if where == "numbers":
        frame = frame[["age", "k"]]
        model: Any = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(frame, score > 48)
    elif where == "around":
        model = CalibratedClassifierCV(pipeline(LogisticRegression(max_iter=300)), cv=2).fit(frame, score > 48)
    else:
        model = pipeline(CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=10), method="isotonic", cv=2)).fit(frame, score > 48)
    signature = infer_signature(frame, model.classes_)
    data, evidence = to_onnx(model, signature, frame)
    assert evidence["accepted"] == (data is not None) == (where == "numbers")
    says = {"around": "begins with", "inside": "rows differ", "numbers": ""}[where]
    assert says in evidence["why"] and (data is None or evidence["max_abs_diff"] < 1e-4)
    native = load_model(manifest(model, signature, "skops"), lambda _: to_skops(model))
    got = native.predict(coerce({c: frame[c].tolist() for c in frame}, signature)).columns["probability_true"]
    assert np.allclose(got, model.predict_proba(frame)[:, 1])


def test_the_same_model_gives_the_same_bytes() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame, score = table(200)
    made = []
    for _ in range(2):
        model = pipeline(HistGradientBoostingClassifier(max_iter=5, random_state=0)).fit(frame, score > 48)
        onnx, _ = to_onnx(model, infer_signature(frame, model.classes_), frame)
        made.append((to_skops(model), onnx))
    assert made[0] == made[1]


def test_a_mistake_of_ours_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from everloop.engines import onnx_nodes

    frame, score = table(100)
    model = HistGradientBoostingClassifier(max_iter=2).fit(frame[["age", "k"]], score > 48)
    monkeypatch.setattr(onnx_nodes, "_add_tree", None)
    with pytest.raises(TypeError, match="not callable"):
        to_onnx(model, infer_signature(frame[["age", "k"]], model.classes_), frame[["age", "k"]])


def test_types_that_are_not_scientific_are_refused() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    with pytest.raises(BadInput, match="not trusted"):
        to_skops(make_pipeline(FunctionTransformer(table)))
    with pytest.raises(BadInput, match="numpy.*fromfile"):
        to_skops(make_pipeline(FunctionTransformer(np.fromfile)))
    with pytest.raises(BadInput, match="readable skops"):
        load_model({"engine": "skops", "files": [{"path": "m.skops", "digest": "x"}], "signature": {}}, lambda _: b"pickle")
