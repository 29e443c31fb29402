"""Models of each format: written by the SDK as their library writes them, described without running anything, and answering as the model itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.client.models import saved
from everloop.core.errors import BadInput
from everloop.core.types import Batch
from everloop.engines.base import formats
from everloop.engines.load import load_model
from everloop.engines.mlmodel import describe, signature_of
from everloop.engines.pytorch import checked
from everloop.engines.signature import Signature, coerce, infer_signature

X = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))
Y = np.where(X.a > 0, "yes", "no")


class Store:
    """Objects in memory."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}

    def put(self, files: dict[str, Any]) -> list[dict[str, Any]]:
        made = []
        for path, data in files.items():
            data = data if isinstance(data, bytes) else Path(data).read_bytes()
            self.bytes[path] = data
            made.append({"path": path, "digest": path, "size": len(data)})
        return made


def served(model: Any, frame: pd.DataFrame | None = X, **given: Any) -> tuple[dict[str, Any], Any]:
    """(manifest, predictor) of a model as the SDK sends it."""
    store = Store()
    rows = None if frame is None else {name: frame[name].tolist() for name in frame}
    format, files, known = saved(model, rows)
    found = {"format": format, "files": store.put(files), "flavor": {}, "task": None, "classes": known, **given}
    found.setdefault("signature", None if frame is None else infer_signature(frame))
    manifest = {**found, **formats.get(format)(found, store.bytes.__getitem__)}
    return manifest, load_model(json.loads(json.dumps(manifest)), store.bytes.__getitem__)


def asked(predictor: Any, frame: pd.DataFrame = X) -> dict[str, list[Any]]:
    return dict(predictor.predict(coerce({name: frame[name].tolist() for name in frame}, predictor.signature)).columns)


def test_xgboost_by_its_own_file() -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=4).fit(X, Y == "yes")
    manifest, predictor = served(model, None)
    assert (manifest["engine"], manifest["task"], [c["name"] for c in manifest["signature"]["inputs"]]) == ("xgboost", "binary", list("abc"))
    assert asked(predictor)["probability_1"] == pytest.approx(model.predict_proba(X)[:, 1], abs=1e-6)
    gaps = X.assign(b=np.where(X.b > 1, np.nan, X.b))
    assert asked(predictor, gaps)["probability_1"] == pytest.approx(model.predict_proba(gaps)[:, 1], abs=1e-6)
    values = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(X, X.a), 3)
    assert asked(served(values, None)[1])["prediction"] == pytest.approx(values.predict(xgboost.DMatrix(X)), abs=1e-6)
    with pytest.raises(BadInput, match="multi:softprob"):
        served(xgboost.train({"objective": "multi:softmax", "num_class": 2}, xgboost.DMatrix(X, Y == "yes"), 1), None)


def test_lightgbm_by_its_own_text() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=2).fit(X, Y)
    manifest, predictor = served(model, None)
    assert (manifest["engine"], manifest["classes"]) == ("lightgbm", ["no", "yes"])
    assert asked(predictor)["probability_yes"] == pytest.approx(model.predict_proba(X)[:, 1])
    assert asked(predictor)["prediction"] == model.predict(X).tolist()


def test_pytorch_by_an_exported_program() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    manifest, predictor = served(model, classes=["no", "yes"])
    with torch.no_grad():
        expected = model(torch.tensor(X.to_numpy(), dtype=torch.float32)).softmax(1)[:, 1].numpy()
    assert manifest["engine"] == "pytorch" and asked(predictor)["probability_yes"] == pytest.approx(expected, abs=1e-5)
    assert asked(predictor, X[:1])["probability_yes"] == pytest.approx(expected[:1], abs=1e-5)


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("models/model.json", ("torch.ops.aten.linear.default", "torch.hub.load"), "the operator torch.hub.load"),
        ("data/weights/model_weights_config.json", ('"use_pickle": false', '"use_pickle": true'), "a pickled tensor"),
        ("data/weights/model_weights_config.json", ('"weight_0"', '"custom_obj_0"'), "the object custom_obj_0"),
        ("models/model.json", ("Symbol('", "__import__('os').system('"), "the expression"),
    ],
)
def test_an_exported_program_that_is_more_than_a_graph_is_refused(file: str, change: tuple[str, str], told: str) -> None:
    torch = pytest.importorskip("torch")
    _, files, _ = saved(torch.nn.Linear(3, 1), {name: X[name].tolist() for name in X})
    old, made = zipfile.ZipFile(io.BytesIO(files["model.pt2"])), io.BytesIO()  # type: ignore[arg-type]
    with zipfile.ZipFile(made, "w") as fresh:
        for name in old.namelist():
            text = old.read(name)
            fresh.writestr(name, text.replace(change[0].encode(), change[1].encode()) if name.endswith(file) else text)
    with pytest.raises(BadInput, match=told):
        checked(made.getvalue(), Signature.from_json(infer_signature(X)))


