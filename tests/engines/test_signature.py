"""A row that does not fit is refused with its row, its column, what was found and what was wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from everloop.core.errors import BadInput
from everloop.engines.signature import coerce

SIGNATURE = {
    "inputs": [
        {"name": "age", "type": "integer", "min": 18, "max": 99},
        {"name": "income", "type": "number", "required": False},
        {"name": "grade", "type": "string", "required": False, "categories": ["a", "b"]},
        {"name": "owner", "type": "boolean", "required": False},
        {"name": "at", "type": "datetime", "required": False},
    ]
}


def test_rows_and_columns_become_the_same_batch() -> None:
    rows = [{"age": 20.0, "income": float("nan"), "grade": "a"}, {"age": 30, "income": 5, "grade": None, "owner": 1, "at": "2026-01-01"}]
    batch = coerce(rows, SIGNATURE)
    assert batch.n == 2 and list(batch.columns) == ["age", "income", "grade", "owner", "at"]
    assert batch.columns["age"] == [20, 30] and batch.columns["income"] == [None, 5] and batch.columns["owner"] == [None, True]
    columns = {"age": [20, 30], "income": np.array([np.nan, 5]), "grade": ["a", None]}
    assert coerce(columns, SIGNATURE).columns["income"] == [None, 5.0]


@pytest.mark.parametrize(
    "row, row_words",
    [
        ({"age": "x"}, "Row 1, column 'age': found the text 'x', wanted a whole number"),
        ({"age": 20.5}, "found the number 20.5"),
        ({"age": True}, "found true"),
        ({"age": 17}, "wanted a value from 18 to 99"),
        ({"age": None}, "the value is missing"),
        ({}, "Row 1: column 'age' is missing"),
        ({"age": 20, "grade": "z"}, "found 'z', wanted one of 'a', 'b'"),
        ({"age": 20, "income": float("inf")}, "wanted a number"),
        ({"age": 20, "owner": "yes"}, "wanted true or false"),
        ({"age": 20, "at": "soon"}, "wanted a time"),
        ({"age": 20, "incom": 3}, "Did you mean 'income'"),
        ([1], "Row 1 is a list"),
    ],
)
def test_what_does_not_fit_is_named(row: Any, row_words: str) -> None:
    with pytest.raises(BadInput) as error:
        coerce([{"age": 40}, row], SIGNATURE)
    assert row_words in str(error.value)


def test_shapes_of_requests_are_checked() -> None:
    for data, words in [
        ([], "no rows"),
        ({"age": [20], "income": [1, 2]}, "has 1 values"),
        ({"age": 3}, "list of values"),
        ("rows", "list of objects"),
    ]:
        with pytest.raises(BadInput, match=words):
            coerce(data, SIGNATURE)  # type: ignore[arg-type]
    assert coerce([{"age": 20, "id": 7}], SIGNATURE, extra="ignore").n == 1


def test_a_column_may_be_left_out_but_not_misspelt() -> None:
    assert coerce({"age": [20], "q1": [3]}, SIGNATURE, extra="ignore").columns["income"] == [None]
    assert coerce({"age": [20], "incom": [3], "income": [5]}, SIGNATURE, extra="ignore").columns["income"] == [5.0]
    for name in ("incom", "Income"):
        with pytest.raises(BadInput, match=f"Column 'income' is missing, and '{name}' is none of the model's columns.*Did you mean 'income'"):
            coerce({"age": [20], name: [3]}, SIGNATURE, extra="ignore")
    numbered = {"inputs": [{"name": "month_2", "type": "number", "required": False}]}
    assert coerce({"month_1": [3]}, numbered, extra="ignore").columns["month_2"] == [None]
