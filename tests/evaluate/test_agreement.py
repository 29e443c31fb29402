"""Krippendorff's alpha: the worked example of his paper (2011), the ends of the scale, and where it cannot be told."""

from __future__ import annotations

import pytest

from everloop.core.errors import BadInput
from everloop.evaluate.agreement import agreement, alpha

_ = None
ROWS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
UNITS = [list(unit) for unit in zip(*ROWS, strict=True)]
"""Four observers, twelve units, values missing."""
BINARY = list(zip([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0], strict=True))
"""Two observers, ten units, two values."""


def test_the_examples_of_the_paper() -> None:
    assert alpha(UNITS) == pytest.approx(0.743, abs=5e-4)
    assert alpha(UNITS, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert alpha(UNITS, "interval") == pytest.approx(0.849, abs=5e-4)
    assert alpha(BINARY) == pytest.approx(0.095, abs=5e-4)
    words = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "best"}
    named = [[words.get(v) for v in unit] for unit in UNITS]
    assert alpha(named, "ordinal", list(words.values())) == pytest.approx(0.815, abs=5e-4)


def test_the_ends_of_the_scale_and_what_cannot_be_told() -> None:
    assert alpha([["a", "a"], ["b", "b"]]) == 1 and alpha([["a", "b"], ["b", "a"]]) < 0
    assert alpha([["a", None], ["b"]]) is None and alpha([["a", "a"], ["a", "a"]]) is None and alpha([]) is None
    with pytest.raises(BadInput, match="no level"):
        alpha(UNITS, "ratio")
    with pytest.raises(BadInput, match="'b' is not among"):
        alpha([["a", "b"]], "ordinal", ["a", "c"])


def test_the_interval_holds_the_value_and_is_the_same_each_time() -> None:
    found = agreement(UNITS)
    low, high = found["interval"]
    assert low < found["alpha"] < high <= 1 and found["n"] == 11 and found["share"] == pytest.approx(8 / 11)
    assert agreement(UNITS) == found and agreement([["a"]])["alpha"] is None
