"""Monitors' limits: how often they alarm while nothing changes, that they do when something has, and what they say before they can."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from everloop.core.errors import BadInput
from everloop.core.types import Window
from everloop.loop import watch
from everloop.loop.alarms import ALPHA

CHAT = watch.full_spec({"min_rows": 50}, "chat")
RATES = watch.full_spec({"min_rows": 50, "checks": [c for c in CHAT["checks"] if c["check"] != "cost_per_call"]}, "chat")
"""Without the one check that resamples, which is slow."""


def calls(rng: np.random.Generator, n: int = 200, failed: float = 0.02, down: float = 0.1, slow: float = 1.0) -> dict[str, Any]:
    """A window of chats: skewed times, rare failures, thumbs on a third."""
    busy = rng.normal(0, 0.05)  # windows differ a little by themselves
    return {
        "seconds": rng.lognormal(-1 + busy, 0.5, n) * slow,
        "failed": list(rng.random(n) < failed),
        "blocked": list(rng.random(n) < 0.03),
        "refused": list(rng.random(n) < 0.15),
        "thumbs_down": [bool(d < down) if t < 1 / 3 else None for t, d in zip(rng.random(n), rng.random(n), strict=True)],
        "cost": list(rng.lognormal(-6, 0.3, n)),
    }


def look(now: dict[str, Any], earlier: list[dict[str, Any]], spec: dict[str, Any] = CHAT) -> watch.Look:
    return asyncio.run(watch.judge(spec, watch.chat_window(now, earlier, 0.0, 1.0)))


@pytest.mark.parametrize("looks", [40, pytest.param(600, marks=pytest.mark.check)])
def test_alike_windows_rarely_alarm(looks: int) -> None:
    rng = np.random.default_rng(1)
    found = [look(calls(rng), [calls(rng) for _ in range(8)], RATES) for _ in range(looks)]
    false = sum(one.verdict == "fail" for one in found)
    assert false <= looks * ALPHA + 2 * (looks * ALPHA * (1 - ALPHA)) ** 0.5, false
    assert all(s.verdict in ("pass", "fail") for one in found for s in one.scores)


@pytest.mark.parametrize(
    ("change", "name"), [({"failed": 0.2}, "failure_rate"), ({"down": 0.6}, "thumbs_down_rate"), ({"slow": 2.0}, "latency_p95_ms")]
)
def test_what_changed_is_found(change: dict[str, float], name: str) -> None:
    rng = np.random.default_rng(5)
    caught = [look(calls(rng, **change), [calls(rng) for _ in range(8)], RATES) for _ in range(10)]
    assert sum(any(s.name == name and s.verdict == "fail" for s in found.scores) for found in caught) >= 9, name


def test_what_users_say_starts_a_pipeline_and_a_slow_provider_does_not() -> None:
    rng = np.random.default_rng(6)
    down = look(calls(rng, down=0.9), [calls(rng) for _ in range(8)])
    assert down.act and "limit" in down.why and len(down.scores) == 6
    slow = look(calls(rng, slow=4.0), [calls(rng) for _ in range(8)], RATES)
    assert slow.verdict == "fail" and not slow.act


def test_before_there_are_windows_to_learn_from_a_monitor_says_so() -> None:
    rng = np.random.default_rng(2)
    found = look(calls(rng), [calls(rng) for _ in range(3)])
    assert found.verdict == "inconclusive"
    told = next(s.why for s in found.scores if s.name == "latency_p95_ms")
    assert "3 of 5 earlier windows" in told and "'latency_p95_ms <= NUMBER'" in told
    quiet = {**calls(rng), "thumbs_down": [None] * 200}
    assert next(s for s in look(quiet, []).scores if s.name == "thumbs_down_rate").verdict == "not_assessed"


def test_declared_limits_need_no_earlier_windows() -> None:
    rng = np.random.default_rng(3)
    spec = watch.full_spec(
        {"min_rows": 50, "checks": ["latency_p95_ms <= 200", {"rule": "failure_rate <= 0.2"}, "refusal_rate < calibrated"]}, "chat"
    )
    assert spec["checks"] == [
        {"check": "latency_p95_ms", "rule": "latency_p95_ms <= 200"},
        {"check": "failure_rate", "rule": "failure_rate <= 0.2"},
        {"check": "refusal_rate"},
    ]
    scores = {s.name: s for s in look(calls(rng), [], spec).scores}
    assert scores["latency_p95_ms"].verdict == "fail" and "at most 200 was required" in scores["latency_p95_ms"].why
    assert scores["failure_rate"].verdict == "pass" and scores["refusal_rate"].verdict == "inconclusive"
    with pytest.raises(BadInput, match="compares with the champion"):
        watch.full_spec({"checks": ["latency_p95_ms <= champion"]})
    with pytest.raises(BadInput, match="watches rows of a predict endpoint"):
        watch.full_spec({"checks": [{"check": "drift"}, {"check": "decay"}, {"check": "auc"}]}, "chat")


def rows(rng: np.random.Generator, n: int, good: float) -> dict[str, Any]:
    y = rng.random(n) < 0.3
    p = np.clip(0.3 + good * (y - 0.3) + rng.normal(0, 0.25, n), 0.01, 0.99)
    return {"label": np.where(y, "yes", "no").astype(object), "prediction": np.where(p > 0.5, "yes", "no").astype(object), "probability": p}


def test_metrics_of_labelled_rows_are_held_against_the_gate() -> None:
    spec = watch.full_spec({"checks": [{"check": "auc"}, {"check": "accuracy"}], "min_rows": 10})
    rng = np.random.default_rng(4)

    def window(good: float) -> Window:
        return Window({}, {}, 300, 0.0, 1.0, rows(rng, 300, good), rows(rng, 600, 0.4))

    alike = [asyncio.run(watch.judge(spec, window(0.4))) for _ in range(100)]
    assert sum(found.verdict == "fail" for found in alike) <= 10
    worse = [asyncio.run(watch.judge(spec, window(0.15))) for _ in range(20)]
    assert sum(found.act for found in worse) >= 18 and "at the gate: worse by more than chance" in worse[0].why
    unknown = asyncio.run(watch.judge(spec, Window({}, {}, 300, 0.0, 1.0, rows(rng, 300, 0.4), {})))
    assert unknown.verdict == "inconclusive" and "declare a limit: 'auc >= NUMBER'" in unknown.why
