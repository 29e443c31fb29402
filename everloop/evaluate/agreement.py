"""Agreement among annotators: Krippendorff's alpha, for any number of them and with values missing.

alpha = 1 - observed / expected disagreement, from a coincidence matrix (K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011; Content
Analysis, 2nd edition, chapter 11). 1 is perfect agreement, 0 what chance gives, below 0 is systematic disagreement.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from everloop.core.errors import BadInput

LEVELS = ("nominal", "ordinal", "interval")
"""How values compare: equal or not; by rank; by their difference."""
RESAMPLES, SEED = 500, 7
Pairs = Mapping[tuple[int, int], float]


def alpha(units: Sequence[Sequence[Any]], level: str = "nominal", order: Sequence[Any] = ()) -> float | None:
    """Krippendorff's alpha of units, each the values that annotators gave it (None where one gave none).

    `order` is the order of ordinal values that do not sort by themselves. None where fewer than two values can be paired, or all values are the
    same (no disagreement could be seen). BadInput for an unknown level, or a value that is not in `order`.
    """
    matrices = _matrices(units, level, order)
    return None if matrices is None else _alpha([unit for unit, _ in matrices[0]], *matrices[1:])


def agreement(units: Sequence[Sequence[Any]], level: str = "nominal", order: Sequence[Any] = (), confidence: float = 0.95) -> dict[str, Any]:
    """{"alpha", "interval", "level", "n" (units with two values or more), "share" (of those on which all agree)}.

    The interval is a percentile bootstrap over units (500 resamples, seeded); None, as alpha, where it cannot be told.
    """
    paired = [[v for v in unit if v is not None] for unit in units]
    paired = [unit for unit in paired if len(unit) > 1]
    told: dict[str, Any] = {"alpha": None, "interval": None, "level": level, "n": len(paired), "share": None}
    if not paired:
        return told
    told["share"] = sum(len(set(unit)) == 1 for unit in paired) / len(paired)
    matrices = _matrices(paired, level, order)
    if matrices is None:
        return told
    counted, values, ranked = matrices
    whole = [unit for unit, _ in counted]
    told["alpha"] = _alpha(whole, values, ranked)
    rng = random.Random(SEED)
    drawn = [_alpha([rng.choice(whole) for _ in whole], values, ranked) for _ in range(RESAMPLES)]
    seen = sorted(a for a in drawn if a is not None)
    if len(seen) >= RESAMPLES // 2 and len(paired) > 1:
        tail = (1 - confidence) / 2
        told["interval"] = [seen[int(tail * len(seen))], seen[min(len(seen) - 1, int((1 - tail) * len(seen)))]]
    return told


def _matrices(units: Sequence[Sequence[Any]], level: str, order: Sequence[Any]) -> tuple[list[tuple[Counter[int], int]], list[Any], str] | None:
    """(each unit that can be paired as counts of value numbers with how many, the values in order, level); None without two values."""
    if level not in LEVELS:
        raise BadInput(f"There is no level of measurement {level!r}.", f"Levels: {', '.join(LEVELS)}.")
    kept = [[v for v in unit if v is not None] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    there = {v for unit in kept for v in unit}
    strange = [v for v in there if order and v not in order]
    if strange:
        raise BadInput(f"The value {strange[0]!r} is not among those of the order.", f"The order has: {', '.join(map(str, order))}.")
    values = [v for v in order if v in there] if order else sorted(there, key=lambda v: (str(type(v)), v))
    if len(values) < 2:
        return None
    number = {v: i for i, v in enumerate(values)}
    return [(Counter(number[v] for v in unit), len(unit)) for unit in kept], values, level


def _alpha(units: Sequence[Counter[int]], values: Sequence[Any], level: str) -> float | None:
    totals: Counter[int] = Counter()
    for unit in units:
        totals.update(unit)
    n = sum(totals.values())
    apart = _distances(totals, values, level)
    observed = sum(sum(unit[c] * unit[k] * d for (c, k), d in apart.items() if unit[c] and unit[k]) / (sum(unit.values()) - 1) for unit in units)
    expected = sum(totals[c] * totals[k] * d for (c, k), d in apart.items()) / (n - 1) if n > 1 else 0.0
    return 1 - observed / expected if expected > 0 else None


def _distances(totals: Counter[int], values: Sequence[Any], level: str) -> Pairs:
    """Squared distance of each pair of different value numbers, by the level's difference function."""
    found: dict[tuple[int, int], float] = {}
    for c in range(len(values)):
        for k in range(c + 1, len(values)):
            if level == "nominal":
                d = 1.0
            elif level == "interval":
                d = (float(values[c]) - float(values[k])) ** 2
            else:
                d = (sum(totals[g] for g in range(c, k + 1)) - (totals[c] + totals[k]) / 2) ** 2
            found[c, k] = d
    return found
