"""The loop in one script, for a tutor: a folder of documents goes to a tested, guarded chat endpoint, and a better version replaces the first.

Run it beside a server (`everloop up`), or alone: one is started. Without a key for an LLM the extractive engine answers, so this needs no network.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import everloop as el
from everloop.build import index, tutor
from everloop.engines.choose import choose


def main(folder: str | None = None) -> int:
    """Go round once; the exit code says whether a better version replaced the first."""
    client = el.connect()
    with tempfile.TemporaryDirectory() as place:
        documents = client.data.add_documents("handbook", folder or tutor.documents(Path(place)))["ref"]
    client.pipelines.put("handbook", index.PIPELINE)
    client.pipelines.wait(client.pipelines.run("handbook", {"documents": documents, "name": "handbook"})["id"])
    policy = tutor.policy(document["text"] for document in client.data.documents(documents))
    client.policies.put("tutor", **policy)
    client.suites.put("tutor", tutor.CASES)
    engine, why = choose()
    print(why)
    requirements = tutor.requirements(llm=engine["name"] != "extractive")
    client.gates.declare("release", "tutor", suite="suite:tutor", requirements=requirements)
    client.endpoints.put("tutor", "chat", release="tutor")
    for version in tutor.VERSIONS:
        live = candidate(client, version, engine)
    answer = client.endpoints.chat("tutor", "How do I go back to the version before?")
    print(answer["choices"][0]["message"]["content"])
    trace = answer["id"].removeprefix("chatcmpl-")
    client.traces.feedback(trace, 1, why="just what I needed")
    print("the answer rests on:", " <- ".join(node["ref"] for node in client.why(trace)["nodes"]))
    return 0 if live else 1


def candidate(client: el.Client, version: dict, engine: dict) -> bool:
    """A release with this version of the prompt, through the gate; whether it went live."""
    pins = {"prompt": client.prompts.put("tutor", version["text"], settings=version["settings"])["ref"], "index": "index:handbook"}
    release = client.assets.release("tutor", "chat", pins, {"engine": engine}, "policy:tutor")["ref"]
    decision = client.gates.evaluate(release)
    print(f"{release}, {version['what']}: {decision['verdict']}. {decision['why'][:200]}", flush=True)
    if decision["verdict"] == "pass":
        client.assets.move_alias(release, "champion")
    return decision["verdict"] == "pass"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
