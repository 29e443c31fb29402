"""The unmodified MLflow client's traces against a real server: sent, found, judged, linked, deleted, and seen by our own client."""

from __future__ import annotations

import base64
import json
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


def b64(id: str) -> str:
    """A trace's id as MLflow writes it in files."""
    return base64.b64encode(bytes.fromhex(id.removeprefix("tr-"))).decode()


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
    assert client.traces.get(inside.removeprefix("tr-"))["about"]["runs"] == [run.info.run_id]
    api.link_traces_to_run([outside], run.info.run_id)
    assert len(mlflow.search_traces(run_id=run.info.run_id, return_type="list")) == 2
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}")
    api.link_prompt_versions_to_trace([prompt], outside)
    assert [t.info.trace_id for t in mlflow.search_traces(filter_string="prompt = 'greeting/1'", return_type="list")] == [outside]
    page = client._http.get_bytes(f"/ui/traces/{outside.removeprefix('tr-')}").decode()
    assert "prompt:greeting@1" in page and "place: outside" in page and run.info.run_id[-8:] in page
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


def test_older_clients_tell_of_a_trace_and_upload_its_spans(mlflow: Any, client: Client, url: str) -> None:
    from mlflow.entities import TraceData
    from mlflow.entities.trace_info import TraceInfo
    from mlflow.entities.trace_location import TraceLocation
    from mlflow.entities.trace_state import TraceState
    from mlflow.entities.trace_status import TraceStatus

    tracing = mlflow.tracking.client.TracingClient()
    experiment = mlflow.tracking.fluent._get_experiment_id()
    begun = tracing.store.deprecated_start_trace_v2(experiment, 1000, {"a": "1", "b": "2"}, {"t": "x"})
    assert (begun.status, begun.request_metadata) == (TraceStatus.IN_PROGRESS, {"a": "1", "b": "2"})
    ended = tracing.store.deprecated_end_trace_v2(begun.request_id, 3000, TraceStatus.OK, {"a": "3"}, {"u": "y"})
    assert (ended.status, ended.execution_time_ms, ended.request_metadata, ended.tags["u"]) == (TraceStatus.OK, 2000, {"a": "3", "b": "2"}, "y")
    old, new = traced(mlflow), f"tr-{uuid.uuid4().hex}"
    body = mlflow.get_trace(old).data.to_json_bytes().decode()
    spans = TraceData.from_dict(json.loads(body.replace(old, new).replace(b64(old), b64(new))))
    place = TraceLocation.from_experiment_id(experiment)
    told = tracing.start_trace(TraceInfo(trace_id=new, trace_location=place, request_time=5000, execution_duration=7, state=TraceState.OK))
    assert "mlflow.trace.spansLocation" not in told.tags, "so that the client uploads the spans"
    tracing._upload_trace_data(told, spans)
    assert [span.name for span in mlflow.get_trace(new).data.spans] == ["tutor", "retrieve", "llm"]
    assert len(client.traces.get(new.removeprefix("tr-"))["spans"]) == 3
    assert tracing._download_trace_data(told).spans[0].name == "tutor"


def test_metrics_of_traces_spans_and_judgements(mlflow: Any) -> None:
    from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

    ids = [traced(mlflow) for _ in range(2)]
    for id, value in zip(ids, (0.5, 1.0), strict=True):
        mlflow.log_feedback(trace_id=id, name="quality", value=value)
    experiment = mlflow.get_trace(ids[0]).info.experiment_id
    store = mlflow.tracking.client.TracingClient().store

    def asked(view: str, metric: str, figure: str, **more: Any) -> list[tuple[dict[str, str], dict[str, float]]]:
        figures = [MetricAggregation(AggregationType(figure), **({"percentile_value": 50.0} if figure == "PERCENTILE" else {}))]
        found = store.query_trace_metrics([experiment], MetricViewType(view), metric, figures, **more)
        return [(point.dimensions, point.values) for point in found]

    assert asked("TRACES", "trace_count", "COUNT", dimensions=["trace_status"]) == [({"trace_status": "OK"}, {"COUNT": 2})]
    assert asked("TRACES", "total_tokens", "SUM") == [({}, {"SUM": 38})]
    assert asked("SPANS", "span_count", "COUNT", dimensions=["span_name"], filters=['span.type = "RETRIEVER"']) == [
        ({"span_name": "retrieve"}, {"COUNT": 2})
    ]
    assert asked("ASSESSMENTS", "assessment_value", "PERCENTILE", dimensions=["assessment_name"]) == [
        ({"assessment_name": "quality"}, {"P50.0": 0.75})
    ]
    ((when, _),) = asked("TRACES", "latency", "AVG", time_interval_seconds=10**9, start_time_ms=0, end_time_ms=2**45)
    assert when["time_bucket"].endswith("+00:00")


def test_opentelemetry_with_mlflows_header_is_answered_as_mlflow_does(mlflow: Any, url: str) -> None:
    import urllib.error
    import urllib.request

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def post(headers: dict[str, str], **span: Any) -> tuple[int, str]:
        request = ExportTraceServiceRequest()
        if span:
            request.resource_spans.add().scope_spans.add().spans.add(**span)
        headers = {"content-type": "application/x-protobuf", **headers}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/traces", request.SerializeToString(), headers)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    experiment = mlflow.tracking.fluent._get_experiment_id()
    good = {"trace_id": b"1" * 16, "span_id": b"2" * 8, "name": "n", "start_time_unix_nano": 10**9, "end_time_unix_nano": 2 * 10**9}
    with_id = {"x-mlflow-experiment-id": experiment}
    assert post(with_id, **good) == (200, "")
    assert post({"x-mlflow-experiment-id": "99999"}, **good)[0] == 404
    assert post({**with_id, "content-type": "text/plain"}, **good)[0] == 400
    assert post(with_id)[0] == 400
    assert post(with_id, **{**good, "trace_id": b""})[0] == 422
    assert post({}, trace_id=b"3" * 16, span_id=b"4" * 8, name="without a time")[0] == 422
    (found,) = mlflow.search_traces(return_type="list")
    assert (found.info.trace_id, found.info.execution_duration, found.data.spans[0].name) == ("tr-" + "31" * 16, 1000, "n")
