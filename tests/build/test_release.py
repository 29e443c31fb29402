"""The gate's step: a chat that is champion already is tested again where its questions changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from everloop.build import release
from everloop.client.base import Client
from tests.web.test_data import client  # noqa: F401 - a fixture


def test_new_questions_are_asked_of_the_champion_too(client: Client) -> None:  # noqa: F811
    client.prompts.put("t", "Say: {{ question }}")
    made = client.assets.release("t", "chat", {"prompt": "prompt:t"}, {"engine": {"name": "extractive"}})
    client.suites.put("t", [{"question": f"What is {n}?"} for n in range(40)])
    client.gates.declare("release", "t", suite="suite:t", requirements=["error_rate <= 0.1"])

    def gate() -> dict[str, Any]:
        with client.runs.start("gate") as run:
            return release.gate(
                SimpleNamespace(params={"name": "t"}, inputs={"release": {"release": made["ref"]}}, client=client, run=run, log=print)
            )

    first = gate()
    assert (first["verdict"], first["promoted"]) == ("pass", True)
    again = gate()
    assert (again["decision"], again["verdict"], again["why"]) == (None, "pass", "release:t@1 is the champion already.")
    client.suites.put("t", [{"question": "What is it?"}])
    anew = gate()
    assert anew["verdict"] == "inconclusive" and anew["promoted"] and "tested again" in anew["why"]
    assert gate()["verdict"] == "inconclusive"  # nobody reads `pass` for questions that were not passed


def test_an_answer_does_not_rest_on_a_run_that_made_the_same_again(client: Client) -> None:  # noqa: F811
    for name in ("first", "again"):
        with client.runs.start(name) as run:
            client.assets.register("prompt", "t", {"messages": [{"role": "user", "content": "Say: {{ question }}"}]}, run=run.id)
            made = client.assets.release("t", "chat", {"prompt": "prompt:t"}, {"engine": {"name": "extractive"}}, run=run.id)
    told = client.why(made["ref"])
    assert made["ref"] == "release:t@1" and [n["title"] for n in told["nodes"] if n["kind"] == "run"] == ["training run first"]
    assert {e["source"] for e in told["edges"]} <= {n["ref"] for n in told["nodes"]}
