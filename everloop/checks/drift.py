"""Whether live inputs look like the reference: PSI, KS, JS, chi2, missing rate and new categories by column, and one summary over all.

Limits are calibrated, never folk constants: what the same statistic gives between the reference and stretches of itself as long as the
live window, both drawn at random and cut out whole (neighbouring rows are alike in real traffic, and random draws alone would forget
that), and between the reference and earlier windows where the monitor has them. Too few rows is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everloop.checks import checks
from everloop.checks.base import MONITOR, need_window
from everloop.checks.statistics import ks_distance
from everloop.core.types import Score, Window

BINS = 10
"""Quantile bins of a numeric column for PSI, JS and chi2."""
FINE_BINS = 100
"""Quantile bins of a numeric column for the calibration of KS."""
CATEGORIES = 50
"""Categories kept apart; the rest are one."""
MIN_ROWS = 30
"""Fewer rows in the window, or in the reference, is not enough data."""
DRAWS = 1000
"""Random draws behind a calibrated limit."""
STRETCHES = 200
"""Stretches of the reference cut out whole behind a calibrated limit, at most."""
OUTPUTS = ("prediction", "probability", "label")


@dataclass(frozen=True)
class Coded:
    """A column of both sides as bin numbers: `reference` and `live` hold codes below `size`; `names` says what each code is.

    Code 0 is "missing"; the last code of a categorical column is "not seen in the reference".
    """

    reference: np.ndarray
    live: np.ndarray
    size: int
    names: Sequence[str]
    numeric: bool

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many rows of the reference and of the window fall into each bin."""
        return np.bincount(self.reference, minlength=self.size), np.bincount(self.live, minlength=self.size)


def is_numeric(values: Any) -> bool:
    """Whether a column holds numbers (booleans and text are categories)."""
    array = np.asarray(values)
    if array.dtype.kind in "fiu":
        return True
    return array.dtype.kind == "O" and all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in array[:200])


def code(reference: Any, live: Any, bins: int = BINS) -> Coded:
    """Both sides of a column as bin numbers: quantile bins of the reference for numbers, categories otherwise."""
    if is_numeric(reference):
        ref, now = np.asarray(reference, dtype=float), np.asarray(live, dtype=float)
        seen = ref[np.isfinite(ref)]
        edges = np.unique(np.quantile(seen, np.linspace(0, 1, bins + 1)[1:-1])) if len(seen) else np.zeros(0)
        if len(edges) < bins - 1 and len(seen):
            values = np.unique(seen)
            edges = values[:-1] + np.diff(values) / 2 if len(values) <= bins else edges
            edges = np.concatenate([[values[0] - 1e-12], edges, [values[-1] + 1e-12]]) if len(values) <= bins else edges
        names = ["missing", *[f"bin {i + 1}" for i in range(len(edges) + 1)]]
        return Coded(_number_codes(ref, edges), _number_codes(now, edges), len(edges) + 2, names, True)
    ref, now = _texts(reference), _texts(live)
    values, counts = np.unique(ref[ref != _MISSING], return_counts=True)
    kept = [str(v) for v in values[np.argsort(-counts)][:CATEGORIES]]
    known = set(values.tolist())
    order = {name: i + 1 for i, name in enumerate(kept)}
    other, new = len(kept) + 1, len(kept) + 2
    order[_MISSING] = 0

    def codes(column: np.ndarray) -> np.ndarray:
        found, inverse = np.unique(column, return_inverse=True)
        return np.asarray([order.get(str(v), other if v in known else new) for v in found], dtype=np.int64)[inverse]

    return Coded(codes(ref), codes(now), len(kept) + 3, ["missing", *kept, "other", "new"], False)


def psi(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Population stability index between counts (last axis): sum of (q - p) ln(q / p), half a row added to each bin."""
    p, q = _shares(a), _shares(b)
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def js(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance between counts, base 2: 0 for alike, 1 for disjoint (Lin, 1991; the root is Endres and Schindelin's metric)."""
    p, q = _plain_shares(a), _plain_shares(b)
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / m), 0.0).sum(axis=-1)
        right = np.where(q > 0, q * np.log2(q / m), 0.0).sum(axis=-1)
    return np.sqrt(np.maximum(0.0, (left + right) / 2))


def chi2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's chi-square of a 2 x bins table of counts."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    total_a, total_b, both = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True), a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        expect_a, expect_b = both * total_a / (total_a + total_b), both * total_b / (total_a + total_b)
        parts = np.where(both > 0, (a - expect_a) ** 2 / expect_a + (b - expect_b) ** 2 / expect_b, 0.0)
    return parts.sum(axis=-1)


