"""Figures and small calls of the credit demo: gate rules by kind of task, one call by the Open Inference Protocol, a batch, what changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from everloop.cli.demo_feed import Feed
from everloop.cli.demo_report import Stage

ENOUGH = 50
"""Outcomes that must be known before live figures are compared."""
BATCH_WEEKS = 2
"""Weeks of applications in the file that is scored in batch."""


def rules(feed: Feed) -> list[str]:
    """What a lender would ask of the generated loans.

    A challenger must be better than the champion, and not only no worse: one that has seen too little of the new world is then refused, the
    monitor goes on complaining, and the next retraining has seen more.
    """
    gaps = [f"fairness_gap({name}) <= 0.15" for name in feed.roles.get("protected", ())]
    return ["auc >= 0.65", "calibration_error <= 0.10", *gaps, "cpu_p95_ms <= 50", "auc > champion"]


def with_comparison(asked: list[str], task: str, say: Callable[[str], None]) -> list[str]:
    """What a user requires, and beside it the default comparison with the champion, unless they require one of their own."""
    from everloop.build.tabular.gating import AGAINST_CHAMPION

    if any("champion" in rule for rule in asked):
        return asked
    say(f"to what you require the comparison with the champion is added: {AGAINST_CHAMPION[task]} (--require one of your own replaces it)")
    return [*asked, AGAINST_CHAMPION[task]]


def declare_again(client: Any, name: str, requirements: list[str]) -> None:
    """Where the gate stands already (an earlier round), it gets these requirements; else the pipeline declares it."""
    for gate in client.gates.list():
        if (gate["kind"], gate["name"], gate["alias"]) == ("release", name, "champion") and gate["spec"]["requirements"] != requirements:
            client.gates.declare("release", name, suite=f"suite:{name}", requirements=requirements, approval="not_first")


def infer(client: Any, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """One row by the Open Inference Protocol, as a foreign client would send it."""
    model = client._http.get(f"/v2/models/{name}")
    tensors = []
    for column in model["inputs"]:
        value = row.get(column["name"])
        text = column["datatype"] == "BYTES"
        if value is None and text:
            continue
        tensors.append({"name": column["name"], "shape": [1], "datatype": column["datatype"], "data": [str(value) if text else value]})
    return dict(client._http.post(f"/v2/models/{name}/infer", json={"inputs": tensors}))


def outputs(answer: Mapping[str, Any]) -> str:
    """An inference answer in one line."""
    told = {o["name"]: o["data"][0] for o in answer["outputs"]}
    return ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items())


def batch(client: Any, feed: Feed, folder: Path, s: Stage) -> None:
    """Score a CSV file through the endpoint in a worker: the answers as a file and as a dataset version."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / f"{feed.name}-applications.csv", folder / f"{feed.name}-scored.csv"
    pd.concat([w.rows for w in feed.weeks[:BATCH_WEEKS]])[feed.features].to_csv(source, index=False)
    done = client.endpoints.score(feed.name, source, target, at=feed.begins - 1)
    s.refs |= {"batch_run": done["run"], "batch": done["out"], "batch_in": str(source), "batch_out": str(target)}
    s.say(f"batch: {done['scored']} of {done['rows']} rows of {source} -> {target} and {done['out']}")


def monitor_figures(s: Stage, seen: Mapping[str, Any], week: int, before_shift: bool | None) -> None:
    """What the monitor saw in one week, as figures; `before_shift` says whether the generator's world had changed yet."""
    for score in seen["scores"]:
        basis = (score.get("details") or {}).get("basis")
        s.figure(
            f"{score['name']}_week_{week}",
            score["value"],
            interval=score["interval"],
            n=score["n"],
            verdict=score["verdict"],
            basis=basis,
            before_shift=before_shift,
        )


def gate_line(score: Mapping[str, Any]) -> str:
    """A requirement as the gate saw it, in one line."""
    details = score.get("details") or {}
    head = f"{score['verdict'].replace('_', ' '):<12} {score['name']}: "
    if score["value"] is None:
        return head + ("no champion yet" if "no champion yet" in score["why"] else score["why"].removeprefix(f"{score['name']}: "))
    sure, upwards = f"{details.get('one_sided', 0.95):.0%}", ">" in score["name"]
    low, high = score["interval"] or (None, None)
    bound = f"{sure} sure of {'at least' if upwards else 'at most'} {_round(low if upwards else high)}"
    if details.get("champion") is not None:
        figures = f"{_round(details.get('candidate'))} against {_round(details['champion'])}, difference {score['value']:+.3g}"
        return f"{head}{figures} ({bound}; the same {score['n']} rows)"
    return f"{head}{_round(score['value'])} ({bound}; n {score['n']})"


def monitor_line(seen: Mapping[str, Any], task: str) -> str:
    """What the monitor saw in one look, in one line: errors where outcomes are known, inputs beside them."""
    parts = []
    for score in seen["scores"]:
        details = score.get("details") or {}
        if details.get("basis") == "labels":
            parts.append(f"{_losses(score, task)}{' rose' if score['verdict'] == 'fail' else ''}")
        elif score["name"] == "decay":
            parts.append("too few outcomes known")
        elif score["name"] == "drift" and "columns" in details:
            moved, columns = details.get("moved") or [], details["columns"]
            first = sorted(moved, key=lambda c: -columns[c]["beyond"])[:2]
            more = f" and {len(moved) - 2} more" if len(moved) > 2 else ""
            parts.append(f"inputs moved: {', '.join(first)}{more}" if moved else f"inputs as before ({len(columns)} columns)")
        else:
            parts.append(score["why"])
    word = "decay" if seen["act"] else "drift" if seen["verdict"] == "fail" else "fine" if seen["verdict"] == "pass" else "?"
    return f"{word:<5}  {'; '.join(parts) or seen['why']}"