def test_transformers_by_a_folder_with_safetensors(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day"]))
    config = transformers.BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    manifest, predictor = served(tmp_path, None)
    assert (manifest["engine"], manifest["pipeline"], manifest["classes"]) == ("transformers", "text-classification", ["no", "yes"])
    found = asked(predictor, pd.DataFrame({"text": ["good day", "bad day"]}))
    assert [a + b for a, b in zip(found["probability_no"], found["probability_yes"], strict=True)] == pytest.approx([1, 1], abs=1e-5)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BadInput, match="pickles or code: pytorch_model.bin"):
        served(tmp_path, None)


def test_onnx_by_its_file() -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(X, Y)
    converted = to_onnx(model, X.to_numpy().astype(np.float32)[:1], options={"zipmap": False})
    manifest, predictor = served(converted, None)
    assert (manifest["classes"], [c["name"] for c in manifest["signature"]["inputs"]]) == (["no", "yes"], ["x0", "x1", "x2"])
    found = asked(predictor, X.set_axis(["x0", "x1", "x2"], axis=1))
    assert found["probability_yes"] == pytest.approx(model.predict_proba(X)[:, 1], abs=1e-5)


def test_a_function_answers_in_a_process_of_its_own_that_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cloudpickle")
    monkeypatch.setenv("EVERLOOP_SECRET_OF_THE_TEST", "hush")

    def function(frame: Any) -> Any:
        import os

        if (frame.a > 100).any():
            os._exit(3)
        print("this must not spoil the answer")
        secret = os.environ.get("EVERLOOP_SECRET_OF_THE_TEST", "none")
        return [{"prediction": a + b, "secret": secret, "pid": os.getpid()} for a, b in zip(frame.a, frame.b, strict=True)]

    import os

    manifest, predictor = served(function)
    assert manifest["engine"] == "isolated"
    found = asked(predictor)
    assert found["prediction"] == pytest.approx((X.a + X.b).tolist()) and set(found["secret"]) == {"none"} and found["pid"][0] != os.getpid()
    with pytest.raises(BadInput, match="process ended"):
        predictor.predict(Batch({"a": [101.0], "b": [0.0], "c": [0.0]}, 1))
    again = asked(predictor)  # it is started anew
    assert again["prediction"] == found["prediction"] and again["pid"] != found["pid"]


def test_what_mlflow_says_of_columns() -> None:
    columns = [{"type": "double", "name": "age", "required": True}, {"type": "string", "name": "city", "required": False}]
    found = signature_of({"inputs": json.dumps(columns), "outputs": json.dumps([{"type": "long"}])})
    assert found is not None
    assert [(c["name"], c["type"], c["required"]) for c in found["inputs"]] == [("age", "number", True), ("city", "string", False)]
    tensor = signature_of({"inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}])})
    assert tensor is not None and [c["name"] for c in tensor["inputs"]] == ["x0", "x1"]
    with pytest.raises(BadInput, match="tensor of the shape"):
        signature_of({"inputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28, 3]}}])})
    with pytest.raises(BadInput, match="no column"):
        signature_of({"inputs": json.dumps([{"type": "array", "name": "tokens", "items": {"type": "long"}}])})


def test_a_logged_model_that_cannot_be_served_says_why() -> None:
    store = Store()
    files = store.put({"MLmodel": b"flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n", "python_model.pkl": b"x"})
    found = describe(files, store.bytes.__getitem__)
    assert found["format"] == "mlflow" and "input_example" in found["not_served"]
    assert "no MLmodel" in describe([], store.bytes.__getitem__)["not_served"]
    broken = store.put({"MLmodel": b"flavors:\n  sklearn: {pickled_model: model.skops}\n", "model.skops": b"no zip"})
    assert "not a readable skops file" in describe(broken, store.bytes.__getitem__)["not_served"]


def test_a_tree_that_points_out_of_itself_is_refused() -> None:
    """scikit-learn follows a node's numbers unchecked."""
    import skops.io
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier

    from everloop.engines.skops import loads

    sound = [GradientBoostingClassifier(n_estimators=3), RandomForestClassifier(n_estimators=3), HistGradientBoostingRegressor(max_iter=3)]
    for model in sound:
        loads(skops.io.dumps(model.fit(X, X.a > 0)))
    forest = RandomForestClassifier(n_estimators=2, random_state=0).fit(X, Y)
    forest.estimators_[1].tree_.children_left[0] = 10**6
    with pytest.raises(BadInput, match="points to nodes"):
        loads(skops.io.dumps(forest))
    other = RandomForestClassifier(n_estimators=2, random_state=0).fit(X, Y)
    other.estimators_[0].tree_.feature[0] = 77
    with pytest.raises(BadInput, match="points to nodes or columns"):
        loads(skops.io.dumps(other))
