"""How imputers and histogram boosting are written as ONNX nodes in double precision, where skl2onnx has only float32 or nothing.

Source: the ONNX operator set (ai.onnx.ml TreeEnsembleRegressor 3) and scikit-learn's TreePredictor node layout.
"""

from __future__ import annotations

from typing import Any

FLOAT, INT64, STRING, DOUBLE = 1, 7, 8, 11
"""ONNX TensorProto element types."""


class NoOnnxForm(Exception):
    """A model, or a part of it, that ONNX cannot express as these converters write it; the message says which. It is then served natively."""


def converters() -> dict[str, Any]:
    """The arguments that make skl2onnx use the functions of this file."""
    from skl2onnx.common._registration import get_shape_calculator
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as classifier_shapes
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes as regressor_shapes
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer

    return {
        "custom_conversion_functions": {
            SimpleImputer: simple_imputer,
            HistGradientBoostingClassifier: hist_classifier,
            HistGradientBoostingRegressor: hist_regressor,
        },
        "custom_shape_calculators": {
            SimpleImputer: get_shape_calculator("SklearnSimpleImputer"),
            HistGradientBoostingClassifier: classifier_shapes,
            HistGradientBoostingRegressor: regressor_shapes,
        },
    }


class Nodes:
    """Adds nodes and constants under names that are unique in the graph."""

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container

    def constant(self, kind: int, shape: list[int], values: list[Any]) -> str:
        """A constant tensor; answers its name."""
        name: str = self.scope.get_unique_variable_name("everloop_c")
        self.container.add_initializer(name, kind, shape, values)
        return name

    def add(self, op: str, inputs: list[str], output: str = "", domain: str = "", version: int | None = None, **attributes: Any) -> str:
        """A node with one output; answers the output's name."""
        name: str = output or self.scope.get_unique_variable_name("everloop_v")
        extra = {"op_version": version} if version else {}
        self.container.add_node(op, inputs, [name], op_domain=domain, name=self.scope.get_unique_operator_name(op), **extra, **attributes)
        return name


