"""Weekly loan applications that never were: the demo's data, seeded, with a shift that is written down.

A consumer lender's applications. What is known when one applies (14 features): age, gender (protected; it has no effect of its own on default,
only women's incomes are 9 % lower), employment_type, months_employed, monthly_income, housing, purpose, amount, term_months, debt_ratio (all
instalments, the new one too, over income), credit_history_months, late_payments_24m, savings, channel. Missing: income 4 %, savings 12 %,
months_employed for the retired, students and the unemployed. Rare: gender `diverse`, employment `student` and `unemployed`, purposes
`wedding` and `boat`. `defaulted` (1: ninety days past due) becomes known 4 to 6 weeks later: see `known_at`.

Before the shift the risk is what scorecards know: debt ratio, late payments and a short history raise it, savings, a home of one's own
and time in the job lower it.

The shift, from week `shift_week` on (weeks count from 0), in two weeks from none to full:
- covariates: an app opens as a new channel and brings half of all applications. Its customers are younger, with shorter histories and few late
  payments on file; they declare their own income, 30 to 80 % too high, so that their debt ratio looks fine.
- concept: for them debt ratio and late payments say little; loans that are long, large, or for debt consolidation go bad, and permanent jobs
  and savings protect more. Interest rates rise for all: those with a mortgage, who were safer than tenants, become riskier.

A model trained before loses about a tenth of AUC on the weeks after, and one trained with a few weeks of the new applications regains most of it
(`tests/build/test_credit.py` measures both).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from everloop.core.clock import from_iso
from everloop.core.errors import BadInput

TARGET, TIME, ID, PROTECTED, POSITIVE = "defaulted", "applied_at", "application_id", ("gender",), "1"
FEATURES = (
    "age",
    "gender",
    "employment_type",
    "months_employed",
    "monthly_income",
    "housing",
    "purpose",
    "amount",
    "term_months",
    "debt_ratio",
    "credit_history_months",
    "late_payments_24m",
    "savings",
    "channel",
)
LABEL_DELAY_DAYS = (28, 42)
"""A loan's outcome is known this many days after the application, earliest and latest."""
CONTRACT = {
    "columns": {
        "application_id": {"type": "string", "required": True, "unique": True},
        "applied_at": {"type": "datetime", "required": True},
        "age": {"type": "integer", "required": True, "min": 18, "max": 100},
        "monthly_income": {"type": "number", "min": 0},
        "amount": {"type": "integer", "required": True, "min": 500, "max": 100_000},
        "term_months": {"type": "integer", "required": True, "min": 6, "max": 120},
        "debt_ratio": {"type": "number", "min": 0, "max": 5},
    }
}
"""What a load of applications must keep; a new channel or purpose is allowed to come."""
_WEEK = 7 * 86_400
_EMPLOYMENT = ("permanent", "fixed_term", "self_employed", "retired", "student", "unemployed")
_PURPOSE = ("car", "furniture", "renovation", "debt_consolidation", "education", "medical", "business", "wedding", "boat")
_HOUSING = ("rent", "mortgage", "own", "with_parents")


def weeks(
    start: str | datetime = "2026-01-05", n: int = 30, per_week: int = 400, seed: int = 7, shift_week: int | None = 16, first: int = 0
) -> list[Any]:
    """`n` weeks of applications as pandas frames, from week `first` on; week 0 begins at `start` (a date, UTC).

    Columns: application_id, applied_at (timestamp, rising), the features, defaulted (0 or 1). A week depends on seed and week alone, so week 12
    is the same however many are asked for. `shift_week=None`: no shift. BadInput for numbers that make no sense.
    """
    if n < 0 or per_week < 1 or first < 0:
        raise BadInput(f"weeks(n={n}, per_week={per_week}, first={first}) cannot be.", "n and first from 0, per_week from 1.")
    begin = start.replace(tzinfo=start.tzinfo or timezone.utc).timestamp() if isinstance(start, datetime) else from_iso(start)
    return [_week(begin, week, per_week, seed, shift_week) for week in range(first, first + n)]