def _losses(score: Mapping[str, Any], task: str) -> str:
    """Losses that rose beyond their limit, else all, each beside what it was when the champion passed its gate."""
    told = [f"{_named(name, task)} {_round(one['live'])} (was {_round(one['reference'])})" for name, one in _rose(score).items()]
    return f"{', '.join(told)} on {score['n']} outcomes"


def _rose(score: Mapping[str, Any]) -> dict[str, Any]:
    losses = dict((score.get("details") or {}).get("losses") or {})
    return {name: one for name, one in losses.items() if one["rise"] > one["limit"]} or losses


def _named(loss: str, task: str) -> str:
    return {"error": "mean absolute error" if task == "regression" else "error rate", "brier": "Brier score"}.get(loss, loss)


def short(decision: Mapping[str, Any]) -> str:
    """A decision's first two figures: `auc 0.79, calibration_error 0.02, n 750`."""
    told = [s for s in decision["scores"] if s["value"] is not None and "champion" not in s["name"]][:2]
    return ", ".join([*(f"{_metric(s['name'])} {_round(s['value'])}" for s in told), f"n {max((s['n'] for s in told), default=0)}"])


def compared(decision: Mapping[str, Any]) -> str:
    """The paired comparison with the champion after a colon, or nothing."""
    for score in decision["scores"]:
        details = score.get("details") or {}
        if details.get("champion") is not None and details.get("candidate") is not None:
            return f": {_metric(score['name'])} {_round(details['candidate'])} against {_round(details['champion'])}"
    return ""


def alarm(seen: Mapping[str, Any], task: str) -> str:
    """Why the monitor acted, in a few words: `Brier score rose to 0.11 from 0.079 (n 1498)`."""
    score = next((s for s in seen["scores"] if s["verdict"] == "fail" and (s.get("details") or {}).get("basis") == "labels"), None)
    if score is None:
        return "the monitor called for action"
    rose = _rose(score)
    name, one = max(rose.items(), key=lambda item: item[1]["rise"])
    more = f" and {', '.join(_named(other, task) for other in rose if other != name)}" if len(rose) > 1 else ""
    return f"{_named(name, task)} rose to {_round(one['live'])} from {_round(one['reference'])}{more} (n {score['n']})"


def quality(sent: Iterable[Mapping[str, Any]], task: Mapping[str, Any]) -> dict[str, Any]:
    """{name: Estimate} over predictions whose label is known: AUC and Brier score, the accuracy, or the mean absolute error."""
    import numpy as np

    from everloop.checks import checks
    from everloop.checks.base import NotAssessable
    from everloop.core.labels import label
    from everloop.core.types import Results

    rows = [p for p in sent if p["sent"]]
    if not rows:
        return {}
    number = task["task"] == "regression"
    plain = (lambda v: float(v)) if number else label
    key = f"probability_{task.get('positive')}"
    probability = np.array([float(p[key]) for p in rows]) if task["task"] == "binary" and key in rows[0] else None
    results = Results(
        len(rows),
        task["task"],
        np.array([plain(p["label"]) for p in rows], dtype=float if number else object),
        np.array([plain(p["prediction"]) for p in rows], dtype=float if number else object),
        probability,
        positive=task.get("positive"),
    )
    found = {}
    for name in ("mae",) if number else ("auc", "brier") if probability is not None else ("accuracy",):
        try:
            found[name] = checks.get(name)().estimate(results)
        except NotAssessable:
            continue
    return found


def recovery(s: Stage, sent: list[dict[str, Any]], task: Mapping[str, Any], before: str, since: int) -> dict[str, Any]:
    """Live figures, from outcomes that came, of the old champion from week `since` on and of its successors; {} where too few are known.

    The weeks differ, so this shows what users got; which model is better is what the gate says, on the same rows.
    """
    old = quality([p for p in sent if p["release"] == before and p["week"] >= since], task)
    later = [p for p in sent if p["release"] not in (before, "") and p["sent"]]
    new = quality(later, task)
    names = sorted({p["release"] for p in later})
    found = {name: (old[name], new[name]) for name in old if name in new and new[name].n >= ENOUGH}
    for name, (was, now) in found.items():
        for tag, one in (("before", was), ("after", now)):
            s.figure(f"live_{name}_{tag}", one.value, interval=one.interval, n=one.n)
        s.say(f"live {name}: {_round(was.value)} ({before}, weeks {since} on, n {was.n}) -> {_round(now.value)} ({', '.join(names)}, n {now.n})")
    if not found:
        s.say("too few outcomes of the new champion's predictions are known yet to compare")
    return found


def worse(recovered: Mapping[str, Any]) -> list[str]:
    """A line for the last screen where live figures got worse after the promotion, which a person should hear without looking for it."""
    told = []
    for name, (old, new) in recovered.items():
        down = name in ("brier", "mae")
        if (new.value > old.value) if down else (new.value < old.value):
            apart = new.interval.low > old.interval.high or new.interval.high < old.interval.low
            told.append(f"{name} by {_round(abs(new.value - old.value))}{'' if apart else ', which may be chance'}")
    if not told:
        return []
    return [f"ATTENTION: live figures got worse after the promotion: {'; '.join(told)}. The weeks differ, so the new model need not be why"]


def _metric(rule: str) -> str:
    """What a rule measures: `auc` of `auc >= 0.7`."""
    return re.split(r"\s*[<>]", rule, maxsplit=1)[0]


def _round(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
