"""`everloop demo`: the credit case closes against a real server, says what it did as JSON, and fails in sentences."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everloop.checks.base import Estimate
from everloop.checks.statistics import Interval
from everloop.cli import demo_figures, demo_screen
from everloop.cli.demo import demo
from everloop.cli.demo_feed import SHIFT_WEEK, generated
from everloop.cli.demo_report import WIDTH, Report
from everloop.client.server import running
from everloop.core.errors import BadInput
from tests.conftest import free_port

STAGES = ["data", "build", "gate", "serve", "observe", "adapt", "why"]


def run_demo(home: Path, *words: str, seconds: float = 280) -> tuple[int, str, dict[str, Any]]:
    """(exit code, output, the JSON file) of a demo with a server of its own that is stopped at the end."""
    told = home.parent / "demo.json"
    command = [sys.executable, "-m", "everloop", "demo", *words, "--exit", "--home", str(home), "--port", str(free_port()), "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr, json.loads(told.read_text())


def test_the_credit_case_closes_the_loop(tmp_path: Path) -> None:
    code, said, told = run_demo(tmp_path / "home", "credit", "--per-week", "300")
    assert code == 0 and told["ok"], said
    stages = {s["name"]: s for s in told["cases"]["credit"]["stages"]}
    assert list(stages) == STAGES and all(s["ok"] and s["seconds"] >= 0 for s in stages.values())
    gate = {f["name"]: f for f in stages["gate"]["figures"]}
    first = gate["auc >= 0.65"]
    assert first["verdict"] == "pass" and first["n"] == 600 and first["interval"][0] >= 0.65
    assert stages["serve"]["refs"]["endpoint"] == "/v2/models/credit/infer"
    seen = [f for s in ("observe", "adapt") for f in stages[s]["figures"] if f["name"].startswith("decay_week_")]
    alarms = [int(f["name"].rpartition("_")[2]) for f in seen if f["basis"] == "labels" and f["verdict"] == "fail"]
    assert alarms and min(alarms) > SHIFT_WEEK  # outcomes come four weeks late at the earliest, and no alarm is false
    adapted = stages["adapt"]["refs"]
    assert adapted["champion"] != stages["gate"]["refs"]["champion"] and adapted["approved"] == adapted["decision"]
    live = {f["name"]: f for f in stages["adapt"]["figures"]}
    assert live["live_auc_after"]["value"] > live["live_auc_before"]["value"] and live["live_auc_after"]["n"] > 500
    assert stages["why"]["refs"]["prediction"] in said and "rests on release:credit@" in said
    assert not told["running"] and running(tmp_path / "home") is None
    assert "Traceback" not in (tmp_path / "home" / "server.log").read_text()
    screen = said[said.index("-" * WIDTH) :].splitlines()[1:]
    assert len(screen) <= 30 and all(len(line) <= WIDTH for line in screen if "http" not in line), screen


def test_a_table_that_cannot_be_used_ends_with_a_sentence(tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("age,paid\n" + "".join(f"{20 + i},yes\n" for i in range(60)))
    code, said, told = run_demo(tmp_path / "home", "credit", "--data", str(table), "--target", "paid", seconds=60)
    (stage,) = told["cases"]["credit"]["stages"]
    assert code == 2 and not told["ok"] and not stage["ok"] and "paid" in stage["error"]
    assert stage["error"].split("  ")[0] in said and "Traceback" not in said and running(tmp_path / "home") is None


def test_words_that_do_not_fit_are_refused_before_anything_starts(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    for given, expected in (
        ({"case": "fraud"}, "no case 'fraud'"),
        ({"case": "credit", "case_option": "tutor"}, "Two cases"),
        ({"data": tmp_path / "none.csv", "target": "a"}, "no file"),
        ({"data": table}, "needs --target"),
        ({"target": "a"}, "go with --data"),
        ({"docs": tmp_path / "none"}, "no folder"),
        ({"case": "tutor", "data": table, "target": "a"}, "which does not run"),
        ({"data": table, "target": "a", "require": ["auc is good"]}, "auc is good"),
    ):
        with pytest.raises(BadInput, match=expected):
            demo(
                **{
                    **dict.fromkeys(("case", "case_option", "data", "target", "time", "positive", "require", "docs"), None),
                    **given,
                    "home": tmp_path / "home",
                }
            )
    assert not (tmp_path / "home").exists()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "everloop", "demo", "credit", "--home", str(tmp_path / "home"), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "in use by another program" in done.stderr and "--port" in done.stderr


def test_a_stage_that_fails_is_kept_and_the_next_commands_alternate(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        report = Report(out)
        with report.stage("credit", "data") as s:
            s.figure("auc", 0.8, interval=(0.7, 0.9), n=10, verdict="pass")
        with pytest.raises(BadInput), report.stage("tutor", "index"):
            raise BadInput("The PDF is encrypted.", "Remove its password.")
        report.tell("credit", "well", ["a line"], {"endpoint": "/ui/endpoints/credit"}, ["everloop one", "everloop two"])
        report.tell("tutor", "not", next=["everloop three", "curl four"])
    told = report.to_json()
    assert told["cases"]["credit"]["stages"][0]["figures"] == [{"name": "auc", "value": 0.8, "interval": [0.7, 0.9], "n": 10, "verdict": "pass"}]
    assert not told["ok"] and told["cases"]["tutor"]["stages"][0]["error"] == "The PDF is encrypted.  Remove its password."
    lines = [t for t, _ in demo_screen.screen(report, url="http://127.0.0.1:7600", home=Path(".everloop"), running=True, pid=7, cases_missing=[])]
    assert "  FAILED in 'index': The PDF is encrypted." in lines and any("http://127.0.0.1:7600/ui/endpoints/credit" in line for line in lines)
    at = lines.index("Next, on your own data")
    assert lines[at + 1 : at + 4] == ["  ./dev everloop one", "  ./dev everloop three", "  ./dev everloop two"]


def test_what_a_user_requires_is_asked_beside_the_comparison_with_the_champion() -> None:
    said: list[str] = []
    assert demo_figures.with_comparison(["auc >= 0.9"], "binary", said.append) == ["auc >= 0.9", "auc >= champion - 0.02"]
    assert "auc >= champion - 0.02" in said[0]
    assert demo_figures.with_comparison(["auc > champion"], "binary", said.append) == ["auc > champion"] and len(said) == 1


def test_the_last_screen_says_when_live_figures_got_worse() -> None:
    def at(value: float, low: float, high: float) -> Estimate:
        return Estimate(value, Interval(low, high), 500)

    better = {"auc": (at(0.7, 0.66, 0.74), at(0.8, 0.76, 0.84)), "brier": (at(0.2, 0.19, 0.21), at(0.1, 0.09, 0.11))}
    assert demo_figures.worse(better) == []
    (told,) = demo_figures.worse({name: (new, old) for name, (old, new) in better.items()})
    assert told.startswith("ATTENTION: live figures got worse after the promotion: auc by 0.1; brier by 0.1. ")
    assert "auc by 0.02, which may be chance" in demo_figures.worse({"auc": (at(0.72, 0.68, 0.76), at(0.7, 0.66, 0.74))})[0]


def test_no_load_holds_an_outcome_of_the_future() -> None:
    feed = generated(seed=3, per_week=50)
    week = feed.weeks[4]
    rows = feed.became_known(week.since, week.until)
    known = {i: k for w in feed.weeks for i, k in zip(w.rows["application_id"], w.known, strict=True)}
    assert len(rows) and all(week.since < known.get(i, week.until) <= week.until for i in rows["application_id"])
    history = feed.became_known(float("-inf"), feed.begins)
    assert len(history) == feed.keep and history["applied_at"].max().timestamp() < feed.begins - 28 * 86_400