def known_at(applied_at: float, application_id: str) -> float:
    """When an application's outcome becomes known (epoch seconds): 28 to 42 days after, the same for the same application."""
    early, late = LABEL_DELAY_DAYS
    days = early + sum(application_id.encode()) * 7919 % (late - early + 1)
    return applied_at + days * 86_400.0


def _week(begin: float, week: int, n: int, seed: int, shift_week: int | None) -> Any:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng([seed, week])
    shift = 0.0 if shift_week is None else float(np.clip((week - shift_week + 1) / 2, 0.0, 1.0))
    app = rng.random(n) < 0.5 * shift
    person = _people(rng, n, app)
    loan = _loans(rng, n, app, person)
    risk = _risk(person, loan, app, shift)
    defaulted = rng.random(n) < 1 / (1 + np.exp(-risk))
    moments = np.sort(rng.uniform(0, _WEEK, n)).astype("int64") + int(begin) + week * _WEEK
    income = np.where(app, person["income"] * loan["inflation"], person["income"])
    declared = np.where(rng.random(n) < 0.04, np.nan, np.round(income, -1))
    savings = np.where(rng.random(n) < 0.12, np.nan, np.round(person["savings"], -1))
    idle = np.isin(person["employment"], ("retired", "student", "unemployed"))
    return pd.DataFrame(
        {
            "application_id": [f"A{week:03d}-{i:05d}" for i in range(n)],
            "applied_at": pd.to_datetime(moments, unit="s").astype("datetime64[us]"),
            "age": person["age"].astype("int64"),
            "gender": person["gender"],
            "employment_type": person["employment"],
            "months_employed": np.where(idle, np.nan, person["tenure"]),
            "monthly_income": declared,
            "housing": person["housing"],
            "purpose": loan["purpose"],
            "amount": loan["amount"].astype("int64"),
            "term_months": loan["term"].astype("int64"),
            "debt_ratio": np.round(np.minimum((loan["old_debt"] + loan["instalment"]) / income, 2.5), 3),
            "credit_history_months": person["history"].astype("int64"),
            "late_payments_24m": person["late"].astype("int64"),
            "savings": savings,
            "channel": np.where(app, "app", np.where(rng.random(n) < 0.55, "branch", np.where(rng.random(n) < 0.6, "web", "broker"))),
            "defaulted": defaulted.astype("int64"),
        }
    )


def _people(rng: Any, n: int, app: Any) -> dict[str, Any]:
    import numpy as np

    age = np.clip(np.round(np.where(app, rng.gamma(5, 2.8, n) + 18, rng.gamma(4.2, 6.2, n) + 18)), 18, 84)
    employment = rng.choice(_EMPLOYMENT[:3], n, p=(0.68, 0.17, 0.15)).astype(object)
    employment[(age > 64) & (rng.random(n) < 0.9)] = "retired"
    employment[(age < 26) & (rng.random(n) < 0.12)] = "student"
    employment[(age <= 64) & (rng.random(n) < 0.012)] = "unemployed"
    gender = rng.choice(("female", "male", "diverse"), n, p=(0.447, 0.547, 0.006)).astype(object)
    level = {"permanent": 2750.0, "fixed_term": 2150.0, "self_employed": 2900.0, "retired": 1750.0, "student": 950.0, "unemployed": 1050.0}
    spread = np.where(employment == "self_employed", 0.55, 0.33)
    seniority = 1 + 0.25 * np.clip((age - 25) / 25, -0.5, 1)
    income = np.array([level[e] for e in employment]) * seniority * np.where(gender == "female", 0.91, 1.0) * np.exp(rng.normal(0, spread))
    tenure = np.floor(np.minimum(rng.gamma(1.3, 50, n) * np.where(employment == "fixed_term", 0.3, 1.0), np.maximum((age - 17) * 12, 1)))
    history = np.floor(np.minimum(rng.gamma(2.2, 55, n) * np.where(app, 0.45, 1.0), np.maximum((age - 17) * 12, 3)))
    late = np.minimum(rng.poisson(np.where(app, 0.12, 0.55) * rng.gamma(0.7, 1.5, n)), 12)
    savings = rng.lognormal(8.0, 1.3, n) * (income / 2600) * np.where(app, 0.7, 1.0)
    housing = rng.choice(_HOUSING, n, p=(0.46, 0.27, 0.19, 0.08)).astype(object)
    housing[(housing == "with_parents") & (age > 32)] = "rent"
    housing[(housing == "own") & (age < 26)] = "rent"
    return {
        "age": age,
        "gender": gender,
        "employment": employment,
        "income": np.maximum(income, 450.0),
        "tenure": tenure,
        "history": history,
        "late": late,
        "savings": savings,
        "housing": housing,
    }


