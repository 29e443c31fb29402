"""The unmodified MLflow client's GenAI workflows against a real server: prompts, evaluation, evaluation data sets, registered scorers."""

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
RECORDS = [
    {"inputs": {"question": "q1"}, "expectations": {"expected_response": "A: q1"}},
    {"inputs": {"question": "q2"}, "expectations": {"expected_response": "no"}},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def mlflow(url: str) -> Iterator[Any]:
    import mlflow

    mlflow.set_tracking_uri(url)
    mlflow.set_experiment(f"genai {uuid.uuid4().hex[:8]}")
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client(url: str) -> Client:
    return connect(url, start=False)


def test_a_prompt_of_mlflows_is_a_prompt_of_ours(mlflow: Any, client: Client) -> None:
    mlflow.genai.register_prompt("qa", "Answer {{question}} shortly.", commit_message="first", tags={"team": "docs"})
    mlflow.genai.register_prompt("qa", [{"role": "system", "content": "Be {{style}}."}, {"role": "user", "content": "{{question}}"}])
    mlflow.genai.set_prompt_alias("qa", "live", 1)
    assert mlflow.genai.load_prompt("prompts:/qa@live").format(question="x") == "Answer x shortly."
    assert mlflow.genai.load_prompt("prompts:/qa/2").template[0] == {"role": "system", "content": "Be {{style}}."}
    assert mlflow.genai.load_prompt("qa").version == 2 and [one.name for one in mlflow.genai.search_prompts()] == ["qa"]
    ours = client.assets.get("prompt:qa@live")
    assert (ours["version"], ours["manifest"]["variables"], ours["manifest"]["messages"][0]["content"]) == (
        1,
        ["question"],
        "Answer {{question}} shortly.",
    )
    assert client.assets.get("prompt:qa@2")["manifest"]["variables"] == ["style", "question"]
    mlflow.genai.set_prompt_alias("qa", "live", 2)
    assert client.assets.get("prompt:qa@live")["version"] == 2
    with mlflow.start_run() as run:
        mlflow.genai.load_prompt("prompts:/qa/1")
    assert "qa" in mlflow.get_run(run.info.run_id).data.tags["mlflow.linkedPrompts"]


def test_evaluate_with_code_scorers(mlflow: Any, client: Client) -> None:
    from mlflow.entities import Feedback
    from mlflow.genai.scorers import scorer

    @scorer
    def exact(outputs: str, expectations: dict[str, Any]) -> bool:
        return bool(outputs == expectations["expected_response"])

    @scorer
    def short(outputs: str) -> Feedback:
        return Feedback(value="yes" if len(outputs) < 10 else "no", rationale="counted")

    found = mlflow.genai.evaluate(data=RECORDS, predict_fn=lambda question: f"A: {question}", scorers=[exact, short])
    assert (found.metrics["exact/mean"], found.metrics["short/mean"]) == (0.5, 1.0)
    run = client.runs.get(found.run_id)
    assert run["status"] == "finished" and run["metrics"]["exact/mean"] == 0.5
    traces = mlflow.search_traces(run_id=found.run_id, return_type="list")
    assert len(traces) == 2
    ours = client.traces.get(traces[0].info.trace_id.removeprefix("tr-"))
    assert {score["name"] for score in ours["scores"]} == {"exact", "short", "expected_response"}


def test_an_evaluation_data_set_is_a_table_with_versions(mlflow: Any, client: Client) -> None:
    from mlflow.genai import datasets

    experiment = mlflow.tracking.fluent._get_experiment_id()
    made = datasets.create_dataset(name="golden/set", experiment_id=[experiment], tags={"team": "a"})
    made.merge_records(RECORDS)
    made.merge_records([{"inputs": {"question": "q1"}, "expectations": {"more": 1}, "tags": {"x": "y"}}])
    rows = datasets.get_dataset(dataset_id=made.dataset_id).to_df().to_dict("records")
    assert [(row["inputs"]["question"], row["expectations"]) for row in rows] == [
        ("q1", {"expected_response": "A: q1", "more": 1}),
        ("q2", {"expected_response": "no"}),
    ]
    ours = client.assets.get("dataset:golden-set")
    assert (ours["version"], ours["manifest"]["rows"], ours["manifest"]["source"]["evaluation_dataset"]) == (2, 2, made.dataset_id)
    for wanted in ({"experiment_ids": [experiment]}, {"filter_string": "name LIKE 'golden%'"}, {"filter_string": "tags.team = 'a'"}):
        assert [one.dataset_id for one in datasets.search_datasets(**wanted)] == [made.dataset_id], wanted
    datasets.set_dataset_tags(dataset_id=made.dataset_id, tags={"team": "b", "n": "1"})
    datasets.delete_dataset_tag(dataset_id=made.dataset_id, key="n")
    other = mlflow.create_experiment(f"other {uuid.uuid4().hex[:8]}")
    datasets.add_dataset_to_experiments(made.dataset_id, [other])
    again = datasets.get_dataset(dataset_id=made.dataset_id)
    assert again.tags["team"] == "b" and "n" not in again.tags and again.experiment_ids == [experiment, other]
    datasets.remove_dataset_from_experiments(made.dataset_id, [other])
    assert made.delete_records([rows[0]["dataset_record_id"]]) == 1
    assert len(datasets.get_dataset(dataset_id=made.dataset_id).to_df()) == 1
    datasets.delete_dataset(dataset_id=made.dataset_id)
    with pytest.raises(mlflow.exceptions.MlflowException, match="not found"):
        datasets.get_dataset(dataset_id=made.dataset_id)


def test_scorers_are_kept_in_versions(mlflow: Any) -> None:
    from mlflow.genai.scorers import Guidelines, ScorerSamplingConfig, delete_scorer, get_scorer, list_scorers
    from mlflow.genai.scorers.registry import list_scorer_versions

    Guidelines(name="polite", guidelines="be polite", model="openai:/gpt-4o-mini").register(name="polite")
    second = Guidelines(name="polite", guidelines="be very polite", model="openai:/gpt-4o-mini").register(name="polite")
    assert [one.guidelines for one in list_scorers()] == ["be very polite"]
    assert [version for _, version in list_scorer_versions(name="polite")] == [1, 2]
    assert get_scorer(name="polite", version=1).guidelines == "be polite"
    second.start(sampling_config=ScorerSamplingConfig(sample_rate=0.5))
    assert get_scorer(name="polite").sample_rate == 0.5
    delete_scorer(name="polite", version=1)
    delete_scorer(name="polite", version="all")
    assert list_scorers() == []
    with pytest.raises(mlflow.exceptions.MlflowException, match="polite"):
        get_scorer(name="polite")


def test_openai_autologging_records_messages_tokens_and_cost(mlflow: Any, client: Client) -> None:
    import openai

    from tests.protocols.upstream import Provider

    mlflow.openai.autolog()
    try:
        with Provider() as provider:
            asked = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="x").chat.completions
            answer = asked.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello there"}])
            for _ in asked.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "count to 3"}], stream=True):
                pass
    finally:
        mlflow.openai.autolog(disable=True)
    mlflow.flush_trace_async_logging()
    streamed, whole = mlflow.search_traces(return_type="list")
    assert whole.info.token_usage["input_tokens"] == answer.usage.prompt_tokens and whole.info.cost["total_cost"] > 0
    (span,) = client.traces.get(whole.info.trace_id.removeprefix("tr-"))["spans"]
    assert (span["kind"], span["model"], span["inputs"]["messages"][0]["content"]) == ("LLM", "gpt-4o-mini", "hello there")
    assert span["outputs"]["choices"][0]["message"]["content"] == answer.choices[0].message.content
    assert "3" in str(streamed.data.spans[0].outputs)
