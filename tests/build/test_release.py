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
