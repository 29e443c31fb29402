"""The rule language: what it accepts, and that its errors say where, what was expected and what there is."""

from __future__ import annotations

import pytest

from everloop.core.errors import BadInput
from everloop.evaluate.rules import metrics, parse


def test_the_rules_of_the_design_parse() -> None:
    rule = parse("auc >= 0.70")
    assert (rule.metric, rule.op, rule.against, rule.bound) == ("auc", ">=", "number", 0.7)
    rule = parse("auc >= champion - 0.01")
    assert (rule.against, rule.bound) == ("champion", -0.01)
    assert parse("auc > champion").bound == 0
    assert parse("fairness_gap(sex) <= 0.15").args == ("sex",)
    assert parse("fairness_gap(column='marital status') <= 15%").named == {"column": "marital status"}
    assert parse("fairness_gap(column='marital status') <= 15%").bound == 0.15
    rule = parse("accuracy >= 0.6 on sex=female at 90%")
    assert (rule.where, rule.confidence) == (("sex", "female"), 0.9)
    assert parse("r2 >= -0.5").bound == -0.5


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("auc => 0.7", 4, "one of >=, <=, >, <"),
        ("uac >= 0.7", 0, "a metric"),
        ("auc >=", 6, "a number, `champion` or `calibrated`"),
        ("fairness_gap(sex <= 1", 17, "`,` or `)`"),
        ("auc >= 0.7 perhaps", 11, "the end of the rule"),
        ("auc >= 0.7 at 20%", 14, "a confidence between"),
        ("auc >= champion * 2", 16, "a name, a number or an operator"),
    ],
)
def test_errors_say_where_and_what_was_expected(text: str, position: int, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert caught.value.details["position"] == position
    assert expected in caught.value.what
    assert "accuracy" in caught.value.hint


def test_arguments_are_checked() -> None:
    with pytest.raises(BadInput, match="takes: no arguments"):
        parse("auc(3) >= 1")
    with pytest.raises(BadInput, match="needs a column"):
        parse("fairness_gap <= 0.1")
    with pytest.raises(BadInput, match="empty"):
        parse(" ")


def test_every_gate_metric_parses_by_name() -> None:
    for name in metrics():
        try:
            assert parse(f"{name} >= 0.5").metric == name
        except BadInput as error:
            assert "needs" in error.what