def _loans(rng: Any, n: int, app: Any, person: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    usual = np.array((0.27, 0.16, 0.15, 0.17, 0.08, 0.07, 0.07, 0.02, 0.01))
    online = np.array((0.16, 0.17, 0.06, 0.32, 0.12, 0.09, 0.05, 0.025, 0.005))
    purpose = np.where(app, rng.choice(_PURPOSE, n, p=online), rng.choice(_PURPOSE, n, p=usual)).astype(object)
    size = {"car": 12_000, "furniture": 3_000, "renovation": 14_000, "debt_consolidation": 11_000, "education": 6_000, "medical": 4_000}
    middle = np.array([size.get(p, {"business": 18_000, "wedding": 9_000, "boat": 20_000}.get(p, 8_000)) for p in purpose])
    amount = np.clip(np.round(middle * np.exp(rng.normal(0, 0.5, n)) * (person["income"] / 2600) ** 0.5, -2), 500, 75_000)
    term = np.select(
        [amount < 3_000, amount < 9_000, amount < 18_000], [rng.choice((12, 18, 24), n), rng.choice((24, 36, 48), n), rng.choice((36, 48, 60, 72), n)]
    )
    term = np.where(amount >= 18_000, rng.choice((48, 60, 72, 84), n), term)
    rate = 0.069 / 12
    instalment = amount * rate / (1 - (1 + rate) ** -term)
    old_debt = person["income"] * rng.beta(1.6, 6.5, n)
    return {"purpose": purpose, "amount": amount, "term": term, "instalment": instalment, "old_debt": old_debt, "inflation": rng.uniform(1.3, 1.8, n)}


def _risk(person: dict[str, Any], loan: dict[str, Any], app: Any, shift: float) -> Any:
    """Log-odds of default (see the module's docstring for what changes)."""
    import numpy as np

    ratio = (loan["old_debt"] + loan["instalment"]) / person["income"]
    history, savings = np.log1p(person["history"] / 24), np.log1p(person["savings"] / 1000)
    employment, housing, purpose = person["employment"], person["housing"], loan["purpose"]
    insecure = 0.45 * (employment == "fixed_term") + 0.35 * (employment == "self_employed") + 1.3 * (employment == "unemployed")
    home = -0.55 * (housing == "own") + (-0.4 + 0.6 * shift) * (housing == "mortgage") + 0.1 * (housing == "with_parents")
    usual = (
        -2.75
        + 5.0 * (np.minimum(ratio, 1.2) - 0.35)
        + 0.85 * np.minimum(person["late"], 4)
        - 0.6 * (history - 1.5)
        - 0.35 * (savings - 1.4)
        + insecure
        + home
        - 0.15 * np.log1p(person["tenure"] / 12)
        + 0.25 * (purpose == "business")
        + 0.2 * (purpose == "debt_consolidation")
        + 0.012 * np.abs(person["age"] - 48)
    )
    through_app = (
        -2.1
        + 3.2 * (np.minimum(ratio, 1.2) - 0.35)
        + 0.6 * np.minimum(person["late"], 4)
        + 0.022 * (loan["term"] - 36)
        + 0.4 * np.log(loan["amount"] / 6000)
        + 1.0 * (purpose == "debt_consolidation")
        + 0.4 * (purpose == "education")
        - 0.6 * (savings - 1.3)
        - 0.7 * (employment == "permanent")
        + home
    )
    return np.where(app, through_app, usual)
