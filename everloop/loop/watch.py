"""A monitor's look at a window of live traffic: gather columns, run checks, say what it means.

The reference is what the live release showed when it passed its gate: the holdout's feature columns, and its labels and predictions there.
Errors from labels outrank drift in inputs: a monitor whose labels say "fine" does not retrain because an input moved, unless told to.
Of a chat endpoint the calls are watched: failures, time, cost, what guardrails blocked, what the engine declined, thumbs, and the answers' texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from everloop.checks import checks
from everloop.core.errors import BadInput
from everloop.core.labels import label
from everloop.core.types import Score, Window

DEFAULTS: dict[str, Any] = {
    "checks": [{"check": "decay"}, {"check": "drift"}],
    "window_days": 7.0,
    "label_window_days": 28.0,
    "every": "1d",
    "min_rows": 100,
    "cooldown_days": 7.0,
    "retrain_on": "errors",
    "on_fail": None,
}
"""A monitor's settings and their defaults. retrain_on: errors (a failing labelled check), any (drift too), never."""

CHAT_CHECKS = ("failure_rate", "latency_p95_ms", "cost_per_call", "blocked_rate", "refusal_rate", "thumbs_down_rate")
"""What a monitor of a chat endpoint looks at when nothing else is asked for."""
RETRAIN_ON = ("errors", "any", "never")


@dataclass(frozen=True)
class Look:
    """What a monitor saw: its scores, the verdict over them, whether it calls for action, and one sentence."""

    scores: list[Score]
    verdict: str
    act: bool
    why: str
    window: Mapping[str, Any] = field(default_factory=dict)


def full_spec(spec: Mapping[str, Any], kind: str = "predict") -> dict[str, Any]:
    """The spec with defaults filled in for an endpoint of a kind; BadInput names an unknown setting, check or value.

    A check is {"check": name, "params"?: {...}}, or a rule with a limit of its own: "latency_p95_ms <= 200" or {"rule": "..."}.
    """
    unknown = set(spec) - set(DEFAULTS)
    if unknown:
        raise BadInput(f"A monitor has no setting {', '.join(sorted(unknown))}.", f"Settings: {', '.join(DEFAULTS)}.")
    full = {**DEFAULTS, **spec}
    if not isinstance(full["checks"], list | tuple):
        raise BadInput(f"checks is {full['checks']!r}.", 'Give a list: ["latency_p95_ms <= 200", {"check": "decay"}].')
    full["checks"] = checks_of({**full, "checks": [_item(one) for one in full["checks"]]}, kind)
    if full["retrain_on"] not in RETRAIN_ON:
        raise BadInput(f"retrain_on is {full['retrain_on']!r}.", f"One of: {', '.join(RETRAIN_ON)}.")
    for key in ("window_days", "label_window_days", "cooldown_days"):
        if not isinstance(full[key], int | float) or full[key] < 0:
            raise BadInput(f"{key} is {full[key]!r}.", "Give a number of days.")
    if not full["checks"]:
        raise BadInput("A monitor needs at least one check.", 'For example: {"checks": [{"check": "decay"}]}')
    for item in full["checks"]:
        made = make_check(item)
        if kind == "chat" and over(made) == "rows":
            raise BadInput(
                f"The check {item['check']} watches rows of a predict endpoint; this endpoint is for chat.",
                f"Those for chats: {', '.join(name for name in monitor_checks() if over(checks.get(name)) != 'rows')}.",
            )
    return full


