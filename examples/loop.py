"""The loop in one script: a credit model goes from data to a served release, decays, is noticed, retrained, gated, approved and replaced.

Run it beside a server (`everloop up`), or alone: one is started. Loans come week by week from a seeded generator whose world changes in
week 16. Outcomes are told at once here to keep the script short; in life they come weeks late.
"""

from __future__ import annotations

import sys

import pandas as pd

import everloop as el
from everloop.build import credit, tabular

FIRST_WEEKS, LAST_WEEK, PER_WEEK, KEEP = 12, 26, 300, 10
RULES = ["auc >= 0.65", "auc >= champion - 0.02", "cpu_p95_ms <= 50"]


def main() -> int:
    """Go round once; the exit code says whether a challenger replaced the champion."""
    client = el.connect()
    weeks = credit.weeks(n=LAST_WEEK, per_week=PER_WEEK, seed=7)
    client.pipelines.put("credit", tabular.PIPELINE)
    load(client, weeks[:FIRST_WEEKS])
    params = {"dataset": "dataset:loans", "name": "credit", "gate": {"requirements": RULES, "approval": "not_first"}}
    judged(client, client.pipelines.run("credit", params)["id"], "first")
    client.endpoints.put("credit", "predict", release="credit")
    retrain = {"pipeline": "credit", "params": params}
    client.monitors.put("credit", "credit", checks=[{"check": "decay"}, {"check": "drift"}], window_days=7, on_fail=retrain)
    for number in range(FIRST_WEEKS, LAST_WEEK):
        answered = serve(client, weeks[number])
        load(client, weeks[max(0, number + 1 - KEEP) : number + 1])
        seen = client.monitors.tick("credit", weeks[number]["applied_at"].max().timestamp() + 1)
        print(f"week {number}: {seen['verdict']:<13} {seen['why'][:100]}", flush=True)
        if seen["run"] and judged(client, seen["run"], f"retrained in week {number}"):
            print("the last answer rests on:", " <- ".join(n["ref"] for n in client.why(answered)["nodes"]))
            return 0
    return 1


def load(client: el.Client, weeks: list[pd.DataFrame]) -> None:
    """The newest weeks as a dataset version."""
    client.data.add("loans", pd.concat(weeks), target=credit.TARGET, time="applied_at", protected=["gender"], id="application_id")


def judged(client: el.Client, run: str, what: str) -> bool:
    """Wait for a training and what its gate says; a person approves a challenger that passes. Answers whether it went live."""
    said = client.pipelines.wait(run)["tasks"][-1]["result"]
    print(f"gate ({what}): {said['release']} {said['verdict']}, approval {said['approval']}. {said['why']}", flush=True)
    if said["verdict"] == "pass" and said["approval"] == "pending":
        client.gates.approve(said["decision"], "the example approves")
    return bool(said["verdict"] == "pass")


def serve(client: el.Client, week: pd.DataFrame) -> str:
    """A week of applications through the endpoint, with their outcomes; answers the last prediction's id."""
    rows = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in week[list(credit.FEATURES)].astype(object).to_dict("records")]
    told = client.endpoints.predict("credit", rows, at=week["applied_at"].max().timestamp())["predictions"]
    client.traces.labels({"prediction_id": p["prediction_id"], "label": str(y)} for p, y in zip(told, week[credit.TARGET], strict=True))
    return str(told[-1]["prediction_id"])


if __name__ == "__main__":
    sys.exit(main())
