"""Spans of real OpenTelemetry instrumentations, unmodified: what everloop reads of them, by OpenInference's names and by GenAI's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from everloop.client import Client, connect
from tests.conftest import running_server
from tests.protocols.environments import environment, run_program
from tests.protocols.upstream import Provider

pytestmark = [pytest.mark.client, pytest.mark.check]
PACKAGES = (
    "openinference-instrumentation-openai",
    "openinference-instrumentation-langchain",
    "openinference-instrumentation-llama-index",
    "opentelemetry-instrumentation-openai-v2",
    "opentelemetry-util-genai==1.1b0",  # openai-v2 2.4b0 does not import with later ones
    "opentelemetry-exporter-otlp-proto-http",
    "langchain-openai",
    "langgraph",
    "llama-index-core",
    "llama-index-llms-openai",
)
MINI = 11 * 0.15e-6 + 3 * 0.6e-6
"""US dollars of 11 tokens to and 3 from gpt-4o-mini."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield connect(url, start=False)


def sent(client: Client, which: str, count: int) -> list[dict[str, Any]]:
    """The `count` traces that an instrumented program made, oldest first, each with its spans; they can be seen within a second of their ack."""
    before = {trace["trace_id"] for trace in client.traces.iterate()}
    with Provider() as provider:
        run_program(environment(PACKAGES), "instrumented.py", which, client.url, provider.url)
    until = time.monotonic() + 10
    while True:
        new = [trace for trace in client.traces.iterate() if trace["trace_id"] not in before]
        if len(new) >= count or time.monotonic() > until:
            break
        time.sleep(0.2)
    assert len(new) == count
    return [{**trace, **client.traces.get(trace["trace_id"])} for trace in reversed(new)]


@pytest.mark.parametrize("which", ["openai", "openai-v2"])
def test_an_openai_client(client: Client, which: str) -> None:
    plain, tool, stream, refused = sent(client, which, 4)
    for trace in (plain, tool, stream):
        (span,) = trace["spans"]
        assert (span["kind"], trace["model"], trace["tokens_in"]) == ("LLM", "gpt-4o-mini", 11)
        assert "Capital of France?" in str(span["inputs"])
    assert plain["tokens_out"] == stream["tokens_out"] == 3 and plain["cost"] == stream["cost"] == pytest.approx(MINI)
    assert "You said: Capital of France?" in str(plain["outputs"]) and "You said: Capital of France?" in str(stream["outputs"])
    assert "get_weather" in str(tool["outputs"])
    assert refused["status"] == "error" and "400" in str(refused["spans"][0])
    assert (plain["session"], plain["user"]) == (("s1", "u1") if which == "openai" else (None, None))


def test_langchain(client: Client) -> None:
    added, chain, tool = sent(client, "langchain", 3)
    assert {s["kind"] for s in added["spans"]} == {"RETRIEVER"}
    assert added["spans"][0]["attributes"]["retrieval.documents.0.document.content"] in ("Paris is the capital", "Rome")
    assert {s["kind"] for s in chain["spans"]} == {"CHAIN", "PROMPT", "LLM"} and chain["session"] == "s1"
    assert (chain["tokens_in"], chain["tokens_out"]) == (11, 3) and chain["cost"] == pytest.approx(MINI)
    assert (tool["spans"][0]["kind"], tool["outputs"]) == ("TOOL", "sunny")


def test_llama_index_counts_nested_llm_spans_once(client: Client) -> None:
    query = next(trace for trace in sent(client, "llama-index", 2) if "query" in trace["name"])
    kinds = [span["kind"] for span in query["spans"]]
    assert kinds.count("LLM") >= 2 and "RETRIEVER" in kinds
    assert (query["tokens_in"], query["tokens_out"], query["inputs"]) == (11, 3, "capital?") and query["cost"] == pytest.approx(MINI)
