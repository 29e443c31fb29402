"""The tutor goes round the whole loop against a real server with a real worker process, as the example and as the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.client import connect
from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
QUIET = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ANTHROPIC_", "EVERLOOP_"))}


def demo(home: Path, report: Path, *more: str) -> dict:
    command = [
        sys.executable,
        "-m",
        "everloop",
        "demo",
        "tutor",
        "--home",
        str(home),
        "--port",
        str(free_port()),
        "--exit",
        "--json",
        str(report),
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**QUIET, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return dict(json.loads(report.read_text())["cases"]["tutor"])


def test_the_demo_tells_what_happened(tmp_path: Path) -> None:
    case = demo(tmp_path / "home", tmp_path / "report.json")
    stages = {stage["name"]: stage for stage in case["stages"]}
    assert case["ok"] and len(stages) == 9
    said = {name: "\n".join(stage["said"]) for name, stage in stages.items()}
    if "extractive" in said["prompt, policy, engine, release"]:
        assert "prompt text not tested: no LLM" in said["prompt, policy, engine, release"]
    figures = {f["name"]: f for f in stages["gate"]["figures"]}
    assert figures["groundedness >= 0.9"]["value"] > 0.98 and figures["hit_rate@4 >= 0.7"]["n"] > 80
    assert all(f["verdict"] == "pass" for f in figures.values() if f["value"] is not None)
    for what in ("answered (pii, redact)", "blocked (injection, block)", "blocked (harm, block)", "blocked (off_topic, block)"):
        assert what in said["endpoint"]
    assert "ann.smith" not in said["endpoint"].split("answered (pii", 1)[1]
    assert "thumbs +1" in said["feedback"] and "thumbs -1" in said["feedback"] and "thumbs_down_rate" in said["feedback"]
    assert "refused: release:tutor@2 may not become champion" in said["a worse version"]
    assert "pass: release:tutor@3 is champion" in said["a better version"] or "not promoted" in said["a better version"]
    why = stages["why"]["refs"]
    assert why == {
        "release": "release:tutor@1",
        "prompt": "prompt:tutor@1",
        "index": "index:handbook@1",
        "documents": "dataset:handbook@1",
        "policy": "policy:tutor@1",
        "engine": "extractive",
    }


@pytest.mark.check
def test_the_demo_takes_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my docs"
    folder.mkdir()
    topics = {"pumps": "pump", "valves": "valve", "filters": "filter", "seals": "seal"}
    for name, thing in topics.items():
        parts = [f"# All about {name}\n\nThis page says how to look after every {thing} of the plant."]
        for i, part in enumerate(("Cleaning", "Storage", "Inspection", "Transport")):
            parts.append(
                f"## {part} of a {thing}\n\nThe {part.lower()} of a {thing} takes {i + 2} hours and needs two people who know the {name}. Write it into the log of the {name}."
            )
        (folder / f"{name}.md").write_text("\n\n".join(parts))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    case = demo(tmp_path / "home", tmp_path / "report.json", "--docs", str(folder))
    said = "\n".join(line for stage in case["stages"] for line in stage["said"])
    assert "left out broken.pdf" in said and "questions were generated from your documents" in said


@pytest.mark.check
def test_the_example_goes_round(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "everloop", "up", "--port", str(port), "--home", str(tmp_path)], stdout=subprocess.PIPE, env=QUIET
    )
    try:
        assert server.stdout is not None and server.stdout.readline()
        env = {**QUIET, "EVERLOOP_URL": url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, str(ROOT / "examples/tutor.py")], capture_output=True, text=True, timeout=120, env=env)
        assert "the answer rests on: release:tutor@" in done.stdout, done.stdout + done.stderr
        client = connect(url, start=False)
        trace = client.traces.list(endpoint="tutor")["items"][0]["trace_id"]
        assert [s["value"] for s in client.traces.scores(trace) if s["name"] == "thumbs"] == [1]
        spans = client.traces.get(trace)["spans"]
        assert {"RETRIEVER", "LLM", "GUARDRAIL", "CHAIN"} <= {span["kind"] for span in spans}
    finally:
        server.terminate()
        server.wait(30)