def simple_imputer(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer on numbers as Where(IsNaN(x), statistic, x) in the input's own precision; on text as skl2onnx does it."""
    import numpy as np
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from skl2onnx.operator_converters.common import concatenate_variables
    from skl2onnx.operator_converters.imputer_op import convert_sklearn_imputer

    op = operator.raw_operator
    if getattr(op, "indicator_", None) is not None or getattr(op, "add_indicator", False):
        raise NoOnnxForm("SimpleImputer(add_indicator=True)")
    if isinstance(operator.inputs[0].type, StringTensorType):
        convert_sklearn_imputer(scope, operator, container)
        return
    if not isinstance(operator.inputs[0].type, (DoubleTensorType, FloatTensorType)):
        raise NoOnnxForm("SimpleImputer over integers")
    statistics = np.asarray(op.statistics_, dtype=np.float64)
    if op.missing_values == op.missing_values or np.isnan(statistics).any():
        raise NoOnnxForm("SimpleImputer with a missing value other than NaN, or a column that was all missing")
    kind = DOUBLE if isinstance(operator.inputs[0].type, DoubleTensorType) else FLOAT
    nodes = Nodes(scope, container)
    x = concatenate_variables(scope, operator.inputs, container)
    x = x[0] if isinstance(x, (list, tuple)) else x
    fill = nodes.constant(kind, [1, len(statistics)], statistics.tolist())
    nodes.add("Where", [nodes.add("IsNaN", [x]), fill, x], operator.outputs[0].full_name)


def _trees(operator: Any, nodes: Nodes) -> tuple[str, int]:
    """The summed leaves plus baseline of a fitted histogram booster as one [n, k] double tensor; answers its name and k."""
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.operator_converters.common import concatenate_variables

    op = operator.raw_operator
    if getattr(op, "is_categorical_", None) is not None and op.is_categorical_ is not None and any(op.is_categorical_):
        raise NoOnnxForm("histogram boosting with native categories")
    x = concatenate_variables(nodes.scope, operator.inputs, nodes.container)
    x = x[0] if isinstance(x, (list, tuple)) else x
    if not isinstance(operator.inputs[0].type, DoubleTensorType):
        x = nodes.add("Cast", [x], to=DOUBLE)
    k = len(op._predictors[0]) if op._predictors else 1
    table: dict[str, list[Any]] = {}
    for tree, (target, predictor) in enumerate((t, p) for row in op._predictors for t, p in enumerate(row)):
        _add_tree(table, tree, target, predictor.nodes)
    from onnx import helper

    doubles = {
        key: helper.make_tensor(key, DOUBLE, [len(table[key])], table.pop(key)) for key in ("nodes_values", "target_weights") if table.get(key)
    }
    base = [float(v) for v in op._baseline_prediction.ravel()]
    renamed = {f"{key}_as_tensor": value for key, value in doubles.items()}
    summed = nodes.add("TreeEnsembleRegressor", [x], domain="ai.onnx.ml", version=3, n_targets=k, aggregate_function="SUM", **table, **renamed)
    return nodes.add("Add", [nodes.add("Cast", [summed], to=DOUBLE), nodes.constant(DOUBLE, [1, k], base)]), k


def _add_tree(table: dict[str, list[Any]], tree: int, target: int, found: Any) -> None:
    def put(**values: Any) -> None:
        for key, value in values.items():
            table.setdefault(key, []).append(value)

    for i, node in enumerate(found):
        leaf = bool(node["is_leaf"])
        put(
            nodes_treeids=tree,
            nodes_nodeids=i,
            nodes_featureids=0 if leaf else int(node["feature_idx"]),
            nodes_values=0.0 if leaf else float(node["num_threshold"]),
            nodes_modes="LEAF" if leaf else "BRANCH_LEQ",
            nodes_truenodeids=0 if leaf else int(node["left"]),
            nodes_falsenodeids=0 if leaf else int(node["right"]),
            nodes_missing_value_tracks_true=0 if leaf else int(node["missing_go_to_left"]),
        )
        if leaf:
            put(target_treeids=tree, target_nodeids=i, target_ids=target, target_weights=float(node["value"]))


def hist_regressor(scope: Any, operator: Any, container: Any) -> None:
    """HistGradientBoostingRegressor: summed trees through the inverse of its link."""
    from sklearn._loss.link import IdentityLink, LogLink

    nodes = Nodes(scope, container)
    raw, _ = _trees(operator, nodes)
    link = operator.raw_operator._loss.link
    if isinstance(link, LogLink):
        raw = nodes.add("Exp", [raw])
    elif not isinstance(link, IdentityLink):
        raise NoOnnxForm(f"histogram boosting with {type(link).__name__}")
    nodes.add("Cast", [raw], operator.outputs[0].full_name, to=_kind(operator.outputs[0]))


def hist_classifier(scope: Any, operator: Any, container: Any) -> None:
    """HistGradientBoostingClassifier: summed trees through sigmoid or softmax; the label is the likeliest class."""
    nodes = Nodes(scope, container)
    op = operator.raw_operator
    raw, k = _trees(operator, nodes)
    if k == 1:
        one = nodes.add("Sigmoid", [raw])
        table = nodes.add("Concat", [nodes.add("Sub", [nodes.constant(DOUBLE, [1], [1.0]), one]), one], axis=1)
    else:
        table = nodes.add("Softmax", [raw], axis=1)
    likeliest = nodes.add("ArgMax", [table], axis=1, keepdims=0)
    classes = op.classes_
    if classes.dtype.kind in "biu":
        names = nodes.constant(INT64, [len(classes)], [int(c) for c in classes])
    else:
        names = nodes.constant(STRING, [len(classes)], [str(c).encode() for c in classes])
    nodes.add("Gather", [names, likeliest], operator.outputs[0].full_name, axis=0)
    nodes.add("Cast", [table], operator.outputs[1].full_name, to=_kind(operator.outputs[1]))


def _kind(variable: Any) -> int:
    from skl2onnx.common.data_types import DoubleTensorType

    return DOUBLE if isinstance(variable.type, DoubleTensorType) else FLOAT