def checks_of(spec: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The checks of a spec: where nothing else was asked for, those that suit the endpoint's kind."""
    if kind == "chat" and spec["checks"] == DEFAULTS["checks"]:
        return [{"check": name} for name in CHAT_CHECKS]
    return list(spec["checks"])


def over(check: Any) -> str:
    """What a check looks at: rows (of predict endpoints), calls, or texts."""
    return str(getattr(check, "over", "rows" if not hasattr(check, "judge") else "texts"))


def _item(one: Any) -> dict[str, Any]:
    """A check of a spec as a dict; a rule names its metric as the check."""
    from everloop.evaluate.rules import parse

    given = {"rule": one} if isinstance(one, str) else dict(one) if isinstance(one, Mapping) else {}
    if "rule" in given:
        rule = parse(given["rule"])
        if rule.against == "champion":
            raise BadInput(f"{rule.text!r} compares with the champion; a monitor watches what is live.", "Give a number, or `calibrated`.")
        named = {"params": given["params"]} if given.get("params") else {}
        return {"check": rule.metric, "rule": rule.text, **named} if rule.against == "number" else _calibrated(rule)
    return given


def _calibrated(rule: Any) -> dict[str, Any]:
    check = rule.check()
    params = {f.name: getattr(check, f.name) for f in fields(check) if getattr(check, f.name) != f.default}
    return {"check": rule.metric, **({"params": params} if params else {})}


def make_check(item: Mapping[str, Any]) -> Any:
    """The check that a spec's item names, with its params; BadInput if it cannot watch a window or a param is unknown."""
    cls: Any = checks.get(str(item.get("check")))
    if "monitor" not in getattr(cls, "stages", ()):
        raise BadInput(f"The check {item.get('check')!r} cannot watch a window.", f"Those that can: {', '.join(monitor_checks())}.")
    if item.get("rule"):
        from everloop.evaluate.rules import parse

        return parse(item["rule"]).check()
    try:
        return cls(**(item.get("params") or {}))
    except TypeError as error:
        raise BadInput(f"The check {item.get('check')!r} does not take these params: {error}.") from None


def monitor_checks() -> list[str]:
    """Names of the checks that can watch a window."""
    return [name for name, cls in checks.items() if "monitor" in getattr(cls, "stages", ())]


def predictive_window(
    rows: Sequence[Mapping[str, Any]],
    labelled_rows: Sequence[Mapping[str, Any]],
    reference: Mapping[str, Any],
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    task: str,
    positive: str | None,
    since: float,
    until: float,
    calls: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> Window:
    """A Window from prediction rows ({"features", "outputs", "label"}) and a reference.

    `reference`: {"features": {column: values}, "y", "prediction", "probability"} as the gate's evidence keeps them.
    """
    live = _columns(rows, numeric, categorical, positive, task)
    with_label = [row for row in labelled_rows if row.get("label") is not None]
    labelled = _columns(with_label, numeric, categorical, positive, task)
    if with_label:
        labelled["label"] = _labels([row["label"] for row in with_label], task)
    past = _reference_columns(reference, numeric, categorical)
    past_labelled: dict[str, Any] = {}
    if reference.get("y") is not None:
        past_labelled = {key: past[key] for key in ("prediction", "probability") if key in past}
        past_labelled["label"] = _labels(reference["y"], task)
    return Window(live, past, len(rows), since, until, labelled, past_labelled, task=task, calls=calls or {}, earlier=earlier)


async def judge(spec: Mapping[str, Any], window: Window) -> Look:
    """Run the spec's checks over a window: fail if one fails, inconclusive if none could say, else pass."""
    from everloop.loop.alarms import alarm, look_level, shared

    scores: list[Score] = []
    if window.n < spec["min_rows"]:
        why = f"{window.n} calls in the window; at least {spec['min_rows']} are needed to say anything."
        return Look([], "inconclusive", False, why, {"n": window.n, "since": window.since, "until": window.until})
    items = [(item, make_check(item)) for item in checks_of(spec, window.task)]
    calibrated = [check for item, check in items if not item.get("rule")]
    alpha, window = shared(calibrated), replace(window, level=look_level(spec, calibrated))
    for item, check in items:
        score: Any = _by_rule(item["rule"], check, window) if item.get("rule") else alarm(check, window, alpha)
        scores.append(await score if inspect.isawaitable(score) else score)
    failed = [s for s in scores if s.verdict == "fail"]
    by_error = [s for s in failed if s.details.get("basis") == "labels"]
    said = [s for s in scores if s.verdict in ("pass", "fail")]
    verdict = "fail" if failed else "pass" if said else "inconclusive"
    act = bool(by_error) if spec["retrain_on"] == "errors" else bool(failed) if spec["retrain_on"] == "any" else False
    why = " ".join(s.why for s in failed) if failed else " ".join(s.why for s in scores if s.why) or "nothing stands out"
    return Look(
        scores, verdict, act, why, {"n": window.n, "labelled": len(window.labelled.get("label", ())), "since": window.since, "until": window.until}
    )


def _by_rule(text: str, check: Any, window: Window) -> Score:
    """A score against the limit that its rule declares, under the check's own name (so that its series goes on when the limit changes)."""
    from everloop.evaluate.gate import watch

    score = watch([text], window)[2][0]
    basis = score.details.get("basis") or ("labels" if over(check) == "rows" else getattr(check, "basis", over(check)))
    return replace(score, name=check.label, details={**score.details, "basis": basis})


def call_columns(calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Calls as columns: see Window.calls."""
    import numpy as np

    if not calls:
        return {}
    columns: dict[str, Any] = {name: [call.get(name) for call in calls] for name in calls[0]}
    return {**columns, "seconds": np.asarray([_number(v) for v in columns["seconds"]], dtype=float)}


def chat_window(calls: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], since: float, until: float) -> Window:
    """A Window of a chat endpoint from its calls, and those of the windows before."""
    return Window({}, {}, len(calls.get("seconds", ())), since, until, task="chat", calls=calls, earlier=earlier)


def _columns(
    rows: Sequence[Mapping[str, Any]], numeric: Sequence[str], categorical: Sequence[str], positive: str | None, task: str
) -> dict[str, Any]:
    import numpy as np

    columns: dict[str, Any] = {}
    for name in numeric:
        columns[name] = np.asarray([_number((row["features"] or {}).get(name)) for row in rows], dtype=float)
    for name in categorical:
        columns[name] = np.asarray([label((row["features"] or {}).get(name)) for row in rows], dtype=object)
    outputs = [row["outputs"] or {} for row in rows]
    columns["prediction"] = _labels([o.get("prediction") for o in outputs], task)
    key = f"probability_{positive}"
    if positive is not None and rows and key in outputs[0]:
        columns["probability"] = np.asarray([_number(o.get(key)) for o in outputs], dtype=float)
    return columns


def _reference_columns(reference: Mapping[str, Any], numeric: Sequence[str], categorical: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    features = reference.get("features") or {}
    columns: dict[str, Any] = {n: np.asarray([_number(v) for v in features[n]], dtype=float) for n in numeric if n in features}
    columns.update({n: np.asarray([label(v) for v in features[n]], dtype=object) for n in categorical if n in features})
    for key in ("prediction", "probability"):
        if reference.get(key) is not None:
            columns[key] = np.asarray(reference[key])
    return columns


def _labels(values: Sequence[Any], task: str) -> Any:
    import numpy as np

    if task == "regression":
        return np.asarray([_number(v) for v in values], dtype=float)
    return np.asarray([label(v) for v in values], dtype=object)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
