"""Gates and monitors by command: from a declared gate to an approved version, and what a mistake is told."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from everloop.build import tabular
from everloop.client.base import Client
from tests.cli.helpers import Run, run  # noqa: F401 - a fixture
from tests.web.test_data import client  # noqa: F401 - a fixture

FEATURE = "points"


@pytest.fixture
def credit(client: Client) -> Client:  # noqa: F811
    """A release `credit` with its suite and an endpoint."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=600)
    client.data.add("d", pd.DataFrame({FEATURE: points, "bad": (points + rng.normal(size=600) > 0).astype(int)}), target="bad")
    inputs: dict = {}
    with client.runs.start("t") as made:
        for name in ("split", "train", "release"):
            step = SimpleNamespace(params={"name": "credit", "dataset": "dataset:d"}, inputs=inputs, client=client, run=made, log=print)
            inputs[name] = getattr(tabular, name)(step)
    client.endpoints.put("credit", "predict", release="credit")
    return client


def test_a_version_is_declared_tested_approved_and_live(credit: Client, run: Run) -> None:  # noqa: F811
    code, out, _ = run("gates", "declare", "credit", "--suite", "suite:credit", "--require", "auc >= 0.6", "--approval", "always")
    assert code == 0 and "release:credit@champion moves only when auc >= 0.6" in out
    assert "auc >= 0.6" in run("gates", "list")[1]
    code, out, _ = run("gates", "evaluate", "release:credit")
    assert code == 0 and "pass" in out and "auc >= 0.6: 0." in out
    decision = json.loads(run("gates", "decisions", "credit", "--json")[1])[0]
    assert f"everloop gates approve {decision['id']}" in out
    assert decision["id"] in run("gates", "pending")[1]
    code, out, _ = run("gates", "approve", decision["id"][:12], "--why", "looks right")
    assert code == 0 and "release:credit@1 is now champion (before: none)" in out
    assert "looks right" in run("gates", "show", decision["id"])[1]
    assert run("gates", "pending")[1] == "Nothing waits for approval.\n"
    code, _, err = run("gates", "reject", decision["id"])
    assert code == 2 and "does not wait for approval" in err and "Traceback" not in err


def test_a_version_that_fails_ends_with_4_and_stays_out(credit: Client, run: Run) -> None:  # noqa: F811
    run("gates", "declare", "credit", "--suite", "suite:credit", "--require", "auc >= 0.99")
    code, out, _ = run("gates", "evaluate", "credit", "--move")
    assert code == 4 and "fail" in out and "champion stays where it is" in out
    assert run("gates", "decisions", "--json")[1].count('"verdict": "fail"') >= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("gates", "declare", "credit", "--suite", "suite:credit", "--require", "acu >= 0.7"), "acu"),
        (("gates", "declare", "credit", "--suite", "suite:none", "--require", "auc >= 0.7"), "suite:none"),
        (("gates", "show", "0" * 32), "There is no decision"),
        (("gates", "approve", "12"), "too short"),
        (("monitors", "put", "m", "--endpoint", "none"), "There is no endpoint 'none'"),
        (("monitors", "put", "credit", "--check", "psi:{"), "is not JSON"),
        (("monitors", "put", "credit", "--params", "{}"), "--retrain"),
        (("monitors", "tick", "none"), "There is no monitor"),
    ],
)
def test_a_mistake_is_a_sentence_and_2(credit: Client, run: Run, words: tuple[str, ...], told: str) -> None:  # noqa: F811
    code, _, err = run(*words)
    assert code == 2 and told in err and "Traceback" not in err


def test_monitors_are_declared_and_look(credit: Client, run: Run) -> None:  # noqa: F811
    assert run("monitors", "list")[1] == "No monitor is declared.\n"
    code, out, _ = run("monitors", "put", "credit", "--check", "decay", "--check", "drift", "--every", "6h", "--window-days", "3")
    assert code == 0 and "credit watches credit for decay, drift, every 6h over 3 days" in out
    code, out, _ = run("monitors", "tick", "credit")
    assert code == 0 and "Nothing is live behind credit" in out
    told = run("monitors", "list")[1]
    assert "no look yet" in told and "It has not looked yet: nothing was live behind credit" in told and "inconclusive" not in told
    credit.assets.move_alias("release:credit@1", "champion")
    assert credit.monitors.list()[0]["next_at"] - time.time() <= 60  # it looks soon after a promotion, not after six hours
    shown = json.loads(run("monitors", "show", "credit", "--json")[1])
    assert shown["spec"]["every"] == "6h" and shown["alerts"] == []
    assert "every 6h over 3 days" in run("monitors", "show", "credit")[1]
    assert run("monitors", "alerts")[1] == "No alarm is on record.\n"


def test_a_chat_decision_shows_its_questions(client: Client, run: Run) -> None:  # noqa: F811
    client.prompts.put("bot", "Answer from {{ context }}")
    client.assets.release("bot", "chat", {"prompt": "prompt:bot"}, {"engine": {"name": "extractive"}})
    client.suites.put("bot", [{"question": "How many wheels?", "expected_sources": ["a.md"]}, {"question": "Who won?", "kind": "off_topic"}])
    client.gates.declare("release", "bot", suite="suite:bot", requirements=["hit_rate@4 >= 0.1"])
    decision = client.gates.evaluate("release:bot")["id"]
    assert [case["right"] for case in client.gates.cases(decision)] == [False, True]
    code, out, err = run("gates", "show", decision, "--wrong")
    assert code == 0 and "WRONG How many wheels?" in out and "expected: a.md" in out and "Who won?" not in out, err
    assert "right Who won?" in run("gates", "show", decision, "--cases")[1]
