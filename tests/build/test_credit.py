"""The generator of loan applications: the same again, plausible, and its shift hurts an old model as its docstring says."""

from __future__ import annotations

import pandas as pd
import pytest

from everloop.assets import contracts, tables
from everloop.build import credit
from everloop.core.errors import BadInput


def test_a_week_depends_on_seed_and_week_alone() -> None:
    many, one = credit.weeks(n=6, per_week=50, seed=3), credit.weeks(n=1, per_week=50, seed=3, first=5)
    pd.testing.assert_frame_equal(many[5], one[0])
    assert not many[5].equals(credit.weeks(n=1, per_week=50, seed=4, first=5)[0])
    assert many[1].applied_at.min() >= pd.Timestamp("2026-01-12") and many[1].applied_at.is_monotonic_increasing
    with pytest.raises(BadInput):
        credit.weeks(n=1, per_week=0)


def test_applications_look_like_applications_and_keep_their_contract() -> None:
    import pyarrow as pa

    data = pd.concat(credit.weeks(n=20, per_week=300))
    table = tables.from_arrow(pa.Table.from_pandas(data, preserve_index=False)).table
    contracts.need_contract(table, credit.CONTRACT, "applications")
    assert 0.07 < data.defaulted[data.channel != "app"].mean() < 0.16
    assert (data.months_employed.dropna() <= (data.age[data.months_employed.notna()] - 17) * 12).all()
    assert 2000 < data.monthly_income.median() < 3500 and 0.2 < data.debt_ratio.median() < 0.4
    assert 0.02 < data.monthly_income.isna().mean() < 0.06 and set(credit.FEATURES) <= set(data.columns)
    assert not (data[:3000].channel == "app").any() and (data[-300:].channel == "app").mean() == pytest.approx(0.5, abs=0.12)
    at = [credit.known_at(0.0, name) / 86_400 for name in data.application_id[:200]]
    assert min(at) >= 28 and max(at) <= 42 and len(set(at)) > 10


def test_the_shift_costs_an_old_model_a_tenth_of_auc_and_a_new_one_regains_most_of_it() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    weeks = credit.weeks(n=30, per_week=400)
    kinds = {name: {v: i for i, v in enumerate(sorted(set(pd.concat(weeks)[name])))} for name in ("employment_type", "housing", "purpose", "channel")}

    def x(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[[f for f in credit.FEATURES if f != "gender"]].assign(**{c: frame[c].map(m) for c, m in kinds.items()})

    def fit(frame: pd.DataFrame) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(max_iter=100, learning_rate=0.06, max_leaf_nodes=12, random_state=0).fit(x(frame), frame.defaulted)

    def auc(model: HistGradientBoostingClassifier, frame: pd.DataFrame) -> float:
        return float(roc_auc_score(frame.defaulted, model.predict_proba(x(frame))[:, 1]))

    old, new = fit(pd.concat(weeks[:12])), fit(pd.concat(weeks[8:22]))
    before, after = pd.concat(weeks[12:16]), pd.concat(weeks[22:])
    assert 0.05 <= auc(old, before) - auc(old, after) <= 0.15
    assert auc(new, after) - auc(old, after) >= 0.05
