"""Gates: pass, fail, not enough data; pairing; and how often they are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from everloop.core.types import Results
from everloop.evaluate.gate import judge


def binary(rng: np.random.Generator, n: int, signal: float, y: np.ndarray | None = None, noise: np.ndarray | None = None) -> Results:
    """A suite's results for a model whose log odds are the label's signal plus noise."""
    y = rng.integers(0, 2, n) if y is None else y
    noise = rng.normal(size=n) if noise is None else noise
    p = 1 / (1 + np.exp(-(signal * (y - 0.5) + noise)))
    said = (p > 0.5).astype(int).astype(str).astype(object)
    return Results(
        n, "binary", y=y.astype(str).astype(object), prediction=said, probability=p, classes=("0", "1"), positive="1",
        features={"sex": np.where(np.arange(n) % 2 == 0, "female", "male").astype(object)}, seconds=np.full(200, 0.01),
    )  # fmt: skip


def test_thresholds_pass_fail_or_ask_for_more() -> None:
    results = binary(np.random.default_rng(1), 1000, 1.5)
    verdict, why, scores = judge(["auc >= 0.7", "fairness_gap(sex) <= 0.15", "latency_p95_ms <= 50"], results)
    assert verdict == "pass" and [s.verdict for s in scores] == ["pass"] * 3
    assert "All 3 requirements hold with 95 % confidence" in why and "no correction for several tests" in why
    verdict, why, _ = judge(["auc >= 0.95", "accuracy >= 0.5"], results)
    assert verdict == "fail" and "1 of 2 requirements is not met" in why and "at least 0.95 was required" in why
    value = judge(["auc >= 0.5"], results)[2][0].value
    assert isinstance(value, float)
    verdict, why, _ = judge([f"auc >= {value - 0.002:.6f}"], results)
    assert verdict == "inconclusive" and "would need about" in why


def test_a_champion_is_compared_on_the_same_cases() -> None:
    rng = np.random.default_rng(2)
    y, noise = rng.integers(0, 2, 800), rng.normal(size=800)
    worse, better = binary(rng, 800, 1.0, y, noise), binary(rng, 800, 1.3, y, noise)
    assert judge(["auc > champion", "accuracy >= champion - 0.01"], better, worse)[0] == "pass"
    assert judge(["auc >= champion - 0.01"], worse, better)[0] == "fail"
    assert judge(["auc > champion"], worse, worse)[0] == "fail"
    assert judge(["auc >= champion - 0.001", "log_loss <= champion"], worse, worse)[0] == "pass"


def test_a_pass_within_a_margin_says_whether_it_was_shown_to_be_better() -> None:
    rng = np.random.default_rng(2)
    y, noise = rng.integers(0, 2, 800), rng.normal(size=800)
    worse, better = binary(rng, 800, 1.0, y, noise), binary(rng, 800, 1.3, y, noise)
    for rule in ("auc >= champion - 0.02", "log_loss <= champion + 0.02"):
        assert "It was shown to be better than the champion." in judge([rule], better, worse)[1]
        verdict, why, _ = judge([rule], worse, worse)
        assert verdict == "pass" and "only that it is not worse by more than 0.02: it was not shown to be better than the champion." in why
    assert "shown" not in judge(["auc > champion"], better, worse)[1]


def test_processor_time_is_judged_whatever_the_clock_says() -> None:
    slow = replace(binary(np.random.default_rng(1), 500, 1.5), seconds=np.full(200, 5.0), cpu_seconds=np.full(200, 0.01))
    assert judge(["cpu_p95_ms <= 50"], slow)[0] == "pass" and judge(["latency_p95_ms <= 50"], slow)[0] == "fail"
    assert judge(["cpu_p95_ms <= 50"], replace(slow, cpu_seconds=np.full(200, 0.1)))[0] == "fail"
    assert judge(["cpu_p95_ms <= 50"], replace(slow, cpu_seconds=None))[0] == "inconclusive"


def test_without_a_champion_its_rules_do_not_block() -> None:
    results = binary(np.random.default_rng(3), 500, 2.0)
    verdict, why, scores = judge(["auc >= 0.7", "auc > champion"], results, None)
    assert verdict == "pass" and scores[1].verdict == "not_assessed" and "no champion yet" in why


def test_what_cannot_be_judged_blocks_and_says_why() -> None:
    results = replace(binary(np.random.default_rng(4), 300, 2.0), probability=None)
    verdict, why, _ = judge(["auc >= 0.7"], results)
    assert verdict == "inconclusive" and "no probabilities" in why
    assert judge(["accuracy >= 0.2 on sex=other"], results)[0] == "inconclusive"
    assert judge(["accuracy >= 0.2 on sex=female"], results)[2][0].n == 150


def simulate(pairs: int, n: int, gap: float, rule: str, seed: int) -> float:
    """Share of simulated pairs in which the candidate is promoted; `gap` is its signal above the champion's."""
    rng = np.random.default_rng(seed)
    promoted = 0
    for _ in range(pairs):
        y, shared = rng.integers(0, 2, n), rng.normal(size=n)
        a, b = (np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=n) for _ in range(2))
        promoted += judge([rule], binary(rng, n, 1.2 + gap, y, a), binary(rng, n, 1.2, y, b))[0] == "pass"
    return promoted / pairs


@pytest.mark.parametrize("rule", ["auc > champion", "accuracy > champion"])
def test_equal_candidates_are_rarely_promoted_and_better_ones_are(rule: str) -> None:
    """150 pairs; three standard errors above 5 % is 10.3 %."""
    assert simulate(150, 400, 0.0, rule, 5) <= 0.103
    assert simulate(60, 1000, 0.45, rule, 6) >= 0.80


@pytest.mark.check
@pytest.mark.parametrize("rule", ["auc > champion", "accuracy > champion"])
def test_q6_over_a_thousand_pairs(rule: str) -> None:
    """Q6: at most 5 % (and simulation error, 1.96 standard errors) of equal candidates, none to speak of the worse, 80 % of those better."""
    assert simulate(1000, 400, 0.0, rule, 7) <= 0.05 + 1.96 * np.sqrt(0.05 * 0.95 / 1000)
    assert simulate(1000, 400, -0.15, rule, 8) <= 0.01
    assert simulate(1000, 1000, 0.45, rule, 9) >= 0.80