def ks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest gap between the distribution functions of two sets of counts, missing values (bin 0) left out."""
    p, q = _plain_shares(a[..., 1:]), _plain_shares(b[..., 1:])
    return np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1)


def missing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute change of the share of missing values."""
    return np.abs(_plain_shares(a)[..., 0] - _plain_shares(b)[..., 0])


STATISTICS = {"psi": psi, "js": js, "chi2": chi2, "ks": ks, "missing_rate": missing}


def null_draws(coded: Coded, statistic: Any, n: int, *, seed: int = 7, draws: int = DRAWS) -> np.ndarray:
    """What the statistic gives when nothing changed: live windows of n rows drawn at random from the reference, the reference redrawn too."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(coded.reference, minlength=coded.size)
    p = counts / counts.sum()
    return statistic(rng.multinomial(len(coded.reference), p, draws), rng.multinomial(n, p, draws))


def stretches(length: int, n: int) -> np.ndarray:
    """Where stretches of n rows start in a reference of `length` rows: none unless four fit side by side."""
    if length < 4 * n:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.linspace(0, length - n, min(STRETCHES, length - n + 1)).astype(np.int64))


def stretch_values(coded: Coded, statistic: Any, n: int) -> np.ndarray:
    """The statistic between each stretch of n reference rows and the rest of the reference."""
    starts = stretches(len(coded.reference), n)
    if not len(starts):
        return np.zeros(0)
    running = np.zeros((len(coded.reference) + 1, coded.size))
    onehot = np.zeros((len(coded.reference), coded.size))
    onehot[np.arange(len(coded.reference)), coded.reference] = 1
    np.cumsum(onehot, axis=0, out=running[1:])
    inside = running[starts + n] - running[starts]
    return statistic(running[-1] - inside, inside)


def calibrate(coded: Coded, statistic: Any, n: int, alpha: float, windows: Sequence[np.ndarray] = ()) -> tuple[float, dict[str, Any]]:
    """The limit that a live window of n rows passes with probability alpha when nothing changed, and how it was found.

    The largest of: the (1 - alpha) quantile of random draws; that of whole stretches of the reference; and, with three earlier windows
    or more (their counts by bin), the upper prediction bound of a further such window (log scale, Student's t).
    """
    random = float(np.quantile(null_draws(coded, statistic, n), 1 - alpha))
    limit, how = random, {"random_draws": random}
    values = stretch_values(coded, statistic, n)
    if len(values):
        how["stretches"] = float(np.quantile(values, 1 - alpha))
        limit = max(limit, how["stretches"])
    if len(windows) >= 3:
        reference = np.bincount(coded.reference, minlength=coded.size)
        how["windows"] = prediction_bound(np.asarray([float(statistic(reference, w)) for w in windows]), alpha)
        limit = max(limit, how["windows"])
    return limit, {"calibrated_on": how, "alpha": alpha, "windows": len(windows)}


def prediction_bound(values: np.ndarray, alpha: float) -> float:
    """Upper bound for one more value like these, exceeded with probability alpha if their logs are normal (Student's prediction interval)."""
    from scipy.stats import t

    logs = np.log(np.maximum(values, 1e-9))
    m = len(logs)
    return float(np.exp(logs.mean() + t.ppf(1 - alpha, m - 1) * logs.std(ddof=1) * math.sqrt(1 + 1 / m)))


def feature_columns(window: Window) -> list[str]:
    """The columns that both sides of a window have, outputs and labels aside."""
    return [c for c in window.reference if c in window.live and c not in OUTPUTS]


def enough(window: Window, columns: Sequence[str], name: str) -> Score | None:
    """An inconclusive Score if there are too few rows on either side or no column in common, else None."""
    rows = min((len(window.reference[c]) for c in columns), default=0)
    if not columns:
        return Score(name, None, "inconclusive", window.n, None, name, "The window and the reference have no column in common.")
    if window.n < MIN_ROWS or rows < MIN_ROWS:
        why = f"Not enough data: {window.n} rows in the window and {rows} in the reference; {MIN_ROWS} of each are needed."
        return Score(name, None, "inconclusive", window.n, None, name, why)
    return None


@dataclass(frozen=True)
class _ColumnDrift:
    """Base of the checks that compare one column with the reference."""

    column: str = ""
    alpha: float = 0.025
    name: ClassVar[str] = ""
    stages: ClassVar[tuple[str, ...]] = (MONITOR,)
    better: ClassVar[str] = "lower"
    needs_column: ClassVar[bool] = True
    bins: ClassVar[int] = BINS

    @property
    def label(self) -> str:
        """How this check is written in a rule."""
        return f"{self.name}({self.column})"

    def __call__(self, window: Window) -> Score:
        """The statistic against its calibrated limit; inconclusive with too few rows."""
        window = need_window(self.name, window)
        if self.column not in window.reference or self.column not in window.live:
            known = ", ".join(feature_columns(window)) or "none"
            return Score(
                self.label, None, "not_assessed", 0, None, self.name, f"There is no column {self.column!r} on both sides; there are: {known}."
            )
        few = enough(window, [self.column], self.label)
        if few:
            return few
        coded = code(window.reference[self.column], window.live[self.column], self.bins)
        if self.name == "ks" and not coded.numeric:
            return Score(self.label, None, "not_assessed", 0, None, self.name, f"{self.column} is not numeric; use js or chi2.")
        statistic = STATISTICS[self.name]
        a, b = coded.counts()
        earlier = [
            np.bincount(code(window.reference[self.column], w[self.column], self.bins).live, minlength=coded.size)
            for w in _earlier(window, self.column)
        ]
        limit, how = calibrate(coded, statistic, window.n, self.alpha, earlier)
        value = (
            float(ks_distance(window.reference[self.column], window.live[self.column]))
            if self.name == "ks" and len(coded.live) < 200_000
            else float(statistic(a, b))
        )
        return self.score(value, limit, window.n, how)

    def score(self, value: float, limit: float, n: int, how: Mapping[str, Any]) -> Score:
        """Fail above the limit."""
        moved = value > limit
        why = f"{self.label} is {value:.4g}, {'over' if moved else 'within'} the limit {limit:.4g} calibrated on the reference (n = {n})."
        details = {"limit": limit, "basis": "drift", **how}
        return Score(self.label, value, "fail" if moved else "pass", n, None, self.name, why, details)


@checks.add("psi")
@dataclass(frozen=True)
class Psi(_ColumnDrift):
    """Population stability index of a column."""

    name: ClassVar[str] = "psi"


@checks.add("ks")
@dataclass(frozen=True)
class Ks(_ColumnDrift):
    """Kolmogorov-Smirnov distance of a numeric column."""

    name: ClassVar[str] = "ks"
    bins: ClassVar[int] = FINE_BINS


@checks.add("js")
@dataclass(frozen=True)
class Js(_ColumnDrift):
    """Jensen-Shannon distance of a column."""

    name: ClassVar[str] = "js"


@checks.add("chi2")
@dataclass(frozen=True)
class Chi2(_ColumnDrift):
    """Chi-square of a column's bins or categories."""

    name: ClassVar[str] = "chi2"


@checks.add("missing_rate")
@dataclass(frozen=True)
class MissingRate(_ColumnDrift):
    """Change of the share of missing values of a column."""

    name: ClassVar[str] = "missing_rate"


@checks.add("new_categories")
@dataclass(frozen=True)
class NewCategories(_ColumnDrift):
    """Share of the window's rows whose category the reference never had."""

    name: ClassVar[str] = "new_categories"

    def __call__(self, window: Window) -> Score:
        """Fail where the share is more than the reference itself shows between its halves (leave-out estimate by Good and Turing, 1953)."""
        window = need_window(self.name, window)
        few = enough(window, [self.column] if self.column in window.reference and self.column in window.live else [], self.label)
        if few:
            return few
        seen, now = _texts(window.reference[self.column]), _texts(window.live[self.column])
        values, counts = np.unique(seen, return_counts=True)
        new = ~np.isin(now, values)
        unseen = (float((counts == 1).sum()) + 1) / len(seen)
        from scipy.stats import binom

        limit = float(binom.ppf(1 - self.alpha, len(now), min(1.0, unseen))) / len(now)
        found, sizes = np.unique(now[new], return_counts=True)
        top = dict(zip(found[np.argsort(-sizes)][:10].tolist(), np.sort(sizes)[::-1][:10].tolist(), strict=True))
        return self.score(float(new.mean()), limit, window.n, {"new": top, "alpha": self.alpha})


@checks.add("drift")
@dataclass(frozen=True)
class Drift:
    """All feature columns at once: the column that moved furthest beyond its own null distribution, against the limit of that maximum.

    Each column's statistic (KS for numbers, JS for categories) is standardised by what it does when nothing changed; the limit is the
    (1 - alpha) quantile of the largest of them over random draws and over whole stretches of the reference (the maximum over columns is
    calibrated jointly, after Westfall and Young, 1993, so it needs no further correction and knows that columns move together).
    """

    alpha: float = 0.025
    columns: tuple[str, ...] = ()
    name: ClassVar[str] = "drift"
    stages: ClassVar[tuple[str, ...]] = (MONITOR,)
    better: ClassVar[str] = "lower"

    @property
    def label(self) -> str:
        """How this check is written in a rule."""
        return self.name

    def __call__(self, window: Window) -> Score:
        """Fail if the furthest column is over the calibrated limit; details name each column's statistic."""
        window = need_window(self.name, window)
        columns = [c for c in feature_columns(window) if not self.columns or c in self.columns]
        few = enough(window, columns, self.name)
        if few:
            return few
        n = window.n
        random, whole, earlier, values, raw = [], [], [], [], {}
        for i, column in enumerate(columns):
            numeric = is_numeric(window.reference[column])
            coded = code(window.reference[column], window.live[column], FINE_BINS if numeric else BINS)
            statistic = _joint if numeric else js
            a, b = coded.counts()
            null = null_draws(coded, statistic, n, seed=i)
            centre, spread = float(null.mean()), max(float(null.std()), 1e-9)
            stretch = stretch_values(coded, statistic, n)
            if len(stretch):
                centre, spread = max(centre, float(stretch.mean())), max(spread, float(stretch.std()))
            value = float(statistic(a, b))
            raw[column] = {"statistic": "ks" if numeric else "js", "value": value, "beyond": (value - centre) / spread}
            values.append((value - centre) / spread)
            random.append((null - centre) / spread)
            whole.append((stretch - centre) / spread)
            past = [
                np.bincount(code(window.reference[column], w[column], FINE_BINS if numeric else BINS).live, minlength=coded.size)
                for w in _earlier(window, column)
            ]
            earlier.append([(float(statistic(a, w)) - centre) / spread for w in past])
        limit, how = _joint_limit(random, whole, earlier, self.alpha)
        return self._score(columns, values, raw, limit, how, n)

    def _score(self, columns: list[str], values: list[float], raw: dict[str, Any], limit: float, how: dict[str, Any], n: int) -> Score:
        worst = int(np.argmax(values))
        value = float(values[worst])
        moved = [c for c, v in zip(columns, values, strict=True) if v > limit]
        stat = raw[columns[worst]]
        said = f"{columns[worst]} moved furthest ({stat['statistic']} {stat['value']:.3g}, {value:.1f} spreads beyond what stretches of the reference show; limit {limit:.1f})"
        why = f"Inputs moved: {said}; {len(moved)} of {len(columns)} columns are over the limit." if moved else f"No input moved: {said}."
        details = {"basis": "drift", "limit": limit, "columns": raw, "moved": moved, "alpha": self.alpha, "calibrated_on": how}
        return Score(self.name, value, "fail" if moved else "pass", n, None, self.name, why, details)


def _joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """KS over the values, or the change of the missing share where that is larger."""
    return np.maximum(ks(a, b), missing(a, b))


def _joint_limit(random: list[Any], whole: list[Any], earlier: list[Any], alpha: float) -> tuple[float, dict[str, Any]]:
    how = {"random_draws": float(np.quantile(np.max(random, axis=0), 1 - alpha))}
    if len(whole[0]):
        how["stretches"] = float(np.quantile(np.max(whole, axis=0), 1 - alpha))
    if len(earlier[0]) >= 3:
        most = np.max(np.asarray(earlier), axis=0)
        how["windows"] = prediction_bound(np.maximum(most, 0.1), alpha)
    return max(how.values()), how


_MISSING = "\x00missing"


def _earlier(window: Window, column: str) -> list[Mapping[str, Any]]:
    return [w for w in window.calibration if column in w and len(w[column])]


def _number_codes(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    codes = np.searchsorted(edges, values, side="right") + 1
    codes[~np.isfinite(values)] = 0
    return codes


def _texts(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=object)
    return np.asarray([_MISSING if v is None or v != v else str(v) for v in array], dtype=str)


def _shares(counts: Any) -> np.ndarray:
    counts = np.asarray(counts, dtype=float) + 0.5
    return counts / counts.sum(axis=-1, keepdims=True)


def _plain_shares(counts: Any) -> np.ndarray:
    counts = np.asarray(counts, dtype=float)
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1e-12)
