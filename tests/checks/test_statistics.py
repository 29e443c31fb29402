"""Intervals and tests against scipy and scikit-learn as oracles, published examples, and simulations of what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as oracle

from everloop.checks import statistics as ours
from everloop.evaluate.statistics import mean_sequence, sequential_difference

RUNS = 2000
SLACK = 3 * math.sqrt(0.05 * 0.95 / RUNS)
"""Three standard errors of a coverage of 95 % simulated RUNS times."""


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (37, 50), (50, 50), (480, 5000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_proportions_agree_with_scipy(hits: int, n: int, confidence: float) -> None:
    test = oracle.binomtest(hits, n)
    for name, method in ((ours.wilson, "wilson"), (ours.clopper_pearson, "exact")):
        wanted = test.proportion_ci(confidence, method=method)
        assert name(hits, n, confidence) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_newcombe_gives_the_figures_of_its_paper() -> None:
    assert ours.newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert ours.newcombe(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert ours.newcombe(10, 10, 0, 20) == pytest.approx((0.6791, 1.0), abs=5e-5)


def test_mcnemar_is_the_exact_test_less_half_a_step() -> None:
    for a, b in ((0, 0), (1, 4), (10, 2), (30, 31)):
        if a + b == 0:
            assert ours.mcnemar(a, b) == 1.0
            continue
        exact = oracle.binomtest(min(a, b), a + b).pvalue
        assert ours.mcnemar(a, b) == pytest.approx(exact - oracle.binom.pmf(min(a, b), a + b, 0.5), abs=2e-2)
        assert ours.mcnemar(a, b) <= exact + 1e-12


def test_holm_by_hand() -> None:
    assert ours.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("paired", [False, True])
def test_permutation_agrees_with_scipy(paired: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, 40), rng.normal(0, 1, 40)
    kind = "samples" if paired else "independent"
    wanted = oracle.permutation_test((a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type=kind, n_resamples=20_000, rng=rng).pvalue
    assert ours.permutation(a, b, paired=paired, resamples=20_000) == pytest.approx(wanted, abs=0.015)


def test_ranks_areas_distances_and_correlations_agree_with_the_libraries() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    score, positive = rng.integers(0, 12, 300).astype(float), rng.random(300) < 0.3
    assert ours.midranks(score).tolist() == oracle.rankdata(score).tolist()
    assert ours.auc_of(positive, score) == pytest.approx(roc_auc_score(positive, score))
    assert ours.delong(positive, score)[0][0] == pytest.approx(roc_auc_score(positive, score))
    other = score + rng.normal(0, 3, 300)
    assert ours.ks_distance(score, other) == pytest.approx(oracle.ks_2samp(score, other).statistic)
    assert ours.spearman(score, other) == pytest.approx(oracle.spearmanr(score, other).statistic)
    assert math.isnan(ours.auc_of(np.ones(3, bool), np.arange(3.0))) and math.isnan(ours.spearman([1, 1, 1], [1, 2, 3]))


def test_bootstrap_agrees_with_scipys_bca() -> None:
    x = np.random.default_rng(3).exponential(1, 120)
    wanted = oracle.bootstrap((x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(4)).confidence_interval
    assert ours.bootstrap(x, lambda m: m[..., 0], resamples=20_000) == pytest.approx((wanted.low, wanted.high), abs=0.02)


def _coverage(inside: list[bool]) -> float:
    return float(np.mean(inside))


def test_intervals_of_auc_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    truth = float(oracle.norm.cdf(1 / math.sqrt(2)))  # two unit normals, one apart
    one, two = [], []
    for _ in range(RUNS):
        positive = np.arange(150) < 40
        a = rng.normal(0, 1, 150) + positive
        b = 0.5 * a + math.sqrt(0.75) * rng.normal(0, 1, 150) + 0.5 * positive  # as far apart as a, and correlated with it
        low, high = ours.delong_interval(positive, a)[1]
        one.append(low <= truth <= high)
        low, high = ours.delong_difference(positive, a, b)[1]
        two.append(low <= 0 <= high)
    assert _coverage(one) >= 0.95 - SLACK - 0.01 and _coverage(two) >= 0.95 - SLACK - 0.01


def test_paired_proportions_cover_the_truth_even_when_versions_hardly_differ() -> None:
    rng = np.random.default_rng(6)
    for only_a, only_b, n in ((0.02, 0.01, 200), (0.10, 0.10, 100), (0.15, 0.05, 60)):
        draws = rng.multinomial(n, [only_a, only_b, 1 - only_a - only_b], 500)
        inside = [low <= only_a - only_b <= high for low, high in (ours.paired_proportions(int(a), int(b), n) for a, b, _ in draws)]
        assert _coverage(inside) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 500)


def test_quantile_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    truth = float(oracle.expon.ppf(0.95))
    inside = []
    for _ in range(RUNS):
        low, high = ours.quantile_interval(rng.exponential(1, 200), 0.95)[1]
        inside.append(low <= truth <= high)
    assert _coverage(inside) >= 0.95 - SLACK


def test_bootstrap_intervals_of_a_ratio_nearly_cover_the_truth() -> None:
    rng = np.random.default_rng(8)
    inside = []
    for _ in range(400):
        hits = rng.random(200) < 0.3
        kept = rng.random(200) < 0.6
        low, high = ours.bootstrap(np.stack([hits & kept, kept], axis=1), lambda m: m[..., 0] / m[..., 1], resamples=600)
        inside.append(low <= 0.3 <= high)
    assert 0.91 <= _coverage(inside) <= 0.99


def test_sequences_hold_at_all_times_at_once_and_end_narrow() -> None:
    rng = np.random.default_rng(9)
    missed, widths = 0, []
    for _ in range(400):
        lower, upper = mean_sequence((rng.random(2000) < 0.1).astype(float))
        missed += bool(((lower > 0.1) | (upper < 0.1)).any())
        widths.append(upper[-1] - lower[-1])
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.mean(widths) < 0.08


def test_a_canary_watched_after_every_request_is_rarely_wrong_and_finds_a_real_difference() -> None:
    rng = np.random.default_rng(10)
    wrong = 0
    for _ in range(200):
        a, b = (rng.random(600) < 0.2).astype(float), (rng.random(600) < 0.2).astype(float)
        each = 1 - 0.05 / 2
        (low_a, high_a), (low_b, high_b) = mean_sequence(a, each), mean_sequence(b, each)
        wrong += bool(((low_a > high_b) | (low_b > high_a)).any())
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert sequential_difference(rng.random(3000) < 0.3, rng.random(3000) < 0.1).low > 0
    paired = sequential_difference(np.ones(400), (np.arange(400) % 2).astype(float), paired=True)
    assert paired.low > 0.3 and paired.high >= 0.5
    assert sequential_difference([], [1.0]) == (-1.0, 1.0)


def test_values_outside_their_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        mean_sequence([0.2, 1.4])
