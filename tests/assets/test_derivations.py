"""Rows as stretches: packed small, unpacked alike, and followed from a source into its target."""

from __future__ import annotations

import numpy as np
import pytest

from everloop.assets.derivations import follow, pack, runs_of, unpack


def test_a_random_mask_of_a_million_rows_is_small_and_is_followed_exactly() -> None:
    kept = np.flatnonzero(np.random.default_rng(1).random(1_000_000) < 0.75)
    data = pack(runs_of(kept, np.arange(len(kept))))
    assert len(data) < 500_000
    runs = unpack(data)
    asked = np.array([0, 5, 77_777, 999_999])
    hit, places = follow(runs, asked)
    there = [i for i in asked if i in set(kept.tolist())]
    assert hit and kept[places].tolist() == there
    gone = np.setdiff1d(np.arange(1000), kept)[:5]
    assert follow(runs, gone) == (False, None)


@pytest.mark.parametrize(
    ("rows", "to", "asked", "found"),
    [
        ([3, 1, 2], [0, 1, 2], [1, 3], [0, 1]),  # in another order
        ([0, 0, 1], [4, 9, 9], [0], [4, 9]),  # one row went into two, two into one
        ([5, 6, 7], None, [6], None),  # nobody said where
        ([5, 6, 7], [1, 2, 3], [8], False),
        ([], [], [0], False),
    ],
)
def test_rows_are_followed(rows, to, asked, found) -> None:
    hit, places = follow(unpack(pack(runs_of(rows, to))), np.array(asked))
    assert hit is (found is not False)
    assert (places if places is None else places.tolist()) == (found or None)
