"""A monitor looks all year: how often it finds a decay that is none, and that it still finds one that is."""

from __future__ import annotations

import asyncio
from statistics import NormalDist

import numpy as np
import pytest

from everloop.checks.statistics import level_of_looks
from everloop.core.types import Window
from everloop.loop import watch
from everloop.loop.alarms import YEARLY

SPEC = watch.full_spec({"checks": [{"check": "decay"}], "every": "7d", "label_window_days": 28.0})


@pytest.mark.parametrize(("looks", "windows"), [(52, 52.0), (365, 13.0), (8766, 13.0), (12, 2.0)])
def test_a_sliding_mean_seldom_passes_the_limit(looks: int, windows: float) -> None:
    limit = NormalDist().inv_cdf(1 - level_of_looks(YEARLY, looks, windows))
    rng, passed, trials = np.random.default_rng(1), 0, 3000
    step = max(1, round(looks / windows))  # looks while a window slides past itself
    for _ in range(trials):
        total = np.cumsum(np.concatenate([[0.0], rng.normal(size=looks + step)]))
        passed += bool(((total[step:] - total[:-step]) / np.sqrt(step)).max() > limit)
    assert passed / trials <= YEARLY + 2 * np.sqrt(YEARLY * (1 - YEARLY) / trials)
    assert passed / trials >= YEARLY / 4  # and the limit is not needlessly wide


def year(rng: np.random.Generator, change: int | None, weekly: int = 100, reference: int = 1000) -> int | None:
    """The first of 52 weekly looks that finds a decay (None: none does); from week `change` on, 8 % more are wrong."""
    said = lambda n, wrong: {"label": np.where(rng.random(n) < wrong, "1", "0").astype(object), "prediction": np.full(n, "0", dtype=object)}
    held = said(reference, 0.2)
    weeks = [said(weekly, 0.2 if change is None or week < change else 0.28) for week in range(52)]
    for week in range(4, 52):
        labelled = {k: np.concatenate([w[k] for w in weeks[week - 4 : week]]) for k in ("label", "prediction")}
        window = Window({}, {}, 400, 0.0, 1.0, labelled, held)
        if asyncio.run(watch.judge(SPEC, window)).act:
            return week
    return None


@pytest.mark.parametrize("trials", [25, pytest.param(400, marks=pytest.mark.check)])
def test_a_year_of_looks_alarms_seldom_while_nothing_changes(trials: int) -> None:
    rng = np.random.default_rng(7)
    false = sum(year(rng, None) is not None for _ in range(trials))
    assert false <= trials * YEARLY + 2 * np.sqrt(trials * YEARLY * (1 - YEARLY)), false


def test_a_decay_is_found_soon() -> None:
    rng = np.random.default_rng(8)
    found = [year(rng, 12) for _ in range(25)]
    assert sum(week is not None and 12 < week <= 20 for week in found) >= 20, found
