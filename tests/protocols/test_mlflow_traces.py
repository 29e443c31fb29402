"""The unmodified MLflow client's traces against a real server: sent, found, judged, linked, deleted, and seen by our own client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from everloop.client import Client, connect
from tests.conftest import running_server

pytestmark = pytest.mark.client
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def mlflow(url: str) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_experiment(f"traces {uuid.uuid4().hex[:8]}")
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client(url: str) -> Client:
    return connect(url, start=False)


def traced(mlflow: Any, question: str = "what is drift", tags: dict[str, str] | None = None) -> str:
    """A trace of three spans with tokens, a session and a user; answers its id once the server has it."""

    @mlflow.trace(name="retrieve", span_type="RETRIEVER")
    def retrieve(question: str) -> list[str]:
        return ["drift is a change of the inputs"]

    @mlflow.trace(name="llm", span_type="CHAT_MODEL")
    def llm(question: str, found: list[str]) -> str:
        span = mlflow.get_current_active_span()
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19})
        span.set_attribute("mlflow.llm.model", "gpt-4o-mini")
        return '{"answer": "a change"}'

    @mlflow.trace(name="tutor", attributes={"flavour": "mild"})
    def tutor(question: str) -> str:
        mlflow.update_current_trace(tags=tags or {}, metadata={"mlflow.trace.session": "s-1", "mlflow.trace.user": "ann"})
        return str(llm(question, retrieve(question)))

    tutor(question)
    mlflow.flush_trace_async_logging()
    id = mlflow.get_last_active_trace_id()
    assert isinstance(id, str)
    return id


def names(found: Any) -> list[str]:
    return [trace.info.tags["mlflow.traceName"] for trace in found]


def test_a_trace_of_mlflows_is_a_trace_of_ours(mlflow: Any, client: Client) -> None:
    id = traced(mlflow, tags={"team": "risk"})
    theirs = mlflow.get_trace(id)
    assert (theirs.info.state.value, theirs.info.tags["team"], theirs.info.tags["mlflow.traceName"]) == ("OK", "risk", "tutor")
    assert theirs.info.token_usage == {"input_tokens": 12, "output_tokens": 7, "total_tokens": 19} and theirs.info.cost["total_cost"] > 0
    root, *rest = theirs.data.spans
    assert (root.name, root.inputs, root.outputs, root.attributes["flavour"]) == (
        "tutor",
        {"question": "what is drift"},
        '{"answer": "a change"}',
        "mild",
    )
    assert [(s.name, s.span_type, s.parent_id == root.span_id) for s in rest] == [("retrieve", "RETRIEVER", True), ("llm", "CHAT_MODEL", True)]
    ours = client.traces.get(id.removeprefix("tr-"))
    assert [(s["name"], s["kind"]) for s in ours["spans"]] == [("tutor", "SPAN"), ("retrieve", "RETRIEVER"), ("llm", "LLM")]
    listed = next(one for one in client.traces.list(session="s-1")["items"] if one["trace_id"] == ours["trace_id"])
    assert (listed["user"], listed["tokens_in"], listed["tokens_out"], listed["cost"] > 0) == ("ann", 12, 7, True)


def test_what_an_endpoint_answered_is_found_by_mlflow(mlflow: Any, client: Client) -> None:
    span = {
        "traceId": "ab" * 16,
        "spanId": "cd" * 8,
        "name": "plain",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000500000000",
    }
    client._http.post("/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    (found,) = mlflow.search_traces(locations=["0"], filter_string=f"request_id = 'tr-{'ab' * 16}'", return_type="list")
    assert (found.info.tags["mlflow.traceName"], found.info.execution_duration, len(found.data.spans)) == ("plain", 500, 1)
    mlflow.set_trace_tag("tr-" + "ab" * 16, "seen", "yes")
    (again,) = mlflow.search_traces(locations=["0"], filter_string="tags.seen = 'yes' AND name = 'plain'", return_type="list")
    assert again.info.execution_duration == 500


def test_every_sort_of_filter(mlflow: Any) -> None:
    first = traced(mlflow, tags={"team": "risk"})
    with pytest.raises(ZeroDivisionError), mlflow.start_span("broken") as span:
        span.set_inputs({"q": "naïve Über"})
        1 / 0  # noqa: B018
    mlflow.flush_trace_async_logging()
    mlflow.log_feedback(trace_id=first, name="quality", value=0.9, rationale="good")
    mlflow.log_expectation(trace_id=first, name="topic", value="drift")

    def found(filter: str, **more: Any) -> list[str]:
        return names(mlflow.search_traces(filter_string=filter, return_type="list", **more))

    for filter in (
        "status = 'OK'",
        "trace.status != 'ERROR'",
        "name = 'tutor'",
        "name RLIKE '^tu'",
        "tags.team = 'risk'",
        "tags.team ILIKE 'RI%'",
        "tags.team IS NOT NULL",
        "metadata.`mlflow.trace.session` = 's-1'",
        "metadata.mlflow.trace.user LIKE 'a%'",
        "feedback.quality > 0.8",
        "feedback.quality = '0.9'",
        "expectation.topic = 'drift'",
        "span.type = 'CHAT_MODEL' AND span.name = 'llm'",
        "span.attributes.flavour LIKE '%mild%'",
        "span.attributes.`mlflow.llm.model` IN ('gpt-4o-mini', 'x')",
        "trace.text LIKE '%change of the inputs%'",
        f"request_id IN ('{first}')",
    ):
        assert found(filter) == ["tutor"], filter
    for filter in ("status = 'ERROR'", "tags.team IS NULL", "feedback.quality IS NULL", "trace.text ILIKE '%ÜBER%'", "span.status = 'ERROR'"):
        assert found(filter) == ["broken"], filter
    assert found("span.type = 'CHAT_MODEL' AND span.name = 'retrieve'") == [], "both must hold of one span"
    assert found("timestamp_ms > 0", order_by=["timestamp_ms ASC"]) == ["tutor", "broken"]
    assert found("execution_time_ms >= 0", max_results=1) == ["broken"]
    with pytest.raises(mlflow.exceptions.MlflowException, match="color"):
        found("color = 'red'")


def test_judgements_are_changed_overridden_and_taken_back(mlflow: Any, client: Client) -> None:
    from mlflow.entities import AssessmentSource, Feedback

    id = traced(mlflow)
    first = mlflow.log_feedback(
        trace_id=id, name="tone", value="kind", source=AssessmentSource("HUMAN", "bob"), rationale="warm", metadata={"a": "1"}
    )
    mlflow.update_assessment(id, first.assessment_id, Feedback(name="tone", value="curt", metadata={"b": "2"}))
    got = mlflow.get_assessment(id, first.assessment_id)
    assert (got.value, got.metadata, got.source.source_id, got.valid) == ("curt", {"a": "1", "b": "2"}, "bob", True)
    over = mlflow.override_feedback(trace_id=id, assessment_id=first.assessment_id, value="fair", rationale="second look")
    assert [(a.value, a.valid) for a in mlflow.get_trace(id).info.assessments] == [("curt", False), ("fair", True)]
    scores = client.traces.get(id.removeprefix("tr-"))["scores"]
    assert [(s["name"], s["value"], s["source"]) for s in scores] == [("tone", "curt", "human:bob"), ("tone", "fair", "code:default")]
    mlflow.delete_assessment(id, over.assessment_id)
    assert [(a.value, a.valid) for a in mlflow.get_trace(id).info.assessments] == [("curt", True)]
    expected = mlflow.log_expectation(trace_id=id, name="facts", value=["one", {"two": 2}])
    assert mlflow.get_assessment(id, expected.assessment_id).value == ["one", {"two": 2}]
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        mlflow.log_feedback(trace_id="tr-" + "0" * 32, name="tone", value=1)


def test_links_deletion_and_correlation(mlflow: Any, client: Client) -> None:
    api = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        inside = traced(mlflow)
    outside = traced(mlflow, tags={"place": "outside"})
    assert [t.info.trace_id for t in mlflow.search_traces(run_id=run.info.run_id, return_type="list")] == [inside]
    api.link_traces_to_run([outside], run.info.run_id)
    assert len(mlflow.search_traces(run_id=run.info.run_id, return_type="list")) == 2
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}")
    api.link_prompt_versions_to_trace([prompt], outside)
    assert [t.info.trace_id for t in mlflow.search_traces(filter_string="prompt = 'greeting/1'", return_type="list")] == [outside]
    experiment = mlflow.get_trace(inside).info.experiment_id
    counted = mlflow.tracing.client.TracingClient().calculate_trace_filter_correlation(
        [experiment], "tags.place = 'outside'", "prompt = 'greeting/1'"
    )
    assert (counted.total_count, counted.joint_count, counted.npmi) == (2, 1, 1.0)
    assert api.delete_traces(experiment, trace_ids=[outside]) == 1
    assert [t.info.trace_id for t in mlflow.search_traces(return_type="list")] == [inside]
    assert not [one for one in client.traces.list(text="drift", limit=1000)["items"] if one["trace_id"] == outside.removeprefix("tr-")]
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        mlflow.set_trace_tag(outside, "a", "b")
